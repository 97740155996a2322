"""The durable queue: jobs go in as JSON, events come out, nothing is lost when the program dies.

Jobs that have not ended live in memory and are written through to the database; ended ones are in the database only.
One lock guards both. Waiting is done on conditions of that lock, and nothing foreign runs while it is held, so a
follower that goes away in the middle leaves nothing behind.
"""

import bisect
import functools
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from webui.errors import StorageError, WebUIError
from webui.jobs.cancel import CancelToken
from webui.jobs.codec import BASE_EVENTS, EventCodec
from webui.jobs.database import EventRow, JobDatabase, JobRow
from webui.jobs.events import Cancelled, Failed, Finished, JobEvent, Progress, Queued, Started
from webui.jobs.record import JobRecord, JobState

MAX_LOST_RUNS = 3
"""So often may the program die in a row while it runs a job; then the job fails, lest the program never comes up."""

SEQ_PER_OPENING = 2**32
"""Events that were never written have numbers too; each opening of the database counts on far above them."""

DEVICE_LANE = "device"
"""Jobs that need the device: one at a time."""

OUTCOMES: Mapping[type[JobEvent], JobState] = {
    Finished: JobState.FINISHED,
    Failed: JobState.FAILED,
    Cancelled: JobState.CANCELLED,
}
QUEUE_EVENTS = frozenset(BASE_EVENTS) - {Progress}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """What a runner gets. `report` and `cancel` may be used from any thread until the job ends."""

    job: JobRecord
    report: Callable[[JobEvent], None]
    cancel: CancelToken
    previous: tuple[JobEvent, ...] = ()
    """Durable events of earlier runs of this job that the program did not survive."""


@dataclass(slots=True, kw_only=True)
class _LiveJob:
    """A job in memory; touched only under the queue's lock, which `changed` shares."""

    row: JobRow
    state: JobState
    changed: threading.Condition
    interrupted: bool = False
    cancel: CancelToken | None = None
    position: int | None = None
    durable: list[tuple[int, JobEvent]] = field(default_factory=list)
    transient: dict[type[JobEvent], tuple[int, JobEvent]] = field(default_factory=dict)

    def add(self, seq: int, event: JobEvent) -> None:
        if event.durable:
            self.durable.append((seq, event))
        else:
            self.transient[type(event)] = (seq, event)
        self.changed.notify_all()

    def events(self, after: int) -> list[tuple[int, JobEvent]]:
        start = bisect.bisect_right(self.durable, after, key=lambda entry: entry[0])
        recent = [entry for entry in self.transient.values() if entry[0] > after]
        return sorted(self.durable[start:] + recent, key=lambda entry: entry[0])


class JobQueue:
    """Thread-safe. Only one queue at a time, in any process, can have `database`; WebUIError otherwise.

    `lanes`: kind of job -> lane. Lanes run beside each other, each with a worker of its own and its own order; kinds
    that are not named are in `DEVICE_LANE`.
    """

    def __init__(
        self, database: Path, *, event_types: Sequence[type[JobEvent]], lanes: Mapping[str, str] | None = None
    ) -> None:
        self._codec = EventCodec(event_types)
        self._lanes = dict(lanes or {})
        self._lock = threading.RLock()
        self._claimable = threading.Condition(self._lock)
        self._live: dict[str, _LiveJob] = {}
        self._closed = False
        self._database = JobDatabase(database)
        self._seq = self._database.epoch * SEQ_PER_OPENING
        try:
            with self._lock:
                self._recover()
        except BaseException:
            self._database.close()
            raise

    def submit(self, kind: str, payload: Mapping[str, Any], *, owner: str) -> "JobHandle":
        """Puts a job at the end. `payload` is JSON (TypeError otherwise); it is on the disk when this returns."""
        job_id, created_at, text = uuid.uuid4().hex, time.time(), json.dumps(dict(payload))
        with self._lock:
            self._check_open()
            number = self._database.insert(job_id=job_id, kind=kind, owner=owner, payload=text, created_at=created_at)
            row = JobRow(
                number=number,
                id=job_id,
                kind=kind,
                owner=owner,
                state=JobState.QUEUED,
                payload=text,
                created_at=created_at,
            )
            self._add_live(row)
            self._report_positions()
            self._claimable.notify_all()
        return JobHandle(self, job_id)

    def handle(self, job_id: str) -> "JobHandle":
        """Raises WebUIError if there is no such job (any more)."""
        self.record(job_id)
        return JobHandle(self, job_id)

    def record(self, job_id: str) -> JobRecord:
        """Raises WebUIError if there is no such job (any more)."""
        with self._lock:
            live = self._live.get(job_id)
            return _record(self._row(job_id)) if live is None else _live_record(live)

    def jobs(
        self, *, owner: str | None = None, states: Collection[JobState] | None = None, limit: int = 100
    ) -> list[JobRecord]:
        """Newest first; `owner` None is everyone's, `states` None is all."""
        wanted = set(JobState) if states is None else set(states)
        with self._lock:
            self._check_open()
            live = [
                (job.row.number, _live_record(job))
                for job in self._live.values()
                if job.state in wanted and owner in (None, job.row.owner)
            ]
            rows = self._database.ended_jobs(owner, [state for state in wanted if state.ended], limit)
        found = live + [(row.number, _record(row)) for row in rows]
        found.sort(key=lambda entry: entry[0], reverse=True)
        return [record for _, record in found[:limit]]

    def interrupt(self, job_id: str) -> bool:
        """Cancels a waiting job, asks a running one to stop; False if the job has ended already."""
        with self._lock:
            live = self._live_or_none(job_id)
            if live is None or live.state.ended:
                return False
            if live.cancel is None:
                self._end(live, Cancelled())
                return True
            live.interrupted = True
            live.cancel.interrupt()
            try:
                self._database.mark_interrupted(live.row.number)
            except StorageError as error:  # it counts for this run, but a killed program will run the job again
                log.warning("The interrupt of job %s is not on the disk: %s", job_id, error)
            return True

    def skip(self, job_id: str) -> bool:
        """Asks a running job to leave its present image; False if the job is not running."""
        with self._lock:
            live = self._live_or_none(job_id)
            if live is None or live.cancel is None or live.state is not JobState.RUNNING:
                return False
            live.cancel.skip()
            return True

    def close(self) -> None:
        """Ends all following and gives the database free. A job that still runs will run again at the next start."""
        with self._lock:
            if self._closed:
                return
            self._save_ends()
            self._closed = True
            self.wake()
            for live in self._live.values():
                live.changed.notify_all()
            self._database.close()

    # For the worker.

    def claim(self, stopping: Callable[[], bool], lane: str = DEVICE_LANE) -> JobContext | None:
        """Waits for the lane's next job and marks it running. None if `stopping()`, asked again after each `wake`."""
        with self._lock:
            while not (stopping() or self._closed):
                live = next((job for job in self._live.values() if self._waits(job, lane)), None)
                if live is None:
                    self._claimable.wait()
                elif context := self._start(live):
                    return context
        return None

    def wake(self) -> None:
        """Lets `claim` look again whether it should stop."""
        with self._lock:
            self._claimable.notify_all()

    def report(self, job_id: str, event: JobEvent) -> None:
        """An event of a running job. Durable ones are on the disk when this returns; others never go there."""
        if type(event) in QUEUE_EVENTS:
            raise TypeError(f"{type(event).__name__} is reported by the queue itself.")
        self._codec.check(event)
        encoded = self._codec.encode(event) if event.durable else None
        with self._lock:
            self._check_open()
            live = self._live.get(job_id)
            if live is None or live.state is not JobState.RUNNING:
                raise RuntimeError(f"Job {job_id} does not run, but reports {type(event).__name__}.")
            seq = self._next_seq()
            if encoded is not None:
                name, body = encoded
                self._database.append(live.row.number, EventRow(seq=seq, name=name, body=body))
            live.add(seq, event)

    def end(self, job_id: str, outcome: Finished | Failed | Cancelled) -> None:
        """Ends a running job. Never fails: if the disk is full, the end is written when there is space again."""
        with self._lock:
            if not self._closed:
                self._end(self._live[job_id], outcome)

    def put_back(self, job_id: str) -> bool:
        """Lets a running job wait again, in its old place; False if its owner has asked for its end."""
        with self._lock:
            if self._closed:
                return True
            live = self._live[job_id]
            if live.interrupted:
                return False
            live.state, live.cancel = JobState.QUEUED, None
            live.transient.clear()
            try:
                self._database.queue_again(live.row.number, lost_runs=0)
            except StorageError as error:  # the next start finds it running, and queues it
                log.warning("Job %s is not marked as waiting: %s", job_id, error)
            self._report_positions()
            self._claimable.notify_all()
            return True

    # For handles.

    def next_events(
        self, job_id: str, after: int, *, wait: bool, deadline: float | None
    ) -> tuple[list[tuple[int, JobEvent]], bool]:
        """Events above `after`, and whether more can come. Waits for the first one, until `deadline` (monotonic)."""
        with self._lock:
            while True:
                if self._closed:
                    return [], False
                live = self._live.get(job_id)
                if live is None:
                    return self._stored_events(self._row(job_id).number, after), False
                found = live.events(after)
                if found or live.state.ended or not wait:
                    return found, not live.state.ended
                if not _wait(live.changed, deadline):
                    return [], False

    def wait_for_end(self, job_id: str, timeout_s: float | None) -> JobRecord:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            while (live := self._live.get(job_id)) and not live.state.ended and not self._closed:
                if not _wait(live.changed, deadline):
                    break
            return self.record(job_id)

    # Below, the lock is held.

    def _recover(self) -> None:
        """Takes over the jobs of the last process; those it was running wait again, at the front as they are oldest."""
        for row in self._database.live_jobs():
            live = self._add_live(row)
            live.durable = self._stored_events(row.number, 0)
            if row.state is not JobState.RUNNING:
                continue
            lost_runs = row.lost_runs + 1
            if row.interrupted:
                self._end(live, Cancelled())
            elif lost_runs >= MAX_LOST_RUNS:
                self._end(live, _lost(lost_runs))
            else:
                live.state = JobState.QUEUED
                self._database.queue_again(row.number, lost_runs=lost_runs)
        self._report_positions()

    def _add_live(self, row: JobRow) -> _LiveJob:
        live = _LiveJob(row=row, state=row.state, changed=threading.Condition(self._lock))
        self._live[row.id] = live
        return live

    def _start(self, live: _LiveJob) -> JobContext | None:
        """None, and the job has failed, if that cannot be written down."""
        previous = tuple(event for _, event in live.durable)
        seq = self._next_seq()
        try:
            self._database.start(live.row.number, self._event_row(seq, Started()))
        except StorageError as error:
            self._end(live, Failed(message=error.message, hint=error.hint))
            return None
        live.state, live.cancel = JobState.RUNNING, CancelToken()
        live.transient.clear()
        live.add(seq, Started())
        self._report_positions()
        return JobContext(
            job=_live_record(live),
            report=functools.partial(self.report, live.row.id),
            cancel=live.cancel,
            previous=previous,
        )

    def _end(self, live: _LiveJob, outcome: JobEvent) -> None:
        live.state, live.cancel = OUTCOMES[type(outcome)], None
        live.transient.clear()
        live.add(self._next_seq(), outcome)
        self._save_ends()
        self._report_positions()

    def _save_ends(self) -> None:
        """Writes ended jobs down and lets go of them; those that cannot be written stay in memory until they can."""
        for live in [job for job in self._live.values() if job.state.ended]:
            seq, outcome = live.durable[-1]
            try:
                self._database.end(live.row.number, live.state, self._event_row(seq, outcome))
            except StorageError as error:
                log.warning("The end of job %s is not on the disk yet: %s", live.row.id, error)
                return
            del self._live[live.row.id]

    def _waits(self, live: _LiveJob, lane: str) -> bool:
        return live.state is JobState.QUEUED and self._lanes.get(live.row.kind, DEVICE_LANE) == lane

    def _report_positions(self) -> None:
        for lane in {DEVICE_LANE, *self._lanes.values()}:
            waiting = [live for live in self._live.values() if self._waits(live, lane)]
            for position, live in enumerate(waiting):
                if live.position != position:
                    live.add(self._next_seq(), Queued(position=position))
                live.position = position
        for live in self._live.values():
            if live.state is not JobState.QUEUED:
                live.position = None

    def _stored_events(self, number: int, after: int) -> list[tuple[int, JobEvent]]:
        decoded = [(row.seq, self._codec.decode(row.name, row.body)) for row in self._database.events(number, after)]
        return [(seq, event) for seq, event in decoded if event is not None]

    def _event_row(self, seq: int, event: JobEvent) -> EventRow:
        name, body = self._codec.encode(event)
        return EventRow(seq=seq, name=name, body=body)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _live_or_none(self, job_id: str) -> _LiveJob | None:
        live = self._live.get(job_id)
        if live is None:
            self._row(job_id)
        return live

    def _row(self, job_id: str) -> JobRow:
        self._check_open()
        row = self._database.job(job_id)
        if row is None:
            raise WebUIError(
                f"There is no job '{job_id}'.", hint="Old jobs are forgotten; their pictures are still in the outputs."
            )
        return row

    def _check_open(self) -> None:
        if self._closed:
            raise WebUIError("The program is shutting down.", hint="Start it again, then repeat what you did.")


class JobHandle:
    """One job, from outside. Cheap; any number of them, in any thread."""

    def __init__(self, queue: JobQueue, job_id: str) -> None:
        self._queue = queue
        self.id = job_id

    def record(self) -> JobRecord:
        return self._queue.record(self.id)

    def events(
        self, after: int = 0, *, follow: bool = True, timeout_s: float | None = None
    ) -> Iterator[tuple[int, JobEvent]]:
        """(seq, event) from the first above `after` to the end of the job, or until `timeout_s` or `close`.

        `seq` strictly increases, also over a restart of the program, but not by one. What was missed is replayed
        first: all durable events, and the latest of each other class. `follow=False` gives only what is there now.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        more = True
        while more:
            found, more = self._queue.next_events(self.id, after, wait=follow, deadline=deadline)
            for seq, event in found:
                yield seq, event
                after = seq
            more = more and follow

    def wait(self, timeout_s: float | None = None) -> JobRecord:
        """The record when the job has ended, or as it is after `timeout_s`."""
        return self._queue.wait_for_end(self.id, timeout_s)


def _wait(condition: threading.Condition, deadline: float | None) -> bool:
    """False once `deadline` is over."""
    if deadline is None:
        return condition.wait()
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        return False
    condition.wait(left_s)
    return True


def _record(row: JobRow) -> JobRecord:
    return JobRecord(
        id=row.id,
        kind=row.kind,
        owner=row.owner,
        state=row.state,
        payload=json.loads(row.payload),
        created_at=row.created_at,
    )


def _live_record(live: _LiveJob) -> JobRecord:
    return replace(_record(live.row), state=live.state, position=live.position)


def _lost(lost_runs: int) -> Failed:
    return Failed(
        message=f"The program ended {lost_runs} times in a row while it ran this job.",
        hint="The job may need more memory than there is: try a smaller picture or a smaller batch.",
    )


__all__ = ["DEVICE_LANE", "JobContext", "JobHandle", "JobQueue", "JobRecord", "JobState"]
