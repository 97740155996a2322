"""From what a network thinks to a mask that one would have drawn: one piece, grown a little, soft at its edge."""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.errors import WebUIError
from webui.training.data.subjects import Soft

Binary = NDArray[np.uint8]
"""(height, width) of 0 and 1."""

THRESHOLD = 0.5
"""From which a pixel belongs to the subject."""
SMALLEST_ISLAND = 0.05
"""Of the largest piece: smaller ones are removed. A second person is larger, a speck of background is not."""
LARGEST_HOLE = 0.005
"""Of the largest piece: holes up to there are filled."""
FEWEST, MOST = 0.01, 0.99
"""Share of a photo: a mask that covers less or more says nothing."""


class UselessMask(WebUIError):
    """It covers next to nothing, or nearly everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """`grow` and `feather` in percent of the photo's longer side; a negative `grow` takes off."""

    threshold: float = THRESHOLD
    grow: float = 1.0
    feather: float = 1.0


def mask_of(soft: Soft, outline: Outline) -> NDArray[np.uint8]:
    """(height, width) 0 to 255. Raises UselessMask."""
    pieces = without_specks((soft >= outline.threshold).astype(np.uint8))
    percent = max(soft.shape) / 100
    mask = outlined(pieces, grow_px=outline.grow * percent, feather_px=outline.feather * percent)
    covered = float((mask >= 128).mean())
    if covered < FEWEST:
        raise UselessMask(f"Its mask would cover {covered:.1%} of it: nothing was found.")
    if covered > MOST:
        raise UselessMask(f"Its mask would cover {covered:.1%} of it: no background was found.")
    return mask


def without_specks(binary: Binary) -> Binary:
    """Without pieces that are small beside the largest, and with its small holes filled."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    if count < 2:
        return binary
    areas = stats[:, cv2.CC_STAT_AREA]
    largest = int(areas[1:].max())
    kept = areas >= SMALLEST_ISLAND * largest
    kept[0] = False
    result = kept[labels].astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - result, connectivity=4)
    holes = stats[:, cv2.CC_STAT_AREA] <= LARGEST_HOLE * largest
    holes[0] = False
    return np.asarray(result | holes[labels].astype(np.uint8), np.uint8)


def outlined(binary: Binary, *, grow_px: float, feather_px: float) -> NDArray[np.uint8]:
    """Its edge moved outwards by `grow_px`, and there a smooth ramp of `feather_px` from 0 to 255."""
    inside = cv2.distanceTransform(binary, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform(1 - binary, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Half a pixel from a pixel's centre to the edge between it and the next one.
    signed = np.where(binary > 0, inside - 0.5, 0.5 - outside)
    ramp = np.clip(0.5 + (signed + grow_px) / max(feather_px, 1e-3), 0, 1)
    return np.asarray(np.rint(255 * ramp * ramp * (3 - 2 * ramp)), np.uint8)


def png_of(mask: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()
