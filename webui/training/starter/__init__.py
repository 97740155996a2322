"""The recipe of the starter checkpoint: open data in, a small Stable-Diffusion-shaped model out.

Run it with `python -m webui.training.starter`. Nothing here is imported by the studio itself.
"""
