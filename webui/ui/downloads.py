"""What the pages show of downloads: jobs that fetch models, folded from their events."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.jobs.events import Failed
from webui.jobs.queue import JobQueue
from webui.jobs.record import JobRecord, JobState
from webui.library.downloads.amounts import amount, status_text
from webui.library.downloads.download import DownloadRequest
from webui.library.downloads.events import DownloadFound, DownloadProgress
from webui.library.events import ModelSaved
from webui.services import DOWNLOAD, EXTENSION_MODEL, Services

MAX_SHOWN = 12


@dataclass(slots=True, kw_only=True)
class DownloadView:
    """One download at one moment."""

    title: str
    found: DownloadFound | None = None
    progress: DownloadProgress | None = None
    saved: ModelSaved | None = None
    failed: Failed | None = None


def view_of(queue: JobQueue, job: JobRecord) -> DownloadView:
    view = DownloadView(title=_asked_for(job))
    for _, event in queue.handle(job.id).events(follow=False):
        match event:
            case DownloadFound():
                view.found = event
                view.title = event.title
            case DownloadProgress():
                view.progress = event
            case ModelSaved():
                view.saved = event
            case Failed():
                view.failed = event
    return view


def _asked_for(job: JobRecord) -> str:
    if job.kind == EXTENSION_MODEL:
        return str(job.payload["model"]["file"])
    return str(job.payload["name"] or job.payload["source"])


def brief_download(queue: JobQueue, job: JobRecord) -> dict[str, Any]:
    """A line of the side bar's list of jobs."""
    view = view_of(queue, job)
    if job.state == JobState.QUEUED:
        status = f"Place {(job.position or 0) + 1} among the downloads"
    else:
        status = "Asking the site" if view.progress is None else status_text(view.progress)
    return {
        "id": job.id,
        "task": job.kind,
        "state": str(job.state),
        "prompt": view.title,
        "status": status,
        "place": (job.position or 0) + 1,
        "step": 0 if view.progress is None else view.progress.done,
        "num_steps": 0 if view.progress is None else view.progress.total or 0,
    }


def list_downloads(services: Services, owner: str) -> list[dict[str, Any]]:
    """The owner's downloads, newest first; of equal requests only the latest."""
    seen: set[str] = set()
    shown: list[dict[str, Any]] = []
    for job in services.queue.jobs(owner=owner):
        if job.kind != DOWNLOAD or (request := str(sorted(job.payload.items()))) in seen or len(shown) == MAX_SHOWN:
            continue
        seen.add(request)
        shown.append(_in_full(services, job))
    return shown


def _in_full(services: Services, job: JobRecord) -> dict[str, Any]:
    view = view_of(services.queue, job)
    stopped = job.state in (JobState.CANCELLED, JobState.FAILED)
    can_resume = stopped and services.downloads.has_part(DownloadRequest.model_validate(job.payload))
    return {
        "id": job.id,
        "state": str(job.state),
        "title": view.title,
        "source": job.payload["source"],
        "status": ended_text(view) if job.state.ended else brief_download(services.queue, job)["status"],
        "done": 0 if view.progress is None else view.progress.done,
        "total": None if view.progress is None else view.progress.total,
        "hint": "" if view.failed is None else view.failed.hint,
        "kept": can_resume,
    }


def ended_text(view: DownloadView) -> str:
    if view.saved is not None:
        folder = Path(view.saved.path).parent.name
        if view.saved.already_there:
            return f"Is in {folder} already"
        return f"In {folder} · {amount(view.saved.size, None)}"
    if view.failed is not None:
        return view.failed.message
    return "Stopped"
