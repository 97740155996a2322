"""What the pages show of running and ended jobs: events folded into one small value per job.

The browser asks for it a few times a second and says what it has already seen, so a reloaded page, a second window or a
phone that slept simply ask again. Nothing here starts or stops a job.
"""

import base64
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from PIL import Image, UnidentifiedImageError

from webui.assisting import ASSIST
from webui.errors import InvalidRequest, WebUIError
from webui.generation.events import ImageReady, Note, StepPreview
from webui.generation.postprocess import Badge
from webui.images.infotext import parse_infotext
from webui.jobs.events import Cancelled, Failed, Finished, JobEvent, Progress, Queued, Started
from webui.jobs.queue import JobHandle, JobQueue
from webui.jobs.record import JobRecord, JobState
from webui.services import DOWNLOAD, EXTENSION_MODEL, GENERATE, TOOL, Services
from webui.trainings import PICK, TRAIN
from webui.ui.controls import LABELS, Task
from webui.ui.downloads import brief_download
from webui.ui.tools import brief_tool
from webui.ui.training_assist_routes import brief_assist
from webui.ui.training_runs import brief_training

ACTIVE = frozenset({JobState.QUEUED, JobState.RUNNING})
ENDED = frozenset({JobState.FINISHED, JobState.FAILED, JobState.CANCELLED})
MAX_FOLLOWED_JOBS = 256
MAX_RECENT_JOBS = 12
PROMPT_EXCERPT_CHARS = 80

BRIEFS: Mapping[str, Callable[[JobQueue, JobRecord], dict[str, Any]]] = MappingProxyType(
    {
        TRAIN: brief_training,
        PICK: brief_training,
        TOOL: brief_tool,
        ASSIST: brief_assist,
        DOWNLOAD: brief_download,
        EXTENSION_MODEL: brief_download,
    }
)
"""What the side bar says of jobs that make no pictures, by kind."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    index: int
    path: Path
    seed: int
    infotext: str
    width: int
    height: int
    badges: tuple[Badge, ...] = ()
    layers: str = ""
    """How many layers of each LoRA matched: "ink 264/264"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """One job at one moment. `version` grows with every change."""

    version: int = 0
    step: int = 0
    num_steps: int = 0
    label: str = ""
    seconds_left: float | None = None
    position: int = 0
    preview_jpeg: bytes = b""
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    error: tuple[str, str] | None = None
    started_at: float | None = None
    """Seconds of `time.monotonic()`; None if this process did not see the start."""
    elapsed_s: float | None = None
    has_started: bool = False


def fold(view: JobView, version: int, event: JobEvent, now: float) -> JobView:
    """The view after one more event."""
    view = replace(view, version=version)
    match event:
        case Queued(position=position):
            return replace(view, position=position)
        case Started():
            return replace(view, step=0, num_steps=0, label="", preview_jpeg=b"", started_at=now, has_started=True)
        case Progress():
            return replace(
                view,
                step=event.step,
                num_steps=event.num_steps,
                label=event.label,
                seconds_left=event.seconds_left,
            )
        case StepPreview(jpeg=jpeg):
            return replace(view, preview_jpeg=jpeg)
        case ImageReady():
            return replace(view, pictures=(*view.pictures, _picture(event)))
        case Note(message=message):
            return replace(view, notes=(*view.notes, message))
        case Failed(message=message, hint=hint):
            return replace(_ended(view, now), error=(message, hint))
        case Finished() | Cancelled():
            return _ended(view, now)
    return view


class JobViews:
    """Views of the jobs that somebody looks at, kept so that each event is folded once. Thread-safe."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._views: OrderedDict[str, JobView] = OrderedDict()
        self._lock = threading.Lock()

    def view(self, job_id: str) -> JobView:
        return self._follow(self._services.queue.handle(job_id))

    def owned(self, job_id: str, owner: str) -> JobRecord:
        """The record of the owner's own job; WebUIError for everybody else's, as if it did not exist."""
        record = self._services.queue.handle(job_id).record()
        if record.owner != owner:
            raise WebUIError(f"There is no job '{job_id}'.", hint="It may be too old, or somebody else's.")
        return record

    def picture(self, job_id: str, index: int, owner: str) -> Picture:
        """Raises WebUIError if the owner has no such picture."""
        self.owned(job_id, owner)
        for picture in self.view(job_id).pictures:
            if picture.index == index and picture.path.is_file():
                return picture
        raise WebUIError("This picture is gone.", hint="It was deleted or moved in the outputs folder.")

    def page(self, owner: str, task: Task, *, picked: str, kept: str, seen: str) -> dict[str, Any]:
        """What one page shows: the owner's jobs, and the one in the foreground of its tab in full.

        `picked` is the job the user chose to look at, or ""; `kept` is the one the page shows now; `seen` is the stamp
        of what it has of that already.
        """
        queue = self._services.queue
        busy = queue.jobs(owner=owner, states=ACTIVE)[::-1]
        active = [job for job in busy if job.kind == GENERATE]
        ended = [job for job in queue.jobs(owner=owner, states=ENDED) if job.kind == GENERATE and self._ran(job)]
        shown = _foreground([*active, *ended], task, picked, kept)
        answer: dict[str, Any] = {
            "jobs": [self._brief(job) for job in active]
            + [brief(queue, job) for kind, brief in BRIEFS.items() for job in busy if job.kind == kind],
            "recent": self._recent([job for job in ended if task_of(job.payload) == task]),
            "shown": None,
        }
        if shown is not None:
            view = self.view(shown.id)
            stamp = f"{shown.id}:{shown.state}:{view.version}"
            answer["shown"] = {"stamp": stamp} if stamp == seen else {"stamp": stamp, **_in_full(shown, view)}
        return answer

    def _follow(self, handle: JobHandle) -> JobView:
        with self._lock:
            view = self._views.pop(handle.id, JobView())
            for version, event in handle.events(view.version, follow=False):
                view = fold(view, version, event, time.monotonic())
            self._views[handle.id] = view
            while len(self._views) > MAX_FOLLOWED_JOBS:
                self._views.popitem(last=False)
            return view

    def _ran(self, job: JobRecord) -> bool:
        """A job that was cancelled while it waited is nothing to look at."""
        return job.state != JobState.CANCELLED or self.view(job.id).has_started

    def _brief(self, job: JobRecord) -> dict[str, Any]:
        view = self.view(job.id)
        return {
            "id": job.id,
            "task": task_of(job.payload),
            "state": str(job.state),
            "prompt": self._name_of(job),
            "place": (view.position if job.position is None else job.position) + 1,
            "step": view.step,
            "num_steps": view.num_steps,
        }

    def _recent(self, ended: list[JobRecord]) -> list[dict[str, Any]]:
        recent = []
        for job in ended[:MAX_RECENT_JOBS]:
            pictures = self.view(job.id).pictures
            if pictures:
                prompt, index = self._name_of(job), pictures[0].index
                recent.append({"id": job.id, "index": index, "prompt": prompt, "count": len(pictures)})
        return recent

    def _name_of(self, job: JobRecord) -> str:
        """The beginning of its prompt; of finished pictures, the steps they go through."""
        parameters = job.payload["parameters"]
        if task_of(job.payload) != "extras":
            return str(parameters["prompt"])[:PROMPT_EXCERPT_CHARS]
        titles = {one.id: one.title for one in self._services.host.postprocessors()}
        return ", ".join(titles.get(step["id"], step["id"]) for step in parameters["postprocess"])


def task_of(payload: Mapping[str, Any]) -> Task:
    """Which tab a stored job belongs to."""
    task: Task = payload["parameters"]["task"]
    return task


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What went wrong, for the user: a toast, and the control to mend if there is one."""

    title: str
    text: str
    control: str = ""


def attempt(action: Callable[[], T], labels: Mapping[str, str] = LABELS) -> T | Trouble:
    """Does `action`. An error that is none of ours is told by an id, under which the log has the traceback.

    `labels` are what people call the controls.
    """
    try:
        return action()
    except InvalidRequest as error:
        return Trouble(title=labels.get(error.field, error.field), text=str(error), control=error.field)
    except WebUIError as error:
        return Trouble(title="That did not work", text=str(error))
    except Exception:
        error_id = secrets.token_hex(4)
        log.exception("Internal error, id %s", error_id)
        return Trouble(title="Internal error", text=f"Internal error, id {error_id}. The details are in the log.")


def _foreground(jobs: list[JobRecord], task: Task, picked: str, kept: str) -> JobRecord | None:
    """The picked job; else what waits or runs, oldest first; else what was shown so far; else the newest.

    `jobs`: active ones oldest first, then ended ones newest first.
    """
    mine = [job for job in jobs if task_of(job.payload) == task]
    by_id = {job.id: job for job in mine}
    if picked in by_id:
        return by_id[picked]
    if mine and mine[0].state in ACTIVE:
        return mine[0]
    return by_id.get(kept, mine[0] if mine else None)


def _in_full(job: JobRecord, view: JobView) -> dict[str, Any]:
    """As JSON. The preview is left out as soon as the job has ended."""
    preview = ""
    if view.preview_jpeg and job.state == JobState.RUNNING:
        preview = "data:image/jpeg;base64," + base64.b64encode(view.preview_jpeg).decode()
    parameters = job.payload["parameters"]
    return {
        "id": job.id,
        "task": task_of(job.payload),
        "state": str(job.state),
        "place": (view.position if job.position is None else job.position) + 1,
        "step": view.step,
        "num_steps": view.num_steps,
        "label": view.label,
        "seconds_left": view.seconds_left,
        "preview": preview,
        "pictures": [
            {
                "index": p.index,
                "seed": p.seed,
                "width": p.width,
                "height": p.height,
                "layers": p.layers,
                "badges": [{"text": badge.text, "tone": badge.tone, "title": badge.title} for badge in p.badges],
            }
            for p in view.pictures
        ],
        "notes": list(view.notes),
        "error": None if view.error is None else {"message": view.error[0], "hint": view.error[1]},
        "elapsed_s": view.elapsed_s,
        "before": parameters["resize_mode"] if parameters["task"] != "txt2img" else None,
    }


def _picture(event: ImageReady) -> Picture:
    """Reads the size from the file's header; 0 x 0 if the file is gone."""
    path = Path(event.path)
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, UnidentifiedImageError):
        width = height = 0
    return Picture(
        index=event.index,
        path=path,
        seed=event.seed,
        infotext=event.infotext,
        width=width,
        height=height,
        badges=event.badges,
        layers=parse_infotext(event.infotext).fields.get("Lora layers", ""),
    )


def _ended(view: JobView, now: float) -> JobView:
    elapsed_s = None if view.started_at is None else now - view.started_at
    return replace(view, elapsed_s=elapsed_s, preview_jpeg=b"", seconds_left=None)
