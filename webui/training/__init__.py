"""Training: its own process, never the user interface's."""
