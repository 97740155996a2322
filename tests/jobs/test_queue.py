"""Jobs from outside: submit, follow, interrupt, skip, look at the list."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from tests.jobs.job_helpers import PATIENCE_S, Preview, Stage, picture, working
from webui.errors import WebUIError
from webui.jobs.cancel import ImageSkipped
from webui.jobs.events import Cancelled, Finished, JobEvent, Progress, Queued, Started
from webui.jobs.queue import JobContext, JobHandle, JobQueue, JobState


def kinds(events: Iterator[tuple[int, JobEvent]]) -> list[type[JobEvent]]:
    return [type(event) for _, event in events]


def make_two_pictures(context: JobContext) -> None:
    for index in range(2):
        context.report(Progress(step=index, num_steps=2))
        context.report(picture(index))


def test_a_job_comes_back_as_it_was_submitted(queue: JobQueue) -> None:
    handle = queue.submit("generate", {"prompt": "a fox", "size": (64, 64)}, owner="ann")
    record = handle.record()
    assert (record.id, record.kind, record.owner) == (handle.id, "generate", "ann")
    assert record.payload == {"prompt": "a fox", "size": [64, 64]}
    assert (record.state, record.position) == (JobState.QUEUED, 0)


def test_changing_a_payload_does_not_change_the_job(queue: JobQueue) -> None:
    handle = queue.submit("generate", {"list": [1]}, owner="ann")
    handle.record().payload["list"].append(2)
    assert handle.record().payload == {"list": [1]}


def test_a_payload_that_is_not_json_is_refused(queue: JobQueue) -> None:
    with pytest.raises(TypeError):
        queue.submit("generate", {"path": Path("x")}, owner="ann")
    assert queue.jobs() == []


def test_an_unknown_job_is_named(queue: JobQueue) -> None:
    for ask in (queue.handle, queue.interrupt, queue.skip):
        with pytest.raises(WebUIError, match="no job 'nope'"):
            ask("nope")


def test_two_owners_see_their_own_jobs_and_their_places_among_all(queue: JobQueue) -> None:
    first = queue.submit("generate", {}, owner="ann")
    second = queue.submit("generate", {}, owner="bob")
    third = queue.submit("generate", {}, owner="ann")
    assert [(job.id, job.position) for job in queue.jobs(owner="ann")] == [(third.id, 2), (first.id, 0)]
    assert [(job.id, job.position) for job in queue.jobs(owner="bob")] == [(second.id, 1)]
    assert [job.id for job in queue.jobs(limit=2)] == [third.id, second.id]


def test_the_list_is_newest_first_over_live_and_ended_jobs(queue: JobQueue) -> None:
    handles = [queue.submit("generate", {}, owner="ann") for _ in range(3)]
    queue.interrupt(handles[1].id)
    assert [job.id for job in queue.jobs()] == [handle.id for handle in reversed(handles)]
    assert [job.id for job in queue.jobs(states=[JobState.CANCELLED])] == [handles[1].id]
    assert [job.id for job in queue.jobs(states=[JobState.QUEUED])] == [handles[2].id, handles[0].id]


def test_a_waiting_job_is_told_whenever_its_place_changes(queue: JobQueue) -> None:
    first, second, third = (queue.submit("generate", {}, owner="ann") for _ in range(3))
    following = third.events(timeout_s=PATIENCE_S)
    assert next(following)[1] == Queued(position=2)
    queue.interrupt(second.id)
    assert next(following)[1] == Queued(position=1)
    queue.interrupt(first.id)
    assert next(following)[1] == Queued(position=0)
    queue.interrupt(third.id)
    assert [event for _, event in following] == [Cancelled()]


def test_a_follower_from_the_start_sees_the_whole_story_in_order(queue: JobQueue) -> None:
    handle = queue.submit("generate", {}, owner="ann")
    with ThreadPoolExecutor() as pool:
        story = pool.submit(list, handle.events(timeout_s=PATIENCE_S))
        with working(queue, generate=make_two_pictures):
            events = story.result(PATIENCE_S)
    durable = [event for _, event in events if event.durable]
    assert durable == [Started(), picture(0), picture(1), Finished()]
    assert all(before < after for (before, _), (after, _) in pairwise(events))


def test_a_late_follower_gets_a_replay(queue: JobQueue) -> None:
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=make_two_pictures):
        assert handle.wait(PATIENCE_S).state is JobState.FINISHED
        for _ in range(2):
            events = [event for _, event in queue.handle(handle.id).events()]
            assert events == [Started(), picture(0), picture(1), Finished()]


def test_a_follower_that_comes_back_gets_only_what_it_missed(queue: JobQueue) -> None:
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=make_two_pictures):
        events = list(handle.events(timeout_s=PATIENCE_S))
        for position, (seq, _) in enumerate(events):
            missed = [entry for entry in events[position + 1 :] if entry[1].durable]
            assert list(handle.events(after=seq)) == missed


def test_of_transient_events_only_the_latest_of_each_kind_is_replayed(queue: JobQueue) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=stage):
        context = stage.wait()
        context.report(Progress(step=1, num_steps=9))
        context.report(Preview(jpeg=b"first"))
        context.report(picture(0))
        context.report(Preview(jpeg=b"second"))
        context.report(Progress(step=2, num_steps=9))
        assert [event for _, event in handle.events(follow=False)] == [
            Started(),
            picture(0),
            Preview(jpeg=b"second"),
            Progress(step=2, num_steps=9),
        ]


def test_an_event_reaches_a_waiting_follower_before_the_job_goes_on(queue: JobQueue) -> None:
    """Forty times to and fro between runner and follower, each waiting for the other: nothing may get lost."""
    heard = threading.Semaphore(0)

    def speak(context: JobContext) -> None:
        for step in range(40):
            context.report(Progress(step=step, num_steps=40))
            assert heard.acquire(timeout=PATIENCE_S)

    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=speak):
        steps = []
        for _, event in handle.events(timeout_s=PATIENCE_S):
            if isinstance(event, Progress):
                steps.append(event.step)
                heard.release()
    assert steps == list(range(40))


def test_many_followers_of_many_jobs_see_strictly_increasing_numbers(queue: JobQueue) -> None:
    def count(context: JobContext) -> None:
        for index in range(30):
            context.report(Progress(step=index, num_steps=30))
            context.report(picture(index))

    handles = [queue.submit("generate", {}, owner="ann") for _ in range(3)]
    with ThreadPoolExecutor(max_workers=12) as pool:
        stories = [(h, pool.submit(list, h.events(timeout_s=PATIENCE_S))) for h in handles for _ in range(4)]
        with working(queue, generate=count):
            for _, story in stories:
                events = story.result(PATIENCE_S)
                assert all(before < after for (before, _), (after, _) in pairwise(events))
                assert [event for _, event in events if event.durable] == [
                    Started(),
                    *(picture(index) for index in range(30)),
                    Finished(),
                ]


def test_a_follower_that_goes_away_in_the_middle_holds_nothing_up(queue: JobQueue) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=stage):
        stage.wait()
        gone = handle.events()
        assert isinstance(next(gone)[1], Started)
        gone.close()
        left = handle.events()
        next(left)
        stage.may_go_on.set()
        assert handle.wait(PATIENCE_S).state is JobState.FINISHED
        assert kinds(left) == [Finished]


def test_following_ends_at_its_time_limit_while_the_job_goes_on(queue: JobQueue) -> None:
    handle = queue.submit("generate", {}, owner="ann")
    assert kinds(handle.events(timeout_s=0.01)) == [Queued]
    assert handle.wait(timeout_s=0.01).state is JobState.QUEUED


def test_closing_the_queue_ends_all_following(queue: JobQueue) -> None:
    handle = queue.submit("generate", {}, owner="ann")
    with ThreadPoolExecutor() as pool:
        following = handle.events(timeout_s=PATIENCE_S)
        next(following)
        rest = pool.submit(list, following)
        waiting = pool.submit(handle.wait, PATIENCE_S)
        queue.close()
        assert rest.result(PATIENCE_S) == []
        assert waiting.result(PATIENCE_S).state is JobState.QUEUED
    with pytest.raises(WebUIError, match="shutting down"):
        queue.submit("generate", {}, owner="ann")


def test_interrupting_a_waiting_job_cancels_it_and_it_never_runs(queue: JobQueue) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    assert queue.interrupt(handle.id)
    last = queue.submit("other", {}, owner="ann")
    with working(queue, generate=stage, other=make_two_pictures):
        assert last.wait(PATIENCE_S).state is JobState.FINISHED
    assert not stage.contexts
    assert handle.record().state is JobState.CANCELLED
    assert kinds(handle.events()) == [Cancelled]


def test_interrupting_a_running_job_lets_the_next_one_start(queue: JobQueue) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    following = queue.submit("other", {}, owner="bob")
    with working(queue, generate=stage, other=make_two_pictures):
        stage.wait().report(picture(0))
        assert queue.interrupt(handle.id)
        assert handle.wait(PATIENCE_S).state is JobState.CANCELLED
        assert following.wait(PATIENCE_S).state is JobState.FINISHED
    assert [event for _, event in handle.events()] == [Started(), picture(0), Cancelled()]


def test_interrupting_or_skipping_an_ended_job_does_nothing(queue: JobQueue) -> None:
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=make_two_pictures):
        ended = handle.wait(PATIENCE_S)
        assert not queue.interrupt(handle.id)
        assert not queue.skip(handle.id)
        assert handle.record() == ended


def test_a_skip_leaves_one_image_and_the_job_goes_on(queue: JobQueue) -> None:
    asked, skipped_ready = threading.Event(), threading.Event()

    def make_three(context: JobContext) -> None:
        for index in range(3):
            if index == 1:
                skipped_ready.set()
                assert asked.wait(PATIENCE_S)
            try:
                context.cancel.check()
            except ImageSkipped:
                continue
            context.report(picture(index))

    handle = queue.submit("generate", {}, owner="ann")
    assert not queue.skip(handle.id)
    with working(queue, generate=make_three):
        assert skipped_ready.wait(PATIENCE_S)
        assert queue.skip(handle.id)
        asked.set()
        assert handle.wait(PATIENCE_S).state is JobState.FINISHED
    assert [event for _, event in handle.events()] == [Started(), picture(0), picture(2), Finished()]


def test_jobs_submitted_from_many_threads_run_once_each_in_the_order_of_the_list(queue: JobQueue) -> None:
    ran: list[str] = []
    with ThreadPoolExecutor(max_workers=8) as pool:
        handles: list[JobHandle] = list(
            pool.map(lambda n: queue.submit("generate", {"n": n}, owner=f"user {n % 3}"), range(40))
        )
    order = [job.id for job in reversed(queue.jobs())]
    with working(queue, generate=lambda context: ran.append(context.job.id)):
        for handle in handles:
            assert handle.wait(PATIENCE_S).state is JobState.FINISHED
    assert ran == order


def test_two_event_types_of_one_name_are_refused(tmp_path: Path) -> None:
    other = type("Finished", (JobEvent,), {})
    with pytest.raises(ValueError, match="Two event types are named Finished"):
        JobQueue(tmp_path / "webui.db", event_types=[other])
