"""Adapter files: reading them, finding the modules they change, and the exact arithmetic of every type."""
