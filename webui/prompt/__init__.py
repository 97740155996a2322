"""Prompt text in, values out. Never imports torch."""
