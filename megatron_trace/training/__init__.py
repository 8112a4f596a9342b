"""A run: how it starts, its loop, its checkpoints, how it ends."""
