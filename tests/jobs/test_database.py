"""The file behind the queue: damaged, full, unwritable, old."""

import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.jobs.job_helpers import PATIENCE_S, PictureMade, Stage, picture, working
from webui.errors import StorageError, WebUIError
from webui.jobs.database import KEEP_ENDED_DAYS, KEEP_ENDED_JOBS
from webui.jobs.events import Failed, Finished
from webui.jobs.queue import JobContext, JobQueue, JobState


def fill_some_pages(queue: JobQueue) -> None:
    for _ in range(30):
        queue.submit("generate", {"prompt": "a fox " * 300}, owner="ann")
    queue.close()


def overwrite_all(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 400)


def overwrite_the_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : len(data) - 4096] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)


def overwrite_the_index(path: Path) -> None:
    """The tables themselves stay whole."""
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE type = 'index'").fetchone()
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * page_size : page * page_size] = bytes(page_size)
    path.write_bytes(data)


def cut_off_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])


def edit(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def make_the_payload_nonsense(path: Path) -> None:
    edit(path, "UPDATE jobs SET payload = '{'")


def put_a_foreign_table_there(path: Path) -> None:
    path.unlink()
    edit(path, "CREATE TABLE jobs (salary REAL)")


@pytest.mark.parametrize(
    "damage",
    [
        overwrite_all,
        overwrite_the_middle,
        overwrite_the_index,
        cut_off_the_end,
        make_the_payload_nonsense,
        put_a_foreign_table_there,
    ],
)
def test_a_damaged_database_says_what_to_do_and_doing_it_helps(
    queue: JobQueue, database: Path, open_queue: Callable[[], JobQueue], damage: Callable[[Path], None]
) -> None:
    fill_some_pages(queue)
    damage(database)
    with pytest.raises(StorageError, match="is damaged") as raised:
        open_queue()
    assert "Move webui.db" in raised.value.hint
    assert "pictures are safe" in raised.value.hint
    database.rename(database.with_name("webui.db.old"))
    assert open_queue().jobs() == []


def test_a_database_of_another_layout_is_left_alone(
    queue: JobQueue, database: Path, open_queue: Callable[[], JobQueue]
) -> None:
    queue.submit("generate", {}, owner="ann")
    queue.close()
    edit(database, "UPDATE job_meta SET schema_version = 99")
    before = database.read_bytes()
    with pytest.raises(StorageError, match="layout 99"):
        open_queue()
    assert database.read_bytes() == before


def test_a_data_directory_that_is_a_file_is_named(database: Path, open_queue: Callable[[], JobQueue]) -> None:
    database.parent.write_text("not a folder")
    with pytest.raises(StorageError, match="cannot be read or written"):
        open_queue()


def test_a_database_path_that_is_a_folder_is_named(database: Path, open_queue: Callable[[], JobQueue]) -> None:
    database.mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be read or written"):
        open_queue()


def test_other_programs_can_read_the_database_while_the_queue_is_open(queue: JobQueue, database: Path) -> None:
    queue.submit("generate", {}, owner="ann")
    with closing(sqlite3.connect(database)) as other:
        assert other.execute("SELECT count(*) FROM jobs").fetchone() == (1,)


def allow_no_growth(queue: JobQueue, database: Path) -> None:
    """From now on SQLite finds the disk full as soon as it needs a further page."""
    connection = queue._database._connection
    (num_pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {num_pages}")


def allow_no_writing(queue: JobQueue, forbidden: bool = True) -> None:
    queue._database._connection.execute(f"PRAGMA query_only = {int(forbidden)}")


def report_something_large(context: JobContext) -> None:
    context.report(PictureMade(index=0, path=Path("x" * 100_000)))


def test_a_full_disk_fails_the_job_visibly_and_the_next_one_runs(queue: JobQueue, database: Path) -> None:
    large = queue.submit("large", {}, owner="ann")
    small = queue.submit("small", {}, owner="ann")
    allow_no_growth(queue, database)
    with working(queue, large=report_something_large, small=lambda _: None):
        *_, (_, failed) = large.events(timeout_s=PATIENCE_S)
        assert isinstance(failed, Failed)
        assert "full" in failed.message
        assert "Free some space" in failed.hint
        assert small.wait(PATIENCE_S).state is JobState.FINISHED
    with pytest.raises(StorageError, match="full"):
        queue.submit("generate", {"prompt": "x" * 100_000}, owner="ann")
    assert [job.id for job in queue.jobs()] == [small.id, large.id]


def test_an_end_that_cannot_be_written_is_seen_at_once_and_written_later(
    queue: JobQueue, open_queue: Callable[[], JobQueue], caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    handle = queue.submit("generate", {}, owner="ann")
    waiting = queue.submit("generate", {}, owner="ann")
    with caplog.at_level(logging.WARNING), working(queue, generate=stage):
        stage.wait()
        allow_no_writing(queue)
        stage.may_go_on.set()
        assert [event for _, event in handle.events(timeout_s=PATIENCE_S)][-1] == Finished()
        assert waiting.wait(PATIENCE_S).state is JobState.FAILED
        assert not queue.interrupt(handle.id)
        with pytest.raises(StorageError, match="cannot be read or written"):
            queue.submit("generate", {}, owner="ann")
        assert [job.state for job in queue.jobs()] == [JobState.FAILED, JobState.FINISHED]
        allow_no_writing(queue, False)
    assert "is not on the disk yet" in caplog.text
    queue.close()
    queue = open_queue()
    assert [job.state for job in queue.jobs()] == [JobState.FAILED, JobState.FINISHED]


def test_a_text_that_cannot_be_stored_leaves_the_queue_usable(queue: JobQueue) -> None:
    with pytest.raises(UnicodeEncodeError):
        queue.submit("generate", {}, owner="half a character: \ud800")
    handle = queue.submit("generate", {"prompt": "half a character: \ud800"}, owner="ann")
    assert [job.id for job in queue.jobs()] == [handle.id]


def test_ended_jobs_are_forgotten_after_a_month(
    queue: JobQueue, database: Path, open_queue: Callable[[], JobQueue]
) -> None:
    old, recent = (queue.submit("generate", {}, owner="ann") for _ in range(2))
    with working(queue, generate=lambda context: context.report(picture(0))):
        assert old.wait(PATIENCE_S).state is JobState.FINISHED
        assert recent.wait(PATIENCE_S).state is JobState.FINISHED
    waiting = queue.submit("generate", {}, owner="ann")
    queue.close()
    month_ago = time.time() - KEEP_ENDED_DAYS * 24 * 3600 - 1
    edit(database, "UPDATE jobs SET ended_at = ? WHERE id = ?", month_ago, old.id)
    edit(database, "UPDATE jobs SET created_at = ?", month_ago)
    queue = open_queue()
    assert [job.id for job in queue.jobs()] == [waiting.id, recent.id]
    with pytest.raises(WebUIError, match="no job"):
        queue.handle(old.id)
    queue.close()
    with closing(sqlite3.connect(database)) as other:
        assert other.execute("SELECT count(*) FROM job_events").fetchone() == (3,)


def test_of_ended_jobs_the_newest_five_hundred_are_kept(
    queue: JobQueue, database: Path, open_queue: Callable[[], JobQueue]
) -> None:
    waiting = queue.submit("generate", {}, owner="ann")
    queue.close()
    ended = "'generate', 'ann', 'finished', '{}', 0"
    edit(
        database,
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {KEEP_ENDED_JOBS + 20}) "
        f"INSERT INTO jobs (id, kind, owner, state, payload, created_at, ended_at) SELECT i, {ended}, ? FROM n",
        time.time(),
    )
    kept = [job.id for job in open_queue().jobs(limit=10_000)]
    assert kept == [*(str(number) for number in range(KEEP_ENDED_JOBS + 20, 20, -1)), waiting.id]
