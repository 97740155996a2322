"""Finds, loads and isolates extensions; whatever they do, the program goes on."""
