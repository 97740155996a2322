"""Two pictures into one along a mask. Outside the mask every pixel stays the target's, bit by bit."""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .face import Pixels
from .masks import Mask

Blend = Literal["multiband", "feather"]
Floats = NDArray[np.float32]

LEVELS = 3
"""Of the multiband pyramid: details change over within a pixel or two, tones over eight times as much."""
GATE = 0.15
"""Mask value below which the changes fade to nothing, because the pyramid's wide bands reach beyond the mask."""


def mix(target: Pixels, other: Pixels, mask: Mask, how: Blend) -> Pixels:
    """`other` where `mask` is 1, `target` where it is 0, between them in between."""
    difference = cv2.subtract(other, target, dtype=cv2.CV_32F)
    change = _multiband(difference, mask) if how == "multiband" else _times(difference, mask)
    mixed = cv2.add(target, change, dtype=cv2.CV_8U)
    result: Pixels = cv2.copyTo(mixed, (mask > 0).astype(np.uint8), target.copy())
    return result


def _multiband(difference: Floats, mask: Mask) -> Floats:
    """The multiresolution spline, of the difference to the target: that comes to the same for half the work.

    Source: Burt and Adelson 1983, "A multiresolution spline with application to image mosaics".
    """
    levels = min(LEVELS, int(np.log2(max(2, min(mask.shape) / 4))))
    fine, weights = difference, mask
    bands: list[Floats] = []
    for _ in range(levels):
        coarse = cv2.pyrDown(fine)
        bands.append(_times(fine - cv2.pyrUp(coarse, dstsize=fine.shape[1::-1]), weights))
        fine, weights = coarse, cv2.pyrDown(weights)
    change = _times(fine, weights)
    for band in reversed(bands):
        change = cv2.pyrUp(change, dstsize=band.shape[1::-1]) + band
    return _times(change, np.minimum(mask / (GATE * max(float(mask.max(initial=0)), 1e-6)), 1))


def _times(values: Floats, mask: Mask) -> Floats:
    product: Floats = cv2.multiply(values, cv2.merge([mask] * 3))
    return product
