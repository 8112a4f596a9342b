"""What is refused before a run starts; every error names the setting, its value and a remedy."""
