"""What training wants to know of a photo's subject; who tells it from its background is none of its business."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from webui.training.data.faces import Pixels

Soft = NDArray[np.float32]
"""(height, width) 0 to 1; 1 is the subject."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectMasker:
    """`mask` takes pixels and gives a Soft of their size. `id` is unique, in lower case; people read `label`."""

    id: str
    label: str
    mask: Callable[[Pixels], Soft]
