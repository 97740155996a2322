"""What the pages show of training runs: their folders and jobs as JSON. Paths of this machine stay out of it."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from webui.jobs.events import Failed, Progress
from webui.jobs.queue import JobQueue
from webui.jobs.record import JobRecord, JobState
from webui.library.downloads.amounts import duration
from webui.training.config import Method, TrainingConfig
from webui.training.events import SampleReady, TrainingFinished, ValidationReported
from webui.training.record import RunRecord, decimated
from webui.training.validation.records import Records
from webui.trainings import PICK, Run, Trainings

MAX_POINTS = 600
"""Of a curve; a screen has no more."""
MAX_LOG_CHARS = 100_000
MARKS: Mapping[str, str] = {"warning": "warning: "}
TRAINING = "training"
"""The label of the loop's own progress."""

KINDS: Mapping[Method, str] = {"embedding": "embedding", "full": "checkpoint"}
"""What comes out, by method; of others a LoRA."""


def page_config(config: TrainingConfig, photos: str, prior: str) -> dict[str, Any]:
    """The settings with sets of the page in the place of folders; of other folders the name alone."""
    values: dict[str, Any] = config.model_dump(mode="json")
    values["data"]["photos"] = photos or config.data.photos.name
    if config.data.prior_photos is not None:
        values["data"]["prior_photos"] = prior or config.data.prior_photos.name
    return values


def list_runs(trainings: Trainings) -> list[dict[str, Any]]:
    found = []
    for run in trainings.runs():
        with trainings.reading(run) as (record, _):
            found.append(_without_nan(brief(run, record)))
    return found


def run_json(trainings: Trainings, name: str, known: str) -> dict[str, Any]:
    """All of a run, or its version alone if that is `known`."""
    run = trainings.run(name)
    with trainings.reading(run) as (record, told):
        version = _version(run, told)
        if version == known:
            return {"version": version}
        found: dict[str, Any] = _without_nan({**brief(run, record), "version": version, **_in_full(run, record)})
        return found


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no Inf, which numbers of a run that falls apart may be: null instead."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _without_nan(each) for key, each in value.items()}
        case list() | tuple():
            return [_without_nan(each) for each in value]
    return value


def brief(run: Run, record: RunRecord) -> dict[str, Any]:
    """A row of the list of runs."""
    config, step = run.config, record.step
    progress, is_running = run.progress, run.state == "running"
    training = progress is not None and progress.label == TRAINING
    if progress is not None and training:
        step = max(step, progress.step)
    used = _in_use(run, record)
    last = record.losses[-1] if record.losses else None
    measured = record.validations[max(record.validations)] if record.validations else None
    error = record.ending if run.state == "failed" and isinstance(record.ending, Failed) else None
    return {
        "run": run.name,
        "name": config.name,
        "method": config.network.method,
        "base": config.base,
        "state": run.state,
        "place": 0 if run.job is None or run.job.position is None else run.job.position + 1,
        "step": step,
        "num_steps": config.schedule.num_steps,
        "loss": None if last is None else last[1],
        "likeness": _likeness(record),
        "seconds_left": _seconds_left(run, record) if is_running else None,
        "seconds_per_step": None if last is None else last[3],
        "doing": _doing(run),
        "started_at": run.about.started_at,
        "adapter": Path(record.finished.adapter).stem if record.finished else "",
        "best_step": used["step"] if used else None,
        "best_weight": used["weight"] if used else None,
        "preview": _preview(run, record),
        "error_held_out": None if measured is None else _error_of(measured),
        "error": None if error is None else {"message": error.message, "hint": error.hint},
        "can_resume": run.folder.can_resume,
        "set": run.about.photos,
    }


def brief_training(queue: JobQueue, job: JobRecord) -> dict[str, Any]:
    """A line of the side bar's list of jobs."""
    told = [event for _, event in queue.handle(job.id).events(follow=False) if isinstance(event, Progress)]
    progress = told[-1] if told else None
    return {
        "id": job.id,
        "task": job.kind,
        "state": str(job.state),
        "prompt": str(job.payload["run"]),
        "status": _job_text(job, progress),
        "place": (job.position or 0) + 1,
        "step": 0 if progress is None else progress.step,
        "num_steps": 0 if progress is None else progress.num_steps,
    }


def sample_url(run: str, path: Path) -> str:
    return f"training/runs/{quote(run)}/samples/{quote(path.name)}"


def _job_text(job: JobRecord, progress: Progress | None) -> str:
    """ "Training · step 120 of 800 · 4 min left"."""
    if job.state == JobState.QUEUED:
        return f"Place {(job.position or 0) + 1} in the queue"
    parts = ["Writing the result" if job.kind == PICK else "Training"]
    if progress is None:
        parts.append("starting")
    elif progress.label == TRAINING:
        parts.append(f"step {progress.step} of {progress.num_steps}")
    else:
        parts.append(_said(progress))
    if progress is not None and progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return " · ".join(parts)


def _version(run: Run, told: str) -> str:
    progress = run.progress
    where = "" if progress is None else f"{progress.label}.{progress.step}"
    place = "" if run.job is None else run.job.position
    picking = "" if run.picking is None else run.picking.id
    return f"{told}:{run.state}:{place}:{where}:{picking}:{run.config.schedule.num_steps}"


def _in_full(run: Run, record: RunRecord) -> dict[str, Any]:
    finished = record.finished
    choice = _choice(run, finished)
    used = _in_use(run, record)
    return {
        "config": page_config(run.config, run.about.photos, run.about.prior),
        "estimate": None if record.estimate is None else asdict(record.estimate),
        "losses": decimated(record.losses, MAX_POINTS),
        "rates": _rates(record),
        "validation": [asdict(event) for _, event in sorted(record.validations.items())],
        "samples": [*_base_samples(run), *_samples(run, record)],
        "scale": _scale(run),
        "candidates": sorted(record.candidates),
        "notes": [asdict(note) for note in record.notes],
        "finished": None if finished is None else _finished(finished),
        "choice": choice,
        "in_use": used,
        "picking": None if run.picking is None else {name: run.picking.payload[name] for name in ("step", "weight")},
        "trigger": run.config.data.trigger,
        "kind": KINDS.get(run.config.network.method, "lora"),
        "tag": _tag(run, finished, used),
        "download": f"training/runs/{quote(run.name)}/adapter" if finished and Path(finished.adapter).is_file() else "",
    }


def _finished(finished: TrainingFinished) -> dict[str, Any]:
    return {
        "adapter": Path(finished.adapter).stem,
        "is_there": Path(finished.adapter).exists(),
        "best_step": finished.best_step,
        "best_weight": finished.best_weight,
    }


def _choice(run: Run, finished: TrainingFinished | None) -> dict[str, Any] | None:
    """What was chosen; while it runs, what would be if it ended now."""
    if finished is not None and finished.validation and run.state == "finished":
        return {**finished.validation, "preliminary": False}
    try:
        choice = Records.latest(run.folder.path).choose()
    except (OSError, ValueError, KeyError, TypeError):  # another version's measurements
        return None
    return None if choice is None else {**choice.as_json(), "preliminary": True}


def _in_use(run: Run, record: RunRecord) -> dict[str, Any] | None:
    """Step and weight of what lies among the models."""
    if record.finished is None:
        return None
    by_hand = bool(record.finished.validation.get("by_hand"))
    return {"step": record.finished.best_step, "weight": record.finished.best_weight, "by_hand": by_hand}


def _likeness(record: RunRecord) -> float | None:
    """Of what was chosen, where 0 is the base's and 1 that of photos to each other."""
    if record.finished is None:
        return None
    at = (record.finished.best_step, record.finished.best_weight)
    rows = record.finished.validation.get("rows", ())
    return next((row["likeness"] for row in rows if (row["step"], row["weight"]) == at), None)


def _error_of(measured: ValidationReported) -> float:
    """On photos kept back, where there are some."""
    return measured.train if measured.held_out is None else measured.held_out


def _seconds_left(run: Run, record: RunRecord) -> float | None:
    progress = run.progress
    return record.seconds_left if progress is None or progress.label != TRAINING else progress.seconds_left


def _doing(run: Run) -> str:
    progress = run.progress
    if run.state != "running" or progress is None or progress.label == TRAINING:
        return ""
    return _said(progress)


def _said(progress: Progress) -> str:
    """ "encoding photos, 3 of 40"."""
    return f"{progress.label}, {progress.step} of {progress.num_steps}" if progress.num_steps else progress.label


def _preview(run: Run, record: RunRecord) -> str:
    """A sample of what was chosen; before that, the newest."""
    samples = list(record.samples.values())
    if record.finished is not None:
        at = (record.finished.best_step, record.finished.best_weight)
        of_best = [each for each in samples if (each.step, each.weight) == at]
        if of_best:
            best = max(of_best, key=lambda each: each.likeness or 0.0)
            return sample_url(run.name, Path(best.path))
    return sample_url(run.name, Path(samples[-1].path)) if samples else ""


def _samples(run: Run, record: RunRecord) -> list[dict[str, Any]]:
    """With whether each repeats a photo, where that was looked for."""
    rows = Records.latest(run.folder.path).rows()
    copied = {Path(sample["path"]).name: sample["copied"] for row in rows for sample in row["samples"]}
    return [
        {**_sample(run, event), "copied": copied.get(Path(event.path).name, False)} for event in record.samples.values()
    ]


def _scale(run: Run) -> dict[str, Any] | None:
    """What the raw figures of samples are counted from and to."""
    base = Records.latest(run.folder.path).read("base")
    return None if base is None else base.get("scale")


def _sample(run: Run, event: SampleReady) -> dict[str, Any]:
    return {
        "step": event.step,
        "weight": event.weight,
        "prompt": event.prompt,
        "seed": event.seed,
        "url": sample_url(run.name, Path(event.path)),
        "likeness": event.likeness,
        "prompt_following": event.prompt_following,
    }


def _base_samples(run: Run) -> list[dict[str, Any]]:
    """The base's own pictures of the same prompts and seeds, to compare with."""
    rows = Records.latest(run.folder.path).rows()
    shots = rows[0]["samples"] if rows else []
    found = []
    for number, shot in enumerate(shots):
        path = run.folder.path / "samples" / f"base-{number}.png"
        if path.is_file():
            found.append(
                {
                    "step": 0,
                    "weight": 0.0,
                    "prompt": shot["prompt"],
                    "seed": shot["seed"],
                    "url": sample_url(run.name, path),
                    "likeness": None,
                    "prompt_following": None,
                }
            )
    return found


def _rates(record: RunRecord) -> dict[str, list[tuple[int, float]]]:
    """By part of the network; every so many, as a rate goes smoothly."""
    every = -(-len(record.rates) // MAX_POINTS) or 1
    points = record.rates[::every]
    if record.rates and points[-1] is not record.rates[-1]:
        points = [*points, record.rates[-1]]
    found: dict[str, list[tuple[int, float]]] = {}
    for step, rates in points:
        for part, rate in rates.items():
            found.setdefault(part, []).append((step, rate))
    return found


def _tag(run: Run, finished: TrainingFinished | None, used: Mapping[str, Any] | None) -> str:
    """What a prompt takes to use what came out; "" before, and for whole models."""
    if finished is None or used is None:
        return ""
    match KINDS.get(run.config.network.method, "lora"):
        case "embedding":
            return Path(finished.adapter).stem  # the trigger, unless there was a file of that name
        case "lora":
            return f"<lora:{Path(finished.adapter).stem}:{used['weight']:g}>"
    return ""


def run_log(trainings: Trainings, name: str, data_dir: Path) -> str:
    """Notes, then what the process said last."""
    run = trainings.run(name)
    with trainings.reading(run) as (record, _):
        lines = [
            f"step {note.step}: {'warning: ' if note.kind == 'warning' else ''}{note.text}" for note in record.notes
        ]
        if isinstance(record.ending, Failed):
            lines.append(f"failed: {record.ending.message} {record.ending.hint}".rstrip())
    try:
        said = run.folder.log.read_text(encoding="utf-8", errors="replace")[-MAX_LOG_CHARS:]
    except OSError:
        said = ""
    text = "\n".join([*lines, *(["", said] if said else [])])
    return text.replace(str(data_dir), "DATA") + "\n"
