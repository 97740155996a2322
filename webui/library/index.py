"""What is known of model files, kept between starts: facts from their headers, and hashes.

One SQLite file in the cache folder, keyed by path, size and modification time: a row that does not match is none. The
file is a cache: if it is damaged it is made anew, and if it cannot be written the program knows what it learnt until it
ends. Thread-safe.
"""

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from webui.library.facts import ModelFacts
from webui.library.scan import Stamp

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 5.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS models (
    path TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    rules TEXT NOT NULL DEFAULT '',
    facts TEXT NOT NULL DEFAULT '',
    sha256 TEXT NOT NULL DEFAULT '',
    data_sha256 TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID
"""
COLUMNS = "path, size_bytes, mtime_ns, rules, facts, sha256, data_sha256"
NOT_LASTING = '"lasting":false'
UPSERT = f"INSERT OR REPLACE INTO models ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a file's header says. `alias` is the name its maker gave it (ss_output_name), or ""."""

    facts: ModelFacts
    alias: str = ""
    has_thumbnail: bool = False
    """A preview lies in its metadata."""
    num_vectors: int = 0
    """Of an embedding."""
    lasting: bool = True
    """False for what another start may see otherwise: the file could not be looked into now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """In lower case hex. `data_sha256` leaves the safetensors header out; "" for other files."""

    sha256: str
    data_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    path: str
    size_bytes: int
    mtime_ns: int
    rules: str = ""
    facts: str = ""
    sha256: str = ""
    data_sha256: str = ""


class ModelIndex:
    """Rows are in memory; the file is read once and written behind."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._rules = _rules()
        self._connection: sqlite3.Connection | None = None
        self._rows = self._load()

    def known(self, stamp: Stamp) -> Known | None:
        """What was learnt from this very file; None if it is new, or has changed, or the rules have."""
        with self._lock:
            row = self._row(stamp)
        return _known_from_json(row.facts) if row and row.rules == self._rules else None

    def learn(self, news: Sequence[tuple[Stamp, Known]]) -> None:
        with self._lock:
            rows = [
                replace(self._row(stamp) or _row_of(stamp), rules=self._rules, facts=_known_to_json(known))
                for stamp, known in news
            ]
            self._store(rows)

    def hashes(self, stamp: Stamp) -> Hashes | None:
        with self._lock:
            row = self._row(stamp)
        return Hashes(sha256=row.sha256, data_sha256=row.data_sha256) if row and row.sha256 else None

    def learn_hashes(self, stamp: Stamp, hashes: Hashes) -> None:
        with self._lock:
            row = self._row(stamp) or _row_of(stamp)
            self._store([replace(row, sha256=hashes.sha256, data_sha256=hashes.data_sha256)])

    def forget_missing(self) -> None:
        """Drops rows of files that are gone from folders that are there (a drive may only be unplugged)."""
        with self._lock:
            paths = [Path(name) for name in self._rows]
        gone = [str(path) for path in paths if path.parent.is_dir() and not path.exists()]
        with self._lock:
            for name in gone:
                self._rows.pop(name, None)
            self._write("DELETE FROM models WHERE path = ?", [(name,) for name in gone])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _row(self, stamp: Stamp) -> _Row | None:
        row = self._rows.get(str(stamp.path))
        return row if row and (row.size_bytes, row.mtime_ns) == (stamp.size_bytes, stamp.mtime_ns) else None

    def _store(self, rows: Sequence[_Row]) -> None:
        self._rows.update({row.path: row for row in rows})
        self._write(UPSERT, [tuple(getattr(row, f.name) for f in fields(row)) for row in rows])

    def _write(self, statement: str, values: Sequence[tuple[Any, ...]]) -> None:
        """What cannot be written costs time at the next start and nothing else, so it is only logged."""
        if self._connection is None or not values:
            return
        try:
            with self._connection:
                self._connection.executemany(statement, values)
        except (sqlite3.Error, UnicodeEncodeError) as error:  # the latter for a folder whose name is not Unicode
            logger.warning("The index of models in %s cannot be written (%s).", self._path, error)

    def _load(self) -> dict[str, _Row]:
        try:
            try:
                return self._open()
            except sqlite3.OperationalError:  # in use, or no such folder: nothing is wrong with the file
                raise
            except sqlite3.DatabaseError as error:
                logger.warning("The index of models in %s is damaged (%s) and is made anew.", self._path, error)
                for end in ("", "-wal", "-shm"):
                    self._path.with_name(self._path.name + end).unlink(missing_ok=True)
                return self._open()
        except (sqlite3.Error, OSError) as error:
            logger.warning("The index of models in %s is not kept (%s).", self._path, error)
            return {}

    def _open(self) -> dict[str, _Row]:
        """Reads all rows and keeps the connection."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(SCHEMA)
            names = [field.name for field in fields(_Row)]
            rows = [
                _Row(**dict(zip(names, row, strict=True)))
                for row in connection.execute(f"SELECT {COLUMNS} FROM models")
            ]
        except sqlite3.Error:
            connection.close()
            raise
        self._connection = connection
        return {row.path: replace(row, facts="") if NOT_LASTING in row.facts else row for row in rows}


def _row_of(stamp: Stamp) -> _Row:
    return _Row(path=str(stamp.path), size_bytes=stamp.size_bytes, mtime_ns=stamp.mtime_ns)


def _rules() -> str:
    """Changes with every version of the code that looks into files, and its facts with it."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _known_to_json(known: Known) -> str:
    return json.dumps(asdict(known), separators=(",", ":"))


def _known_from_json(text: str) -> Known | None:
    """None for a row that does not fit, as from another version: it is then learnt again."""
    try:
        values = json.loads(text)
        facts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values["facts"].items()
        }
        return Known(**{**values, "facts": ModelFacts(**facts)})
    except (ValueError, TypeError, KeyError):
        return None
