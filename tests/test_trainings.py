"""Training runs as the front ends have them: folders and jobs, from the draft to the end, without anything trained."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from webui.app import build_runners
from webui.errors import InvalidRequest, ModelNotFound, WebUIError
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import Failed, Progress
from webui.jobs.record import JobState
from webui.jobs.worker import JobContext, Runner, Worker
from webui.library.events import ModelSaved
from webui.services import GENERATE, Services
from webui.settings import load_settings
from webui.training.alone import alone
from webui.training.checking import optimizer_problem
from webui.training.config import FREE_TO_CHANGE, OPTIMIZER_PACKAGES, TrainingConfig
from webui.training.config_file import read_config
from webui.training.events import (
    TRAINING_EVENTS,
    EventLines,
    LossReported,
    Paused,
    TrainingFinished,
    TrainingNote,
)
from webui.training.optimizers import OPTIMIZERS
from webui.training.process import program
from webui.training.record import RunReader, decimated
from webui.trainings import PICK, TRAIN, changed

PATIENCE_S = 60.0
NUM_PHOTOS = 7


def write_photos(folder: Path, number: int = NUM_PHOTOS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    for i in range(number):
        tiles = draws.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(np.kron(tiles, np.ones((32, 32, 1), dtype=np.uint8))).save(folder / f"{i}.png")
    return folder


def loss(step: int, *, num_steps: int = 9, value: float = 0.5) -> LossReported:
    return LossReported(
        step=step,
        num_steps=num_steps,
        loss=value,
        gradient_norm=1.0,
        rates={"unet": 1e-4 / step},
        seconds_per_step=2.0,
        seconds_left=2.0 * (num_steps - step),
    )


@contextmanager
def program_with(
    data_dir: Path, runners: Mapping[str, Runner] | None = None, *, really: bool = False, **settings: Any
) -> Iterator[Services]:
    """The program without its page. `runners`: a worker is at them; `really`: at those of the program."""
    services = Services(load_settings(data_dir=data_dir, **settings))
    all_runners = {TRAIN: services.trainings.work} if really else runners
    worker = Worker(services.queue, lambda: all_runners or {})
    if all_runners is not None:
        worker.start()
    try:
        yield services
    finally:
        assert worker.stop(PATIENCE_S)
        services.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos" / "mia")
    return tmp_path


@pytest.fixture
def services(data_dir: Path) -> Iterator[Services]:
    with program_with(data_dir) as services:
        yield services


def draft(services: Services, **more: Any) -> dict[str, Any]:
    """Settings as the page has them."""
    given = {"base": "starter", "method": "lora", "trigger": "mia", "class_word": "woman", "name": "mia", **more}
    config = services.trainings.draft("person-small", photos="mia", **given)
    values: dict[str, Any] = config.model_dump(mode="json")
    values["data"]["photos"] = "mia"
    return values


def start(services: Services, **more: Any) -> str:
    return services.trainings.start(draft(services, **more), "mia", owner="ann")[0]


def tell(services: Services, run: str, *events: Any) -> None:
    lines = EventLines(services.trainings.folder(run).events)
    for event in events:
        lines(event)


def state_of(services: Services, run: str) -> str:
    return services.trainings.run(run).state


def write_state(services: Services, run: str) -> None:
    folder = services.trainings.folder(run)
    folder.state.mkdir(exist_ok=True)
    (folder.state / "state.pt").touch()


def finish(services: Services, run: str, *, settings: object = "some") -> TrainingFinished:
    folder = services.trainings.folder(run)
    adapter = services.settings.models_dir / "loras" / f"{run}.safetensors"
    adapter.parent.mkdir(parents=True, exist_ok=True)
    adapter.write_bytes(b"weights")
    finished = TrainingFinished(adapter=str(adapter), best_step=4, best_weight=0.8, run_dir=str(folder.path))
    tell(services, run, loss(9), finished)
    folder.result.mkdir(exist_ok=True)
    folder.finished.write_text(json.dumps({"settings": settings}))
    return finished


# Settings.


def test_a_draft_has_the_folder_of_the_photos_and_all_numbers_of_the_preset(services: Services, data_dir: Path) -> None:
    config = services.trainings.draft(
        "style-large", base="starter", method="dora", photos="mia", trigger="inky", class_word="", name="ink"
    )
    assert (config.network.method, config.network.rank, config.subject) == ("dora", 32, "style")
    assert config.data.photos == data_dir / "photos" / "mia"
    assert (config.data.trigger, config.data.class_word) == ("inky", "style")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": "../up"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"method": "embedding", "trigger": ""}, "config"),
    ],
)
def test_a_draft_that_cannot_be_run_names_its_field(services: Services, given: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        draft(services, **given)
    assert caught.value.field == field


def test_a_draft_on_a_base_that_is_not_there_names_those_that_are(services: Services) -> None:
    with pytest.raises(ModelNotFound, match="starter"):
        draft(services, base="startr")


def test_a_page_cannot_name_a_folder_of_the_machine(services: Services, data_dir: Path, tmp_path: Path) -> None:
    values = draft(services)
    values["data"]["photos"] = str(tmp_path)
    run, _ = services.trainings.start(values, "mia", owner="ann")
    assert services.trainings.run(run).config.data.photos == data_dir / "photos" / "mia"
    values["data"]["prior_photos"] = str(tmp_path)
    with pytest.raises(InvalidRequest):
        services.trainings.start(values, "mia", owner="ann")
    write_photos(data_dir / "photos" / "people", 2)
    values["data"]["prior_photos"] = "people"
    run, job = services.trainings.start(values, "mia", owner="ann")
    assert services.trainings.run(run).config.data.prior_photos == data_dir / "photos" / "people"
    assert job.record().payload == {"run": run, "set": "mia", "prior": "people"}


def test_a_check_names_every_wrong_field_and_counts_what_is_right(services: Services) -> None:
    values = draft(services)
    checked = services.trainings.check(values, "mia")
    assert (checked.problems, checked.warnings) == ((), ())
    assert checked.summary is not None
    photos, held_out = checked.summary.num_photos, checked.summary.num_held_out
    assert (photos, held_out, checked.summary.steps) == (NUM_PHOTOS, 1, 150)
    assert checked.summary.passes_per_photo == checked.summary.epochs == 150 * 4 / (NUM_PHOTOS - 1)
    values["network"]["rnk"] = 3
    values["data"]["resolution"] = 100
    values["base"] = "gone"
    problems = services.trainings.check(values, "nobody").problems
    assert {problem.field for problem in problems} == {"set", "network.rnk", "data.resolution"}
    assert any("rank" in problem.hint for problem in problems)
    del values["network"]["rnk"]
    values["data"]["resolution"] = 192
    (problem,) = services.trainings.check(values, "mia").problems
    assert problem.field == "base"
    assert "gone" in problem.message


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        ("optimizer", "rate", 1.0, "The learning rate 1 is"),
        ("optimizer", "rate", 1e-7, "times below the usual"),
        ("optimizer", "text_rate", 1.0, "The text encoder's learning rate 1 is"),
        ("data", "resolution", 1024, "makes pictures of 192 px"),
        ("data", "trigger", "", "no trigger word"),
        ("data", "holdout", 0, "No photo is kept back"),
        ("schedule", "batch_size", 64, "A batch has 64 photos, but there are 6"),
        ("schedule", "num_steps", 90_000, "looked at 60000 times"),
    ],
)
def test_what_is_likely_a_mistake_is_said_before(
    services: Services, section: str, field: str, value: object, words: str
) -> None:
    values = draft(services)
    values[section][field] = value
    checked = services.trainings.check(values, "mia")
    assert checked.problems == ()
    assert any(words in warning for warning in checked.warnings), checked.warnings


def test_an_optimizer_that_finds_its_rate_is_wanted_with_1(services: Services) -> None:
    values = draft(services)
    values["optimizer"].update(name="prodigy", rate=1e-3)
    config = TrainingConfig.model_validate({**values, "data": {**values["data"], "photos": "x"}})
    problem = optimizer_problem(config, installed=lambda package: None)
    assert problem is not None
    assert "prodigyopt" in problem.message
    assert optimizer_problem(config, installed=lambda package: "here") is None
    assert any("set it to 1, not " in warning for warning in services.trainings.check(values, "mia").warnings)


def test_packages_of_optimizers_are_those_that_they_import() -> None:
    assert dict(OPTIMIZER_PACKAGES) == {name: row.package for name, row in OPTIMIZERS.items() if row.package}


@pytest.mark.parametrize(("number", "words"), [(0, None), (1, "There is one photo"), (4, "There are 4 photos")])
def test_few_photos_are_told(services: Services, data_dir: Path, number: int, words: str | None) -> None:
    shutil.rmtree(data_dir / "photos" / "mia")
    write_photos(data_dir / "photos" / "mia", number)
    checked = services.trainings.check(draft(services), "mia")
    if words is None:
        assert [problem.field for problem in checked.problems] == ["data.photos"]
    else:
        assert checked.problems == ()
        assert any(words in warning for warning in checked.warnings)


# Runs.


def test_a_run_waits_in_a_folder_of_its_own_and_two_starts_are_two_runs(services: Services) -> None:
    first, second = start(services), start(services)
    assert (first, second) == ("mia", "mia-2")
    assert read_config(services.trainings.folder(first).config) == read_config(services.trainings.folder(second).config)
    assert [(run.name, run.state) for run in services.trainings.runs()] == [("mia-2", "queued"), ("mia", "queued")]
    assert [job.payload["run"] for job in services.queue.jobs()] == ["mia-2", "mia"]


def test_many_starts_at_once_are_as_many_runs(services: Services) -> None:
    threads = [threading.Thread(target=start, args=(services,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(services.trainings.runs()) == len({job.payload["run"] for job in services.queue.jobs()}) == 8


def test_a_run_that_cannot_start_leaves_nothing(services: Services) -> None:
    values = draft(services)
    for wrong, photos in (({**values, "base": "gone"}, "mia"), (values, "nobody"), (values, ""), ({}, "mia")):
        with pytest.raises(WebUIError):
            services.trainings.start(wrong, photos, owner="ann")
    assert services.trainings.runs() == []
    assert services.queue.jobs() == []
    assert not services.settings.training_dir.exists()


def test_training_can_be_switched_off(data_dir: Path) -> None:
    with program_with(data_dir, training=False) as services, pytest.raises(InvalidRequest, match="switched off"):
        start(services)


@pytest.mark.parametrize("name", ["", "..", ".", "mia/../mia", "a\\b", "a\0b", "nothing"])
def test_names_lead_to_runs_and_nowhere_else(services: Services, name: str) -> None:
    start(services)
    with pytest.raises(ModelNotFound):
        services.trainings.folder(name)


def test_the_state_of_a_run_is_read_from_its_folder(services: Services) -> None:
    run = start(services)
    services.trainings.pause(run)
    assert state_of(services, run) == "paused", "one that waited has nothing to go on from, but may be started again"
    tell(services, run, loss(3), Paused(step=3, num_steps=9))
    assert state_of(services, run) == "paused"
    tell(services, run, Failed(message="No.", hint=""))
    assert state_of(services, run) == "failed"
    tell(services, run, loss(4))
    assert state_of(services, run) == "paused", "it has gone on since, and was killed"
    with alone(services.trainings.folder(run).path):
        assert state_of(services, run) == "running", "by hand, in another process"
        services.trainings.pause(run)
    assert services.trainings.folder(run).pause.exists()
    finish(services, run)
    assert state_of(services, run) == "finished"
    finish(services, run, settings=None)
    assert state_of(services, run) == "paused", "a result that was picked before the end ends nothing"


def test_a_stopped_run_is_called_so_until_it_goes_on(services: Services) -> None:
    run = start(services)
    services.trainings.stop(run)
    assert state_of(services, run) == "stopped"
    services.trainings.resume(run, {}, owner="ann")
    assert state_of(services, run) == "queued"
    services.trainings.pause(run)
    assert state_of(services, run) == "paused"


def test_a_run_goes_on_longer_in_the_same_folder(services: Services) -> None:
    run = start(services)
    finish(services, run)
    services.trainings.pause(run)
    with pytest.raises(InvalidRequest, match="give it more steps") as caught:
        services.trainings.resume(run, {"optimizer.rate": 1e-5}, owner="ann")
    assert caught.value.field == "schedule.num_steps"
    job = services.trainings.resume(run, {"schedule.num_steps": 900, "validation.weights": [0.5, 1.0]}, owner="ann")
    config = services.trainings.run(run).config
    assert (config.schedule.num_steps, config.validation.weights) == (900, (0.5, 1.0))
    assert job.record().payload == {"run": run, "set": "mia", "prior": ""}
    assert services.trainings.resume(run, {}, owner="ann").id == job.id, "it waits already"


@pytest.mark.parametrize(
    "name", ["network.rank", "data.photos", "data.prior_photos", "data.resolution", "base", "schedule", "nothing", ""]
)
def test_what_would_be_another_run_is_refused_by_name(services: Services, name: str) -> None:
    run = start(services)
    services.trainings.pause(run)
    with pytest.raises(InvalidRequest) as caught:
        services.trainings.resume(run, {name: 4}, owner="ann")
    assert caught.value.field == name
    assert state_of(services, run) == "paused"


def test_a_run_cannot_be_shorter_than_it_is(services: Services) -> None:
    run = start(services)
    services.trainings.pause(run)
    tell(services, run, loss(100, num_steps=150), Paused(step=100, num_steps=150))
    write_state(services, run)
    with pytest.raises(InvalidRequest, match="made 100 steps already"):
        services.trainings.resume(run, {"schedule.num_steps": 50}, owner="ann")


def test_every_setting_that_may_change_can_be_changed() -> None:
    config = TrainingConfig.model_validate({"name": "x", "data": {"photos": "p"}})
    for section, names in FREE_TO_CHANGE.items():
        part = getattr(config, section)
        for name in names or getattr(type(part), "model_fields", ()):
            dotted = f"{section}.{name}"
            if dotted not in ("data.photos", "data.prior_photos"):
                assert changed(config, {dotted: getattr(part, name)}) == config


def test_a_run_that_waits_or_runs_is_not_deleted(services: Services) -> None:
    run = start(services)
    with pytest.raises(InvalidRequest, match="Stop it first"):
        services.trainings.delete(run)
    services.trainings.stop(run)
    finished = finish(services, run)
    services.trainings.delete(run)
    assert services.trainings.runs() == []
    assert Path(finished.adapter).is_file(), "what came out stays"


def test_only_candidates_that_are_there_are_picked_and_once(services: Services) -> None:
    run = start(services)
    folder = services.trainings.folder(run)
    with pytest.raises(InvalidRequest, match="queued"):
        services.trainings.pick(run, 4, 0.8, owner="ann")
    services.trainings.stop(run)
    with pytest.raises(InvalidRequest, match="no candidate of step 4"):
        services.trainings.pick(run, 4, 0.8, owner="ann")
    folder.candidates.mkdir()
    folder.candidate(4).touch()
    job = services.trainings.pick(run, 4, 0.8, owner="ann")
    assert (job.record().kind, job.record().payload) == (PICK, {"run": run, "step": 4, "weight": 0.8})
    assert services.trainings.pick(run, 4, 0.8, owner="ann").id == job.id
    for action in (
        lambda: services.trainings.pick(run, 4, 0.6, owner="ann"),
        lambda: services.trainings.resume(run, {}, owner="ann"),
        lambda: services.trainings.delete(run),
    ):
        with pytest.raises(InvalidRequest, match="being written"):
            action()


def test_a_folder_that_is_no_run_or_goes_away_is_left_out(services: Services) -> None:
    first, second = start(services), start(services)
    services.trainings.folder(first).config.write_text("rubbish = [")
    assert [run.name for run in services.trainings.runs()] == [second]
    shutil.rmtree(services.trainings.folder(second).path)
    assert services.trainings.runs() == []
    with pytest.raises(ModelNotFound):
        services.trainings.run(second)


# Jobs.


class Held:
    """A runner that trains until it is let go, or told to stop."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.insisted = threading.Event()
        self.order: list[str] = []

    def __call__(self, context: JobContext) -> None:
        self.order.append(context.job.kind)
        context.report(Progress(step=1, num_steps=9, label="training"))
        self.started.set()
        while not self.go_on.wait(0.01):
            if context.cancel.insisted:
                self.insisted.set()
                context.cancel.check()
            if context.cancel.interrupted and context.job.kind == TRAIN and not self.waits_for_more:
                raise JobInterrupted

    waits_for_more = False


def eventually(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < until:
        time.sleep(0.01)
    return true()


def test_pictures_wait_for_a_training_and_pausing_lets_them_through(data_dir: Path) -> None:
    held = Held()
    with program_with(data_dir, {TRAIN: held, GENERATE: lambda context: held.order.append(GENERATE)}) as services:
        run = start(services)
        assert held.started.wait(PATIENCE_S)
        assert state_of(services, run) == "running"
        picture = services.queue.submit(GENERATE, {}, owner="bob")
        assert picture.record().position == 0
        services.trainings.pause(run)
        assert picture.wait(PATIENCE_S).state is JobState.FINISHED
        held.started.clear()
        services.trainings.resume(run, {}, owner="ann")
        assert held.started.wait(PATIENCE_S)
        held.go_on.set()
    assert held.order == [TRAIN, GENERATE, TRAIN]


def test_pausing_twice_does_not_end_a_run_but_stopping_twice_does(data_dir: Path) -> None:
    held = Held()
    held.waits_for_more = True
    with program_with(data_dir, {TRAIN: held}) as services:
        run = start(services)
        assert held.started.wait(PATIENCE_S)
        services.trainings.pause(run)
        services.trainings.pause(run)
        services.trainings.stop(run)
        assert not held.insisted.wait(0.1)
        services.trainings.stop(run)
        assert held.insisted.wait(PATIENCE_S)
        assert eventually(lambda: state_of(services, run) == "stopped")


def test_a_training_that_the_end_of_the_program_stopped_runs_again(data_dir: Path) -> None:
    held = Held()
    with program_with(data_dir, {TRAIN: held}) as services:
        run = start(services)
        assert held.started.wait(PATIENCE_S)
    with program_with(data_dir) as services:
        assert state_of(services, run) == "queued"
    held.go_on.set()
    with program_with(data_dir, {TRAIN: held}) as services:
        (job,) = services.queue.jobs()
        assert services.queue.handle(job.id).wait(PATIENCE_S).state is JobState.FINISHED


def test_a_run_whose_folder_is_gone_when_its_turn_comes_fails_with_a_sentence(data_dir: Path) -> None:
    with program_with(data_dir) as services:
        shutil.rmtree(services.trainings.folder(start(services)).path)
    with program_with(data_dir, really=True) as services:
        (job,) = services.queue.jobs()
        assert services.queue.handle(job.id).wait(PATIENCE_S).state is JobState.FAILED
        failed = [event for _, event in services.queue.handle(job.id).events() if isinstance(event, Failed)]
        assert "There is no run named 'mia'" in failed[0].message


def test_what_comes_out_is_in_the_library_at_once_and_is_made_once(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def in_process(command: Any, *, report: Any, cancel: Any) -> TrainingFinished:
        asked.append(command.arguments)
        return finish(services, "mia")

    monkeypatch.setattr("webui.trainings.run_in_process", in_process)
    with program_with(data_dir, really=True, device="cpu") as services:
        before = services.library.adapters()
        run, job = services.trainings.start(draft(services), "mia", owner="ann")
        assert job.wait(PATIENCE_S).state is JobState.FINISHED
        assert len(services.library.adapters()) == len(before) + 1
        assert [Path(event.path).name for _, event in job.events() if isinstance(event, ModelSaved)] == [
            "mia.safetensors"
        ]
        services.trainings.work(JobContext(job=job.record(), report=print, cancel=None, previous=(  # type: ignore[arg-type]
            ModelSaved(path="x", kind="adapter", family="sd15", size=1),
        )))  # fmt: skip
    folder = str(data_dir / "training" / run)
    machine = ("--data-dir", str(data_dir), "--device", "cpu", "--dtype", "auto")
    assert asked == [program("training-run", folder, *machine)]


def test_pictures_networks_leave_the_device_before_a_training_begins(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class Engine:
        def free_device(self) -> None:
            done.append("free")

    monkeypatch.setattr("webui.app.build_generator", lambda *parts: Engine())
    monkeypatch.setattr("webui.app.preload_starter", lambda *parts: None)
    monkeypatch.setattr(services.trainings, "work", done.append)
    runners = build_runners(services)
    for kind in (TRAIN, PICK):
        runners[kind](kind)  # type: ignore[arg-type]
    assert done == ["free", TRAIN, "free", PICK]


# What a run tells.


def test_events_are_read_as_they_come_each_once(tmp_path: Path) -> None:
    path, reader = tmp_path / "events.jsonl", RunReader()
    with reader.reading(path) as (record, version):
        assert (record.losses, version) == ([], "0.0")
    lines = EventLines(path)
    versions = [version]
    for step in range(1, 4):
        lines(loss(step))
        with reader.reading(path) as (record, version):
            assert [point[0] for point in record.losses] == list(range(1, step + 1))
            versions.append(version)
    assert len(set(versions)) == len(versions)
    with path.open("a") as file:
        file.write('{"event": "LossReported", "step": 4')  # in the making, or cut off
    with reader.reading(path) as (record, version):
        assert record.step == 3
        assert version == versions[-1]
    lines(TrainingNote(text="After a kill."))
    with reader.reading(path) as (record, _):
        assert [note.text for note in record.notes] == ["After a kill."], "what was cut off takes no other line along"
        assert record.step == 3


def test_a_loss_counts_where_the_time_left_is_not_known(tmp_path: Path) -> None:
    path, reader = tmp_path / "events.jsonl", RunReader()
    EventLines(path)(replace(loss(2), seconds_left=None))
    with reader.reading(path) as (record, _):
        assert (record.step, record.seconds_left) == (2, None)


def test_what_a_resumed_run_tells_again_replaces_what_it_told_before(tmp_path: Path) -> None:
    path, reader = tmp_path / "events.jsonl", RunReader()
    lines = EventLines(path)
    for step in (1, 2, 3, 4, 2, 3):
        lines(loss(step, value=step / 10))
    lines(TrainingNote(text="7 photos"))
    lines(TrainingNote(text="7 photos"))
    with reader.reading(path) as (record, _):
        assert [point[0] for point in record.losses] == [1, 2, 3]
        assert [step for step, _ in record.rates] == [1, 2, 3]
        assert len(record.notes) == 1


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path, reader = tmp_path / "events.jsonl", RunReader()
    for step in (1, 2):
        EventLines(path)(loss(step))
    with reader.reading(path) as (_, before):
        pass
    path.unlink()
    EventLines(path)(loss(7))
    with reader.reading(path) as (record, after):
        assert [point[0] for point in record.losses] == [7]
    assert after != before
    path.unlink()
    with reader.reading(path) as (record, _):
        assert record.losses == []


def test_lines_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventLines(path)(loss(1))
    with path.open("ab") as file:
        for line in (b'{"event": "LossReported", "step": "x"}', b"[]", b"\xff\xfe", b'{"event": "LossReported"}', b"7"):
            file.write(line + b"\n")
    EventLines(path)(loss(2))
    with RunReader().reading(path) as (record, _):
        assert record.step == 2
        assert len(record.losses) == 2


def test_a_long_file_is_read_once(tmp_path: Path) -> None:
    path, reader, num_lines = tmp_path / "events.jsonl", RunReader(), 5000
    EventLines(path)(loss(1))
    line = path.read_text()
    path.write_text("".join(line.replace('"step": 1,', f'"step": {step},') for step in range(1, num_lines + 1)))
    with reader.reading(path) as (record, _):
        assert record.step == num_lines
    points = record.losses
    with reader.reading(path) as (again, _):
        assert again.losses is points, "nothing is read twice"
    few = decimated(points, 600)
    assert len(few) == 600
    assert few[-1][0] == num_lines
    assert decimated(points[:5], 600) == points[:5]


def test_decimated_points_are_means_of_what_they_stand_for() -> None:
    points = [(step, float(step), 1.0, 2.0) for step in range(1, 11)]
    assert decimated(points, 5) == [(step, step - 0.5, 1.0, 2.0) for step in (2, 4, 6, 8, 10)]


def test_the_queue_knows_every_event_of_a_training(services: Services) -> None:
    for event_type in TRAINING_EVENTS:
        assert event_type in services.queue._codec._types
    assert not LossReported.durable, "the run's folder has them: a disk write each is too much"
