"""Kinds of jobs that do not need the device have a lane of their own, and neither lane waits for the other."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.jobs.job_helpers import EVENT_TYPES, PATIENCE_S, Stage
from webui.jobs.events import Queued
from webui.jobs.queue import JobQueue, JobState
from webui.jobs.worker import Worker

DOWNLOADS = "downloads"


@pytest.fixture
def lanes(database: Path) -> Iterator[JobQueue]:
    with closing(JobQueue(database, event_types=EVENT_TYPES, lanes={"download": DOWNLOADS})) as queue:
        yield queue


def test_a_job_in_one_lane_runs_while_the_other_lane_is_busy(lanes: JobQueue) -> None:
    drawing, fetching = Stage(), Stage()
    device = Worker(lanes, lambda: {"generate": drawing})
    network = Worker(lanes, lambda: {"download": fetching}, lane=DOWNLOADS)
    device.start()
    network.start()
    try:
        picture = lanes.submit("generate", {}, owner="ann")
        drawing.wait()
        model = lanes.submit("download", {}, owner="ann")
        fetching.wait()
        assert picture.record().state is model.record().state is JobState.RUNNING
        fetching.may_go_on.set()
        assert model.wait(PATIENCE_S).state is JobState.FINISHED
        assert picture.record().state is JobState.RUNNING
        drawing.may_go_on.set()
        assert picture.wait(PATIENCE_S).state is JobState.FINISHED
    finally:
        assert device.stop(PATIENCE_S)
        assert network.stop(PATIENCE_S)


def test_a_place_in_the_queue_counts_only_the_jobs_of_the_same_lane(lanes: JobQueue) -> None:
    first = lanes.submit("generate", {}, owner="ann")
    model = lanes.submit("download", {}, owner="ann")
    second = lanes.submit("generate", {}, owner="ann")
    assert [job.record().position for job in (first, model, second)] == [0, 0, 1]
    claimed = lanes.claim(lambda: False, DOWNLOADS)
    assert claimed is not None
    assert claimed.job.id == model.id
    assert [job.record().position for job in (first, model, second)] == [0, None, 1]
    assert [event for _, event in second.events(follow=False)] == [Queued(position=1)]


def test_a_lane_is_kept_over_a_restart(database: Path) -> None:
    lanes = {"download": DOWNLOADS}
    with closing(JobQueue(database, event_types=EVENT_TYPES, lanes=lanes)) as queue:
        model = queue.submit("download", {}, owner="ann")
        assert queue.claim(lambda: False, DOWNLOADS) is not None
    with closing(JobQueue(database, event_types=EVENT_TYPES, lanes=lanes)) as queue:
        assert queue.claim(lambda: True) is None
        again = queue.claim(lambda: False, DOWNLOADS)
        assert again is not None
        assert again.job.id == model.id
