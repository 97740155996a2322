"""Measures of a picture as such: how sharp it is, its bars, and a small copy to find it again by."""

from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]
Gray = NDArray[np.float32]

MEASURED_SIDE = 512
"""Pixels of the shorter side at most, where sharpness and bars are measured: about what training sees."""
THUMBNAIL_SIDE = 32
OUTLINE_SIDE = 96
BLUR_REACH = 11
"""Pixels of the blur that a picture is compared with."""
TILES = 8
EDGED = 0.3
"""Tiles with less than this share of the edges of the one with the most say nothing of sharpness."""
SHARPEST = 0.1
"""Of the others, the share that may be sharper than what the picture is said to be."""

BAR_NOISE = 6.0
"""Levels by which the pixels of a bar may differ from its colour."""
BAR_END_SHARE = 0.6
"""A bar ends at once over its length: at least so much of the next line has another colour, unlike a plain backdrop."""
BAR_SPECKS = 0.02
"""Share of a bar's line that may have another colour."""
SMALLEST_BAR = 0.012
LARGEST_BAR = 0.45
"""Shares of the picture's side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """`blur` is 0 for a razor-sharp picture, 1 for one without any detail. `thumbnail` is a copy of 32 x 32 RGB bytes,
    `outline` one of 96 x 96 gray bytes, fine enough for a mark in a corner. `inside` is what bars at the edges leave;
    None without bars.
    """

    blur: float
    thumbnail: bytes
    outline: bytes
    inside: Box | None = None


def looks_of(image: Image.Image) -> Looks:
    """Of an "RGB" picture."""
    small = _reduced(image)
    gray = np.asarray(small.convert("L"), dtype=np.float32)
    inside = _inside_bars(np.asarray(small))
    left, top, right, bottom = inside or (0, 0, *small.size)
    thumbnail = small.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX, reducing_gap=3.0)
    return Looks(
        blur=blur_of(gray[top:bottom, left:right]),
        thumbnail=thumbnail.tobytes(),
        outline=small.convert("L").resize((OUTLINE_SIDE, OUTLINE_SIDE), Image.Resampling.BOX).tobytes(),
        inside=inside and _scaled_up(inside, small.size, image.size),
    )


def blur_of(gray: Gray) -> float:
    """0 to 1: how little a picture (h, w) loses when it is blurred, where it is sharpest: what lies in front of a soft
    background counts. The measure is that of Crete et al. 2007, "The blur effect", over tiles that have edges.
    """
    if min(gray.shape) < BLUR_REACH + 4:
        return 0.0
    total = np.zeros((TILES, TILES), np.float32)
    lost = np.zeros((TILES, TILES), np.float32)
    for horizontal in (True, False):
        edges, gone = edges_lost(gray, horizontal)
        total += cv2.resize(edges, (TILES, TILES), interpolation=cv2.INTER_AREA)
        lost += cv2.resize(gone, (TILES, TILES), interpolation=cv2.INTER_AREA)
    if total.max() <= 0:
        return 1.0
    edged = total >= EDGED * total.max()
    return float(np.quantile((total[edged] - lost[edged]) / total[edged], SHARPEST))


def edges_lost(gray: Gray, horizontal: bool) -> tuple[Gray, Gray]:
    """The edges at each place, and how much of them a blur takes away."""
    blurred = cv2.blur(gray, (BLUR_REACH, 1) if horizontal else (1, BLUR_REACH), borderType=cv2.BORDER_REFLECT)
    sharp_edges, blurred_edges = (
        np.abs(cv2.Sobel(plane, cv2.CV_32F, int(horizontal), int(not horizontal), borderType=cv2.BORDER_REFLECT))
        for plane in (gray, blurred)
    )
    return sharp_edges, np.maximum(sharp_edges - blurred_edges, 0.0)


def thumbnail_of(looks: Looks) -> NDArray[np.float32]:
    """(32, 32, 3), 0 to 255."""
    levels = np.frombuffer(looks.thumbnail, dtype=np.uint8)
    return levels.reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3).astype(np.float32)


def outline_of(looks: Looks) -> Gray:
    """(96, 96), 0 to 255."""
    return np.frombuffer(looks.outline, dtype=np.uint8).reshape(OUTLINE_SIDE, OUTLINE_SIDE).astype(np.float32)


def _reduced(image: Image.Image) -> Image.Image:
    factor = MEASURED_SIDE / min(image.size)
    if factor >= 1.0:
        return image
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def _inside_bars(pixels: NDArray[np.uint8]) -> Box | None:
    """What is left of (h, w, 3) without the bars at its edges; None without bars."""
    height, width = pixels.shape[:2]
    top, bottom = _bar(pixels), _bar(pixels[::-1])
    rows = pixels[top : height - bottom].transpose(1, 0, 2)  # bars at the sides may lie between those above and below
    left, right = _bar(rows), _bar(rows[::-1])
    if not any((top, bottom, left, right)):
        return None
    return left, top, width - right, height - bottom


def _bar(lines: NDArray[np.uint8]) -> int:
    """How many of the first lines (n, length, 3) are a bar; 0 for none."""
    least, most = max(2, ceil(SMALLEST_BAR * len(lines))), int(len(lines) * LARGEST_BAR)
    colour = np.median(lines[0], axis=0)
    if most < least or _differing(lines[:least], colour).max() > BAR_SPECKS:
        return 0
    shares = _differing(lines[: most + 1], colour)
    ends = np.flatnonzero(shares > BAR_SPECKS)
    if not len(ends) or ends[0] > most:
        return 0
    end = int(ends[0])
    # Scaling may have mixed the line at the border.
    return end if shares[end : end + 3].max() >= BAR_END_SHARE else 0


def _differing(lines: NDArray[np.uint8], colour: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,): share of each line's pixels that have another colour."""
    limit = (colour - BAR_NOISE, colour + BAR_NOISE)
    outside = ~np.logical_and.reduce(
        [(lines[..., i] >= limit[0][i]) & (lines[..., i] <= limit[1][i]) for i in range(3)]
    )
    shares: NDArray[np.float64] = outside.mean(axis=1)
    return shares


def _scaled_up(box: Box, size: tuple[int, int], full: tuple[int, int]) -> Box:
    """`box` of a picture of `size` in one of `full` size, a little smaller where a bar is cut off."""
    if size == full:
        return box
    x, y = full[0] / size[0], full[1] / size[1]
    left, top, right, bottom = box
    return (
        int(np.ceil((left + 1) * x)) if left else 0,
        int(np.ceil((top + 1) * y)) if top else 0,
        int((right - 1) * x) if right < size[0] else full[0],
        int((bottom - 1) * y) if bottom < size[1] else full[1],
    )
