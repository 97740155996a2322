"""What the front ends do with assistants: list them, set one to a photo set, follow it. Imports no torch."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from webui.errors import InvalidRequest, WebUIError
from webui.jobs.events import Failed, JobEvent, Progress
from webui.jobs.queue import JobContext, JobHandle, JobQueue
from webui.jobs.record import JobRecord, JobState
from webui.training.assistants.assist import AssistRequest, assist, chosen_photos
from webui.training.assistants.catalog import Assistants
from webui.training.assistants.events import Assisted
from webui.training.data.photo_set import PhotoSet
from webui.training.data.sets import PhotoSets

ASSIST = "assist"
"""The kind of a job that makes captions or masks: its payload is an AssistRequest, the photo set's id as "set", and its
name as "title"."""
ACTIVE = frozenset({JobState.QUEUED, JobState.RUNNING})
ALL_JOBS = 1_000_000
WORDS: Mapping[str, str] = {"captions": "Captions", "masks": "Masks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistance:
    """How far an assistant is with a photo set, or how it ended. `total` is 0 until it has begun."""

    job: str
    kind: str
    state: JobState
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    outcome: Assisted | None = None
    failed: Failed | None = None


@dataclass(slots=True)
class _Latest:
    """The latest job of each photo set, for as long as the program runs."""

    jobs: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def run_assistant(
    request: AssistRequest,
    photos: PhotoSet,
    assistants: Assistants,
    *,
    report: Callable[[JobEvent], None],
    check: Callable[[], None],
) -> Assisted:
    """All that it changes is taken back by one undo of the set. Raises InvalidRequest, UnsupportedModel."""
    assistant = assistants.find(request.kind, request.assistant)
    chosen = chosen_photos(photos.photos(), request.names)
    with photos.changing(f"{request.kind} by {assistant.name}") as change:
        return assist(request, assistant, chosen, change, report=report, check=check)


def assistance_of(queue: JobQueue, job: JobRecord) -> Assistance:
    """How far a job of the kind ASSIST is."""
    events = [event for _, event in queue.handle(job.id).events(follow=False)]
    progress = next((event for event in reversed(events) if isinstance(event, Progress)), None)
    outcome = next((event for event in reversed(events) if isinstance(event, Assisted)), None)
    return Assistance(
        job=job.id,
        kind=str(job.payload.get("kind", "")),
        state=job.state,
        done=progress.step if progress else 0,
        total=progress.num_steps if progress else 0,
        seconds_left=progress.seconds_left if progress else None,
        outcome=outcome,
        failed=next((event for event in events if isinstance(event, Failed)), None),
    )


class Assisting:
    """One per program. Everything here may be called from any thread."""

    def __init__(self, queue: JobQueue, photo_sets: PhotoSets, assistants: Assistants) -> None:
        self.assistants = assistants
        self._queue = queue
        self._photo_sets = photo_sets
        self._latest = _Latest()

    def start(self, set_id: str, request: AssistRequest, *, owner: str) -> JobHandle:
        """Queues `request`, or gives the job that does the same already. Raises InvalidRequest for what cannot be."""
        info, photos = self._photo_sets.info(set_id), self._photo_sets.open(set_id)
        self._prepared(photos, request)
        payload = {**request.model_dump(mode="json"), "set": info.id, "title": info.name}
        for job in self._active(info.id):
            if job.payload == payload:
                return self._queue.handle(job.id)
            if job.payload["kind"] == request.kind:
                raise InvalidRequest(
                    "assistant",
                    f"{WORDS[request.kind]} of '{info.name}' are being made already.",
                    hint="Stop it first.",
                )
        handle = self._queue.submit(ASSIST, payload, owner=owner)
        with self._latest.lock:
            self._latest.jobs[info.id] = handle.id
        return handle

    def running(self, set_id: str) -> Assistance | None:
        """What waits or runs for the photo set; the oldest of several."""
        jobs = self._active(set_id)
        return assistance_of(self._queue, jobs[-1]) if jobs else None

    def latest(self, set_id: str) -> Assistance | None:
        """What waits or runs, or how the last one ended; None where there was none since the program began."""
        if running := self.running(set_id):
            return running
        with self._latest.lock:
            job = self._latest.jobs.get(set_id)
        if job is None:
            return None
        try:
            return assistance_of(self._queue, self._queue.record(job))
        except WebUIError:  # it was deleted
            return None

    def work(self, context: JobContext) -> None:
        """Runs a job of the kind ASSIST."""
        values = dict(context.job.payload)
        values.pop("title")
        photos = self._photo_sets.open(values.pop("set"))
        request = AssistRequest.model_validate(values)
        run_assistant(request, photos, self.assistants, report=context.report, check=context.cancel.check)

    def _prepared(self, photos: PhotoSet, request: AssistRequest) -> None:
        if reason := photos.why_not_writable():
            raise InvalidRequest("set", reason)
        if not chosen_photos(photos.photos(), request.names):
            raise InvalidRequest("names", "There are no photos to look at.", hint="Add some first.")
        self.assistants.find(request.kind, request.assistant)

    def _active(self, set_id: str) -> list[JobRecord]:
        """Newest first."""
        jobs = self._queue.jobs(states=ACTIVE, limit=ALL_JOBS)
        return [job for job in jobs if job.kind == ASSIST and job.payload.get("set") == set_id]
