"""Both postprocessors in the real engine, on a tiny checkpoint: what it repaints, and what it leaves alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.detection import find_faces
from extensions.face_consistency.face import Pixels
from tests.extensions.face_consistency.story import array, liquified, picture
from webui.generation.request import Img2Img, Sampling
from webui.generation.run import Generator
from webui.hooks import CancelToken, Extras, GenerationRequest, PostprocessStep, Processed
from webui.images.store import HeldPictures, ImageStore
from webui.jobs.events import JobEvent
from webui.pipeline.manager import PipelineManager
from webui.plugins.host import PluginHost
from webui.settings import CHECKOUT, load_settings


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginHost]:
    host = PluginHost(load_settings(data_dir=tmp_path_factory.mktemp("data")), folders=[CHECKOUT / "extensions"])
    host.load(only={"face_consistency"})
    yield host
    host.close()


class Engine:
    """A program without a page."""

    def __init__(self, manager: PipelineManager, host: PluginHost, folder: Path) -> None:
        self.pictures = HeldPictures()
        self.generator = Generator(manager, ImageStore(folder), host, inputs=self.pictures)
        self.events: list[JobEvent] = []

    def process(self, init: Img2Img | Extras, id: str, *, side_px: int = 64, **params: Any) -> Processed:
        request = GenerationRequest(
            checkpoint="tiny",
            width=side_px,
            height=side_px,
            seed=1,
            sampling=Sampling(num_inference_steps=2),
            init=init,
            postprocess=(PostprocessStep(id=id, params=params),),
        )
        (made,) = self.generator.process(request, report=self.events.append, cancel=CancelToken())
        return made


@pytest.fixture
def engine(manager: PipelineManager, host: PluginHost, tmp_path: Path) -> Engine:
    return Engine(manager, host, tmp_path)


def test_a_finished_picture_gets_the_face_of_a_kept_photo(engine: Engine, astronaut: Pixels) -> None:
    photo = engine.pictures.put(picture(astronaut))
    made = engine.process(Extras(image=picture(liquified(astronaut))), "face_consistency", photos=[photo])
    (face,) = made.details["faces"]
    assert face["action"] == "warped"
    assert made.is_composite
    assert made.badge is not None and made.badge.text.startswith("face 0.")
    assert made.fields["Face"].startswith("warped 0.")


def test_a_face_that_img2img_did_not_change_is_left_alone(engine: Engine, astronaut: Pixels) -> None:
    made = engine.process(Img2Img(image=picture(astronaut), strength=0), "face_consistency", side_px=320)
    (face,) = made.details["faces"]
    assert face["action"] == "skipped"
    assert face["similarity_after"] > 0.8
    assert not made.is_composite
    assert made.image.size == (320, 320)


def test_the_engine_refines_within_the_face(engine: Engine, astronaut: Pixels, networks: Models) -> None:
    target = liquified(astronaut)
    photo = engine.pictures.put(picture(astronaut))
    params = {"photos": [photo], "refine": True, "refine_strength": 0.3, "refine_size": 64}
    made = engine.process(Extras(image=picture(target)), "face_consistency", **params)
    (face,) = made.details["faces"]
    assert face["action"] == "warped+refined" or "refined" in face["reason"]
    assert any("redrawing" in getattr(event, "label", "") for event in engine.events)
    changed = (array(made.image) != target).any(axis=2)
    points = find_faces(target, models=networks)[0].points[:, :2]
    (left, top), (right, bottom) = points.min(axis=0).astype(int) - 40, points.max(axis=0).astype(int) + 40
    changed[top:bottom, left:right] = False
    assert not changed.any()


def test_the_engine_repaints_a_found_face_and_nothing_else(engine: Engine, astronaut: Pixels) -> None:
    made = engine.process(Extras(image=picture(astronaut)), "detailer", size=64, strength=0.6, blur_px=2)
    (found,) = made.details["found"]
    left, top, right, bottom = found["box"]
    changed = (array(made.image) != astronaut).any(axis=2)
    assert changed[top:bottom, left:right].mean() > 0.9
    changed[top - 12 : bottom + 12, left - 12 : right + 12] = False
    assert not changed.any()


def test_a_picture_without_a_face_is_told_and_kept(engine: Engine) -> None:
    blank = Image.new("RGB", (96, 80), "#556677")
    photo = engine.pictures.put(blank)
    made = engine.process(Extras(image=blank), "face_consistency", photos=[photo])
    assert made.details == {"faces": [], "reason": "No face was found in the photo."}
    assert np.array_equal(array(made.image), array(blank))
    assert any("No face was found" in note for note in made.notes)
