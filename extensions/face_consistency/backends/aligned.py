"""A face cut out upright at a fixed place and size, and a changed cut-out put back: nothing else is touched."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..face import Face, Pixels
from ..identity import ANCHORS
from ..identity import TEMPLATE as ARCFACE_112
from ..sampling import Matrix, applied, needed, similarity_to

Mask = NDArray[np.float32]
"""(height, width) 0 to 1."""
FivePoints = NDArray[np.float32]
"""(5, 2) x, y: the eye on the picture's left, the other eye, nose tip, mouth corner on the left, the other corner.

Left and right as seen in an upright face."""

FFHQ_512 = (
    (192.98138, 239.94708), (318.90277, 240.1936), (256.63416, 314.01935), (201.26117, 371.41043),
    (313.08905, 371.15118),
)  # fmt: skip
"""Where face restorers want them in 512x512 (facexlib, MIT)."""

MIN_SPREAD_PX = 1e-3
"""Of the five points."""
NOTICEABLE = 1 / 512
"""A mask below it cannot change a byte."""
EDGE = 0.10
"""Of the cut-out's side: ramp of the mask along its border."""
GROW = 0.04
"""Of the cut-out's side: how far the mask reaches beyond the mesh."""
FEATHER_SIGMA = 0.03
"""Of the cut-out's side."""


def five_points(face: Face) -> FivePoints:
    """From the mesh: a turned head's are far better than a detector's own (measured with SFace)."""
    first, second = np.array(ANCHORS).T
    return ((face.points[first, :2] + face.points[second, :2]) / 2).astype(np.float32)


def arcface_template(size_px: int) -> FivePoints:
    """Multiples of 112 scale the template; all others have it in the middle of 128, as inswapper."""
    if size_px % 112 == 0:
        return ARCFACE_112 * np.float32(size_px / 112)
    return (ARCFACE_112 + np.array([8, 0], np.float32)) * np.float32(size_px / 128)


def ffhq_template(size_px: int) -> FivePoints:
    return np.array(FFHQ_512, np.float32) * np.float32(size_px / 512)


def similarity(points: FivePoints, template: FivePoints) -> Matrix:
    """Takes `points` of the picture nearest to `template` in the cut-out. Raises ValueError if all are in one place."""
    spread = np.ptp(points, axis=0).max()
    if not np.isfinite(spread) or spread < MIN_SPREAD_PX:
        raise ValueError("the face's points all lie in one place")
    return similarity_to(points, template)


def cut_out(pixels: Pixels, matrix: Matrix, size_px: int) -> Pixels:
    """(size_px, size_px, 3); black beyond the picture, as the networks learnt it.

    A face more than twice as large is averaged first; insightface leaves pixels out, which makes noise.
    """
    shrink = max(1, int(1 / max(_scale(matrix), 1e-6)))
    part, from_part = needed(pixels, matrix, size_px, shrink=shrink)
    flat: Pixels = cv2.warpAffine(part, from_part, (size_px, size_px), borderValue=0.0)
    return flat


def _scale(matrix: Matrix) -> float:
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def face_mask(face: Face, matrix: Matrix, size_px: int) -> Mask:
    """(size_px, size_px): 1 on the face, soft at its outline, 0 along the cut-out's border."""
    hull = cv2.convexHull(np.rint(applied(matrix, face.points)).astype(np.int32))
    mask = np.zeros((size_px, size_px), np.float32)
    cv2.fillConvexPoly(mask, hull, 1.0)
    reach = 2 * max(1, round(GROW * size_px)) + 1
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    mask = cv2.GaussianBlur(mask, (0, 0), FEATHER_SIGMA * size_px)
    soft: Mask = np.minimum(mask, _border_ramp(size_px)).astype(np.float32)
    return soft


def _border_ramp(size_px: int) -> Mask:
    to_border = np.minimum(np.arange(size_px), np.arange(size_px)[::-1]).astype(np.float32)
    ramp = np.clip(to_border / (EDGE * size_px), 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.outer(ramp, ramp).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Pasted:
    """`mask` (height, width) is exactly 0 where `pixels` are those of the picture."""

    pixels: Pixels
    mask: Mask


def paste(picture: Pixels, patch: Pixels, matrix: Matrix, mask: Mask) -> Pasted:
    """A new picture with `patch`, a cut-out made by `matrix`, put back where `mask` (of the patch's size) is not 0."""
    height, width = picture.shape[:2]
    whole = np.zeros((height, width), np.float32)
    area = _area(matrix, patch.shape[0], width, height)
    if area is None:
        return Pasted(picture.copy(), whole)
    left, top, right, bottom = area
    patch, mask, matrix = _shrunk(patch, mask, matrix)
    back = cv2.invertAffineTransform(matrix)
    back[:, 2] -= left, top
    size = right - left, bottom - top
    new = cv2.warpAffine(patch, back, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    weight = np.clip(cv2.warpAffine(mask, back, size, borderValue=0.0), 0, 1)
    weight[weight < NOTICEABLE] = 0
    old = picture[top:bottom, left:right]
    result = picture.copy()
    # It divides by the weights' sum plus 1e-5, which leaves every byte at weight 0 as it is.
    result[top:bottom, left:right] = cv2.blendLinear(old, new, 1 - weight, weight)
    whole[top:bottom, left:right] = weight
    return Pasted(result, whole)


def _area(matrix: Matrix, side: int, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Where the cut-out lies in the picture: left, top, right, bottom; None if outside."""
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float64)
    back = cv2.invertAffineTransform(matrix)
    there = applied(back, corners)
    left, top = np.clip(np.floor(there.min(axis=0)) - 1, 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(there.max(axis=0)) + 2, 0, (width, height)).astype(int)
    return (int(left), int(top), int(right), int(bottom)) if right > left and bottom > top else None


def _shrunk(patch: Pixels, mask: Mask, matrix: Matrix) -> tuple[Pixels, Mask, Matrix]:
    """Made smaller by averaging, if the face in the picture is less than half as large: a plain warp would flicker."""
    times = int(_scale(matrix))
    side = patch.shape[0] // times if times > 1 else patch.shape[0]
    if side < 2 or side == patch.shape[0]:
        return patch, mask, matrix
    factor = side / patch.shape[0]
    small = cv2.resize(patch, (side, side), interpolation=cv2.INTER_AREA)
    # A pixel's middle is at +0.5, so that shrinking moves the origin.
    shift = np.array([[0, 0, 0.5 * factor - 0.5]] * 2)
    return small, cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA), matrix * factor + shift


def as_input(cutout: Pixels, *, mean: float, scale: float) -> NDArray[np.float32]:
    """(1, 3, height, width) of (value - mean) / scale."""
    values = (cutout.astype(np.float32) - np.float32(mean)) * np.float32(1 / scale)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])
