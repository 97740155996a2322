"""Photos of people as training sees them through the networks that come along: checked, and compared by their faces."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tests.extension_files import settings_for
from tests.extensions.face_consistency.story import group
from tests.models import write_checkpoint
from tests.training.validation_helpers import denoising_for
from webui.app import build_training
from webui.command_train import train_folder
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.plugins.host import PluginHost
from webui.settings import CHECKOUT
from webui.training.base import attached
from webui.training.config import Data, TrainingConfig
from webui.training.data.checks import find_problems
from webui.training.data.faces import FaceReader
from webui.training.data.problems import Problem
from webui.training.data.sources import find_photos
from webui.training.events import TrainingFinished, TrainingNote, read_events
from webui.training.folders import RunFolder
from webui.training.networks.trainable import Trainable
from webui.training.validation.examining import Examiner
from webui.training.validation.likeness import SameFace
from webui.training.validation.photos import MeasuredPhoto


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> FaceReader:
    """What a program with nothing but its own extensions reads faces with."""
    host = PluginHost(settings_for(tmp_path_factory.mktemp("data")))
    host.load()
    reader = host.face_reader()
    assert reader is not None, host.why_no_faces()
    return reader


def woman(number: int = 0) -> Image.Image:
    """Photo `number` of the astronaut, head and shoulders: another part, brightness and tilt in each."""
    photo = Image.fromarray(data.astronaut()).rotate(3 * number - 6, Image.Resampling.BICUBIC, center=(224, 110))
    left, top = 70 + 12 * number, 10 * (number % 3)
    part = photo.crop((left, top, left + 280, top + 280))
    return part.point(lambda level: min(int(level * (0.85 + 0.08 * number)), 255))


def others() -> list[Image.Image]:
    """Five other people, one on each."""
    everybody = Image.fromarray(group())
    centers = [(515, 344), (112, 334), (795, 411), (1176, 338), (316, 208)]
    return [everybody.crop((x - 110, y - 110, x + 110, y + 110)).resize((280, 280)) for x, y in centers]


def landscape() -> Image.Image:
    return Image.fromarray(data.coffee()).crop((0, 0, 300, 300))


Checked = Callable[[Sequence[Image.Image]], dict[str, Problem]]


@pytest.fixture
def checked(tmp_path: Path, faces: FaceReader) -> Checked:
    def check(pictures: Sequence[Image.Image]) -> dict[str, Problem]:
        """What is wrong with their people, by kind."""
        for i, picture in enumerate(pictures):
            picture.save(tmp_path / f"{i}.png")
        photos = find_photos(tmp_path, unpack_to=tmp_path).photos
        settings = Data(photos=tmp_path, trigger="zorb", resolution=256)
        plain = {each.sentence for each in find_problems(photos, (), settings, "object")}
        found = find_problems(photos, (), settings, "person", faces=faces)
        return {each.kind: each for each in found if each.sentence not in plain}

    return check


def test_photos_of_one_person_are_fine(checked: Checked) -> None:
    assert checked([woman(number) for number in range(4)]) == {}


def test_a_photo_without_a_face_another_person_and_company_are_found(checked: Checked) -> None:
    company = Image.new("RGB", (560, 280))
    company.paste(woman(4), (0, 0))
    company.paste(others()[0], (280, 0))
    found = checked([*(woman(number) for number in range(4)), landscape(), others()[1], company])
    assert {kind: problem.names for kind, problem in found.items()} == {
        "no face": ("4.png",),
        "another person": ("5.png",),
        "several faces": ("6.png",),
    }
    crop = found["several faces"].fixes[0].edits["6.png"].crop
    assert crop is not None
    assert 200 < crop[2] <= 410, "the other one is cut off, she is not"


@pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180])
def test_a_turned_photo_shows_the_same_person(faces: FaceReader, turn: Image.Transpose) -> None:
    compare = SameFace(faces, [woman(1)])
    assert compare(woman(2).transpose(turn)) > faces.same_person
    assert compare(others()[0]) < faces.same_person


def test_a_face_that_is_too_small_is_found_but_not_told_apart(faces: FaceReader) -> None:
    large = faces.read(np.asarray(woman()))[0]
    small = faces.read(np.asarray(woman().resize((80, 80), Image.Resampling.LANCZOS)))
    assert large.embedding is not None
    assert abs(float(np.linalg.norm(large.embedding)) - 1) < 1e-5
    assert [face.embedding for face in small] == [None]


def test_the_largest_face_is_the_first(faces: FaceReader) -> None:
    heights = [face.box[3] - face.box[1] for face in faces.read(group())]
    assert len(heights) == 6
    assert heights[0] == max(heights)


def measured(image: Image.Image, name: str) -> MeasuredPhoto:
    latent = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(len(name)))
    return MeasuredPhoto(name=name, sha256=name, image=image, latent=latent, caption="a zorb")


def config(**more: object) -> TrainingConfig:
    values = {
        "name": "zoe",
        "base": "tiny",
        "subject": "person",
        "data": {"photos": "photos", "trigger": "zorb", "class_word": "woman", "resolution": 64, "holdout": 1},
        "network": {"rank": 2},
        "schedule": {"num_steps": 1, "save_every": 1},
        "validation": {
            "num_timesteps": 1,
            "num_train_photos": 1,
            "num_inference_steps": 1,
            "weights": [1.0],
            "prompts": ["{trigger}"],
        },
    }
    return TrainingConfig.model_validate({**values, **more})


@contextmanager
def attached_network(model: Model) -> Iterator[Trainable]:
    network = attached(model, config())
    try:
        yield network
    finally:
        network.detach()


def test_likeness_of_people_is_that_of_their_faces_to_photos_that_were_kept_back(
    manager: PipelineManager, tmp_path: Path, faces: FaceReader
) -> None:
    """The photos trained on show somebody else: they are like themselves, and do not count."""

    def likeness(trained: Sequence[Image.Image], held_out: Sequence[Image.Image], folder: Path) -> float:
        model = manager.load("tiny")
        with attached_network(model) as network:
            examiner = Examiner(
                model,
                network,
                denoising_for(model, live=True),
                config(),
                train=[measured(image, f"trained {i}") for i, image in enumerate(trained)],
                held_out=[measured(image, f"kept back {i}") for i, image in enumerate(held_out)],
                folder=folder,
                report=lambda event: None,
                check=lambda: None,
                faces=faces,
            )
            examiner.prepare()
        scale = json.loads((folder / "validation" / "base.json").read_text())["scale"]
        assert scale["base_likeness"] == 0.0, "the tiny model draws nobody"
        return float(scale["photo_likeness"])

    same = likeness([woman(0), woman(1)], [woman(3)], tmp_path / "same")
    stranger = likeness(
        [others()[0], others()[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)], [woman(3)], tmp_path / "strangers"
    )
    assert same > 0.6
    assert stranger < faces.same_person


def trained(folder: Path, subject: str) -> tuple[list[str], dict[str, float]]:
    """A run of one step on photos of her, as the program starts it: what it warned of, and its scale."""
    (folder / "photos").mkdir()
    for number in range(4):
        woman(number).crop((60, 40, 220, 200)).save(folder / "photos" / f"{number}.png")
    write_checkpoint(folder / "models" / "checkpoints" / "tiny")
    run = RunFolder(folder / "run")
    photos = {"photos": folder / "photos", "trigger": "zorb", "resolution": 128, "bucket_step": 32, "holdout": 1}
    run.write_config(config(subject=subject, data=photos))
    assert train_folder(run, build_training(settings_for(folder)), stream=StringIO()) == 0
    events = list(read_events(run.events))
    assert isinstance(events[-1], TrainingFinished)
    scale = json.loads((run.path / "validation" / "base.json").read_text())["scale"]
    return [event.text for event in events if isinstance(event, TrainingNote) and event.kind == "warning"], scale


def test_a_run_of_a_person_goes_by_faces(tmp_path: Path) -> None:
    warnings, scale = trained(tmp_path, "person")
    assert [warning for warning in warnings if "ace" in warning] == []
    assert scale["base_likeness"] == 0.0
    assert scale["photo_likeness"] > 0.5


def test_a_run_goes_on_without_faces_where_the_extension_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = tmp_path / "extensions" / "torn_faces"
    shutil.copytree(CHECKOUT / "extensions" / "face_consistency", torn, ignore=shutil.ignore_patterns("__pycache__"))
    (torn / "models" / "face_detection_yunet_2023mar.onnx").unlink()
    manifest = torn / "extension.toml"
    manifest.write_text(manifest.read_text().replace('id = "face_consistency"', 'id = "torn_faces"'))
    monkeypatch.setattr("webui.plugins.host.extension_folders", lambda settings: (torn.parent,))
    warnings, scale = trained(tmp_path, "person")
    (warning,) = [warning for warning in warnings if "ace" in warning]
    assert warning.startswith("Faces cannot be read: Face consistency: ")
    assert "face_detection_yunet_2023mar.onnx" in warning
    assert scale["base_likeness"] != 0.0


def test_a_run_of_a_thing_loads_no_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: PluginHost) -> None:
        raise AssertionError("an extension is loaded")

    monkeypatch.setattr(PluginHost, "load", refuse)
    warnings, _ = trained(tmp_path, "object")
    assert [warning for warning in warnings if "ace" in warning] == []
