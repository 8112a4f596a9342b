"""Tasks: plain JSON rows of data files, and their order."""
