"""What the pages show of tools: jobs that make models of models, folded from their events."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from webui.jobs.events import Failed, Progress
from webui.jobs.queue import JobQueue
from webui.jobs.record import JobRecord, JobState
from webui.library.downloads.amounts import amount, duration
from webui.library.events import ModelSaved
from webui.services import TOOL, Services

MAX_SHOWN = 6

DOING: Mapping[str, str] = MappingProxyType(
    {
        "merge": "Merging",
        "convert": "Converting",
        "bake": "Baking",
        "extract": "Extracting",
        "resize": "Resizing",
        "merge-loras": "Merging LoRAs",
    }
)
"""What a tool is doing, by its name in a request."""


@dataclass(slots=True, kw_only=True)
class ToolView:
    """One tool at one moment."""

    progress: Progress | None = None
    saved: ModelSaved | None = None
    failed: Failed | None = None


def view_of(queue: JobQueue, job: JobRecord) -> ToolView:
    view = ToolView()
    for _, event in queue.handle(job.id).events(follow=False):
        match event:
            case Progress():
                view.progress = event
            case ModelSaved():
                view.saved = event
            case Failed():
                view.failed = event
    return view


def brief_tool(queue: JobQueue, job: JobRecord) -> dict[str, Any]:
    """A line of the side bar's list of jobs."""
    progress = view_of(queue, job).progress
    return {
        "id": job.id,
        "task": TOOL,
        "state": str(job.state),
        "prompt": str(job.payload["destination"]),
        "status": _active_text(job, progress),
        "place": (job.position or 0) + 1,
        "step": 0 if progress is None else progress.step,
        "num_steps": 0 if progress is None else progress.num_steps,
    }


def list_tools(services: Services, owner: str) -> list[dict[str, Any]]:
    """The owner's tools, newest first; of equal requests only the latest."""
    shown: list[dict[str, Any]] = []
    seen: list[Mapping[str, Any]] = []
    for job in services.queue.jobs(owner=owner):
        if job.kind == TOOL and job.payload not in seen and len(shown) < MAX_SHOWN:
            seen.append(job.payload)
            shown.append(_in_full(services.queue, job))
    return shown


def _in_full(queue: JobQueue, job: JobRecord) -> dict[str, Any]:
    view = view_of(queue, job)
    return {
        "id": job.id,
        "state": str(job.state),
        "title": str(job.payload["destination"]),
        "status": _ended_text(view) if job.state.ended else _active_text(job, view.progress),
        "hint": "" if view.failed is None else view.failed.hint,
        "step": 0 if view.progress is None else view.progress.step,
        "num_steps": 0 if view.progress is None else view.progress.num_steps,
    }


def _active_text(job: JobRecord, progress: Progress | None) -> str:
    """ "Merging · 120 of 2134 MB written · 12 s left"."""
    if job.state == JobState.QUEUED:
        return f"Place {(job.position or 0) + 1} among the tools"
    parts = [DOING.get(str(job.payload["tool"]), "Working")]
    if progress is not None and progress.num_steps:
        parts.append(f"{progress.step} of {progress.num_steps} {progress.label}")
    elif progress is not None:
        parts.append(progress.label)
    if progress is not None and progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return " · ".join(parts)


def _ended_text(view: ToolView) -> str:
    if view.saved is not None:
        return f"In {Path(view.saved.path).parent.name} · {amount(view.saved.size, None)}"
    return "Stopped" if view.failed is None else view.failed.message
