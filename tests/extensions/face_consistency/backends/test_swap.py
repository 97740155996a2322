"""Swapping by a small network with inswapper's ports: against insightface 2.1, and what stays untouched."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from insightface.model_zoo.inswapper import INSwapper
from insightface.utils import face_align
from numpy.typing import NDArray

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.backends.aligned import face_mask, five_points, paste, similarity
from extensions.face_consistency.backends.catalog import identify
from extensions.face_consistency.backends.onnx_file import BrokenModel
from extensions.face_consistency.backends.sessions import Session
from extensions.face_consistency.backends.swap import Swapper
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.face import Face
from tests import onnx_files as files
from tests.extensions.face_consistency.backends.conftest import make_face, make_picture
from webui.settings import CHECKOUT

Pixels = NDArray[np.uint8]


def opened(path: Path) -> Swapper:
    return Swapper(Session(identify(path, path.stem), "cpu"))


def an_embedding(seed: int = 0) -> NDArray[np.float32]:
    row = np.random.default_rng(seed).normal(0, 1, 512)
    return (row / np.linalg.norm(row)).astype(np.float32)


@pytest.fixture(scope="module")
def swapper(tmp_path_factory: pytest.TempPathFactory) -> Swapper:
    return opened(files.write_swapper(tmp_path_factory.mktemp("swap") / "inswapper_128.onnx"))


@pytest.mark.parametrize("turn", [0.0, 40.0, 180.0])
def test_the_new_face_is_insightfaces(swapper: Swapper, picture: Pixels, turn: float) -> None:
    face, embedding = make_face(turn_degrees=turn), an_embedding()
    theirs = INSwapper(str(swapper.session.model.path))
    target = SimpleNamespace(kps=five_points(face))
    expected, _ = theirs.get(picture[:, :, ::-1], target, SimpleNamespace(normed_embedding=embedding), paste_back=False)
    aligned = face_align.norm_crop(picture, five_points(face), 128)
    ours = swapper.paint(aligned, embedding)
    assert np.abs(ours.astype(int) - expected[:, :, ::-1]).max() <= 1


def test_the_whole_picture_is_insightfaces_where_both_masks_are_full(swapper: Swapper, picture: Pixels) -> None:
    face, embedding = make_face(width=160), an_embedding(1)
    theirs = INSwapper(str(swapper.session.model.path))
    expected = theirs.get(
        picture[:, :, ::-1], SimpleNamespace(kps=five_points(face)), SimpleNamespace(normed_embedding=embedding)
    )[:, :, ::-1]
    ours = swapper.swap(picture, face, embedding)
    middle = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(middle, (256, 262), (40, 45), 0, 0, 360, 1, -1)
    both = (ours.mask > 0.999) & (middle > 0)
    assert both.sum() > 4000
    difference = np.abs(ours.pixels.astype(float) - expected)[both]
    # The patch is put back with a cubic curve instead of straight lines.
    assert difference.mean() < 6


def test_pixels_outside_the_mask_are_bit_identical_and_those_inside_change(swapper: Swapper, picture: Pixels) -> None:
    before = picture.copy()
    result = swapper.swap(picture, make_face(), an_embedding())
    changed = (result.pixels != picture).any(axis=2)
    assert not changed[result.mask == 0].any()
    assert changed[result.mask > 0.5].mean() > 0.9
    assert 0.02 < (result.mask > 0).mean() < 0.35
    assert np.array_equal(picture, before), "what was given is never written to"


@given(
    x=st.floats(-80, 400), y=st.floats(-80, 300), width=st.floats(3, 700), turn=st.floats(-180, 180),
    picture_width=st.integers(1, 320), picture_height=st.integers(1, 240),
)  # fmt: skip
def test_a_face_anywhere_at_any_size_leaves_the_rest_alone(
    swapper: Swapper, x: float, y: float, width: float, turn: float, picture_width: int, picture_height: int
) -> None:
    picture = make_picture(picture_width, picture_height)
    result = swapper.swap(picture, make_face(center=(x, y), width=width, turn_degrees=turn), an_embedding())
    assert result.pixels.shape == picture.shape
    assert result.mask.shape == picture.shape[:2]
    assert np.isfinite(result.mask).all()
    assert result.mask.min() >= 0
    assert result.mask.max() <= 1
    assert np.array_equal(result.pixels[result.mask == 0], picture[result.mask == 0])


@pytest.mark.parametrize("boost", [2, 3, 4])
def test_pixel_boost_gives_every_tile_to_the_network(swapper: Swapper, boost: int) -> None:
    """The small network works pixel by pixel, so that tiles one by one are the whole at once."""
    large = make_picture(128 * boost, 128 * boost)
    painted = swapper.paint(large, an_embedding())
    for row in range(boost):
        for column in range(boost):
            alone = swapper.paint(np.ascontiguousarray(large[row::boost, column::boost]), an_embedding())
            assert np.array_equal(painted[row::boost, column::boost], alone)


def test_pixel_boost_keeps_more_detail(swapper: Swapper, picture: Pixels) -> None:
    face = make_face(width=380)
    plain, boosted = (swapper.swap(picture, face, an_embedding(), pixel_boost=boost) for boost in (1, 3))
    inside = (plain.mask > 0.99) & (boosted.mask > 0.99)
    detail = [
        float(np.abs(cv2.Laplacian(r.pixels.astype(np.float32), cv2.CV_32F))[inside].mean()) for r in (plain, boosted)
    ]
    assert detail[1] > 1.5 * detail[0]


@pytest.mark.parametrize("boost", [0, 5, -1])
def test_a_boost_that_is_none_is_refused(swapper: Swapper, picture: Pixels, face: Face, boost: int) -> None:
    with pytest.raises(ValueError, match=f"pixel_boost is {boost}, not 1 to 4"):
        swapper.swap(picture, face, an_embedding(), pixel_boost=boost)


def test_an_interrupt_comes_between_two_tiles(swapper: Swapper, picture: Pixels, face: Face) -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swapper.swap(picture, face, an_embedding(), pixel_boost=2, check=check)


@pytest.mark.parametrize(
    "more",
    [
        {"source_first": True},
        {"names": ("a", "b", "c")},
        {"map_dtype": "float16"},
        {"side": 256},
        {"side": 512},
    ],
)
def test_other_exports_are_bound_by_shape(more: dict[str, object], tmp_path: Path, picture: Pixels, face: Face) -> None:
    swapper = opened(files.write_swapper(tmp_path / "swapper.onnx", **more))  # type: ignore[arg-type]
    result = swapper.swap(picture, face, an_embedding())
    assert (result.pixels != picture)[result.mask > 0.9].mean() > 0.5


def test_the_source_decides_what_is_painted(swapper: Swapper, picture: Pixels, face: Face) -> None:
    one, same, other = (swapper.swap(picture, face, an_embedding(seed)).pixels for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_length_of_the_source_does_not_matter(swapper: Swapper) -> None:
    assert np.allclose(swapper.latent(an_embedding() * 23), swapper.latent(an_embedding()), atol=1e-6)


def test_color_brings_the_new_face_to_the_pictures_colours(swapper: Swapper) -> None:
    """On a photo, for it looks at skin; the small network tints the face by its source."""
    photo = skimage.data.astronaut()
    (face,) = find_faces(photo, models=Models(CHECKOUT / "extensions" / "face_consistency" / "models"))
    before = cv2.cvtColor(photo, cv2.COLOR_RGB2LAB).astype(float)
    away = []
    for color in (0.0, 1.0):
        result = swapper.swap(photo, face, an_embedding(), color=color)
        inside = result.mask > 0.9
        after = cv2.cvtColor(result.pixels, cv2.COLOR_RGB2LAB).astype(float)
        away.append(np.abs(after[inside].mean(axis=0) - before[inside].mean(axis=0)).max())
    assert away[1] < 0.5 * away[0]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros(512, np.float32), "without a direction"),
        (np.full(512, np.nan, np.float32), "without a direction"),
        (np.ones(128, np.float32), "needs 512 numbers of an ArcFace network, not 128"),
    ],
)
def test_a_source_that_is_none_is_refused_in_words(
    swapper: Swapper, picture: Pixels, face: Face, source: NDArray[np.float32], reason: str
) -> None:
    with pytest.raises(BrokenModel, match=reason):
        swapper.swap(picture, face, source)


def test_a_network_that_gives_nan_is_refused_and_the_picture_stays(tmp_path: Path, picture: Pixels, face: Face) -> None:
    path = files.write_swapper(tmp_path / "nan.onnx")
    model = onnx.load(str(path))
    model.graph.initializer[0].raw_data = np.full(9, np.nan, np.float32).tobytes()
    path.write_bytes(model.SerializeToString())
    before = picture.copy()
    with pytest.raises(BrokenModel, match="NaN or Inf instead of a picture"):
        opened(path).swap(picture, face, an_embedding())
    assert np.array_equal(picture, before)


def test_a_mesh_in_one_place_is_refused(swapper: Swapper, picture: Pixels) -> None:
    with pytest.raises(BrokenModel, match="points all lie in one place"):
        swapper.swap(picture, make_face(width=0), an_embedding())


def test_the_mask_is_full_on_the_features_and_nothing_at_the_cut_outs_border(face: Face) -> None:
    matrix = similarity(five_points(face), np.array([[44, 60], [84, 60], [64, 82], [48, 104], [81, 104]], np.float32))
    mask = face_mask(face, matrix, 128)
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0
    assert mask[58:100, 46:82].min() > 0.97


def test_a_patch_that_is_the_picture_itself_comes_back_as_it_was() -> None:
    """A patch that is larger than its place is averaged, not sampled, and lands where it came from."""
    y, x = np.mgrid[:200, :200]
    smooth = np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)
    for scale in (0.5, 1.0, 3.0, 6.0):
        matrix = np.array([[scale, 0, -40 * scale], [0, scale, -50 * scale]])
        side = int(100 * scale)
        patch = cv2.warpAffine(smooth, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        pasted = paste(smooth, patch, matrix, np.ones((side, side), np.float32))
        inside = (slice(55, 145), slice(45, 135))
        assert np.abs(pasted.pixels[inside].astype(int) - smooth[inside]).max() <= 2
