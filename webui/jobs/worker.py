"""A worker: a thread that takes the jobs of one lane in order and lives through whatever they do."""

import logging
import threading
import uuid
from collections.abc import Callable, Mapping

from webui.errors import WebUIError
from webui.jobs.cancel import CancelToken, ImageSkipped, JobInterrupted
from webui.jobs.events import Cancelled, Failed, Finished
from webui.jobs.queue import DEVICE_LANE, JobContext, JobQueue

Runner = Callable[[JobContext], None]

log = logging.getLogger(__name__)


class Worker:
    """Runs the jobs of one lane of `queue` on one daemon thread.

    `runners()` gives a runner for each kind of job. It is called on the thread as soon as that starts, as this is where
    heavy imports belong; if it raises, the first job tries again, and fails with the reason.
    """

    def __init__(
        self, queue: JobQueue, runners: Callable[[], Mapping[str, Runner]], *, lane: str = DEVICE_LANE
    ) -> None:
        self._queue = queue
        self._lane = lane
        self._load_runners = runners
        self._runners: Mapping[str, Runner] | None = None
        self._stopping = threading.Event()
        self._cancel: CancelToken | None = None
        self._thread = threading.Thread(target=self._work, name=f"{lane} worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Takes no more jobs, and stops the running one, which the next start runs again. False if it did not stop."""
        self._stopping.set()
        self._queue.wake()
        if (cancel := self._cancel) is not None:
            cancel.interrupt()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            self._runners = self._load_runners()
        except Exception:
            log.exception("The program is not able to run jobs yet; the next job tries again.")
        while (context := self._queue.claim(self._stopping.is_set, self._lane)) is not None:
            self._cancel = context.cancel
            if self._stopping.is_set():  # `stop` may have looked for the token just before it was there
                context.cancel.interrupt()
            outcome = self._run(context)
            self._cancel = None
            if outcome is not None:
                self._queue.end(context.job.id, outcome)

    def _run(self, context: JobContext) -> Finished | Failed | Cancelled | None:
        """None if the job waits again."""
        try:
            self._runner_of(context.job.kind)(context)
        except (JobInterrupted, ImageSkipped):
            stopped_by_us = self._stopping.is_set() and self._queue.put_back(context.job.id)
            return None if stopped_by_us else Cancelled()
        except WebUIError as error:
            log.warning("Job %s failed: %s", context.job.id, error, exc_info=error.__cause__)
            return Failed(message=error.message, hint=error.hint)
        except BaseException:  # also SystemExit: a library's exit must not end the worker
            error_id = uuid.uuid4().hex[:8].upper()
            log.exception("Internal error, id %s, in job %s", error_id, context.job.id)
            return Failed(message=f"Internal error, id {error_id}", hint="Details are in the log under this id.")
        return Finished()

    def _runner_of(self, kind: str) -> Runner:
        if self._runners is None:
            try:
                self._runners = self._load_runners()
            except WebUIError:
                raise
            except Exception as error:
                raise WebUIError(
                    f"The program is not able to run jobs: {error}", hint="Details are in the log."
                ) from error
        runner = self._runners.get(kind)
        if runner is None:
            raise WebUIError(
                f"This program cannot run jobs of the kind '{kind}'.", hint=f"It runs: {', '.join(self._runners)}."
            )
        return runner


__all__ = ["JobContext", "Runner", "Worker"]
