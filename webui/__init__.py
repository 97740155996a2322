"""Atelier: a browser studio for Stable Diffusion."""

__version__ = "0.1.0"
