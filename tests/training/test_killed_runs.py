"""What is left of a run that was killed, whose disk is full or whose folder goes away: enough to go on to the bit."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import CPU
from tests.training.run_helpers import make_photos, settings
from webui.command_train import train_folder
from webui.jobs.cancel import JobInterrupted
from webui.library.catalog import Library
from webui.settings import CHECKOUT
from webui.training.config import TrainingConfig
from webui.training.events import EventLines, LossReported, Paused, read_events
from webui.training.folders import RunFolder, new_run
from webui.training.process import PAUSED
from webui.training.run import run_training

NUM_STEPS = 12
KILLED_AFTER = 5


@pytest.fixture
def data_dir(tmp_path: Path, tiny_models_dir: Path) -> Path:
    shutil.copytree(tiny_models_dir / "checkpoints" / "tiny", tmp_path / "models" / "checkpoints" / "tiny")
    make_photos(tmp_path / "photos")
    return tmp_path


@pytest.fixture
def config(data_dir: Path) -> TrainingConfig:
    """A state after every step, and dropouts, which must go on as they would have."""
    return settings(
        data_dir / "photos",
        data={"caption_dropout": 0.3, "flip": True},
        network={"dropout": 0.1},
        schedule={"num_steps": NUM_STEPS, "save_every": NUM_STEPS, "state_every_s": 1e-6},
    )


def train(folder: RunFolder, data_dir: Path, *, until: int = NUM_STEPS + 1) -> tuple[int, list[dict[str, object]]]:
    """In this process, up to a pause before step `until`; exit code, and what was told as lines."""
    told = StringIO()

    def run(run_dir: Path, *, report: object, check: object) -> object:
        steps = [0]

        def counted(event: object) -> None:
            steps[0] = max(steps[0], event.step if isinstance(event, LossReported) else 0)
            report(event)  # type: ignore[operator]

        def leave() -> None:
            if steps[0] >= until:
                raise JobInterrupted

        library = Library([data_dir / "models"], data_dir / "cache")
        return run_training(run_dir, library, CPU, report=counted, check=leave, cache_dir=data_dir / "cache")

    code = train_folder(folder, run, stream=told)  # type: ignore[arg-type]
    return code, [json.loads(line) for line in told.getvalue().splitlines()]


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    return dict(load_file(folder.candidate(NUM_STEPS)))


def test_a_run_that_was_killed_goes_on_to_the_same_bits(data_dir: Path, config: TrainingConfig) -> None:
    straight, killed = (new_run(data_dir / "training", config) for _ in range(2))
    assert train(straight, data_dir)[0] == 0
    command = [sys.executable, "-m", "webui", "training-run", str(killed.path), "--data-dir", str(data_dir)]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(
        [*command, "--device", "cpu"], cwd=CHECKOUT, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "LossReported" and event["step"] >= KILLED_AFTER:
                process.kill()
                break
        process.stdout.read()
    assert process.returncode == -9
    assert killed.can_resume
    assert not killed.candidate(NUM_STEPS).exists()
    code, told = train(killed, data_dir)
    assert code == 0
    notes = [str(event["text"]) for event in told if event["event"] == "TrainingNote"]
    assert any(note.startswith("Resumed after step") for note in notes)
    assert min(int(str(event["step"])) for event in told if event["event"] == "LossReported") >= KILLED_AFTER
    one, other = weights(straight), weights(killed)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """As on a disk that gets full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_stops_a_run_with_a_sentence_and_leaves_its_state(data_dir: Path, config: TrainingConfig) -> None:
    folder = new_run(data_dir / "training", config)
    assert train(folder, data_dir, until=4)[0] == 3
    state = (folder.state / "state.pt").read_bytes()
    with no_file_larger_than(len(state) // 2):
        code, told = train(folder, data_dir)
    assert code == 2
    assert "could not be written" in str(told[-1]["message"])
    assert "Make room on the disk" in str(told[-1]["hint"])
    assert (folder.state / "state.pt").read_bytes() == state
    assert [path.name for path in folder.state.iterdir()] == ["state.pt"]
    code, told = train(folder, data_dir)
    assert code == 0, told[-1]


def test_a_folder_that_is_removed_in_the_middle_stops_a_run_with_a_sentence(
    data_dir: Path, config: TrainingConfig
) -> None:
    folder = new_run(data_dir / "training", config)
    told = StringIO()

    def run(run_dir: Path, *, report: object, check: object) -> object:
        def remove(event: object) -> None:
            if isinstance(event, LossReported) and event.step == 3:
                shutil.rmtree(folder.path)
            report(event)  # type: ignore[operator]

        library = Library([data_dir / "models"], data_dir / "cache")
        return run_training(run_dir, library, CPU, report=remove, check=lambda: None, cache_dir=data_dir / "cache")

    assert train_folder(folder, run, stream=told) == 2  # type: ignore[arg-type]
    failed = json.loads(told.getvalue().splitlines()[-1])
    assert "could not be written to the run's folder" in failed["message"]
    assert not folder.config.exists()


def test_a_run_that_nobody_listens_to_any_more_still_pauses_with_its_state(
    data_dir: Path, config: TrainingConfig
) -> None:
    folder = new_run(data_dir / "training", config)
    reading, writing = os.pipe()
    told = os.fdopen(writing, "w")

    def run(run_dir: Path, *, report: object, check: object) -> object:
        def leave(event: object) -> None:
            if isinstance(event, LossReported) and event.step == 3:
                os.close(reading)
                folder.pause.touch()
            report(event)  # type: ignore[operator]

        library = Library([data_dir / "models"], data_dir / "cache")
        return run_training(run_dir, library, CPU, report=leave, check=check, cache_dir=data_dir / "cache")  # type: ignore[arg-type]

    assert train_folder(folder, run, stream=told) == PAUSED  # type: ignore[arg-type]
    assert list(read_events(folder.events))[-1] == Paused(step=3, num_steps=NUM_STEPS)
    with pytest.raises(BrokenPipeError):
        told.close()


def test_a_line_that_cannot_be_written_is_told_all_the_same(tmp_path: Path) -> None:
    told = StringIO()
    with pytest.raises(Exception, match="could not be written to the run's folder"):
        EventLines(tmp_path / "gone" / "events.jsonl", told)(Paused(step=1, num_steps=2))
    assert json.loads(told.getvalue())["event"] == "Paused"
