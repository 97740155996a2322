"""How alike two faces are, measured with SFace, which no stage uses to make a picture. Never writes anything down."""

import numpy as np
from numpy.typing import NDArray

from .analysis import IDENTITY_SIDE, Models
from .face import Face, Pixels, Points
from .sampling import cut, similarity_to

Embedding = NDArray[np.float32]
"""(128,), of length 1."""

MIN_FACE_PX = 40
"""Width of the detector's box below which the measure says little.

Seven people against themselves in full size, the lowest: 90 px 0.99, 60 px 0.98, 50 px 0.96, 40 px 0.92, 32 px 0.82,
24 px 0.75, 20 px 0.68, 14 px 0.57. Different people: 0.35 at most, at any size.
"""

ANCHORS = ((33, 133), (362, 263), (1, 1), (61, 61), (291, 291))
"""Mesh points whose means are the right eye, the left eye, the nose tip and the corners of the mouth."""
TEMPLATE: Points = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)], np.float32
)
"""Where they lie in the crop the network was trained with."""


def embed(pixels: Pixels, face: Face, *, models: Models) -> Embedding:
    """Raises MissingFaceModel."""
    first, second = np.array(ANCHORS).T
    anchors = (face.points[first, :2] + face.points[second, :2]) / 2
    crop = cut(pixels, similarity_to(anchors, TEMPLATE), IDENTITY_SIDE)
    found = models.identity(crop)
    return (found / max(float(np.linalg.norm(found)), 1e-9)).astype(np.float32)


def similarity(first: Embedding, second: Embedding) -> float:
    """Cosine, -1 to 1."""
    return float(np.clip(first @ second, -1, 1))
