"""All that depends on the version of vLLM."""
