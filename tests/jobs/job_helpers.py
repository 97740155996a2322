"""Events of the tests, and the program that test_restart.py kills."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from webui.jobs.events import JobEvent
from webui.jobs.queue import JobContext, JobQueue
from webui.jobs.worker import Runner, Worker

PATIENCE_S = 30.0
"""Long enough for a loaded machine; no test that passes waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureMade(JobEvent):
    index: int
    path: Path
    size: tuple[int, int] = (512, 768)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview(JobEvent):
    durable: ClassVar[bool] = False
    jpeg: bytes


EVENT_TYPES = (PictureMade, Preview)


def picture(index: int) -> PictureMade:
    return PictureMade(index=index, path=Path(f"outputs/{index}.png"))


class Stage:
    """A runner that the test conducts: it says when it has come to a point, and waits there until it may go on."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.may_go_on = threading.Event()
        self.contexts: list[JobContext] = []

    def __call__(self, context: JobContext) -> None:
        self.contexts.append(context)
        self.reached.set()
        while not self.may_go_on.wait(0.01):
            context.cancel.check()

    def wait(self) -> JobContext:
        assert self.reached.wait(PATIENCE_S)
        return self.contexts[-1]


@contextmanager
def working(queue: JobQueue, **runners: Runner) -> Iterator[Worker]:
    worker = Worker(queue, lambda: runners)
    worker.start()
    try:
        yield worker
    finally:
        assert worker.stop(PATIENCE_S)


def make_pictures_until_killed(context: JobContext) -> None:
    context.report(picture(0))
    context.report(Preview(jpeg=b"not on the disk"))
    context.report(picture(1))
    print("two pictures made", flush=True)
    threading.Event().wait()


def main(database: str) -> None:
    """Runs the first job of `database` until someone kills the process."""
    queue = JobQueue(Path(database), event_types=EVENT_TYPES)
    Worker(queue, lambda: {"pictures": make_pictures_until_killed}).start()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
