"""The networks open on first use, say which file is missing, and serve several threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from extensions.face_consistency.analysis import MESH, MESH_SIDE, MissingFaceModel, Models
from extensions.face_consistency.face import Pixels


def test_making_them_opens_no_file(tmp_path: Path) -> None:
    Models(tmp_path / "not there")


@pytest.mark.parametrize("content", [None, b"", b"no model at all"])
def test_a_missing_or_broken_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / MESH).write_bytes(content)
    with pytest.raises(MissingFaceModel, match=MESH) as problem:
        Models(tmp_path).mesh(np.zeros((MESH_SIDE, MESH_SIDE, 3), np.uint8))
    assert ".cpp" not in str(problem.value)


def test_closed_networks_open_again(shipped: Path) -> None:
    models, crop = Models(shipped), np.zeros((MESH_SIDE, MESH_SIDE, 3), np.uint8)
    before = models.mesh(crop)
    models.close()
    np.testing.assert_array_equal(models.mesh(crop), before)


def test_threads_do_not_mix_their_crops(astronaut: Pixels, networks: Models) -> None:
    crops = [np.ascontiguousarray(astronaut[y : y + MESH_SIDE, y : y + MESH_SIDE]) for y in range(0, 160, 20)]
    alone = [networks.presence(crop) for crop in crops]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(networks.presence, crops))
    assert together == alone
