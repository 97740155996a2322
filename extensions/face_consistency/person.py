"""What of a picture is a person, hair and clothes included."""

import cv2
import numpy as np
from numpy.typing import NDArray

from .analysis import PERSON_SIDE, Models
from .face import Pixels


def person_mask(pixels: Pixels, *, models: Models) -> NDArray[np.float32]:
    """(height, width) 0 to 1, soft at the outline. The network sees 256 x 256 px. Raises MissingFaceModel."""
    height, width = pixels.shape[:2]
    interpolation = cv2.INTER_AREA if max(height, width) > PERSON_SIDE else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(pixels), (PERSON_SIDE, PERSON_SIDE), interpolation=interpolation)
    mask = cv2.resize(models.person(np.asarray(small, np.uint8)), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.clip(np.asarray(mask, np.float32), 0, 1)
