"""Whole runs on a tiny random checkpoint, from photos on the disk to a file that the program lists and can use."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.conftest import CPU
from tests.models import write_checkpoint
from tests.training.run_helpers import make_photos, own_library, run, settings
from webui.errors import InvalidRequest, StorageError
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import JobEvent
from webui.library.catalog import Library
from webui.training.events import CandidateSaved, Estimated, LossReported, TrainingFinished, ValidationReported
from webui.training.folders import RunFolder
from webui.training.picking import pick
from webui.training.run import run_training


@pytest.fixture
def library(tmp_path: Path, tiny_models_dir: Path) -> Library:
    return own_library(tmp_path, tiny_models_dir)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def test_a_run_ends_with_an_adapter_in_the_library(tmp_path: Path, photos: Path, library: Library) -> None:
    events: list[JobEvent] = []
    finished = run(tmp_path / "run", settings(photos, validation={"samples": True}), library, events=events)
    path = Path(finished.adapter)
    assert path == tmp_path / "models" / "loras" / "ruby.safetensors"
    assert finished.best_step in (2, 4)
    assert finished.validation
    kinds = [type(event) for event in events]
    assert kinds.index(Estimated) < kinds.index(LossReported)
    first, second = (event for event in events if isinstance(event, Estimated))
    assert first.seconds_per_candidate is None and first.num_candidates == 2
    assert second.seconds_per_candidate is not None and second.seconds_per_candidate > 0
    assert replace(second, seconds_per_candidate=None) == first, "told again once the base was measured"
    assert all(event.seconds_left is not None for event in events if isinstance(event, LossReported))
    assert [e.step for e in events if isinstance(e, CandidateSaved)] == [2, 4]
    assert [e.step for e in events if isinstance(e, ValidationReported)][-2:] == [2, 4]
    assert kinds[-1] is TrainingFinished
    library.refresh()
    (adapter,) = library.files("adapter")
    assert adapter.name == "ruby"
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["ss_output_name"] == "ruby"
    assert any(float(tensor.abs().max()) > 0 for name, tensor in load_file(path).items() if "lora_up" in name)
    assert path.with_suffix(".json").is_file()


def test_a_second_run_of_the_same_name_replaces_nothing(tmp_path: Path, photos: Path, library: Library) -> None:
    first = run(tmp_path / "one", settings(photos), library)
    before = Path(first.adapter).read_bytes()
    second = run(tmp_path / "two", settings(photos, schedule={"seed": 1}), library)
    assert Path(second.adapter).name == "ruby-2.safetensors"
    assert Path(first.adapter).read_bytes() == before


def test_a_run_that_is_over_only_says_again_what_came_out(tmp_path: Path, photos: Path, library: Library) -> None:
    events: list[JobEvent] = []
    first = run(tmp_path / "run", settings(photos), library)
    assert run(tmp_path / "run", settings(photos), library, events=events) == first
    assert events == [first]
    assert [path.name for path in (tmp_path / "models" / "loras").glob("*.safetensors")] == ["ruby.safetensors"]


def test_a_run_that_is_stopped_goes_on_to_the_same_file(tmp_path: Path, photos: Path, library: Library) -> None:
    """With a text encoder that is trained, with dropouts, in two sittings."""
    config = settings(photos, data={"caption_dropout": 0.3, "flip": True}, network={"dropout": 0.1})
    straight = run(tmp_path / "one", config, library)
    asked = [0]

    def check() -> None:
        asked[0] += 1
        if RunFolder(tmp_path / "two").candidate(2).is_file():
            raise JobInterrupted

    with pytest.raises(JobInterrupted):
        run(tmp_path / "two", config, library, check=check)
    resumed = run(tmp_path / "two", config, library)
    assert asked[0] > 0
    one, two = load_file(straight.adapter), load_file(resumed.adapter)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_other_photos_and_another_base_are_refused_when_resuming(
    tmp_path: Path, photos: Path, library: Library
) -> None:
    folder = tmp_path / "run"
    run(folder, settings(photos), library)
    with pytest.raises(InvalidRequest, match=r"network\.rank = 2, which is now 3"):
        run(folder, settings(photos, network={"rank": 3}), library)
    with pytest.raises(InvalidRequest, match="'tiny', not on 'tiny-v'"):
        run(folder, settings(photos).model_copy(update={"base": "tiny-v"}), library)
    Image.new("RGB", (64, 64), "green").save(photos / "0.png")
    with pytest.raises(InvalidRequest, match="The photos are not those"):
        run(folder, settings(photos, schedule={"num_steps": 5}), library)


def test_a_finished_run_goes_on_when_it_is_made_longer(tmp_path: Path, photos: Path, library: Library) -> None:
    events: list[JobEvent] = []
    run(tmp_path / "run", settings(photos), library)
    run(tmp_path / "run", settings(photos, schedule={"num_steps": 6}), library, events=events)
    assert [e.step for e in events if isinstance(e, LossReported)] == [5, 6]


@pytest.mark.parametrize("method", ["embedding", "pivotal", "full"])
def test_words_and_whole_models_go_where_they_belong(
    tmp_path: Path, photos: Path, library: Library, method: str
) -> None:
    network = {"method": method, "num_vectors": 2}
    config = settings(photos, network=network, data={"trigger": "zrk", "class_word": "red"})
    finished = run(tmp_path / "run", config, library)
    room = {"embedding": "embeddings", "pivotal": "loras", "full": "checkpoints"}[method]
    assert Path(finished.adapter).parent == tmp_path / "models" / room
    step = int(max(RunFolder(tmp_path / "run").candidates.iterdir()).stem)
    again = pick(tmp_path / "run", step, None, library, CPU, report=lambda event: None)
    assert (again.adapter, again.best_step) == (finished.adapter, step), "another candidate takes its place"
    there = [path for path in (tmp_path / "models").glob("*/*") if path.is_dir() or path.suffix == ".safetensors"]
    assert len(there) == (2 if method == "pivotal" else 1)
    library.refresh()
    if method == "full":
        assert library.find_checkpoint(Path(finished.adapter).stem).problem == ""
        assert len(list(RunFolder(tmp_path / "run").candidates.iterdir())) <= 2, "only the best and the last are kept"
    if method == "pivotal":
        assert (tmp_path / "models" / "embeddings" / "zrk.safetensors").is_file()


def test_class_pictures_are_drawn_once_and_trained_on(tmp_path: Path, photos: Path, library: Library) -> None:
    config = settings(photos, data={"num_prior_images": 2, "class_word": "thing"})
    run(tmp_path / "run", config, library)
    drawn = sorted(RunFolder(tmp_path / "run").class_pictures.iterdir())
    assert [path.name for path in drawn] == ["class-0000.png", "class-0001.png"]
    before = [path.stat().st_mtime_ns for path in drawn]
    longer = config.schedule.model_copy(update={"num_steps": 5})
    run(tmp_path / "run", config.model_copy(update={"schedule": longer}), library)
    assert [path.stat().st_mtime_ns for path in drawn] == before


def test_a_checkpoint_that_is_removed_while_a_run_trains_harms_nothing(tmp_path: Path, photos: Path) -> None:
    models = tmp_path / "own"
    write_checkpoint(models / "checkpoints" / "tiny", seed=3)
    library = Library([models], tmp_path / "cache")

    def gone(event: JobEvent) -> None:
        if isinstance(event, LossReported):
            shutil.rmtree(models / "checkpoints" / "tiny", ignore_errors=True)

    RunFolder(tmp_path / "run").write_config(settings(photos))
    finished = run_training(tmp_path / "run", library, CPU, report=gone, check=lambda: None)
    assert Path(finished.adapter).is_file()


def test_what_cannot_be_trained_is_refused_before_anything_is_done(
    tmp_path: Path, photos: Path, library: Library
) -> None:
    with pytest.raises(InvalidRequest, match="nothing to learn from pure noise"):
        run(tmp_path / "a", settings(photos, loss={"zero_terminal_snr": True}), library)
    with pytest.raises(InvalidRequest, match="bitsandbytes"):
        run(tmp_path / "b", settings(photos, optimizer={"name": "adamw8bit"}), library)
    with pytest.raises((InvalidRequest, StorageError)):
        run(tmp_path / "c", settings(tmp_path / "nowhere"), library)
