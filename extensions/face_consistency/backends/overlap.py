"""Of boxes that lie on each other, the best."""

import numpy as np
from numpy.typing import NDArray


def keep_best(boxes: NDArray[np.float32], scores: NDArray[np.float32], max_overlap: float) -> list[int]:
    """Indices, best first, of boxes (n, 4: left, top, right, bottom) none of which covers a better one too much.

    `max_overlap` is intersection over union, with pixels counted inclusively as SCRFD's authors do.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left + 1) * (bottom - top + 1)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, others = int(order[0]), order[1:]
        kept.append(best)
        width = np.minimum(right[best], right[others]) - np.maximum(left[best], left[others]) + 1
        height = np.minimum(bottom[best], bottom[others]) - np.maximum(top[best], top[others]) + 1
        common = np.maximum(0, width) * np.maximum(0, height)
        order = others[common / (areas[best] + areas[others] - common) <= max_overlap]
    return kept
