"""Owns torch and the device: loading checkpoints, encoding text, sampling, decoding."""
