"""Masks for networks that repaint: what is missing in a picture, drawn by chance as users draw it."""

import cv2
import numpy as np
from numpy.typing import NDArray

EVERYTHING = 0.15
"""Share of the masks that leave nothing, so that the network also paints freely."""
BOXES = 0.5
"""Share of boxes among the others; the rest are brush strokes."""


def random_hole(width: int, height: int, *, seed: int) -> NDArray[np.uint8]:
    """(height, width) of 0 and 255; 255 is missing. Never empty. The same for the same seed."""
    rng = np.random.default_rng(seed)
    hole = np.zeros((height, width), dtype=np.uint8)
    kind = rng.random()
    if kind < EVERYTHING:
        hole[:] = 255
    elif kind < EVERYTHING + (1 - EVERYTHING) * BOXES:
        for _ in range(rng.integers(1, 4)):
            _box(hole, rng)
    else:
        for _ in range(rng.integers(1, 6)):
            _stroke(hole, rng)
    return hole


def _box(hole: NDArray[np.uint8], rng: np.random.Generator) -> None:
    height, width = hole.shape
    w, h = (max(8, int(side * rng.uniform(0.15, 0.7))) for side in (width, height))
    x, y = int(rng.integers(0, max(1, width - w + 1))), int(rng.integers(0, max(1, height - h + 1)))
    if rng.random() < 0.5:
        hole[y : y + h, x : x + w] = 255
    else:
        cv2.ellipse(hole, (x + w // 2, y + h // 2), (w // 2, h // 2), 0.0, 0.0, 360.0, 255, thickness=-1)


def _stroke(hole: NDArray[np.uint8], rng: np.random.Generator) -> None:
    height, width = hole.shape
    side = min(width, height)
    thickness = max(4, int(side * rng.uniform(0.06, 0.2)))
    point = rng.uniform((0, 0), (width, height))
    angle = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(2, 8)):
        angle += rng.normal(0.0, 0.7)
        step = side * rng.uniform(0.05, 0.3) * np.array([np.cos(angle), np.sin(angle)])
        end = np.clip(point + step, 0, (width - 1, height - 1))
        ends = [(int(x), int(y)) for x, y in (point, end)]
        cv2.line(hole, ends[0], ends[1], 255, thickness)
        point = end
