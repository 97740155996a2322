"""Any order of submit, claim, report, end, interrupt, stop and restart agrees with a simple model."""

import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.jobs.job_helpers import EVENT_TYPES, Preview, picture
from webui.jobs.events import Cancelled, Failed, Finished, JobEvent, Queued, Started
from webui.jobs.queue import MAX_LOST_RUNS, JobContext, JobQueue, JobState

OUTCOMES = {
    JobState.FINISHED: Finished(),
    JobState.FAILED: Failed(message="no luck", hint="try again"),
    JobState.CANCELLED: Cancelled(),
}


@dataclass
class ModelJob:
    id: str
    owner: str
    state: JobState = JobState.QUEUED
    durable: list[JobEvent] = field(default_factory=list)
    interrupted: bool = False
    lost_runs: int = 0
    last_seq: int = 0


class QueueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Path(self.folder.name) / "webui.db"
        self.queue = JobQueue(self.database, event_types=EVENT_TYPES)
        self.model: list[ModelJob] = []
        self.context: JobContext | None = None

    def teardown(self) -> None:
        self.queue.close()
        self.folder.cleanup()

    @property
    def running(self) -> ModelJob | None:
        return next((job for job in self.model if job.state is JobState.RUNNING), None)

    @property
    def waiting(self) -> list[ModelJob]:
        return [job for job in self.model if job.state is JobState.QUEUED]

    @rule(owner=st.sampled_from(["ann", "bob"]))
    def submit(self, owner: str) -> None:
        self.model.append(ModelJob(id=self.queue.submit("generate", {}, owner=owner).id, owner=owner))

    @precondition(lambda self: not self.running)
    @rule()
    def claim(self) -> None:
        if not self.waiting:
            assert self.queue.claim(lambda: True) is None
            return
        first = self.waiting[0]
        self.context = self.queue.claim(lambda: False)
        assert self.context is not None
        assert self.context.job.id == first.id
        assert list(self.context.previous) == first.durable
        first.state = JobState.RUNNING
        first.durable.append(Started())

    @precondition(lambda self: self.running)
    @rule(index=st.integers(0, 3))
    def report(self, index: int) -> None:
        assert self.context
        assert self.running
        self.context.report(picture(index))
        self.running.durable.append(picture(index))
        self.running.lost_runs = 0

    @precondition(lambda self: self.running)
    @rule()
    def report_preview(self) -> None:
        assert self.context
        self.context.report(Preview(jpeg=b"x"))

    @precondition(lambda self: self.running)
    @rule(state=st.sampled_from(sorted(OUTCOMES)))
    def end(self, state: JobState) -> None:
        job = self.running
        assert job
        self.queue.end(job.id, OUTCOMES[state])
        job.state = state
        job.durable.append(OUTCOMES[state])

    @precondition(lambda self: self.running)
    @rule()
    def put_back(self) -> None:
        job = self.running
        assert job
        assert self.queue.put_back(job.id) is not job.interrupted
        if not job.interrupted:
            job.state, job.lost_runs = JobState.QUEUED, 0

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def interrupt(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.model))
        assert self.queue.interrupt(job.id) is not job.state.ended
        if job.state is JobState.QUEUED:
            job.state = JobState.CANCELLED
            job.durable.append(Cancelled())
        elif job.state is JobState.RUNNING:
            assert self.context
            assert self.context.cancel.interrupted
            job.interrupted = True

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def skip(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.model))
        assert self.queue.skip(job.id) is (job.state is JobState.RUNNING)

    @rule()
    def restart(self) -> None:
        """As after a kill: nobody has told the queue how the running job ended."""
        self.queue.close()
        self.queue = JobQueue(self.database, event_types=EVENT_TYPES)
        lost = self.running
        if lost is None:
            return
        lost.lost_runs += 1
        if lost.interrupted:
            lost.state = JobState.CANCELLED
            lost.durable.append(Cancelled())
        elif lost.lost_runs == MAX_LOST_RUNS:
            lost.state = JobState.FAILED
            lost.durable.append(list(self.queue.handle(lost.id).events())[-1][1])
            assert isinstance(lost.durable[-1], Failed)
        else:
            lost.state = JobState.QUEUED

    @invariant()
    def the_list_agrees(self) -> None:
        places = {job.id: place for place, job in enumerate(self.waiting)}
        expected = [(job.id, job.owner, job.state, places.get(job.id)) for job in reversed(self.model)]
        found = [(job.id, job.owner, job.state, job.position) for job in self.queue.jobs()]
        assert found == expected
        assert [job.id for job in self.queue.jobs(owner="ann")] == [job[0] for job in expected if job[1] == "ann"]
        assert [job.id for job in self.queue.jobs(states=[JobState.QUEUED, JobState.FAILED], limit=2)] == [
            job[0] for job in expected if job[2] in (JobState.QUEUED, JobState.FAILED)
        ][:2]

    @invariant()
    def the_stories_agree(self) -> None:
        for job in self.model:
            events = list(self.queue.handle(job.id).events(follow=job.state.ended))
            assert [event for _, event in events if event.durable] == job.durable
            assert all(before < after for (before, _), (after, _) in pairwise(events))
            positions = [event.position for _, event in events if isinstance(event, Queued)]
            assert positions == ([self.waiting.index(job)] if job in self.waiting else [])

    @invariant()
    def news_comes_above_all_that_was_known(self) -> None:
        for job in self.model:
            last_seq = max(seq for seq, _ in self.queue.handle(job.id).events(follow=False))
            assert last_seq >= job.last_seq
            job.last_seq = last_seq


TestQueueAgainstModel = QueueMachine.TestCase
TestQueueAgainstModel.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
