"""One strategy a file; `allocation.strategy` is the file's name."""
