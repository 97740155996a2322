"""What cannot run is refused before it waits, by the name of the field; consent is asked for first of all."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extensions.face_consistency import postprocessors
from extensions.face_consistency.consent import TERMS, ConsentBook
from extensions.face_consistency.engine import engine_of
from extensions.face_consistency.params import DetailerParams, FaceParams, FaceSettings
from tests.onnx_files import write_arcface, write_swapper
from webui.generation.request import Img2Img
from webui.hooks import ExtensionContext, Extras, GenerationRequest, InvalidRequest
from webui.settings import CHECKOUT

PICTURE = Image.new("RGB", (64, 64))
FROM_NOTHING = GenerationRequest(checkpoint="paper")
FROM_A_PICTURE = replace(FROM_NOTHING, init=Img2Img(image=PICTURE))
FINISHED = GenerationRequest(checkpoint="", init=Extras(image=PICTURE))


@pytest.fixture
def context(tmp_path: Path, shipped: Path) -> ExtensionContext:
    return ExtensionContext(
        id="face_consistency",
        folder=shipped.parent,
        data_dir=tmp_path / "data",
        models_dirs=(tmp_path / "models",),
        settings=FaceSettings,
        max_image_pixels=10_000_000,
    )


def refused(context: ExtensionContext, request: GenerationRequest, **params: Any) -> InvalidRequest:
    _, face_consistency = postprocessors(context)
    with pytest.raises(InvalidRequest) as caught:
        face_consistency.check(FaceParams(**{"consent": True, **params}), request)
    return caught.value


def test_without_consent_nothing_is_queued_and_nothing_is_kept(context: ExtensionContext) -> None:
    error = refused(context, FROM_A_PICTURE, consent=False)
    assert error.field == "consent"
    assert TERMS in str(error)
    assert not context.data_dir.exists()


def test_the_day_of_the_first_consent_is_kept(context: ExtensionContext) -> None:
    _, face_consistency = postprocessors(context)
    face_consistency.check(FaceParams(consent=True), FROM_A_PICTURE)
    (file,) = context.data_dir.iterdir()
    first = json.loads(file.read_text())
    assert first["given"] == engine_of(context).consent.given()
    assert first["terms"] == TERMS
    face_consistency.check(FaceParams(consent=True), FROM_A_PICTURE)
    assert json.loads(file.read_text()) == first
    ConsentBook(context.data_dir).take_back()
    assert engine_of(context).consent.given() == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '"yes"', "\x00"])
def test_a_damaged_record_is_no_consent(content: str, tmp_path: Path) -> None:
    (tmp_path / "consent.json").write_text(content)
    book = ConsentBook(tmp_path)
    assert book.given() == ""
    assert book.give() == book.given() != ""


@pytest.mark.parametrize("request_", [FROM_NOTHING, FINISHED], ids=["prompt", "finished"])
def test_a_picture_of_nobody_needs_a_photo(request_: GenerationRequest, context: ExtensionContext) -> None:
    assert refused(context, request_).field == "photos"
    _, face_consistency = postprocessors(context)
    face_consistency.check(FaceParams(consent=True, photos=("a",)), request_)


@pytest.mark.parametrize(
    ("params", "field", "words"),
    [
        ({"swap": True}, "swap", "no face swapper"),
        ({"swap": True, "swap_model": "x"}, "swap_model", "no face swapper named 'x'"),
        ({"restore": True}, "restore", "no face restorer"),
        ({"gender": "female"}, "gender", "no gender and age network"),
        ({"safety": "warn"}, "safety", "no safety detector"),
        ({"faces": "alike"}, "reference", "no reference"),
        ({"faces": "numbers", "numbers": ()}, "numbers", "No face is named"),
        ({"saved_face": "Ada"}, "saved_face", "no saved face named 'Ada'"),
    ],
)
def test_what_is_missing_is_named(params: dict[str, Any], field: str, words: str, context: ExtensionContext) -> None:
    error = refused(context, FROM_A_PICTURE, **params)
    assert error.field == field
    assert words in error.message
    assert error.hint


def test_a_swapper_alone_cannot_swap_a_photo(context: ExtensionContext, tmp_path: Path) -> None:
    face = tmp_path / "models" / "face"
    write_swapper(face / "inswapper_128.onnx")
    assert "ArcFace" in refused(context, FROM_A_PICTURE, swap=True).message
    write_arcface(face / "w600k_r50.onnx")
    _, face_consistency = postprocessors(context)
    face_consistency.check(FaceParams(consent=True, swap=True), FROM_A_PICTURE)


def test_a_saved_face_cannot_be_warped(context: ExtensionContext) -> None:
    engine_of(context).saved.save("Ada", sface=[np.eye(128, dtype=np.float32)[0]])
    error = refused(context, FROM_A_PICTURE, saved_face="Ada")
    assert "not its pixels" in error.message
    assert "no ArcFace numbers" in refused(context, FROM_A_PICTURE, saved_face="Ada", swap=True).message
    _, face_consistency = postprocessors(context)
    face_consistency.check(FaceParams(consent=True, saved_face="Ada", photos=("a",)), FROM_A_PICTURE)


def test_finished_pictures_are_refined_only_with_a_checkpoint(context: ExtensionContext) -> None:
    assert refused(context, FINISHED, photos=("a",), refine=True).field == "refine"
    _, face_consistency = postprocessors(context)
    params = FaceParams(consent=True, photos=("a",), refine=True)
    face_consistency.check(params, replace(FINISHED, checkpoint="paper"))


def test_the_detailer_needs_a_detector_and_a_checkpoint(context: ExtensionContext) -> None:
    detailer, _ = postprocessors(context)
    detailer.check(DetailerParams(), FROM_NOTHING)
    for params, request, field in (
        (DetailerParams(target="hands"), FROM_NOTHING, "target"),
        (DetailerParams(detector="hand_yolov8n"), FROM_NOTHING, "detector"),
        (DetailerParams(min_area=0.5, max_area=0.1), FROM_NOTHING, "min_area"),
        (DetailerParams(), FINISHED, "target"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            detailer.check(params, request)
        assert caught.value.field == field


@pytest.mark.parametrize("model", [FaceParams, DetailerParams, FaceSettings])
def test_every_parameter_has_a_title_and_a_default(model: type[Any]) -> None:
    model()
    titles = [info.title for info in model.model_fields.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_the_detailer_runs_before_the_face_is_put_back(context: ExtensionContext) -> None:
    assert [one.id for one in postprocessors(context)] == ["detailer", "face_consistency"]


def test_the_extension_is_light_to_import() -> None:
    program = (
        "import sys, extensions.face_consistency;"
        "print({'cv2', 'torch', 'onnxruntime', 'gradio', 'fastapi', 'insightface'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set()", done.stderr
