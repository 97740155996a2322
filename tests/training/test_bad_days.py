"""What goes wrong around a run costs no more than the steps since the last state, and is told in a sentence."""

import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.run_helpers import make_photos, own_library, run, settings
from webui.errors import InvalidNumbers, StorageError, WebUIError
from webui.jobs.events import JobEvent
from webui.library.catalog import Library
from webui.training.alone import RunInUse, alone, is_in_use
from webui.training.events import LossReported, TrainingFinished
from webui.training.folders import RunFolder


@pytest.fixture
def library(tmp_path: Path, tiny_models_dir: Path) -> Library:
    return own_library(tmp_path, tiny_models_dir)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond four kilobytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


class At(list[JobEvent]):
    """Events; does something once, after update `step`."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def append(self, event: JobEvent) -> None:
        super().append(event)
        if isinstance(event, LossReported) and event.step == self.step:
            self.happen()

    def happen(self) -> None:
        raise NotImplementedError


def test_one_photo_is_enough(tmp_path: Path, library: Library) -> None:
    config = settings(make_photos(tmp_path / "photos", 1), data={"holdout": None}, schedule={"num_steps": 2})
    events: list[JobEvent] = []
    finished = run(tmp_path / "run", config, library, events=events)
    assert Path(finished.adapter).is_file()
    assert finished.best_step == 2
    assert "last step" in finished.validation["reason"]


def test_a_rate_that_is_far_too_high_ends_in_a_sentence_with_the_last_good_state(
    tmp_path: Path, photos: Path, library: Library
) -> None:
    optimizer = {"rate": 10.0, "schedule": "constant", "warmup": 0.0, "max_gradient_norm": 0.0}
    config = settings(photos, optimizer=optimizer, schedule={"num_steps": 60, "save_every": 60})
    with pytest.raises(InvalidNumbers, match=r"NaN or Inf in .*") as raised:
        run(tmp_path / "run", config, library)
    assert "learning rate" in raised.value.hint
    state = torch.load(RunFolder(tmp_path / "run").state / "state.pt", weights_only=True)
    assert state["step"] > 0
    assert all(bool(torch.isfinite(weight).all()) for weight in state["weights"].values())


def test_a_full_disk_leaves_the_state_before_and_the_run_goes_on_to_the_same_file(
    tmp_path: Path, photos: Path, library: Library
) -> None:
    class Full(At):
        def happen(self) -> None:
            stack.__enter__()

    config, stack = settings(photos), full_disk()
    straight = run(tmp_path / "one", config, library)
    folder = RunFolder(tmp_path / "two")
    try:
        with pytest.raises(StorageError, match="could not be written") as raised:
            run(folder.path, config, library, events=Full(3))
    finally:
        stack.__exit__(None, None, None)
    assert "Make room" in raised.value.hint
    assert torch.load(folder.state / "state.pt", weights_only=True)["step"] == 2
    assert not list(folder.path.rglob("*.part"))
    resumed = run(folder.path, config, library)
    one, two = load_file(straight.adapter), load_file(resumed.adapter)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_photos_that_are_gone_while_it_trains_are_not_missed_unless_they_have_to_be_read(
    tmp_path: Path, photos: Path, library: Library
) -> None:
    class Gone(At):
        def happen(self) -> None:
            photos.rename(tmp_path / "elsewhere")

    finished = run(tmp_path / "memory", settings(photos), library, events=Gone(1))
    assert Path(finished.adapter).is_file()
    (tmp_path / "elsewhere").rename(photos)
    config = settings(photos, data={"cache": "off"}, schedule={"save_every": 1, "num_steps": 3})
    folder = RunFolder(tmp_path / "off")
    with pytest.raises(WebUIError, match=r"photos.*png|png.*photos"):
        run(folder.path, config, library, events=Gone(1))
    with pytest.raises(WebUIError, match="photos"):
        run(folder.path, config, library)
    (tmp_path / "elsewhere").rename(photos)
    events: list[JobEvent] = []
    run(folder.path, config, library, events=events)
    assert [event.step for event in events if isinstance(event, LossReported)] == [2, 3], "nothing was lost"


def test_two_programs_do_not_work_in_one_folder(tmp_path: Path, photos: Path, library: Library) -> None:
    folder = tmp_path / "run"

    class Second(At):
        def happen(self) -> None:
            assert is_in_use(folder)
            with pytest.raises(RunInUse, match="Another process is working on the run"):
                run(folder, settings(photos), library)

    events = Second(2)
    finished = run(folder, settings(photos), library, events=events)
    assert isinstance(events[-1], TrainingFinished)
    assert not is_in_use(folder)
    assert Path(finished.adapter).is_file()
    with alone(folder), pytest.raises(RunInUse), alone(folder):
        raise AssertionError("two at once")


def test_a_best_candidate_that_was_removed_is_told(tmp_path: Path, photos: Path, library: Library) -> None:
    folder = RunFolder(tmp_path / "run")

    config = settings(photos, schedule={"num_steps": 1, "save_every": 2})
    run(folder.path, config, library)
    shutil.rmtree(folder.candidates)
    longer = settings(photos, schedule={"num_steps": 2, "save_every": 2}, validation={"num_train_photos": 1})
    measured = folder.path / "validation" / "000001.json"
    measured.write_text(measured.read_text().replace('"gains": [', '"gains": [9.0, '))
    with pytest.raises(StorageError, match="step 1, which is the best, is gone") as raised:
        run(folder.path, longer, library)
    assert "--pick" in raised.value.hint
