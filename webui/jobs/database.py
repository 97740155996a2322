"""The queue's SQLite file: rows in, rows out. Not thread-safe; the queue calls it under its lock.

One process at a time: a second file next to the database, `webui.db.lock`, is held under an SQLite lock, which the
operating system takes away even from a killed process. The database itself stays readable for other programs.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from webui.errors import StorageError, WebUIError
from webui.jobs.record import JobState

KEEP_ENDED_DAYS = 30
KEEP_ENDED_JOBS = 500
BUSY_TIMEOUT_S = 5.0
"""How long a write waits for another program that reads or copies the database."""

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS job_meta (schema_version INTEGER NOT NULL, epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    payload TEXT NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    interrupted INTEGER NOT NULL DEFAULT 0,
    lost_runs INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS job_events (
    job INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;
"""
JOB_COLUMNS = "number, id, kind, owner, state, payload, created_at, interrupted, lost_runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """`number` is the order of submission; `payload` is JSON."""

    number: int
    id: str
    kind: str
    owner: str
    state: JobState
    payload: str
    created_at: float
    interrupted: bool = False
    """Its owner has asked for a stop that has not happened yet."""
    lost_runs: int = 0
    """Times the program was killed while it ran the job, since the job's last durable event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    seq: int
    name: str
    body: str


class JobDatabase:
    """Opens (or makes) the database, checks it, and prunes ended jobs. Every method raises StorageError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with contextlib.ExitStack() as undo:
            self._lock = undo.enter_context(contextlib.closing(_lock_for_this_process(path)))
            with _translated(path):
                self._connection = undo.enter_context(contextlib.closing(_connect(path)))
                self.epoch = self._prepare()
                self._prune()
            undo.pop_all()

    def close(self) -> None:
        self._connection.close()
        self._lock.close()

    def live_jobs(self) -> list[JobRow]:
        """Jobs that have not ended, oldest first."""
        with _translated(self._path):
            return self._jobs("state IN ('queued', 'running') ORDER BY number")

    def ended_jobs(self, owner: str | None, states: Collection[JobState], limit: int) -> list[JobRow]:
        """Jobs in one of the ended `states`, newest first."""
        condition = (
            f"state IN ({','.join('?' * len(states))}) AND (? IS NULL OR owner = ?) ORDER BY number DESC LIMIT ?"
        )
        with _translated(self._path):
            return self._jobs(condition, *states, owner, owner, limit)

    def job(self, job_id: str) -> JobRow | None:
        with _translated(self._path):
            return next(iter(self._jobs("id = ?", job_id)), None)

    def events(self, number: int, after: int = 0) -> list[EventRow]:
        """Events of one job with a `seq` above `after`, in order."""
        query = "SELECT seq, name, body FROM job_events WHERE job = ? AND seq > ? ORDER BY seq"
        with _translated(self._path):
            rows = self._connection.execute(query, (number, after)).fetchall()
        return [EventRow(seq=seq, name=name, body=body) for seq, name, body in rows]

    def insert(self, *, job_id: str, kind: str, owner: str, payload: str, created_at: float) -> int:
        """A new queued job; its number."""
        statement = "INSERT INTO jobs (id, kind, owner, state, payload, created_at) VALUES (?, ?, ?, 'queued', ?, ?)"
        with self._transaction():
            number = self._connection.execute(statement, (job_id, kind, owner, payload, created_at)).lastrowid
        assert number is not None
        return number

    def start(self, number: int, event: EventRow) -> None:
        with self._transaction():
            self._connection.execute("UPDATE jobs SET state = 'running' WHERE number = ?", (number,))
            self._append(number, event)

    def append(self, number: int, event: EventRow) -> None:
        """A durable event of a running job, which shows that the job gets on."""
        with self._transaction():
            self._append(number, event)
            self._connection.execute("UPDATE jobs SET lost_runs = 0 WHERE number = ? AND lost_runs > 0", (number,))

    def queue_again(self, number: int, *, lost_runs: int) -> None:
        statement = "UPDATE jobs SET state = 'queued', lost_runs = ? WHERE number = ?"
        with self._transaction():
            self._connection.execute(statement, (lost_runs, number))

    def mark_interrupted(self, number: int) -> None:
        with self._transaction():
            self._connection.execute("UPDATE jobs SET interrupted = 1 WHERE number = ?", (number,))

    def end(self, number: int, state: JobState, event: EventRow) -> None:
        with self._transaction():
            statement = "UPDATE jobs SET state = ?, ended_at = ? WHERE number = ?"
            self._connection.execute(statement, (state, time.time(), number))
            self._append(number, event)

    def _jobs(self, condition: str, *values: object) -> list[JobRow]:
        rows = self._connection.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE {condition}", values).fetchall()
        try:
            return [_job_row(row) for row in rows]
        except ValueError as error:
            raise _damaged(self._path, str(error)) from error

    def _append(self, number: int, event: EventRow) -> None:
        row = (number, event.seq, event.name, event.body)
        self._connection.execute("INSERT INTO job_events (job, seq, name, body) VALUES (?, ?, ?, ?)", row)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def _prepare(self) -> int:
        """Checks the file, makes the tables. Returns the number of openings before this one."""
        (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged(self._path, str(verdict))
        with self._transaction():
            for statement in SCHEMA.split(";"):
                self._connection.execute(statement)
            row = self._connection.execute("SELECT schema_version, epoch FROM job_meta").fetchone()
            if row is None:
                self._connection.execute("INSERT INTO job_meta VALUES (?, 0)", (SCHEMA_VERSION,))
                return 0
            version, epoch = row
            if version != SCHEMA_VERSION:
                raise _foreign_version(self._path, version)
            self._connection.execute("UPDATE job_meta SET epoch = epoch + 1")
            return int(epoch) + 1

    def _prune(self) -> None:
        """Forgets ended jobs that are old or many, so that the file does not grow for ever."""
        oldest = time.time() - KEEP_ENDED_DAYS * 24 * 3600
        ended = "SELECT number FROM jobs WHERE state NOT IN ('queued', 'running')"
        with self._transaction():
            self._connection.execute(
                f"DELETE FROM jobs WHERE number IN ({ended}) AND (ended_at < ? OR number NOT IN "
                f"({ended} ORDER BY number DESC LIMIT ?))",
                (oldest, KEEP_ENDED_JOBS),
            )
            self._connection.execute("DELETE FROM job_events WHERE job NOT IN (SELECT number FROM jobs)")


def _job_row(row: sqlite3.Row) -> JobRow:
    """Raises ValueError for what no queue can have written."""
    json.loads(row["payload"])
    return JobRow(
        number=row["number"],
        id=row["id"],
        kind=row["kind"],
        owner=row["owner"],
        state=JobState(row["state"]),
        payload=row["payload"],
        created_at=row["created_at"],
        interrupted=bool(row["interrupted"]),
        lost_runs=row["lost_runs"],
    )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: a submitted job outlives even a power cut. The writes are few: previews and progress never come here.
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _lock_for_this_process(path: Path) -> sqlite3.Connection:
    """An open transaction on the lock file. WebUIError if another queue has it."""
    lock_path = path.with_name(path.name + ".lock")
    with _translated(lock_path), contextlib.ExitStack() as undo:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(path, str(error)) from error
        lock = undo.enter_context(
            contextlib.closing(sqlite3.connect(lock_path, timeout=0, isolation_level=None, check_same_thread=False))
        )
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY:
                raise
            raise WebUIError(
                f"The program is already running on this data directory ({path.parent}).",
                hint="Use the page of the running one, stop it first, or choose another data directory.",
            ) from error
        undo.pop_all()
        return lock


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors about the file as StorageErrors."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        code = _primary_code(error)
        if code == sqlite3.SQLITE_FULL:
            raise StorageError(
                f"The disk that holds {path} is full.", hint="Free some space there, then generate again."
            ) from error
        # SQLITE_ERROR: someone else's table of that name, with other columns.
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise _damaged(path, str(error)) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageError(
                f"The job database {path} is in use by another program.", hint="Close that program, then try again."
            ) from error
        raise _unusable(path, str(error)) from error


def _primary_code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _damaged(path: Path, reason: str) -> StorageError:
    return StorageError(
        f"The job database {path} is damaged: {reason}.",
        hint=f"Move {path.name} (and {path.name}-wal, if there) out of the folder and start again. The list of jobs "
        "starts anew; your pictures are safe, with their settings in the files.",
    )


def _foreign_version(path: Path, version: int) -> StorageError:
    return StorageError(
        f"The job database {path} has layout {version}, but this version of the program reads {SCHEMA_VERSION}.",
        hint=f"Use the version that wrote it, or move {path.name} out of the folder and start again. "
        "The list of jobs starts anew; your pictures are safe.",
    )


def _unusable(path: Path, reason: str) -> StorageError:
    return StorageError(
        f"The job database {path} cannot be read or written: {reason}.",
        hint="Check that the folder exists, is writable and that its disk is there.",
    )
