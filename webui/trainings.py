"""What the front ends do with training runs: draft, check, start, pause, resume, pick, remove. Imports no torch.

A run is a folder of `settings.training_dir`, which says all about it, and a job of the queue while it waits or runs.
Everybody who may open the page shares the runs, as they share the models that come out.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from webui.errors import InvalidRequest, ModelNotFound, StorageError, WebUIError
from webui.jobs.events import Failed, Progress
from webui.jobs.queue import JobContext, JobHandle, JobQueue
from webui.jobs.record import JobRecord, JobState
from webui.library.catalog import Library
from webui.library.events import ModelSaved
from webui.library.families import FAMILIES
from webui.library.tool_models import saved_model
from webui.library.whole_files import write_whole
from webui.settings import Settings
from webui.training.alone import is_in_use
from webui.training.checking import Summary, base_problem, optimizer_problem, summary_of, warnings_of
from webui.training.config import FREE_TO_CHANGE, TrainingConfig
from webui.training.config_file import parse_config, problems_of, read_config
from webui.training.data.sets import PhotoSets
from webui.training.data.sources import find_photos
from webui.training.data.split import split
from webui.training.events import Paused, TrainingFinished
from webui.training.folders import RunFolder, new_run, runs_in
from webui.training.presets import preset_config
from webui.training.process import Command, program, run_in_process
from webui.training.record import RunReader, RunRecord

TRAIN = "train"
"""The kind of a job that trains: payload {"run": name of its folder, "set": id of its photos}."""
PICK = "train_pick"
"""The kind of a job that writes another candidate of a run as its result: {"run", "step", "weight"}."""
ACTIVE = frozenset({JobState.QUEUED, JobState.RUNNING})
ALL_JOBS = 1_000_000
CLOSE_MATCHES = 3

State = Literal["queued", "running", "paused", "finished", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is known of a run beside its settings. `photos` and `prior` are sets of the page, "" for other folders."""

    photos: str = ""
    prior: str = ""
    started_at: float = 0.0
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """`summary` and `config` where they could be made out."""

    problems: tuple[InvalidRequest, ...] = ()
    warnings: tuple[str, ...] = ()
    summary: Summary | None = None
    config: TrainingConfig | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run at one moment. `job` waits or runs; `picking` writes another candidate as the result."""

    folder: RunFolder
    config: TrainingConfig
    about: About
    state: State
    job: JobRecord | None = None
    progress: Progress | None = None
    picking: JobRecord | None = None

    @property
    def name(self) -> str:
        return self.folder.path.name


class Trainings:
    """One per program. Everything here may be called from any thread."""

    def __init__(self, settings: Settings, queue: JobQueue, library: Library, photo_sets: PhotoSets) -> None:
        self.runs_dir = settings.training_dir
        self._settings = settings
        self._queue = queue
        self._library = library
        self._photo_sets = photo_sets
        self._reader = RunReader()
        self._lock = threading.RLock()
        self._asked: set[str] = set()
        """Jobs that were asked to stop."""

    # Settings of a run.

    def draft(
        self, preset: str, *, base: str, method: Any, photos: str, trigger: str, class_word: str, name: str
    ) -> TrainingConfig:
        """The settings of a preset; `photos` is a set of the page, or "". Raises InvalidRequest, ModelNotFound."""
        info = self._library.find_checkpoint(base)
        try:
            return preset_config(
                preset,
                name=name,
                photos=self._photo_sets.source(photos) if photos else Path("photos"),
                base=base,
                adapter_base=FAMILIES[info.family].adapter_base,
                native_size=info.native_size,
                method=method,
                trigger=trigger,
                class_word=class_word,
            )
        except ValueError:  # pydantic's: told by name, as everywhere
            values = {"name": name, "base": base, "data": {"photos": "photos", "trigger": trigger}}
            return parse_config({**values, "network": {"method": method}})

    def config_of(self, values: Mapping[str, Any], photos: str) -> TrainingConfig:
        """Settings as the page sends them, where sets stand for folders. Raises InvalidRequest."""
        return parse_config(self.with_folders(values, photos))

    def with_folders(self, values: Mapping[str, Any], photos: str) -> dict[str, Any]:
        """`values` of the page with the folders of its sets: a page names no folder of this machine."""
        data = dict(values["data"]) if isinstance(values.get("data"), Mapping) else {}
        data["photos"] = str(self._source(photos))
        if prior := data.get("prior_photos"):
            data["prior_photos"] = str(self._photo_sets.source(str(prior)))
        return {**values, "data": data}

    def check(self, values: Mapping[str, Any], photos: str) -> "Checked":
        """What is wrong with the page's settings, and what they come to. Raises nothing for them."""
        try:
            given = self.with_folders(values, photos)
        except InvalidRequest as problem:
            given, found = {**values, "data": {**(values.get("data") or {}), "photos": "photos"}}, [problem]
        else:
            found = []
        if problems := problems_of(given):
            return Checked(problems=(*found, *problems))
        config, info = parse_config(given), None
        try:
            info = self._library.find_checkpoint(config.base)
        except ModelNotFound as error:
            found.append(InvalidRequest("base", error.message, hint=error.hint))
        else:
            found += [each for each in (base_problem(config, info), optimizer_problem(config)) if each is not None]
        summary = None
        if not any(problem.field.startswith("data.") or problem.field == "set" for problem in found):
            try:
                summary = self._summary(config)
            except InvalidRequest as problem:
                found.append(problem)
        warnings = () if info is None else tuple(warnings_of(config, info, summary))
        return Checked(problems=tuple(found), warnings=warnings, summary=summary, config=config)

    def _summary(self, config: TrainingConfig) -> Summary:
        """Raises InvalidRequest where there is nothing to train on."""
        with tempfile.TemporaryDirectory() as unpacked:  # sets of the page are folders
            found = find_photos(config.data.photos, unpack_to=Path(unpacked), reader=self._photo_sets.reader)
        photos = [photo for photo in found.photos if not photo.is_prior]
        if not photos:
            raise InvalidRequest("data.photos", "There are no photos to train on.", hint="Add some.")
        train, held_out = split(photos, config.data.holdout)
        sizes = [photo.size for photo in train]
        return summary_of(config, [photo.repeats for photo in train], len(held_out), sizes)

    def _source(self, photos: str) -> Path:
        if not photos:
            raise InvalidRequest("set", "No photos are chosen.", hint="Choose a set of photos first.")
        return self._photo_sets.source(photos)

    # Runs.

    def start(self, values: Mapping[str, Any], photos: str, *, owner: str) -> tuple[str, JobHandle]:
        """A new run in a folder of its own, and its job. Raises InvalidRequest, ModelNotFound, StorageError."""
        self._require()
        config = self.config_of(values, photos)
        self._check_base(config)
        prior = str((values.get("data") or {}).get("prior_photos") or "")
        with self._lock:
            folder = new_run(self.runs_dir, config)
            self._write_about(folder, About(photos=photos, prior=prior, started_at=time.time()))
            return folder.path.name, self._submit(
                TRAIN, {"run": folder.path.name, "set": photos, "prior": prior}, owner
            )

    def runs(self) -> list[Run]:
        """All that can be read, those started last first."""
        jobs = self._active()
        found = []
        for folder in runs_in(self.runs_dir):
            try:
                found.append(self._run(folder, jobs))
            except WebUIError:  # settings of another version, or a folder that goes away just now
                continue
        return sorted(found, key=lambda run: run.about.started_at, reverse=True)

    def run(self, name: str) -> Run:
        """Raises ModelNotFound, InvalidRequest for settings that cannot be read."""
        return self._run(self.folder(name), self._active())

    def folder(self, name: str) -> RunFolder:
        """Raises ModelNotFound."""
        if name and Path(name).name == name and "\\" not in name and "\0" not in name:
            folder = RunFolder(self.runs_dir / name)
            if folder.config.is_file():
                return folder
        names = [folder.path.name for folder in runs_in(self.runs_dir)]
        raise ModelNotFound("run", name, get_close_matches(name, names, CLOSE_MATCHES, 0.5))

    @contextmanager
    def reading(self, run: Run) -> Iterator[tuple[RunRecord, str]]:
        """What the run has told so far, and a version of that."""
        with self._reader.reading(run.folder.events) as told:
            yield told

    def result(self, name: str) -> Path:
        """The file that came out, among the models. Raises ModelNotFound for a run without one, and for folders."""
        run = self.run(name)
        with self.reading(run) as (record, _):
            path = None if record.finished is None else Path(record.finished.adapter)
        if path is None or not path.is_file():
            raise ModelNotFound("result of the run", name, [])
        return path

    def pause(self, name: str) -> None:
        """Lets it stand still after the present step, from where it goes on. Nothing to do where it does not run."""
        run = self.run(name)
        if run.job is not None:
            self._interrupt(run.job, insist=False)
        elif run.state == "running":  # by hand, in another process
            run.folder.pause.touch()

    def stop(self, name: str) -> None:
        """As `pause`, for good; asked for again while it still runs, its process is ended at once."""
        run = self.run(name)
        if run.state == "finished":
            raise InvalidRequest("run", f"'{name}' is finished.")
        again = run.about.stopped
        self._write_about(run.folder, replace(run.about, stopped=True))
        if run.job is not None:
            self._interrupt(run.job, insist=again)
        elif run.state == "running":
            run.folder.pause.touch()

    def resume(self, name: str, changes: Mapping[str, Any], *, owner: str) -> JobHandle:
        """Goes on from its state, or from the start; with other settings: {"schedule.num_steps": 2000}.

        Raises InvalidRequest that names the field.
        """
        self._require()
        with self._lock:
            run = self.run(name)
            if run.job is not None:
                return self._queue.handle(run.job.id)
            self._require_idle(run)
            config = changed(run.config, changes)
            self._check_base(config)
            with self.reading(run) as (record, _):
                _check_longer(run, config, record)
            if config != run.config:
                run.folder.write_config(config)
            self._write_about(run.folder, replace(run.about, stopped=False))
            return self._submit(TRAIN, {"run": name, "set": run.about.photos, "prior": run.about.prior}, owner)

    def pick(self, name: str, step: int, weight: float, *, owner: str) -> JobHandle:
        """Writes the candidate of `step` at `weight` as the result. Raises InvalidRequest."""
        self._require()
        with self._lock:
            run = self.run(name)
            payload = {"run": name, "step": step, "weight": weight}
            if run.picking is not None and run.picking.payload == payload:
                return self._queue.handle(run.picking.id)
            self._require_idle(run)
            if not run.folder.candidate(step).is_file():
                kept = sorted(int(path.stem) for path in run.folder.candidates.glob("[0-9]*.safetensors"))
                hint = f"There are {', '.join(map(str, kept))}." if kept else "It saved none yet."
                raise InvalidRequest("step", f"'{name}' has no candidate of step {step}.", hint=hint)
            return self._submit(PICK, payload, owner)

    def delete(self, name: str) -> None:
        """Removes the run with all it made; what came out and lies among the models stays."""
        with self._lock:
            run = self.run(name)
            self._require_idle(run)
            try:
                shutil.rmtree(run.folder.path)
            except OSError as error:
                raise StorageError(
                    f"The run '{name}' could not be removed ({error.strerror}).",
                    hint="Another program may have one of its files open.",
                ) from error

    # For the worker.

    def work(self, context: JobContext) -> None:
        """Does a job of the kind TRAIN or PICK in a process of its own; the device must be free for it.

        What comes out is in the library at the end. Raises JobInterrupted when it was paused, WebUIError.
        """
        if any(isinstance(event, ModelSaved) for event in context.previous):
            return
        payload = context.job.payload
        folder = self.folder(str(payload["run"]))
        command = self._command(folder, payload)
        finished = run_in_process(command, report=context.report, cancel=context.cancel)
        self._library.refresh()
        context.report(saved_model(Path(finished.adapter)))

    def _command(self, folder: RunFolder, payload: Mapping[str, Any]) -> Command:
        settings = self._settings
        machine = ("--data-dir", str(settings.data_dir), "--device", settings.device, "--dtype", settings.dtype)
        if "step" not in payload:
            return Command(folder=folder, arguments=program("training-run", str(folder.path), *machine))
        what = (str(folder.path), str(payload["step"]), str(payload["weight"]))
        return Command(folder=folder, arguments=program("training-pick", *what, *machine), can_pause=False)

    # Below.

    def _run(self, folder: RunFolder, jobs: list[JobRecord]) -> Run:
        mine = {job.kind: job for job in jobs if job.payload.get("run") == folder.path.name}
        job, picking = mine.get(TRAIN), mine.get(PICK)
        config, about = read_config(folder.config), _read_about(folder)
        if job is not None:
            state: State = "running" if job.state is JobState.RUNNING else "queued"
        elif picking is None and is_in_use(folder.path):
            state = "running"  # by hand, in another process
        else:
            with self._reader.reading(folder.events) as (record, _):
                state = _state_of(record, folder, about)
            if state == "finished" and not _is_over(folder):
                state = "stopped" if about.stopped else "paused"
        return Run(
            folder=folder,
            config=config,
            about=about,
            state=state,
            job=job,
            progress=None if job is None else self._progress(job),
            picking=picking,
        )

    def _progress(self, job: JobRecord) -> Progress | None:
        try:
            events = list(self._queue.handle(job.id).events(follow=False))
        except WebUIError:
            return None
        return next((event for _, event in reversed(events) if isinstance(event, Progress)), None)

    def _active(self) -> list[JobRecord]:
        jobs = self._queue.jobs(states=ACTIVE, limit=ALL_JOBS)
        return [job for job in jobs if job.kind in (TRAIN, PICK)]

    def _submit(self, kind: str, payload: Mapping[str, Any], owner: str) -> JobHandle:
        return self._queue.submit(kind, payload, owner=owner)

    def _interrupt(self, job: JobRecord, *, insist: bool) -> None:
        """A second interrupt ends the process, so it takes somebody who insists."""
        with self._lock:
            if insist or job.id not in self._asked:
                self._asked.add(job.id)
                self._queue.interrupt(job.id)

    def _require(self) -> None:
        if not self._settings.training:
            raise InvalidRequest(
                "training", "Training is switched off here.", hint="The setting is `training` (WEBUI_TRAINING)."
            )

    def _require_idle(self, run: Run) -> None:
        if run.state in ("queued", "running"):
            raise InvalidRequest("run", f"'{run.name}' is {run.state}.", hint="Stop it first.")
        if run.picking is not None:
            raise InvalidRequest(
                "run", f"The result of '{run.name}' is being written.", hint="Wait until that is done."
            )

    def _check_base(self, config: TrainingConfig) -> None:
        info = self._library.find_checkpoint(config.base)
        if problem := base_problem(config, info) or optimizer_problem(config):
            raise problem

    def _write_about(self, folder: RunFolder, about: About) -> None:
        try:
            write_whole(folder.path / ABOUT, json.dumps(asdict(about)).encode())
        except OSError as error:
            raise StorageError(
                f"The run's folder '{folder.path.name}' cannot be written to ({error.strerror}).",
                hint="Make room on the disk, or change the folder's permissions.",
            ) from error


ABOUT = "page.json"
"""What the page knows of a run, in its folder."""


def changed(config: TrainingConfig, changes: Mapping[str, Any]) -> TrainingConfig:
    """`config` with values by dotted name. Raises InvalidRequest for what a run cannot go on with."""
    values = config.model_dump()
    for name, value in changes.items():
        section, _, field = name.partition(".")
        free = FREE_TO_CHANGE.get(section, frozenset())
        allowed = free is None or field in free
        if not allowed or name.startswith("data.p"):  # a page names no folders
            raise InvalidRequest(
                name,
                f"A run cannot go on with another {name}.",
                hint="Change its length, rates, samples or resources; for anything else start a new run.",
            )
        if field:
            values[section][field] = value
        else:
            values[section] = value
    return parse_config(values)


def _check_longer(run: Run, config: TrainingConfig, record: RunRecord) -> None:
    """Raises InvalidRequest where there is nothing to go on with."""
    if run.state == "finished" and config.schedule.num_steps <= run.config.schedule.num_steps:
        raise InvalidRequest(
            "schedule.num_steps",
            f"'{run.name}' is finished after {run.config.schedule.num_steps} steps.",
            hint="To go on, give it more steps.",
        )
    if run.folder.can_resume and config.schedule.num_steps < record.step:
        raise InvalidRequest(
            "schedule.num_steps",
            f"'{run.name}' has made {record.step} steps already, so it cannot end after {config.schedule.num_steps}.",
            hint=f"Give it at least {record.step}.",
        )


def _state_of(record: RunRecord, folder: RunFolder, about: About) -> State:
    """Of a run that nobody runs."""
    match record.ending:
        case TrainingFinished():
            return "finished"
        case Failed():
            return "failed"
        case Paused() | None:
            return "stopped" if about.stopped else "paused"


def _is_over(folder: RunFolder) -> bool:
    """Whether it came to its end; a result may also be picked of one that stands still."""
    try:
        return json.loads(folder.finished.read_text(encoding="utf-8"))["settings"] is not None
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read_about(folder: RunFolder) -> About:
    """Of a run that was started by hand, and of a file that is damaged: only when."""
    try:
        return About(**json.loads((folder.path / ABOUT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        try:
            return About(started_at=folder.config.stat().st_mtime)
        except OSError:
            return About()
