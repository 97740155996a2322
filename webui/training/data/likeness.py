"""Which photos show nearly the same: bursts, crops, mirrored and saved-again copies."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from webui.training.data.looks import THUMBNAIL_SIDE, Looks, thumbnail_of

Vectors = NDArray[np.float32]

NEARLY_SAME = 0.88
"""Correlation of the thumbnails at the best crop. Measured: copies scaled, recompressed, recoloured, mirrored or cut by
6 % at each side are above, but for close-ups of fine patterns; different photos stay below 0.75."""
CANDIDATE = 0.6
"""Pairs whose coarse thumbnails agree less are not looked at closer."""
COARSE_SIDE = 8
CROPS = (1.0, 0.94, 0.88)
"""Sides of the crops that are tried, in shares of the picture's."""


def groups_of_nearly_same(looks: Sequence[Looks], *, check: Callable[[], None]) -> list[tuple[int, ...]]:
    """Groups of two and more, by index, each in order; a photo is in one at most."""
    leader = list(range(len(looks)))

    def root(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for i, j in _pairs(looks, check):
        leader[max(root(i), root(j))] = min(root(i), root(j))
    groups: dict[int, list[int]] = {}
    for i in range(len(looks)):
        groups.setdefault(root(i), []).append(i)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def likeness(one: Looks, other: Looks) -> float:
    """-1 to 1: the best correlation of either, whole, with a crop of the other, mirrored or not."""
    a, b = thumbnail_of(one), thumbnail_of(other)
    return max(float((_variants(x) @ _normalised(y[None])[0]).max()) for x, y in ((a, b), (b, a)))


def _pairs(looks: Sequence[Looks], check: Callable[[], None]) -> Iterator[tuple[int, int]]:
    if len(looks) < 2:
        return
    thumbnails = np.stack([thumbnail_of(each) for each in looks])
    wholes = _normalised(thumbnails)
    coarse = np.stack([cv2.resize(each, (COARSE_SIDE,) * 2, interpolation=cv2.INTER_AREA) for each in thumbnails])
    vectors, mirrored = _normalised(coarse), _normalised(coarse[:, :, ::-1])
    for i in range(len(looks)):
        check()
        agreement = np.maximum(vectors @ vectors[i], mirrored @ vectors[i])
        agreement[i] = -1.0
        near = np.flatnonzero(agreement >= CANDIDATE)
        if len(near):
            best = (_variants(thumbnails[i]) @ wholes[near].T).max(axis=0)
            yield from ((i, int(j)) for j in near[best >= NEARLY_SAME])


def _variants(picture: Vectors) -> Vectors:
    """Crops of (h, w, 3) and of its mirror image, as rows of unit length."""
    return _normalised(np.stack([crop for each in (picture, picture[:, ::-1]) for crop in _crops(each)]))


def _crops(picture: Vectors) -> list[Vectors]:
    side, found = THUMBNAIL_SIDE, []
    for share in CROPS:
        slack = (1.0 - share) * side
        starts = (0.0, slack / 2, slack) if slack else (0.0,)
        for x, y in product(starts, starts):
            # Where the middles of the crop's pixels lie in the picture.
            matrix = np.array([[share, 0, x + (share - 1) / 2], [0, share, y + (share - 1) / 2]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            found.append(cv2.warpAffine(picture, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE))
    return found


def _normalised(pictures: Vectors) -> Vectors:
    """(n, h, w, 3) -> (n, h * w * 3) of unit length, without the mean colour."""
    vectors = (pictures - pictures.mean(axis=(1, 2), keepdims=True)).reshape(len(pictures), -1)
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    # A picture of one colour resembles nothing.
    return np.where(lengths > 1.0, vectors / np.maximum(lengths, 1.0), 0.0).astype(np.float32)
