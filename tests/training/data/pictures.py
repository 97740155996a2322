"""Made-up photos: soft hills of colour with sharp shapes on them, each seed another one."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from webui.training.data.photos import Photo, facts_of


def picture(seed: int, size: tuple[int, int] = (256, 192)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
        w, h = rng.integers(6, 48, 2)
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=colour)
    return image


def saved(folder: Path, name: str, image: Image.Image, caption: str | None = None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def photo(image: Image.Image, name: str = "a.png", **more: object) -> Photo:
    """Of a picture that lies nowhere."""
    return Photo(name=name, path=Path(name), facts=facts_of(image), **more)  # type: ignore[arg-type]
