"""The person is told from what is behind her."""

import numpy as np
import pytest

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.face import Face, Pixels
from extensions.face_consistency.person import person_mask


def test_face_hair_and_suit_are_the_person_and_the_wall_is_not(
    astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    mask = person_mask(astronaut, models=networks)
    assert mask.shape == (512, 512)
    assert mask.dtype == np.float32
    assert 0 <= mask.min() <= mask.max() <= 1
    columns, rows = astronaut_face.points[:, :2].round().astype(int).T
    assert mask[rows, columns].mean() > 0.98
    assert mask[40:60, 215:235].min() > 0.9
    assert mask[300:500, 150:250].mean() > 0.9
    assert mask[10:100, 20:80].max() < 0.1


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (700, 2), (257, 255)])
def test_a_mask_has_the_size_of_its_picture(shape: tuple[int, int], networks: Models) -> None:
    mask = person_mask(np.full((*shape, 3), 200, np.uint8), models=networks)
    assert mask.shape == shape
    assert np.isfinite(mask).all()
