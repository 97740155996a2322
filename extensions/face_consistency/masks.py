"""Where the warped face may show: an area of the mesh, kept off its edge and feathered relative to the face's width.

The auto choice leaves the forehead to the target where hair covers it in either picture: copied hair gives a face away.
"""

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from . import topology
from .face import Face, Pixels, Points

Area = Literal["auto", "oval", "brows", "features"]
Mask = NDArray[np.float32]
"""(height, width), 0 to 1."""

EDGE = 0.005
"""Of the face's width that stays untouched inside an area's edge: the mesh is not more exact than that."""
BROW_MARGIN = 0.12
"""Of the face's height that "brows" reaches above them; the feather takes most of it."""
BROW_LINE = 0.04
"""Of the face's height above the brows, from where hair is no brow."""
FEATURE_MARGIN = 0.10
"""Of the face's width that "features" reaches around them."""
CORNER = 0.2
"""Of the face's width: radius of an area's corners."""
HAIR_DISTANCE = 16.0
"""CIELAB distance to the cheeks' median, lightness counted half, from which a forehead's pixel is not skin."""
SURE_HAIR_DISTANCE = 22.0
"""The same for a single pixel that the mask leaves out."""
HAIR_SHARE = 0.2
"""Of the forehead's pixels that may be hair (or a hat, or a shadow) before it counts as covered."""
HAIR_TEST_PX = 64
"""Face width at which the hair test looks: finer detail is pores and noise."""


def width_of(points: Points) -> float:
    """From side to side in pixels, in space, so that a turned head is as wide as a frontal one."""
    return float(np.linalg.norm(points[topology.LEFT_SIDE] - points[topology.RIGHT_SIDE]))


def height_of(points: Points) -> float:
    """From forehead to chin in pixels, in space."""
    return float(np.linalg.norm(points[topology.FOREHEAD_TOP] - points[topology.CHIN]))


def choose_area(source: Pixels, source_face: Face, target: Pixels, target_face: Face) -> Area:
    """`oval` if both foreheads are bare skin, else `brows`."""
    covered = hair_share(source, source_face) > HAIR_SHARE or hair_share(target, target_face) > HAIR_SHARE
    return "brows" if covered else "oval"


def area_mask(points: Points, area: Area, size: tuple[int, int]) -> NDArray[np.uint8]:
    """1 inside the area, 0 outside; `points` in pixels of a picture of `size` (width, height)."""
    mask = _filled([points[list(topology.OVAL), :2]], size)
    if area == "brows":
        mask &= _filled([_below_brows(points, BROW_MARGIN)], size)
    elif area == "features":
        parts = (*topology.BROW_TOPS, *topology.RIGHT_EYE, *topology.LEFT_EYE, *topology.NOSE, *topology.LIPS)
        hull = cv2.convexHull(points[list(parts), :2].astype(np.float32))[:, 0]
        grown = _filled([hull], size)
        radius = max(1, round(FEATURE_MARGIN * width_of(points)))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        mask &= cv2.dilate(grown, kernel)
    return mask


def hair_above_brows(picture: Pixels, points: Points) -> NDArray[np.uint8]:
    """1 where the forehead, from the brows upwards, has not the cheeks' colour; `points` in pixels of `picture`."""
    size = picture.shape[1], picture.shape[0]
    forehead = area_mask(points, "oval", size) & ~_filled([_below_brows(points, BROW_LINE)], size)
    away = _away_from_cheeks(picture, points, size)
    if away is None:
        return np.zeros_like(forehead)
    return ((away > SURE_HAIR_DISTANCE) & (forehead > 0)).astype(np.uint8)


def _away_from_cheeks(picture: Pixels, points: Points, size: tuple[int, int]) -> NDArray[np.float32] | None:
    """Distance of each pixel's colour to the cheeks' median, lightness counted half; None if they cannot be seen."""
    cheeks = _filled([points[list(part), :2] for part in (topology.RIGHT_CHEEK, topology.LEFT_CHEEK)], size)
    if cheeks.sum() < 20:
        return None
    lab = cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    away = (lab - np.median(lab[cheeks > 0], axis=0)) * np.array((0.5, 1, 1), np.float32)
    return np.asarray(np.linalg.norm(away, axis=2), np.float32)


def rounded(mask: NDArray[np.uint8], radius_px: float) -> NDArray[np.uint8]:
    """Without corners and spikes narrower than `radius_px`: at the temples they would reach into the hair."""
    inner = cv2.distanceTransform(mask, cv2.DIST_L2, 5) > radius_px
    if not inner.any():
        return mask
    near = cv2.distanceTransform(1 - inner.astype(np.uint8), cv2.DIST_L2, 5) < radius_px
    rounded_mask: NDArray[np.uint8] = mask & near.astype(np.uint8)
    return rounded_mask


def feathered(usable: NDArray[np.uint8], *, edge_px: float, feather_px: float) -> Mask:
    """Rises smoothly from 0 at `edge_px` inside the edge of `usable` to 1 at `feather_px` further in.

    The picture's own border counts as inside: a face that is cut by it is no seam there.
    """
    distance = cv2.distanceTransform(usable, cv2.DIST_L2, 5)
    rise = np.clip((distance - edge_px) / max(feather_px, 1.0), 0, 1)
    smooth: Mask = (rise * rise * (3 - 2 * rise)).astype(np.float32)
    return smooth


def hair_share(pixels: Pixels, face: Face) -> float:
    """Share of the forehead that has not the cheeks' colour, 0 to 1; 0 where there is too little to see."""
    crop, points = _small_crop(pixels, face.points)
    size = crop.shape[1], crop.shape[0]
    forehead = area_mask(points, "oval", size) & ~area_mask(points, "brows", size)
    forehead &= feathered(area_mask(points, "oval", size), edge_px=0.03 * HAIR_TEST_PX, feather_px=1) > 0
    away = _away_from_cheeks(crop, points, size)
    return float((away > HAIR_DISTANCE)[forehead > 0].mean()) if away is not None and forehead.sum() >= 20 else 0.0


def _below_brows(points: Points, margin: float) -> Points:
    """Outline of the face from `margin`, of its height, above the brows down."""
    up = points[topology.FOREHEAD_TOP] - points[topology.CHIN]
    tops = points[list(topology.BROW_TOPS)] + margin * up
    return np.concatenate([points[list(topology.OVAL_BELOW_BROWS)], tops])[:, :2]


def _small_crop(pixels: Pixels, points: Points) -> tuple[Pixels, Points]:
    """The face at a width of HAIR_TEST_PX at most, and its points there."""
    height, width = pixels.shape[:2]
    left, top = np.clip(np.floor(points[:, :2].min(axis=0)).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(points[:, :2].max(axis=0)).astype(int) + 1, (left + 1, top + 1), (width, height))
    crop = pixels[top:bottom, left:right]
    scale = min(1.0, HAIR_TEST_PX / max(width_of(points), 1.0))
    size = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
    return cv2.resize(crop, size, interpolation=cv2.INTER_AREA), (points - (left, top, 0)) * np.float32(scale)


def _filled(polygons: list[Points], size: tuple[int, int]) -> NDArray[np.uint8]:
    mask = np.zeros((size[1], size[0]), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.round(np.clip(polygon, -1e4, 1e4) * 16).astype(np.int32)], 1, shift=4)
    return mask
