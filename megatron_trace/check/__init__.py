"""What is refused before a run starts: every function names the setting, its value and what would be right."""
