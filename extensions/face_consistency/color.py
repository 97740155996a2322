"""The source's skin in the target's light: CIELAB statistics of the skin that both pictures show, near each place.

Lightness and colour are matched by a slowly varying shift, so that light from the side stays light from the side; the
contrast and the colour's strength by one factor each. Eyes, brows, lips and hair give no statistics: a fringe would
turn skin pale.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from . import topology
from .face import Pixels, Points

Lab = NDArray[np.float32]
"""(height, width, 3): lightness 0 to 100, a, b."""
Weights = NDArray[np.float32]
"""(height, width)."""

SMALL_FACE_PX = 72
"""Face width at which the statistics are taken."""
CONTRAST_RANGE = (0.8, 1.25)
"""Of the factor for lightness: the ratio of standard deviations from the mean around."""
CHROMA_RANGE = (0.5, 1.1)
"""Of the factors for a and b: the ratio of means, so that paler skin leaves eyes and teeth white; more of it glares."""
LIGHT_SIGMA = 0.22
"""Of the face's width: what is smaller is the face's own shape, what is larger is light."""
SKIN_DISTANCE = 24.0
"""CIELAB distance to the face's median, lightness counted half, up to which a pixel counts as skin."""
MIN_SKIN_PX = 60
"""Pixels at SMALL_FACE_PX; with less skin than that the whole face counts."""
PRIOR = 0.05
"""Weight of the whole face's shift against that of the neighbourhood; it holds alone where there is no skin."""


def match_colors(warped: Pixels, target: Pixels, points: Points, width_px: float, amount: float) -> Pixels:
    """`warped` with the target's colours. `points`: the target's mesh, the same in both, for one lies on the other."""
    scale = min(1.0, SMALL_FACE_PX / max(width_px, 1.0))
    size = max(1, round(target.shape[1] * scale)), max(1, round(target.shape[0] * scale))
    ours, theirs = (_lab(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)) for picture in (warped, target))
    weights = _skin(ours, theirs, points * np.float32(scale), size)
    if weights.sum() < 1:
        return warped
    factor, shift = _statistics(ours, theirs, weights, LIGHT_SIGMA * width_px * scale)
    factor, shift = 1 + amount * (factor - 1), amount * shift
    lab = cv2.multiply(_lab(warped), (*factor.tolist(), 0.0))
    lab = cv2.add(lab, cv2.resize(shift, target.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    matched: Pixels = cv2.multiply(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), (255.0,) * 4, dtype=cv2.CV_8U)
    return matched


def _statistics(ours: Lab, theirs: Lab, weights: Weights, sigma: float) -> tuple[Lab, Lab]:
    """(3,) factors and the (h, w, 3) shift with which `ours * factor + shift` has the light of `theirs`."""
    mean, near = _local_mean(ours, weights, sigma)
    their_mean, their_near = _local_mean(theirs, weights, sigma)
    detail, their_detail = (
        float(np.sqrt(np.average((lab[..., 0] - around[..., 0]) ** 2, weights=weights)))
        for lab, around in ((ours, near), (theirs, their_near))
    )
    contrast = np.clip(their_detail / max(detail, 1e-3), *CONTRAST_RANGE)
    chroma = np.clip(their_mean[1:] / np.maximum(mean[1:], 1.0), *CHROMA_RANGE)
    factor = np.array([contrast, *chroma], np.float32)
    return factor, np.asarray(their_near - near * factor, np.float32)


def _local_mean(lab: Lab, weights: Weights, sigma: float) -> tuple[Lab, Lab]:
    """Mean over the skin, (3,), and around each place, (h, w, 3)."""
    mean = (lab * (weights / weights.sum())[..., None]).sum(axis=(0, 1))
    near = cv2.GaussianBlur(lab * weights[..., None], (0, 0), max(sigma, 0.5))
    amount = cv2.GaussianBlur(weights, (0, 0), max(sigma, 0.5))[..., None]
    return mean, (near + PRIOR * mean) / (amount + PRIOR)


def _skin(ours: Lab, theirs: Lab, points: Points, size: tuple[int, int]) -> Weights:
    """1 where both pictures show skin of the face."""
    face = _drawn([points[list(topology.OVAL)]], size)
    features = (topology.RIGHT_BROW, topology.LEFT_BROW, topology.RIGHT_EYE, topology.LEFT_EYE, topology.LIPS)
    inside = cv2.erode(face, np.ones((3, 3), np.uint8), iterations=3) > 0
    plain = inside & (cv2.dilate(_drawn([points[list(part)] for part in features], size), np.ones((3, 3))) == 0)
    skin = plain & _near_median(ours, plain) & _near_median(theirs, plain)
    chosen = skin if skin.sum() >= MIN_SKIN_PX else plain
    weights: Weights = chosen.astype(np.float32)
    return weights


def _near_median(lab: Lab, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if not among.any():
        return among
    away = (lab - np.median(lab[among], axis=0)) * np.array((0.5, 1, 1), np.float32)
    near: NDArray[np.bool_] = np.linalg.norm(away, axis=2) < SKIN_DISTANCE
    return near


def _lab(picture: Pixels) -> Lab:
    lab: Lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return lab


def _drawn(polygons: list[Points], size: tuple[int, int]) -> NDArray[np.uint8]:
    drawn = np.zeros((size[1], size[0]), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(drawn, [np.round(np.clip(polygon[:, :2], -1e4, 1e4)).astype(np.int32)], 1)
    return drawn
