"""What shows a run: metrics, progress, charts, the report page and loggers."""
