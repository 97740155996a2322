"""A face in a picture, as every stage sees it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Pixels = NDArray[np.uint8]
"""(height, width, 3) RGB."""

SAME_PERSON = 0.363
"""Cosine from which SFace's authors call two pictures the same person. Source: OpenCV Zoo."""
VERY_CLOSE = 0.80
"""What two pictures of one person hardly exceed: a photo and its blurred copy have 0.83."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """All lengths are pixels of the picture the face was found in, x to the right, y down."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom of the detector's box; may reach beyond the picture."""
    score: float
    """The detector's, 0 to 1."""
    points: Points
    """(468, 3) of the MediaPipe face mesh: x, y, and depth in the same scale, smaller is nearer."""
    presence: float
    """The mesh's own belief that there is a face, a logit; above 0 is yes."""
    roll_degrees: float
    """Turn in the picture's plane, clockwise as seen, -180 to 180; 0 is upright."""
    yaw_degrees: float
    """Turn to the side, positive where the nose points to the picture's right; 0 is frontal."""

    @property
    def width_px(self) -> float:
        """Of the detector's box."""
        return self.box[2] - self.box[0]

    @property
    def height_px(self) -> float:
        return self.box[3] - self.box[1]

    @property
    def center(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2
