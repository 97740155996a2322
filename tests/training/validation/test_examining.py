"""The whole of measuring on a tiny model: what is told, what is kept, what is left as it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.validation_helpers import denoising_for, photos
from webui.errors import StorageError
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import JobEvent
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.training.base import attached
from webui.training.config import TrainingConfig
from webui.training.data.faces import Pixels, SeenFace
from webui.training.events import SampleReady, TrainingNote, ValidationReported
from webui.training.networks.trainable import Trainable
from webui.training.validation.examining import Examiner


def config(method: str = "lora", **more: Any) -> TrainingConfig:
    validation = {
        "num_timesteps": 2,
        "num_inference_steps": 1,
        "weights": [1.0],
        "prompts": ["{trigger} a", "b {class}"],
    }
    return TrainingConfig.model_validate(
        {
            "name": "test",
            "base": "tiny",
            "data": {"photos": "photos", "trigger": "zorb", "class_word": "cat", "resolution": 64},
            "network": {"method": method, "rank": 2, "num_vectors": 2},
            "validation": {**validation, **more.pop("validation", {})},
            **more,
        }
    )


@pytest.fixture
def model(manager: PipelineManager) -> Model:
    return manager.load("tiny")


@contextmanager
def examined(
    model: Model, folder: Path, settings: TrainingConfig, *, held_out: Sequence[int] = (8, 9), **more: Any
) -> Iterator[tuple[Examiner, Trainable, list[JobEvent]]]:
    events: list[JobEvent] = []
    torch.manual_seed(0)
    network = attached(model, settings)
    options = {"report": events.append, "check": lambda: None, **more}
    try:
        yield (
            Examiner(
                model,
                network,
                denoising_for(model, live=True),
                settings,
                train=photos(range(4)),
                held_out=photos(held_out),
                folder=folder,
                **options,
            ),
            network,
            events,
        )
    finally:
        network.detach()


def moved(network: Trainable, seed: int = 1, by: float = 0.05) -> None:
    """Changes what is trained, as an update would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in network.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=by)


def of(kind: type[Any], events: Sequence[JobEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_a_candidate_is_measured_at_each_weight_and_told(model: Model, tmp_path: Path) -> None:
    both = config(validation={"weights": [0.5, 1.0]})
    with examined(model, tmp_path, both) as (examiner, network, events):
        examiner.prepare()
        moved(network)
        examiner.examine(100)
        choice = examiner.choose()
    (told,) = of(ValidationReported, events)
    assert told.step == 100
    assert told.train != told.base_train
    assert told.held_out is not None
    assert set(told.bands) == {f"{name} {band}" for name in ("trained", "held out") for band in ("0-332", "667-999")}
    samples = of(SampleReady, events)
    assert {(sample.weight, sample.prompt) for sample in samples} == {
        (weight, prompt) for weight in (0.5, 1.0) for prompt in ("zorb a", "b cat")
    }
    assert all(Image.open(sample.path).size == (64, 64) for sample in samples)
    assert len({(sample.prompt, sample.seed) for sample in samples}) == 4
    assert (choice.step, len(choice.rows)) == (100, 2)
    assert examiner.best_picture(choice) in {Path(sample.path) for sample in samples}


def test_a_network_that_learned_nothing_is_as_good_as_the_base(model: Model, tmp_path: Path) -> None:
    with examined(model, tmp_path, config()) as (examiner, _, events):
        examiner.examine(1)
        choice = examiner.choose()
    (told,) = of(ValidationReported, events)
    assert (told.train, told.held_out) == (told.base_train, told.base_held_out)
    assert all(row.gain == 0.0 for row in choice.rows)


def test_what_was_measured_is_not_measured_again_after_a_resume(model: Model, tmp_path: Path) -> None:
    with examined(model, tmp_path, config()) as (examiner, network, _):
        examiner.prepare()
        moved(network)
        examiner.examine(100)
        first = examiner.choose()
    with examined(model, tmp_path, config()) as (examiner, network, events):
        examiner.prepare()
        examiner.examine(100)
        assert events == []
        assert examiner.choose() == first
        moved(network)
        examiner.examine(200)
        second = {row.step: row for row in examiner.choose().rows if row.weight == 1.0}
    assert second[100].gain == second[200].gain, "the same weights, measured in two sessions"
    assert second[100].likeness == second[200].likeness


def test_the_base_tells_what_a_candidate_should_take(model: Model, tmp_path: Path) -> None:
    """The clock says: errors of 4 and 2 photos in 6 s, samples and their verdicts in 10 s."""
    both = config(validation={"weights": [0.5, 1.0]})
    with examined(model, tmp_path, both, clock=iter((0.0, 6.0, 16.0)).__next__) as (examiner, _, _):
        assert examiner.candidate_s is None
        examiner.prepare()
        assert examiner.candidate_s == 6.0 + 6.0 * 2 / 6 + 2 * 10.0, "photos kept back and samples come at each weight"
    with examined(model, tmp_path, both) as (examiner, _, _):
        examiner.prepare()
        assert examiner.candidate_s is None, "nothing was measured this time"


def test_measurements_of_other_photos_or_prompts_are_not_compared(model: Model, tmp_path: Path) -> None:
    with examined(model, tmp_path, config()) as (examiner, _, _):
        examiner.examine(100)
    others = config(validation={"prompts": ["something else"]})
    with examined(model, tmp_path, others) as (examiner, _, _), pytest.raises(ValueError, match="Nothing was measured"):
        examiner.choose()


@pytest.mark.parametrize("method", ["lora", "embedding", "full"])
def test_measuring_changes_nothing(model: Model, tmp_path: Path, method: str) -> None:
    with examined(model, tmp_path, config(method)) as (examiner, network, _):
        moved(network, by=0.01)
        before = {name: tensor.clone() for name, tensor in network.state().items()}
        torch.manual_seed(5)
        random = torch.get_rng_state()
        embeds = [encoder.embed for encoder in model.text_encoder.encoders]
        examiner.prepare()
        examiner.examine(10)
        assert torch.equal(torch.get_rng_state(), random)
        assert [encoder.embed for encoder in model.text_encoder.encoders] == embeds
        after = network.state()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("method", ["embedding", "full"])
def test_what_has_no_weight_in_a_prompt_is_measured_as_it_is(model: Model, tmp_path: Path, method: str) -> None:
    settings = config(method, validation={"weights": [0.5, 0.8], "samples": False})
    with examined(model, tmp_path, settings) as (examiner, _, _):
        examiner.examine(1)
        assert [row.weight for row in examiner.choose().rows] == [1.0]


def test_broken_weights_are_recorded_as_broken(model: Model, tmp_path: Path) -> None:
    with examined(model, tmp_path, config()) as (examiner, network, _):
        moved(network)
        examiner.examine(100)
        moved(network, by=float("nan"))
        examiner.examine(200)
        choice = examiner.choose()
    assert choice.step == 100
    assert {row.out for row in choice.rows if row.step == 200} == {"its errors are no numbers any more"}


def test_without_samples_the_errors_alone_are_measured(model: Model, tmp_path: Path) -> None:
    with examined(model, tmp_path, config(validation={"samples": False})) as (examiner, network, events):
        moved(network, by=0.01)
        examiner.examine(100)
        choice = examiner.choose()
    assert of(SampleReady, events) == []
    assert not (tmp_path / "samples").exists()
    assert "error on photos kept back" in choice.reason
    assert examiner.best_picture(choice) is None


def test_without_photos_kept_back_the_pictures_decide(model: Model, tmp_path: Path) -> None:
    with examined(model, tmp_path, config(), held_out=()) as (examiner, network, events):
        moved(network)
        examiner.examine(100)
        choice = examiner.choose()
    (told,) = of(ValidationReported, events)
    assert told.held_out is None
    assert all(row.gain is None and row.likeness is not None for row in choice.rows)


def test_a_run_can_be_paused_while_it_measures(model: Model, tmp_path: Path) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise JobInterrupted

    with examined(model, tmp_path, config(), check=check) as (examiner, _, _):
        with pytest.raises(JobInterrupted):
            for step in range(1, 50):
                examiner.examine(step)
        measured = len(list((tmp_path / "validation").glob("[0-9]*.json")))
        calls = -10_000
        examiner.examine(measured + 1)
        assert len(examiner.choose().rows) == measured + 1


def test_a_folder_that_cannot_be_written_is_named(model: Model, tmp_path: Path) -> None:
    (tmp_path / "validation").write_text("in the way")
    with examined(model, tmp_path, config()) as (examiner, _, _), pytest.raises(StorageError, match=r"base\.json"):
        examiner.prepare()


class Reader:
    """Finds a face in what is bright in its middle; whose it is, its colour says."""

    same_person = 0.5

    def read(self, pixels: Pixels) -> Sequence[SeenFace]:
        middle = pixels[24:40, 24:40].reshape(-1, 3).mean(axis=0)
        if middle.max() < self.threshold:
            return []
        return [SeenFace(box=(0, 0, 1, 1), embedding=(middle / np.linalg.norm(middle)).astype(np.float32))]

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold


def test_people_are_compared_by_their_faces(model: Model, tmp_path: Path) -> None:
    with examined(model, tmp_path, config(), faces=Reader(0.0)) as (examiner, _, events):
        examiner.examine(1)
        likenesses = [sample.likeness for sample in of(SampleReady, events)]
    assert of(TrainingNote, events) == []
    with examined(model, tmp_path, config()) as (examiner, _, events):
        examiner.examine(1)
        assert [sample.likeness for sample in of(SampleReady, events)] != likenesses


def test_without_a_face_in_the_photos_the_whole_picture_is_compared_and_it_is_said(
    model: Model, tmp_path: Path
) -> None:
    with examined(model, tmp_path, config(), faces=Reader(300.0)) as (examiner, _, events):
        examiner.examine(1)
        assert all(sample.likeness is not None for sample in of(SampleReady, events))
    (note,) = of(TrainingNote, events)
    assert note.kind == "warning"
    assert "No face" in note.text
