"""What watches over the processes of a run and ends them cleanly."""
