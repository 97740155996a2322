"""What outlives the program."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.jobs import job_helpers
from tests.jobs.job_helpers import EVENT_TYPES, PATIENCE_S, Preview, Stage, picture, working
from webui.errors import WebUIError
from webui.jobs.events import Cancelled, Failed, Finished, Queued, Started
from webui.jobs.queue import MAX_LOST_RUNS, JobContext, JobQueue, JobState

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def run_until_two_pictures_then_kill(database: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, job_helpers.__file__, str(database)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    with program.stdout as output:
        line = output.readline()
        program.kill()
        program.wait(PATIENCE_S)
    assert line == "two pictures made\n"


def test_a_job_whose_process_was_killed_goes_on_after_a_restart(
    database: Path, open_queue: Callable[[], JobQueue]
) -> None:
    queue = open_queue()
    killed = queue.submit("pictures", {"n": 3}, owner="ann")
    later = queue.submit("pictures", {"n": 1}, owner="bob")
    queue.close()
    run_until_two_pictures_then_kill(database)

    seen: list[JobContext] = []

    def make_the_missing_pictures(context: JobContext) -> None:
        seen.append(context)
        for index in range(context.job.payload["n"]):
            if picture(index) not in context.previous:
                context.report(picture(index))

    queue = open_queue()
    before = queue.handle(killed.id).events(follow=False)
    *replayed, (last_seq, queued) = before
    assert [event for _, event in replayed] == [Started(), picture(0), picture(1)]
    assert queued == Queued(position=0)
    assert queue.record(later.id).position == 1
    with working(queue, pictures=make_the_missing_pictures):
        after = list(queue.handle(killed.id).events(after=last_seq, timeout_s=PATIENCE_S))
        assert queue.handle(later.id).wait(PATIENCE_S).state is JobState.FINISHED
    assert [event for _, event in after if event.durable] == [Started(), picture(2), Finished()]
    assert [context.job.id for context in seen] == [killed.id, later.id]
    assert seen[0].previous == (Started(), picture(0), picture(1))
    assert seen[1].previous == ()


def test_a_follower_that_knew_unwritten_events_hears_the_new_ones_after_a_restart(
    queue: JobQueue, open_queue: Callable[[], JobQueue]
) -> None:
    """Previews have numbers too, but are gone after a restart: the count must not begin again below them."""
    handle = queue.submit("generate", {}, owner="ann")
    context = queue.claim(lambda: False)
    assert context is not None
    for number in range(100):
        context.report(Preview(jpeg=bytes([number])))
    known = [seq for seq, _ in handle.events(follow=False)]
    queue.close()
    queue = open_queue()
    with working(queue, generate=lambda context: context.report(picture(0))):
        events = list(queue.handle(handle.id).events(after=known[-1], timeout_s=PATIENCE_S))
    assert [event for _, event in events if event.durable] == [Started(), picture(0), Finished()]
    assert all(before < after for before, after in pairwise([*known, *(seq for seq, _ in events)]))


def test_ended_jobs_and_their_events_are_there_after_a_restart(
    queue: JobQueue, open_queue: Callable[[], JobQueue]
) -> None:
    handle = queue.submit("generate", {"prompt": "a fox"}, owner="ann")
    with working(queue, generate=lambda context: context.report(picture(0))):
        before = handle.wait(PATIENCE_S), list(handle.events())
    queue.close()
    again = open_queue().handle(handle.id)
    assert (again.record(), list(again.events())) == before


def test_previews_never_touch_the_disk(queue: JobQueue, database: Path) -> None:
    stage = Stage()
    queue.submit("generate", {}, owner="ann")

    def files() -> dict[str, tuple[int, int]]:
        return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in database.parent.iterdir()}

    with working(queue, generate=stage):
        context = stage.wait()
        before = files()
        for number in range(50):
            context.report(Preview(jpeg=bytes([number]) * 30_000))
        assert files() == before


def test_a_job_that_its_owner_interrupted_before_the_kill_does_not_run_again(
    queue: JobQueue, open_queue: Callable[[], JobQueue]
) -> None:
    handle = queue.submit("generate", {}, owner="ann")
    assert queue.claim(lambda: False)
    queue.interrupt(handle.id)
    queue.close()
    queue = open_queue()
    assert queue.record(handle.id).state is JobState.CANCELLED
    assert [event for _, event in queue.handle(handle.id).events()] == [Started(), Cancelled()]


def test_a_job_that_takes_the_program_down_again_and_again_fails(open_queue: Callable[[], JobQueue]) -> None:
    queue = open_queue()
    handle = queue.submit("generate", {}, owner="ann")
    for _ in range(MAX_LOST_RUNS):
        assert queue.record(handle.id).state is JobState.QUEUED
        assert queue.claim(lambda: False)
        queue.close()
        queue = open_queue()
    assert queue.record(handle.id).state is JobState.FAILED
    *_, (_, failed) = queue.handle(handle.id).events()
    assert isinstance(failed, Failed)
    assert "3 times in a row" in failed.message


def test_a_job_that_gets_on_between_kills_is_taken_up_every_time(open_queue: Callable[[], JobQueue]) -> None:
    queue = open_queue()
    handle = queue.submit("generate", {}, owner="ann")
    for index in range(MAX_LOST_RUNS + 2):
        assert queue.record(handle.id).state is JobState.QUEUED
        context = queue.claim(lambda: False)
        assert context is not None
        context.report(picture(index))
        queue.close()
        queue = open_queue()
    assert queue.record(handle.id).state is JobState.QUEUED


def test_events_of_an_extension_that_is_gone_are_left_out(queue: JobQueue, database: Path) -> None:
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=lambda context: context.report(picture(0))):
        handle.wait(PATIENCE_S)
    queue.close()
    queue = JobQueue(database, event_types=[])
    try:
        assert [event for _, event in queue.handle(handle.id).events()] == [Started(), Finished()]
    finally:
        queue.close()


def test_a_second_queue_on_the_same_directory_is_refused_and_takes_nothing(queue: JobQueue, database: Path) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=stage):
        stage.wait()
        with pytest.raises(WebUIError, match="already running on this data directory"):
            JobQueue(database, event_types=EVENT_TYPES)
        second = subprocess.run(
            [sys.executable, job_helpers.__file__, str(database)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert second.returncode != 0
        assert "already running on this data directory" in second.stderr
        assert handle.record().state is JobState.RUNNING
        stage.may_go_on.set()
        assert handle.wait(PATIENCE_S).state is JobState.FINISHED
