"""Pictures to work on, the same in every run."""

import cv2
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """96 x 64, RGB, smooth, all colours."""
    colours = np.random.default_rng(7).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(colours, (96, 64), interpolation=cv2.INTER_LINEAR))
