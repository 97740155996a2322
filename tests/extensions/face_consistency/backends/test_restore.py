"""Restoring by small networks with the ports of GFPGAN and CodeFormer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from extensions.face_consistency.backends.catalog import identify
from extensions.face_consistency.backends.onnx_file import BrokenModel
from extensions.face_consistency.backends.restore import Restorer
from extensions.face_consistency.backends.sessions import Session
from extensions.face_consistency.face import Face
from tests import onnx_files as files
from tests.extensions.face_consistency.backends.conftest import make_face, make_picture

Pixels = NDArray[np.uint8]
EXPORTS: list[dict[str, Any]] = [
    {},
    {"side": 256},
    {"half": True},
    {"names": ("x", "y")},
    {"weight": "float", "names": ("x", "w")},
    {"weight": "double"},
    {"weight": "double", "weight_dims": (), "weight_first": True},
    {"weight": "float", "weight_dims": (None,), "half": True},
]


def opened(path: Path) -> Restorer:
    return Restorer(Session(identify(path, path.stem), "cpu"))


@pytest.fixture(scope="module")
def negative(tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    """Gives 255 - value."""
    return opened(files.write_restorer(tmp_path_factory.mktemp("restore") / "gfpgan.onnx", side=256))


@pytest.mark.parametrize("more", EXPORTS)
def test_every_export_is_run_with_what_it_takes(more: dict[str, Any], tmp_path: Path) -> None:
    """The small networks make the negative, and add the weight to it: the result is known for every pixel."""
    restorer = opened(files.write_restorer(tmp_path / "restorer.onnx", **more))
    cutout = make_picture(restorer.size_px, restorer.size_px)
    assert restorer.has_weight == ("weight" in more)
    for weight in (0.0, 0.5, 1.0):
        shift = 127.5 * weight / 2 if restorer.has_weight else 0
        expected = np.clip(255.0 - cutout + shift, 0, 255)
        assert np.abs(restorer.improve(cutout, weight=weight) - expected).max() <= 1


def test_pixels_outside_the_mask_are_bit_identical(negative: Restorer, picture: Pixels, face: Face) -> None:
    before = picture.copy()
    result = negative.restore(picture, face)
    assert np.array_equal(result.pixels[result.mask == 0], picture[result.mask == 0])
    assert (result.pixels != picture).any(axis=2)[result.mask > 0.5].mean() > 0.9
    assert 0.05 < (result.mask > 0).mean() < 0.5
    assert np.array_equal(picture, before)


@settings(max_examples=30)
@given(width=st.floats(4, 600), x=st.floats(-50, 350), y=st.floats(-50, 250), turn=st.floats(-180, 180))
def test_a_face_anywhere_leaves_the_rest_alone(
    negative: Restorer, width: float, x: float, y: float, turn: float
) -> None:
    picture = make_picture(300, 200)
    result = negative.restore(picture, make_face(center=(x, y), width=width, turn_degrees=turn))
    assert np.array_equal(result.pixels[result.mask == 0], picture[result.mask == 0])
    assert 0 <= result.mask.min() <= result.mask.max() <= 1


@pytest.mark.parametrize("visibility", [0.25, 0.5, 1.0])
def test_visibility_mixes_old_and_new(negative: Restorer, face: Face, visibility: float) -> None:
    picture = np.full((512, 512, 3), 55, np.uint8)
    result = negative.restore(picture, face, visibility=visibility)
    assert result.mask.max() == pytest.approx(visibility, abs=1e-3)
    middle = result.pixels[256, 256].astype(float)
    assert np.abs(middle - (55 + visibility * (200 - 55))).max() <= 1


def test_visibility_zero_changes_nothing_and_runs_nothing(negative: Restorer, picture: Pixels, face: Face) -> None:
    closed = Restorer(negative.session)
    closed.session = None  # type: ignore[assignment]
    result = closed.restore(picture, face, visibility=0)
    assert np.array_equal(result.pixels, picture)
    assert not result.mask.any()


def test_a_network_that_leaves_a_face_as_it_is_changes_next_to_nothing(tmp_path: Path, face: Face) -> None:
    y, x = np.mgrid[:512, :512]
    smooth = np.stack([x // 2, y // 2, (x + y) // 4], axis=-1).astype(np.uint8)
    same = opened(files.write_restorer(tmp_path / "same.onnx", gain=1.0))
    for turn in (0.0, 25.0, 170.0):
        result = same.restore(smooth, make_face(turn_degrees=turn))
        assert np.abs(result.pixels.astype(int) - smooth).max() <= 2


def test_a_restorer_that_gives_nan_is_refused(tmp_path: Path, picture: Pixels, face: Face) -> None:
    broken = opened(files.write_restorer(tmp_path / "nan.onnx", gain=float("nan")))
    with pytest.raises(BrokenModel, match="'nan' cannot be used: it gave NaN or Inf instead of a picture"):
        broken.restore(picture, face)
