"""The three ways a picture or mask gets another size."""

from typing import Literal, assert_never

import numpy as np
from PIL import Image

ResizeMode = Literal["stretch", "crop", "fill"]


def resize(image: Image.Image, width: int, height: int, mode: ResizeMode) -> Image.Image:
    """`image` in `width` x `height` by Lanczos; a picture that has that size already is given back unchanged.

    "stretch" ignores the aspect; "crop" covers the size and cuts off what hangs over, evenly on both sides;
    "fill" fits inside, centred, and repeats its outermost pixels over what is left.
    """
    match mode:
        case "stretch":
            return _scaled(image, width, height)
        case "crop":
            return _cropped(image, width, height)
        case "fill":
            return _filled(image, width, height)
        case _:
            assert_never(mode)


def _scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    if image.size == (width, height):
        return image.copy()
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _cropped(image: Image.Image, width: int, height: int) -> Image.Image:
    wider = width * image.height > image.width * height
    cover_width = width if wider else image.width * height // image.height
    cover_height = image.height * width // image.width if wider else height
    left, top = cover_width // 2 - width // 2, cover_height // 2 - height // 2
    return _scaled(image, cover_width, cover_height).crop((left, top, left + width, top + height))


def _filled(image: Image.Image, width: int, height: int) -> Image.Image:
    narrower = width * image.height < image.width * height
    fit_width = width if narrower else max(1, image.width * height // image.height)
    fit_height = max(1, image.height * width // image.width) if narrower else height
    left, top = width // 2 - fit_width // 2, height // 2 - fit_height // 2
    rows, columns = (top, height - fit_height - top), (left, width - fit_width - left)
    pixels = np.asarray(_scaled(image, fit_width, fit_height))
    return Image.fromarray(np.pad(pixels, [rows, columns, (0, 0)][: pixels.ndim], mode="edge"))
