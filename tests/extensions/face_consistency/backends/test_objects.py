"""Finding faces and hands by YOLO's tables, and the safety check on the same ground."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extensions.face_consistency.backends.catalog import identify
from extensions.face_consistency.backends.objects import ObjectDetector
from extensions.face_consistency.backends.onnx_file import BrokenModel
from extensions.face_consistency.backends.safety import SafetyCheck
from extensions.face_consistency.backends.sessions import Session
from tests import onnx_files as files
from tests.extensions.face_consistency.backends.conftest import make_picture


def opened(path: Path) -> ObjectDetector:
    return ObjectDetector(Session(identify(path, path.stem), "cpu"))


def test_boxes_come_back_in_the_pictures_own_pixels(tmp_path: Path) -> None:
    """A picture of 320x160 is doubled into the middle of 640x640, with 160 grey rows above it."""
    table = files.yolo_table([(100, 260, 300, 420, 0, 0.9)], num_labels=1)
    (found,) = opened(files.write_table(tmp_path / "face.onnx", table, labels=["face"])).find(make_picture(320, 160))
    assert found.box == pytest.approx((50, 50, 150, 130))
    assert (found.score, found.label) == (pytest.approx(0.9), "face")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> ObjectDetector:
    """Finds one face as large as its whole picture of 160x160."""
    path = tmp_path_factory.mktemp("everything") / "face.onnx"
    return opened(files.write_table(path, files.yolo_table([(-5, -5, 165, 165, 0, 0.8)], num_labels=1), side=160))


@given(width=st.integers(1, 600), height=st.integers(1, 600))
def test_the_whole_picture_is_found_as_such_whatever_its_form(
    everything: ObjectDetector, width: int, height: int
) -> None:
    (found,) = everything.find(np.zeros((height, width, 3), np.uint8))
    assert found.box == (0, 0, width, height)


def test_of_boxes_on_each_other_the_best_stays_but_labels_do_not_disturb_each_other(tmp_path: Path) -> None:
    table = files.yolo_table(
        [
            (10, 10, 110, 110, 0, 0.6),
            (14, 12, 112, 111, 0, 0.9),
            (12, 12, 110, 110, 1, 0.5),
            (300, 10, 400, 90, 0, 0.4),
        ],
        num_labels=2,
    )
    found = opened(files.write_table(tmp_path / "two.onnx", table, labels=["face", "hand"])).find(
        make_picture(640, 640)
    )
    assert [(round(one.score, 2), one.label) for one in found] == [(0.9, "face"), (0.5, "hand"), (0.4, "face")]


def test_weak_empty_and_broken_boxes_are_left_out(tmp_path: Path) -> None:
    table = files.yolo_table(
        [(10, 10, 90, 90, 0, 0.29), (50, 50, 50, 80, 0, 0.9), (700, 10, 800, 50, 0, 0.9)], num_labels=1
    )
    table[:, 5] = np.nan
    table[:4, 6], table[4, 6] = np.inf, 0.9
    assert opened(files.write_table(tmp_path / "weak.onnx", table)).find(make_picture(640, 640)) == []


FORMS: list[tuple[dict[str, Any], int]] = [
    ({"labels": ["face"]}, 5),
    ({}, 5),
    ({"side": None}, 5),
    ({}, 20),
    ({"labels": ["face"]}, 20),
    ({"labels": ["face"], "mask_side": 160}, 37),
    ({"mask_side": 160}, 37),
]


@pytest.mark.parametrize(("more", "columns"), FORMS)
def test_every_build_of_a_one_label_detector_finds_the_same(more: dict[str, Any], columns: int, tmp_path: Path) -> None:
    table = np.full((columns, 64), 300.0, np.float32)
    table[4] = 0
    table[:5, 3] = 200, 220, 60, 80, 0.75
    (found,) = opened(files.write_table(tmp_path / "face.onnx", table, **more)).find(make_picture(640, 640))
    assert found.box == pytest.approx((170, 180, 230, 260))
    assert found.score == pytest.approx(0.75)


def test_a_detector_that_chooses_its_boxes_itself_is_understood(tmp_path: Path) -> None:
    table = np.zeros((300, 6), np.float32)
    table[0] = 100, 120, 200, 260, 0.8, 1
    path = files.write_table(tmp_path / "end.onnx", table, labels=["face", "hand"])
    (found,) = opened(path).find(make_picture(640, 640))
    assert found.box == pytest.approx((100, 120, 200, 260))
    assert (found.score, found.label) == (pytest.approx(0.8), "hand")


def test_labels_that_do_not_fit_the_numbers_are_refused(tmp_path: Path) -> None:
    path = files.write_table(tmp_path / "odd.onnx", np.zeros((6, 64)), labels=["a", "b", "c"])
    with pytest.raises(BrokenModel, match="gives 2 numbers per box for 3 labels"):
        opened(path).find(make_picture(64, 64))


NUDENET = [
    "FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED",
    "ARMPITS_EXPOSED", "FACE_MALE", "BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
]  # fmt: skip


def checked(path: Path, label: int, score: float, *, labels: list[str]) -> SafetyCheck:
    table = files.yolo_table([(40, 40, 120, 140, label, score)], num_labels=18)
    files.write_table(path, table, side=None, labels=labels, notes={"imgsz": "[320, 320]"})
    return SafetyCheck(Session(identify(path, path.stem), "cpu"))


@pytest.mark.parametrize("labels", [NUDENET, []])
def test_the_safety_check_says_what_it_sees_and_how_sure_it_is(labels: list[str], tmp_path: Path) -> None:
    finding = checked(tmp_path / "320n.onnx", 3, 0.84, labels=labels).look(make_picture(320, 320))
    assert finding.message == "The safety check sees a bare breast in this picture (84% sure, from 50%)."
    assert [part.label for part in finding.parts] == ["FEMALE_BREAST_EXPOSED"]


@pytest.mark.parametrize(("label", "score"), [(3, 0.49), (1, 0.99), (7, 0.99), (5, 0.99), (13, 0.99), (0, 0.99)])
def test_faces_feet_and_what_is_covered_do_not_count(label: int, score: float, tmp_path: Path) -> None:
    finding = checked(tmp_path / "320n.onnx", label, score, labels=NUDENET).look(make_picture(320, 320))
    assert (finding.message, finding.parts) == ("", ())
