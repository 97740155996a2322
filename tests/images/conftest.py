"""Pictures to work on, the same in every run."""

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

# Random cases leave nothing behind, and none depends on a clock.
settings.register_profile(
    "images", database=None, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("images")


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """96 x 64, RGB, smooth, all colours."""
    colours = np.random.default_rng(7).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(colours, (96, 64), interpolation=cv2.INTER_LINEAR))
