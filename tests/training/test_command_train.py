"""`launch.py train` and `training-run` around whatever trains: configs, folders, what is told, pausing, failing."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from tests.training.loop_helpers import config
from webui.cli import main
from webui.command_train import PAUSED, Shown, Train, told, train_folder, train_from_file
from webui.errors import InvalidRequest, ModelNotFound, OutOfDeviceMemory
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import Failed, JobEvent, Progress
from webui.training.config_file import config_text, read_config
from webui.training.events import (
    CandidateSaved,
    Estimated,
    LossReported,
    Paused,
    TrainingFinished,
    TrainingNote,
    ValidationReported,
    read_events,
)
from webui.training.folders import RunFolder, new_run, run_to_resume, runs_in

LOSS = LossReported(
    step=1, num_steps=2, loss=0.5, gradient_norm=1, rates={"unet": 1e-4}, seconds_per_step=3, seconds_left=200
)
Report = Callable[[JobEvent], None]
Check = Callable[[], None]


def trains(doing: Callable[[Path, Report, Check], None] = lambda run_dir, report, check: None) -> Train:
    def train(run_dir: Path, *, report: Report, check: Check) -> TrainingFinished:
        report(Progress(step=1, num_steps=2, label="training"))
        report(LOSS)
        doing(run_dir, report, check)
        finished = TrainingFinished(adapter="a.safetensors", best_step=4, best_weight=0.8, run_dir=str(run_dir))
        report(finished)
        return finished

    return train


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "mia.toml"
    path.write_text(config_text(config()))
    return path


def test_a_run_has_its_own_folder_and_ends_with_a_line_of_json(
    settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    for name in ("test", "test-2"):
        assert train_from_file(settings, runs, trains(), resume=False, stream=StringIO()) == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert last["run_dir"] == str(runs / name)
        assert (last["adapter"], last["best_step"], last["best_weight"]) == ("a.safetensors", 4, 0.8)
        assert "validation" in last
        assert read_config(runs / name / "config.toml") == read_config(settings)
    events = list(read_events(runs / "test" / "events.jsonl"))
    assert events[0] == LOSS, "progress is told, not kept"
    assert isinstance(events[-1], TrainingFinished)


def test_resuming_takes_the_latest_run_that_can(settings: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(ModelNotFound, match="run to resume"):
        train_from_file(settings, runs, trains(), resume=True, stream=StringIO())
    first, second = new_run(runs, config()), new_run(runs, config())
    first.state.mkdir()
    (first.state / "state.pt").touch()
    assert run_to_resume(runs, "test") == first, "the other one has no state"
    settings.write_text(config_text(config(schedule={"num_steps": 99})))
    train_from_file(settings, runs, trains(), resume=True, stream=StringIO())
    assert read_config(first.config).schedule.num_steps == 99, "with the settings as they are now"
    assert {run.path for run in runs_in(runs)} == {first.path, second.path}


@pytest.mark.parametrize("how", ["signal", "file"])
def test_a_run_pauses_on_ctrl_c_and_on_a_file(settings: Path, tmp_path: Path, how: str) -> None:
    def interrupted(run_dir: Path, report: Report, check: Check) -> None:
        check()
        if how == "signal":
            os.kill(os.getpid(), signal.SIGINT)
        else:
            RunFolder(run_dir).pause.touch()
        with pytest.raises(JobInterrupted):
            check()
        report(Paused(step=3, num_steps=6))
        raise JobInterrupted

    told_to = StringIO()
    before = signal.getsignal(signal.SIGINT)
    assert train_from_file(settings, tmp_path, trains(interrupted), resume=False, stream=told_to) == PAUSED
    assert "--resume" in told_to.getvalue()
    assert "Paused after step 3 of 6" in told_to.getvalue()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_pause_that_was_asked_for_before_does_not_stop_the_next_start(settings: Path, tmp_path: Path) -> None:
    folder = new_run(tmp_path, config())
    folder.pause.touch()
    assert train_folder(folder, trains(lambda run_dir, report, check: check()), stream=StringIO()) == 0


def test_what_fails_is_told_with_what_to_do(settings: Path, tmp_path: Path) -> None:
    def full(run_dir: Path, report: Report, check: Check) -> None:
        raise OutOfDeviceMemory("It does not fit.", hint="Use less.")

    def broken(run_dir: Path, report: Report, check: Check) -> None:
        raise RuntimeError("shapes")

    with pytest.raises(OutOfDeviceMemory):
        train_from_file(settings, tmp_path, trains(full), resume=False, stream=StringIO())
    for doing, code, words in ((full, 2, "It does not fit."), (broken, 1, "RuntimeError: shapes")):
        folder, lines = new_run(tmp_path, config()), StringIO()
        assert train_folder(folder, trains(doing), stream=lines) == code
        failed = list(read_events(folder.events))[-1]
        assert isinstance(failed, Failed)
        assert words in failed.message
        assert json.loads(lines.getvalue().splitlines()[-1])["event"] == "Failed"


def test_the_page_reads_every_event_as_a_line(tmp_path: Path) -> None:
    folder, lines = new_run(tmp_path, config()), StringIO()
    train_folder(folder, trains(), stream=lines)
    names = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert names == ["Progress", "LossReported", "TrainingFinished"]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = new_run(tmp_path, config())
    train_folder(folder, trains(), stream=StringIO())
    with folder.events.open("a") as file:
        file.write('{"event": "LossRep')
    assert [type(event) for event in read_events(folder.events)] == [LossReported, TrainingFinished]
    assert list(read_events(tmp_path / "none.jsonl")) == []


EVENTS: tuple[JobEvent, ...] = (
    TrainingNote(text="Hm.", kind="warning"),
    Estimated(peak_bytes=2**31, free_bytes=2**33, seconds_per_step=2.0, num_steps=30, changes=()),
    Estimated(peak_bytes=2**31, free_bytes=2**33, seconds_per_step=2.0, num_steps=30, num_candidates=4),
    ValidationReported(step=5, train=0.1, held_out=0.2, base_train=0.3, base_held_out=0.4),
    ValidationReported(step=5, train=0.1, held_out=None, base_train=0.3, base_held_out=None),
    CandidateSaved(step=5, path="x/000005.safetensors"),
    Paused(step=1, num_steps=2),
    TrainingFinished(adapter="a", best_step=1, best_weight=0.8, run_dir="r"),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_told_in_words(event: JobEvent) -> None:
    assert told(event)
    assert "None" not in told(event)
    stream = StringIO()
    Shown(stream)(event)
    assert stream.getvalue().strip() == told(event)


def test_the_estimate_counts_the_candidates_where_it_is_known_what_they_take() -> None:
    estimate = Estimated(peak_bytes=2**31, free_bytes=2**33, seconds_per_step=2.0, num_steps=30, num_candidates=4)
    assert told(estimate) == "30 steps of 2.00 s, 1 minutes without measuring 4 candidates; 2.0 of 8.0 GiB"
    known = replace(estimate, seconds_per_candidate=30.0)
    assert told(known) == "30 steps of 2.00 s, 4 candidates of 30.0 s to measure, 3 minutes; 2.0 of 8.0 GiB"


def test_losses_are_told_now_and_then() -> None:
    stream = StringIO()
    shown = Shown(stream)
    for _ in range(50):
        shown(LOSS)
    assert stream.getvalue().count("loss 0.5000") == 3
    assert "3 min left" in stream.getvalue()


def test_new_writes_a_config_for_the_starter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mia.toml"
    options = ["train", "--new", str(path), "--photos", str(tmp_path / "photos"), "--trigger", "mia"]
    assert main([*options, "--method", "dora", "--preset", "object-normal", "--class-word", "dog"]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    written = read_config(path)
    assert (written.name, written.base, written.network.method) == ("mia", "starter", "dora")
    assert (written.data.trigger, written.data.class_word, written.subject) == ("mia", "dog", "object")
    assert written.data.photos == tmp_path / "photos"
    assert main(options) == 2, "a config is never replaced"
    assert "is there already" in capsys.readouterr().err
    assert main(["train", "--new", str(tmp_path / "other.toml")]) == 2
    assert "--photos" in capsys.readouterr().err


def test_a_config_that_cannot_be_run_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "x"\n[data]\nphotos = "p"\nresolution = 3\n')
    assert main(["train", str(path)]) == 2
    assert "data.resolution" in capsys.readouterr().err
    with pytest.raises(InvalidRequest):
        read_config(path)
