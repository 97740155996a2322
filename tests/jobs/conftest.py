from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.jobs.job_helpers import EVENT_TYPES
from webui.jobs.queue import JobQueue


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data" / "webui.db"


@pytest.fixture
def open_queue(database: Path) -> Iterator[Callable[[], JobQueue]]:
    """Opens the queue of `database`; close it before the next call."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(JobQueue(database, event_types=EVENT_TYPES)))


@pytest.fixture
def queue(open_queue: Callable[[], JobQueue]) -> JobQueue:
    return open_queue()
