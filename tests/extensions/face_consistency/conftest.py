"""What the tests of face consistency share: the shipped networks, and the astronaut with her face."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.face import Face, Pixels
from webui.settings import CHECKOUT


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The folder of the models that come with the extension."""
    return CHECKOUT / "extensions" / "face_consistency" / "models"


@pytest.fixture(scope="session")
def networks(shipped: Path) -> Models:
    return Models(shipped)


@pytest.fixture(scope="session")
def astronaut() -> Pixels:
    """512 x 512, a frontal face about 90 px wide. NASA, public domain."""
    return np.asarray(data.astronaut(), np.uint8)


@pytest.fixture(scope="session")
def astronaut_face(astronaut: Pixels, networks: Models) -> Face:
    (face,) = find_faces(astronaut, models=networks)
    return face
