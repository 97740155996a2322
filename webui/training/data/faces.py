"""What training wants to know of faces; who finds them is none of its business."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(height, width, 3) RGB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenFace:
    """`box` left, top, right, bottom in pixels. `embedding` (n,) float32 of unit length; None where it is too small."""

    box: tuple[float, float, float, float]
    embedding: NDArray[np.float32] | None


class FaceReader(Protocol):
    """Finds faces and tells people apart."""

    @property
    def same_person(self) -> float:
        """The cosine of two embeddings from which on they are taken for one person's."""
        ...

    def read(self, pixels: Pixels) -> Sequence[SeenFace]:
        """The largest first."""
        ...
