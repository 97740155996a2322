"""A mark that is in the same place of many photos: a watermark, a date, a logo. One photo alone does not tell.

What the photos show differs from one to the next, so their edges at a place differ; those of a mark do not.
Source of the idea: Dekel et al. 2017, "On the Effectiveness of Visible Watermarks".
"""

from collections.abc import Sequence
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from webui.training.data.looks import OUTLINE_SIDE, Looks, outline_of

FEWEST = 6
"""Photos that are needed to tell."""
MOST = 200
"""Of more photos so many, evenly chosen, tell as well."""
AGREEING = 0.75
"""Share of the photos that have the mark's edge at its place."""
DEVIATION = 0.5
"""By which an edge may differ from the mark's, in shares of its length: in what few edges do by chance."""
STRENGTH = 30.0
"""Length of an edge (Sobel, levels) below which there is nothing."""
SMALLEST = 14
"""Places of the 96 x 96 that a mark covers at least."""
MARGIN = 0.25
"""A mark lies within this share of the picture from an edge; in the middle it is what the photos are of."""

Shares = tuple[float, float, float, float]


def common_mark(looks: Sequence[Looks]) -> Shares | None:
    """Left, top, right, bottom of a mark in shares of the picture; None where there is none, or too few photos."""
    if len(looks) < FEWEST:
        return None
    chosen = looks[:: ceil(len(looks) / MOST)]
    found = _agreement(np.stack([outline_of(each) for each in chosen])).astype(np.uint8)
    # Letters are several pieces.
    joined = cv2.dilate(found, np.ones((5, 5), np.uint8))
    count, labels = cv2.connectedComponents(joined)
    pieces = [(labels == i) & (found > 0) for i in range(1, count)]
    marks = [box for piece in pieces if piece.sum() >= SMALLEST and (box := _box(piece)) and _at_an_edge(box)]
    return max(marks, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)


def _agreement(pictures: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where nearly all `pictures` (n, h, w) have the same edge, of a strength that is seen: (h, w)."""
    edges = np.stack(
        [[cv2.Sobel(picture, cv2.CV_32F, 1, 0), cv2.Sobel(picture, cv2.CV_32F, 0, 1)] for picture in pictures]
    )
    common = np.median(edges, axis=0)
    length = np.hypot(*common)
    deviation = np.hypot(edges[:, 0] - common[0], edges[:, 1] - common[1])
    agree = (deviation <= DEVIATION * length).mean(axis=0)
    found: NDArray[np.bool_] = (agree >= AGREEING) & (length >= STRENGTH)
    return found


def _box(piece: NDArray[np.bool_]) -> Shares:
    rows, columns = np.flatnonzero(piece.any(axis=1)), np.flatnonzero(piece.any(axis=0))
    side = OUTLINE_SIDE
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return float(left / side), float(top / side), float(right / side), float(bottom / side)


def _at_an_edge(box: Shares) -> bool:
    left, top, right, bottom = box
    return right <= MARGIN or left >= 1 - MARGIN or bottom <= MARGIN or top >= 1 - MARGIN
