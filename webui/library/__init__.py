"""Model files: which there are, what each one is, and where to get more. Imports no torch."""
