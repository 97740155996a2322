"""Our own few lines against insightface 2.1 itself, on the same small networks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insightface.app import FaceAnalysis
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.model_zoo.attribute import Attribute
from insightface.utils import face_align
from numpy.typing import NDArray

from extensions.face_consistency.backends.aligned import arcface_template, cut_out, five_points, similarity
from extensions.face_consistency.backends.catalog import identify
from extensions.face_consistency.backends.insight import ArcFace, Detector, GenderAge
from extensions.face_consistency.backends.onnx_file import BrokenModel
from extensions.face_consistency.backends.overlap import keep_best
from extensions.face_consistency.backends.sessions import Session
from extensions.face_consistency.face import Face
from tests import onnx_files as files
from tests.extensions.face_consistency.backends.conftest import make_face, make_picture

CPU = ["CPUExecutionProvider"]


def opened(path: Path) -> Session:
    return Session(identify(path, path.stem), "cpu")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.write_insightface_pack(tmp_path_factory.mktemp("buffalo_l"))


@pytest.fixture(scope="module")
def oracle(pack: Path) -> Any:
    app = FaceAnalysis(name=str(pack), providers=CPU, allowed_modules=["detection", "recognition", "genderage"])
    app.prepare(ctx_id=-1, det_thresh=0.5)
    return app


@pytest.mark.parametrize(("width", "height"), [(640, 640), (300, 500), (517, 211), (1000, 700), (90, 60)])
def test_boxes_scores_and_points_are_insightfaces(pack: Path, oracle: Any, width: int, height: int) -> None:
    picture = make_picture(width, height, seed=width)
    boxes, points = oracle.det_model.detect(picture[:, :, ::-1])
    found = Detector(opened(pack / "det_10g.onnx")).find(picture)
    assert len(found) == len(boxes) > 2
    assert np.allclose([(*face.box, face.score) for face in found], boxes, atol=0.02)
    assert np.allclose([face.points for face in found], points, atol=0.02)


@pytest.mark.parametrize("more", [{"points": False}, {"side": 320}, {"batched": True}])
def test_detectors_of_other_builds_agree_with_insightface(more: dict[str, Any], tmp_path: Path) -> None:
    path = files.write_scrfd(tmp_path / "det.onnx", **more)
    app = FaceAnalysis(name=str(tmp_path), providers=CPU)
    app.prepare(ctx_id=-1, det_thresh=0.6)
    picture = make_picture(400, 333)
    boxes, points = app.det_model.detect(picture[:, :, ::-1])
    found = Detector(opened(path)).find(picture, min_score=0.6)
    assert len(found) == len(boxes) > 2
    assert np.allclose([(*face.box, face.score) for face in found], boxes, atol=0.02)
    assert [face.points is None for face in found] == [points is None] * len(found)


def test_a_picture_without_faces_gives_none(pack: Path) -> None:
    assert Detector(opened(pack / "det_10g.onnx")).find(make_picture(64, 64), min_score=1.0) == []


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3000, 2), (2, 3000)])
def test_odd_pictures_are_looked_at_without_a_word(pack: Path, width: int, height: int) -> None:
    Detector(opened(pack / "det_10g.onnx")).find(make_picture(width, height))


@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("turn", [0.0, 33.0, 180.0])
def test_embeddings_are_insightfaces(turn: float, normalises: bool, tmp_path: Path) -> None:
    path = files.write_arcface(tmp_path / "w600k.onnx", normalises=normalises)
    picture, face = make_picture(512, 512), make_face(turn_degrees=turn)
    theirs = ArcFaceONNX(str(path))
    aligned = face_align.norm_crop(picture[:, :, ::-1], five_points(face))
    expected = theirs.get_feat(aligned).reshape(-1)
    ours = ArcFace(opened(path)).embed(picture, face)
    assert ours.shape == (512,)
    assert np.linalg.norm(ours) == pytest.approx(1)
    assert float(ours @ expected / np.linalg.norm(expected)) == pytest.approx(1, abs=1e-4)


def test_red_and_blue_are_not_exchanged(tmp_path: Path) -> None:
    """Exchanged channels give nearly the same face with real networks, so nobody would notice."""
    arcface = ArcFace(opened(files.write_arcface(tmp_path / "w600k.onnx")))
    face = make_face()
    blue, red = np.zeros((512, 512, 3), np.uint8), np.zeros((512, 512, 3), np.uint8)
    blue[..., 2] = red[..., 0] = 255
    assert float(arcface.embed(blue, face) @ arcface.embed(red, face)) < 0.9
    theirs = ArcFaceONNX(str(tmp_path / "w600k.onnx")).get_feat(red[:112, :112, ::-1]).reshape(-1)
    assert float(arcface.embed(red, face) @ theirs / np.linalg.norm(theirs)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_gender_and_age_are_insightfaces(normalises: bool, seed: int, tmp_path: Path) -> None:
    path = files.write_gender_age(tmp_path / "genderage.onnx", normalises=normalises, seed=seed)
    picture, box = make_picture(300, 400, seed), (40.0, 30.0, 210.0, 290.0)
    gender, age = Attribute(str(path)).get(picture[:, :, ::-1], _TheirFace(box))
    person = GenderAge(opened(path)).read(picture, box)
    assert person.gender == ("male" if gender else "female")
    assert abs(person.age - age) <= 1


class _TheirFace(dict[str, Any]):
    def __init__(self, box: tuple[float, float, float, float]) -> None:
        self.bbox = np.array(box)


@given(
    points=st.lists(st.tuples(st.floats(-900, 900), st.floats(-900, 900)), min_size=5, max_size=5, unique=True),
    side=st.sampled_from([112, 128, 224, 256, 512]),
)
def test_alignment_is_insightfaces(points: list[tuple[float, float]], side: int) -> None:
    five = np.array(points, np.float32)
    if np.ptp(five, axis=0).min() < 1:
        return
    expected = face_align.estimate_norm(five, side)
    ours = similarity(five, arcface_template(side))
    if np.linalg.det(expected[:, :2]) > 1e-3 and np.hypot(*ours[:, 0]) > 0.05:
        assert np.allclose(ours, expected, atol=1e-2, rtol=1e-3)


@given(angle=st.floats(-180, 180), scale=st.floats(0.05, 20), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_a_turned_scaled_and_moved_template_comes_back_to_its_place(
    angle: float, scale: float, x: float, y: float
) -> None:
    template = arcface_template(128)
    turn = np.deg2rad(angle)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (template @ matrix.T + (x, y)).astype(np.float32)
    found = similarity(points, template)
    assert np.allclose(points @ found[:, :2].T + found[:, 2], template, atol=0.05)


def test_points_in_one_place_are_refused_in_words(tmp_path: Path) -> None:
    arcface = ArcFace(opened(files.write_arcface(tmp_path / "w600k.onnx")))
    with pytest.raises(BrokenModel, match="points all lie in one place"):
        arcface.embed_at(make_picture(64, 64), np.full((5, 2), 30, np.float32))


def test_a_face_beyond_the_border_is_cut_out_with_black(face: Face) -> None:
    matrix = similarity(five_points(make_face(center=(0, 0))), arcface_template(112))
    cut = cut_out(np.full((512, 512, 3), 200, np.uint8), matrix, 112)
    assert cut[:20, :20].max() == 0
    assert cut[-20:, -20:].min() == 200


@given(seed=st.integers(0, 10_000), count=st.integers(0, 40), limit=st.floats(0.1, 0.9))
def test_kept_boxes_do_not_overlap_and_dropped_ones_do(seed: int, count: int, limit: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 200, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 90, (count, 2))], axis=1).astype(np.float32)
    scores = random.uniform(0, 1, count).astype(np.float32)
    kept = keep_best(boxes, scores, limit)
    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    for index in range(count):
        better = [other for other in kept if scores[other] > scores[index] and other != index]
        covered = max((_overlap(boxes[index], boxes[other]) for other in better), default=0.0)
        assert (covered <= limit + 1e-4) if index in kept else (covered >= limit - 1e-4)


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Of pixels, counted one by one along each axis."""
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + 1) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + 1)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return float(common / (sum(areas) - common))


def test_a_detector_whose_rows_do_not_fit_the_picture_says_so(tmp_path: Path) -> None:
    """The ports leave the number of rows open, so that only running it shows."""
    path = files.write_scrfd(tmp_path / "det.onnx", num_anchors=1)
    with pytest.raises(BrokenModel, match=r"'det' cannot be used: it gave 256x1 numbers, not 512x1"):
        Detector(opened(path)).find(make_picture(64, 64))
