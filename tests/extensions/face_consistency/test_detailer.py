"""Faces and hands are found and repainted, each with its own prompt, and nothing else is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extensions.face_consistency import detailer
from extensions.face_consistency.analysis import Models
from extensions.face_consistency.detailer import Detail, chosen, improve_details, mask_of
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.engine import Engine
from extensions.face_consistency.face import Pixels
from extensions.face_consistency.params import DetailerParams
from extensions.face_consistency.person import person_mask
from tests.extensions.face_consistency import story
from tests.extensions.face_consistency.story import Painter, array, picture
from tests.onnx_files import write_table, yolo_table
from webui.hooks import GenerationRequest, PostprocessContext, Processed, WebUIError


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    story.without_network(monkeypatch)


@pytest.fixture
def engine(tmp_path: Path, networks: Models) -> Engine:
    return story.engine_in(tmp_path, networks)


def inverted(pixels: Pixels) -> Pixels:
    return np.asarray(255 - pixels, np.uint8)


def context_of(painter: Painter, check: Callable[[], None] = lambda: None) -> PostprocessContext:
    return PostprocessContext(
        request=GenerationRequest(checkpoint="paper", seed=5),
        index=0,
        seed=5,
        source=None,
        picture=lambda name: Image.new("RGB", (8, 8)),
        redraw=painter,
        report=lambda text: None,
        check=check,
    )


def run(pixels: Pixels, engine: Engine, painter: Painter, **params: Any) -> Processed:
    return improve_details(picture(pixels), DetailerParams(**params), context_of(painter), engine)


def test_a_face_is_repainted_in_its_box_alone(astronaut: Pixels, engine: Engine, networks: Models) -> None:
    painter = Painter(inverted)
    processed = run(astronaut, engine, painter, prompt="a smile", strength=0.5, size=256, dilate_px=6, padding_px=40)
    (call,) = painter.calls
    assert (call["prompt"], call["strength"], call["width"], call["height"]) == ("a smile", 0.5, 256, 256)
    assert call["padding_px"] == 40
    (face,) = find_faces(astronaut, models=networks)
    rows, columns = np.nonzero((array(processed.image) != astronaut).any(axis=2))
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.allclose(found, np.add(face.box, (-6, -6, 6, 6)), atol=1.5)
    assert processed.badge is not None and processed.badge.text == "1 face"
    assert processed.fields == {"Detailer found": "1 face"}
    (detail,) = processed.details["found"]
    assert detail["label"] == "face" and detail["score"] > 0.6


def test_each_has_its_own_prompt_and_seed(engine: Engine) -> None:
    painter = Painter(inverted)
    group = np.ascontiguousarray(story.group()[100:440, :640])
    run(group, engine, painter, prompt="left [SEP] middle [SEP] right", negative_prompt="blurry")
    assert [call["prompt"] for call in painter.calls] == ["left", "middle", "right"]
    assert {call["negative_prompt"] for call in painter.calls} == {"blurry"}
    assert [call["seed"] for call in painter.calls] == [None, 6, 7]
    middles = [np.nonzero(call["mask"])[1].mean() for call in painter.calls]
    assert middles == sorted(middles)


def test_an_empty_prompt_is_the_pictures_own(astronaut: Pixels, engine: Engine) -> None:
    painter = Painter(inverted)
    run(astronaut, engine, painter)
    assert painter.calls[0]["prompt"] is None
    assert painter.calls[0]["num_inference_steps"] is None


def test_without_a_find_the_picture_stays_and_it_is_said(engine: Engine) -> None:
    painter = Painter(inverted)
    blank = np.full((80, 120, 3), 99, np.uint8)
    processed = run(blank, engine, painter)
    assert not painter.calls
    assert np.array_equal(array(processed.image), blank)
    assert "No face was found" in processed.notes[0]


def test_hands_are_found_by_a_file_of_the_users(astronaut: Pixels, engine: Engine, tmp_path: Path) -> None:
    boxes = [(130.0, 180.0, 190.0, 220.0, 1, 0.8), (455.0, 55.0, 505.0, 145.0, 0, 0.9)]
    file = tmp_path / "models" / "face" / "yolo_mixed.onnx"
    write_table(file, yolo_table(boxes, num_labels=2), labels=["face", "hand"])
    painter = Painter(inverted)
    processed = run(astronaut, engine, painter, target="hands")
    (found,) = processed.details["found"]
    assert found["label"] == "hand"
    assert np.allclose(found["box"], np.array([130, 180, 190, 220]) * 512 / 640, atol=1)
    both = run(astronaut, engine, Painter(inverted), target="objects", detector="yolo_mixed")
    assert {one["label"] for one in both.details["found"]} == {"face", "hand"}


def detail(left: int, top: int, side: int, score: float = 0.5) -> Detail:
    return Detail(box=(left, top, left + side, top + side), score=score, label="x")


def test_those_of_the_right_size_are_chosen_from_left_to_right() -> None:
    found = [detail(50, 0, 10, 0.9), detail(0, 0, 40, 0.4), detail(70, 0, 30, 0.8), detail(90, 50, 2, 0.99)]
    params = DetailerParams(min_area=0.005, max_count=2)
    assert chosen(found, params, 10_000) == [found[1], found[2]]
    assert chosen(found, params.model_copy(update={"by": "confidence"}), 10_000) == [found[0], found[2]]
    assert chosen(found, DetailerParams(max_area=0.1), 10_000) == [found[0], found[2], found[3]]


@pytest.mark.parametrize("dilate", [-64, -3, 0, 5, 128])
def test_a_mask_is_never_empty_and_grows_evenly(dilate: int) -> None:
    mask = mask_of(detail(40, 30, 8), dilate, (100, 120))
    rows, columns = np.nonzero(mask)
    assert len(rows)
    assert mask.shape == (100, 120)
    if abs(dilate) < 8 and dilate >= -3:
        assert columns.min() == 40 - dilate and columns.max() == 47 + dilate


def test_an_interruption_is_passed_on(astronaut: Pixels, engine: Engine) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        improve_details(picture(astronaut), DetailerParams(), context_of(Painter(inverted), stop), engine)


def test_a_palm_detector_finds_hands_where_there_is_no_file(
    astronaut: Pixels, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WebUIError, match="nothing here that finds hands"):
        run(astronaut, engine, Painter(inverted), target="hands")
    asked: list[float] = []

    def found(pixels: Pixels, *, models: Models, min_score: float) -> list[tuple[tuple[float, ...], float]]:
        asked.append(min_score)
        return [((300.0, 20.0, 360.0, 90.0), 0.9)]

    monkeypatch.setattr(detailer, "can_find_hands", lambda models: True)
    monkeypatch.setattr(detailer, "find_hands", found)
    processed = run(astronaut, engine, Painter(inverted), target="hands", min_confidence=0.2)
    assert processed.details["found"] == [{"box": [300, 20, 360, 90], "score": 0.9, "label": "hand"}]
    assert asked == [0.75]


def test_a_person_is_repainted_by_silhouette(astronaut: Pixels, engine: Engine, networks: Models) -> None:
    painter = Painter(inverted)
    processed = run(astronaut, engine, painter, target="people", dilate_px=0)
    (call,) = painter.calls
    assert processed.fields == {"Detailer found": "1 person"}
    silhouette = person_mask(astronaut, models=networks) >= 0.5
    assert (call["mask"] > 0).sum() == pytest.approx(silhouette.sum(), rel=0.05)
    assert not (call["mask"] > 0)[~silhouette].any()
    wider = Painter(inverted)
    run(astronaut, engine, wider, target="people", dilate_px=9)
    assert ((wider.calls[0]["mask"] > 0) | ~(call["mask"] > 0)).all()
    assert (wider.calls[0]["mask"] > 0).sum() > (call["mask"] > 0).sum()
