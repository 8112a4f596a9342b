"""Tasks: plain JSON rows kept as WebDataset shards."""
