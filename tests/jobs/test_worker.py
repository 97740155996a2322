"""The worker lives through whatever a job does."""

import logging
import sys
import threading
from collections.abc import Mapping

import pytest

from tests.jobs.job_helpers import PATIENCE_S, Stage, picture, working
from webui.errors import OutOfDeviceMemory
from webui.jobs.cancel import ImageSkipped
from webui.jobs.events import Cancelled, Failed, Finished, JobEvent, Started
from webui.jobs.queue import JobContext, JobHandle, JobQueue, JobState
from webui.jobs.worker import Runner, Worker


def last_event(handle: JobHandle) -> JobEvent:
    return list(handle.events(timeout_s=PATIENCE_S))[-1][1]


def succeed(context: JobContext) -> None:
    context.cancel.check()


def test_a_failing_job_says_why_and_the_next_one_runs(queue: JobQueue) -> None:
    def fail(_: JobContext) -> None:
        raise OutOfDeviceMemory("8 GB are not enough for 4096 x 4096.", hint="Try 1024 x 1024.")

    failing = queue.submit("fail", {}, owner="ann")
    good = queue.submit("succeed", {}, owner="ann")
    with working(queue, fail=fail, succeed=succeed):
        assert last_event(failing) == Failed(message="8 GB are not enough for 4096 x 4096.", hint="Try 1024 x 1024.")
        assert last_event(good) == Finished()
    assert failing.record().state is JobState.FAILED


def divide_by_zero(_: JobContext) -> None:
    _ = 1 // 0


def leave(_: JobContext) -> None:
    sys.exit("a library that wants to end the program")


def report_an_end(context: JobContext) -> None:
    context.report(Finished())


class Unannounced(JobEvent):
    pass


def report_something_unannounced(context: JobContext) -> None:
    context.report(Unannounced())


@pytest.mark.parametrize("runner", [divide_by_zero, leave, report_an_end, report_something_unannounced])
def test_an_unexpected_error_gets_an_id_that_leads_to_the_traceback_in_the_log(
    queue: JobQueue, caplog: pytest.LogCaptureFixture, runner: Runner
) -> None:
    failing = queue.submit("fail", {}, owner="ann")
    good = queue.submit("succeed", {}, owner="ann")
    with caplog.at_level(logging.ERROR), working(queue, fail=runner, succeed=succeed):
        failed = last_event(failing)
        assert last_event(good) == Finished()
    assert isinstance(failed, Failed)
    error_id = failed.message.removeprefix("Internal error, id ")
    assert len(error_id) == 8
    assert error_id in caplog.text
    assert runner.__name__ in caplog.text


def test_a_kind_that_nobody_runs_fails_by_name(queue: JobQueue) -> None:
    handle = queue.submit("embroider", {}, owner="ann")
    with working(queue, succeed=succeed):
        failed = last_event(handle)
    assert isinstance(failed, Failed)
    assert "'embroider'" in failed.message


def test_a_worker_that_waits_takes_a_new_job_at_once(queue: JobQueue) -> None:
    with working(queue, succeed=succeed):
        for _ in range(20):
            handle = queue.submit("succeed", {}, owner="ann")
            assert handle.wait(PATIENCE_S).state is JobState.FINISHED


def test_an_image_skip_that_the_runner_does_not_catch_cancels_the_job(queue: JobQueue) -> None:
    def skip(_: JobContext) -> None:
        raise ImageSkipped

    handle = queue.submit("skip", {}, owner="ann")
    with working(queue, skip=skip):
        assert last_event(handle) == Cancelled()


def test_runners_that_cannot_be_loaded_fail_the_job_and_are_tried_again_at_the_next(queue: JobQueue) -> None:
    attempts: list[int] = []

    def load() -> Mapping[str, Runner]:
        attempts.append(1)
        if len(attempts) <= 2:  # at the start, and at the first job
            raise ImportError("libcuda.so.1 is missing")
        return {"generate": succeed}

    handles = [queue.submit("generate", {}, owner="ann") for _ in range(3)]
    worker = Worker(queue, load)
    worker.start()
    first, second, third = (last_event(handle) for handle in handles)
    assert worker.stop(PATIENCE_S)
    assert isinstance(first, Failed)
    assert "libcuda.so.1 is missing" in first.message
    assert (second, third) == (Finished(), Finished())
    assert len(attempts) == 3


def test_runners_are_loaded_before_there_is_a_job(queue: JobQueue) -> None:
    loaded = threading.Event()
    worker = Worker(queue, lambda: loaded.set() or {})  # type: ignore[func-returns-value]
    worker.start()
    assert loaded.wait(PATIENCE_S)
    assert worker.stop(PATIENCE_S)


def test_a_worker_that_was_never_started_can_be_stopped(queue: JobQueue) -> None:
    assert Worker(queue, dict).stop(PATIENCE_S)


def test_stopping_the_worker_lets_the_running_job_wait_for_the_next_one(queue: JobQueue) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    later = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=stage):
        stage.wait().report(picture(0))
    assert [job.position for job in (handle.record(), later.record())] == [0, 1]
    stage.may_go_on.set()
    with working(queue, generate=stage):
        assert last_event(handle) == Finished()
        assert last_event(later) == Finished()
    assert stage.contexts[1].job.id == handle.id
    assert stage.contexts[1].previous == (Started(), picture(0))
    assert stage.contexts[2].previous == ()


def test_a_job_that_its_owner_interrupted_does_not_wait_for_the_next_worker(queue: JobQueue) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=stage):
        stage.wait()
        queue.interrupt(handle.id)
    assert handle.record().state is JobState.CANCELLED


def test_a_straggler_cannot_report_into_an_ended_job(queue: JobQueue) -> None:
    stage = Stage()
    stage.may_go_on.set()
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=stage):
        assert last_event(handle) == Finished()
        with pytest.raises(RuntimeError, match="does not run"):
            stage.contexts[0].report(picture(0))
    assert [event for _, event in handle.events()] == [Started(), Finished()]


def test_closing_the_queue_ends_a_worker_that_waits(queue: JobQueue) -> None:
    worker = Worker(queue, dict)
    worker.start()
    queue.close()
    assert worker.stop(PATIENCE_S)


def test_closing_the_queue_below_a_running_job_leaves_the_job_for_the_next_start(queue: JobQueue, open_queue) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    with working(queue, generate=stage):
        stage.wait()
        queue.close()
        stage.may_go_on.set()
    assert open_queue().record(handle.id).state is JobState.QUEUED
