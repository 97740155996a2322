"""A photo as training sees it: the part that counts, in its bucket's size, with its mask."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.errors import InvalidRequest, StorageError
from webui.images.reading import flatten
from webui.training.data.crops import Area
from webui.training.data.photos import Photo, open_pixels

SHAPE_TOLERANCE = 0.02
"""By which the aspects of a photo and its mask may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """`area` of the photo becomes a picture of `size` (width, height)."""

    photo: Photo
    size: tuple[int, int]
    area: Area

    @property
    def crop_top_left(self) -> tuple[int, int]:
        """Top and left of what is seen, in pixels of the photo when it is scaled so that `area` has `size`."""
        left, top, right, _ = self.area
        scale = self.size[0] / (right - left)
        return round(top * scale), round(left * scale)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """`pixels` (h, w, 3) RGB; `mask` (h, w) float32, 1 where it is learnt from; None where that is everywhere."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.float32] | None


def prepare(placed: Placed, *, masks: bool) -> Prepared:
    """Reads the photo. What is transparent in it becomes white, and is masked where `masks` and no file says otherwise.

    Raises UnreadableImage, InvalidRequest for a mask of another shape, StorageError where a file cannot be reached.
    """
    photo = placed.photo
    image = _opened(photo.path)
    if image.size != (photo.width, photo.height):
        raise InvalidRequest(
            "data.photos",
            f"'{photo.name}' was {photo.width} x {photo.height} pixels when it was first read, "
            f"and is {image.width} x {image.height} now.",
            hint="Start the run anew with the photos as they are.",
        )
    mask = _mask(photo, image) if masks else None
    return Prepared(
        pixels=np.asarray(_placed(flatten(image), placed, Image.Resampling.LANCZOS)),
        mask=None if mask is None else _levels(_placed(mask, placed, Image.Resampling.BOX)),
    )


def _opened(path: Path) -> Image.Image:
    try:
        return open_pixels(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror or error}.",
            hint="Check that its folder or drive is there; the run can then be resumed.",
        ) from error


def _mask(photo: Photo, image: Image.Image) -> Image.Image | None:
    """Mode "L" in the photo's size."""
    if photo.mask is None:
        return image.getchannel("A") if photo.facts.has_alpha else None
    mask = flatten(_opened(photo.mask), "#000000").convert("L")
    if abs(mask.width * image.height / (mask.height * image.width) - 1.0) > SHAPE_TOLERANCE:
        raise InvalidRequest(
            "data.masks",
            f"The mask '{photo.mask.name}' is {mask.width} x {mask.height} pixels, "
            f"another shape than its photo '{photo.name}' with {image.width} x {image.height}.",
            hint="Make it the photo's size, or delete it.",
        )
    return mask if mask.size == image.size else mask.resize(image.size, Image.Resampling.BILINEAR)


def _placed(image: Image.Image, placed: Placed, resampling: Image.Resampling) -> Image.Image:
    left, top, right, bottom = placed.area
    box = (max(left, 0.0), max(top, 0.0), min(right, float(image.width)), min(bottom, float(image.height)))
    return image.resize(placed.size, resampling, box=box)


def _levels(mask: Image.Image) -> NDArray[np.float32]:
    return np.asarray(mask, dtype=np.float32) / np.float32(255.0)
