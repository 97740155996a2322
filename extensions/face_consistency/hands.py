"""Finds hands, for repainting them, with MediaPipe's palm detector, which a user may add: it does not come along."""

from collections.abc import Iterator
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .analysis import PALM_SIDE, PALMS, Models
from .detection import Box, Found, overlap
from .face import Pixels
from .sampling import applied, cut, square

Place = tuple[tuple[float, float], float]
"""Middle and side of a square of the picture, in its pixels."""

SAME_HAND = 0.3
"""Boxes that share more than this (intersection over union) are one hand."""
ZOOM_OUT, CLOSER, CLOSEST = 2.0, 0.5, 0.25
"""Sides of the squares that are searched, in lengths of the picture's longer side, beside the whole of it."""
CLOSEST_FROM_PX = 768
"""Smaller pictures show no hands that the smallest squares alone could find."""
MARGIN = 4
"""Pixels of the network's picture by which a whole palm keeps away from its sides."""
ENDS = np.array([[0, 0], [PALM_SIDE - 1, PALM_SIDE - 1]], np.float64)
WRIST, MIDDLE_KNUCKLE = 0, 2
"""Of the seven points of a palm."""
HAND_IN_PALMS = 2.6
"""Side of the square around a hand, in lengths of its palm."""
TOWARDS_FINGERS = 0.5
"""From the palm's middle to the square's, in lengths of the palm."""


def can_find_hands(models: Models) -> bool:
    """Whether the palm detector is there."""
    return models.path_of(PALMS) is not None


def find_hands(pixels: Pixels, *, models: Models, min_score: float = 0.75) -> list[Found]:
    """Boxes (left, top, right, bottom) of whole hands within the picture, with scores 0 to 1, best first.

    Hands score 0.85 to 0.97; below 0.75 most is something else. Raises MissingFaceModel without the palm detector.
    """
    pixels = np.ascontiguousarray(pixels)
    for places in searches(pixels):
        found = [hand for place in places for hand in hands_in(pixels, place, models, min_score)]
        if found:
            return distinct(found)
    return []


def distinct(hands: list[Found]) -> list[Found]:
    kept: list[Found] = []
    for box, score in sorted(hands, key=lambda hand: hand[1], reverse=True):
        if all(overlap(box, other) < SAME_HAND for other, _ in kept):
            kept.append((box, score))
    return kept


def searches(pixels: Pixels) -> Iterator[list[Place]]:
    """Where to look: the whole and parts of it, then beyond its borders for a hand that fills it."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    center = width / 2 - 0.5, height / 2 - 0.5
    steps = (CLOSER, CLOSEST) if longest >= CLOSEST_FROM_PX else (CLOSER,)
    yield [(center, longest), *(place for step in steps for place in parts(width, height, longest * step))]
    yield [(center, longest * ZOOM_OUT)]


def parts(width: int, height: int, side: float) -> Iterator[Place]:
    """Squares that share half with their neighbours."""
    for y in middles(height, side):
        for x in middles(width, side):
            yield (x, y), side


def middles(length: int, side: float) -> NDArray[np.float64]:
    count = max(int(np.ceil(2 * length / side)) - 1, 1)
    return np.linspace(side / 2, length - side / 2, count) if count > 1 else np.array([length / 2])


def hands_in(pixels: Pixels, place: Place, models: Models, min_score: float) -> Iterator[Found]:
    """Those whose palms the network sees whole in one square."""
    center, side = place
    matrix = square(center, side, 0, PALM_SIDE)
    kept, rows, scores = models.palms(cut(pixels, matrix, PALM_SIDE), min_score=min_score)
    back, scale = cv2.invertAffineTransform(matrix), side / PALM_SIDE
    limits = np.array([pixels.shape[1], pixels.shape[0]] * 2, np.float64)
    for index, row, score in zip(kept, rows, scores, strict=True):
        anchor = anchors()[index] * PALM_SIDE
        middle, palm = row[:2] + anchor, float(row[2:4].max())
        if is_cut_off(middle, palm, applied(back, ENDS), limits):
            continue
        points = applied(back, row[4:].reshape(-1, 2) + anchor)
        box = np.clip(hand_box(applied(back, middle[None])[0], palm * scale, points), 0, limits)
        if box[2] - box[0] > 1 and box[3] - box[1] > 1:
            yield as_box(box), float(score)


def is_cut_off(
    middle: NDArray[np.float64], palm: float, ends: NDArray[np.float64], limits: NDArray[np.float64]
) -> bool:
    """Whether a palm reaches over a side of its square where the picture goes on: a neighbour shows it whole.

    `ends` are the square's first and last corner in the picture, whose size is in `limits`.
    """
    before = (ends[0] > 0) & (middle - palm / 2 < MARGIN)
    behind = (ends[1] < limits[:2]) & (middle + palm / 2 > PALM_SIDE - MARGIN)
    return bool(before.any() or behind.any())


def hand_box(middle: NDArray[np.float64], palm: float, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) around the hand of a palm that is `palm` wide."""
    ahead = points[MIDDLE_KNUCKLE] - points[WRIST]
    middle = middle + ahead / max(float(np.linalg.norm(ahead)), 1e-6) * palm * TOWARDS_FINGERS
    half = palm * HAND_IN_PALMS / 2
    return np.concatenate([middle - half, middle + half])


def as_box(values: NDArray[np.float64]) -> Box:
    left, top, right, bottom = (float(value) for value in values)
    return left, top, right, bottom


@cache
def anchors() -> NDArray[np.float64]:
    """(2016, 2) 0 to 1: two for each cell of 8 px, then six for each of 16 px, row by row."""
    places = [
        ((column + 0.5) / cells, (row + 0.5) / cells)
        for cells, times in ((PALM_SIDE // 8, 2), (PALM_SIDE // 16, 6))
        for row in range(cells)
        for column in range(cells)
        for _ in range(times)
    ]
    return np.array(places, np.float64)
