"""Photos to say something of: a red disc on gray, and others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from webui.training.data.photo_set import PhotoSet, SetInfo

DISC = (60, 40, 180, 160)
"""Left, top, right, bottom of the disc in a picture of 240 x 200."""


def disc_picture(color: tuple[int, int, int] = (230, 30, 20), *, size: tuple[int, int] = (240, 200)) -> Image.Image:
    image = Image.new("RGB", size, (120, 120, 120))
    ImageDraw.Draw(image).ellipse(DISC, fill=color)
    return image


def noisy_picture(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    """Soft spots of colour."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a.png and b.png without captions, c.png with one, d.png that is damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        disc_picture().save(folder / f"{name}.png")
    (folder / "c.txt").write_text("my own words\n", encoding="utf-8")
    (folder / "d.png").write_bytes((folder / "a.png").read_bytes()[:200])
    return folder


@pytest.fixture
def open_set() -> Callable[[Path], PhotoSet]:
    return lambda folder: PhotoSet(SetInfo(id="set", name=folder.name, source=folder, own=True))
