"""One file from the network to the disk, whatever happens on the way: resumed, checked, never half.

The file grows as a `.part` beside a small `.state` that says what it is a part of. A part is only continued when the
server still has the same file (its sha256 is known and the same, or `If-Range` with its ETag or date says so).
"""

import contextlib
import email.utils
import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.errors import WebUIError
from webui.library.disk_space import disk_errors, require_space
from webui.library.downloads.client import Answer, Client, NetworkError
from webui.library.downloads.plan import RemoteFile, check_status

FREE_SOME = "Free some space there, then start the download again; it goes on where it stopped."
MAX_UNANNOUNCED_BYTES = 32 * 2**30
"""The largest file of a server that does not say how large it is."""
SPACE_CHECK_BYTES = 64 * 2**20
READ_BYTES = 2**20
STEADY_BYTES = 2**20
"""A connection that brought so much before it broke counts as a good one."""
MAX_FAILURES = 6
MAX_UNANSWERED = 3
"""As `MAX_FAILURES`, for a server that has never answered: the name may be wrong, or the network gone."""
MAX_RETRY_AFTER_S = 300.0
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A whole, checked file at `part`. `name` is what the server calls it, or ""."""

    part: Path
    size: int
    sha256: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a transfer tells and asks. `progress(done, total)` in bytes; `check()` raises to stop it.

    `arrived(part, done, total)` sees the first bytes until it has seen enough (True); it refuses the file by raising.
    """

    progress: Callable[[int, int | None], None]
    check: Callable[[], None]
    pause: Callable[[float], None]
    arrived: Callable[[Path, int, int | None], bool]


class _Busy(NetworkError):
    """The server asks for patience."""

    def __init__(self, message: str, delay_s: float | None) -> None:
        super().__init__(message, hint="Try again later; what is there already is kept.")
        self.delay_s = delay_s


def fetch(file: RemoteFile, part: Path, client: Client, watch: Watch, *, token: str = "a token") -> Fetched:
    """Brings `file` to `part`, from where an earlier call stopped. `token` is how a missing token would be set.

    Raises NetworkError after several failures in a row, StorageError, or WebUIError for what no repetition mends.
    """
    with disk_errors(part.parent, hint=FREE_SOME):
        part.parent.mkdir(parents=True, exist_ok=True)
    with only_one(part):
        for clean in (False, True):
            transfer = _Transfer(file, part, client, watch, token)
            if clean:
                transfer.restart()
            resumed = transfer.done > 0
            transfer.run()
            sha256 = transfer.digest.hexdigest()
            if sha256 == (transfer.sha256 or sha256):
                return Fetched(part=part, size=transfer.done, sha256=sha256, name=transfer.name)
            if not resumed:
                break
        discard(part)
        raise WebUIError(
            f"What {file.url.host} sends is not the file that was announced (its sha256 is {sha256[:12]}..., not "
            f"{transfer.sha256[:12]}...).",
            hint="Try again later; if it stays so, the file was changed on its way or on the server.",
        )


def discard(part: Path) -> None:
    """Forgets a part and what is known of it."""
    for path in (part, _state_path(part)):
        path.unlink(missing_ok=True)


def is_being_fetched(part: Path) -> bool:
    """Whether this or another process fetches it now."""
    try:
        with only_one(part):
            return False
    except WebUIError:
        return True


class _Transfer:
    """The part and what is known of the whole; `done` bytes are on the disk and in `digest`."""

    def __init__(self, file: RemoteFile, part: Path, client: Client, watch: Watch, token: str) -> None:
        self.file = file
        self.part = part
        self.client = client
        self.watch = watch
        self.token = token
        self.digest = hashlib.sha256()
        self.done = 0
        self.seen = False
        self.answered = False
        state = _read_state(part) if part.is_file() else {}
        if not _is_of(file, state):
            state = {}
        self.sha256: str = file.sha256 or state.get("sha256", "")
        self.total: int | None = file.size if file.size is not None else state.get("total")
        self.validator: str = state.get("validator", "")
        self.name: str = state.get("name", "")
        if state and (self.sha256 or self.validator):
            self._count_part()
        else:
            self.restart()

    def restart(self) -> None:
        """Forgets the bytes that are there, and what was said of them."""
        self.digest = hashlib.sha256()
        self.done = 0
        self.sha256, self.total, self.validator, self.name = self.file.sha256, self.file.size, "", ""
        with disk_errors(self.part, hint=FREE_SOME), self.part.open("wb"):
            pass

    def run(self) -> None:
        """Until all bytes are there."""
        failures = 0
        while not self._complete():
            before = self.done
            try:
                self._attempt()
            except NetworkError as error:
                failures = 1 if self.done - before >= STEADY_BYTES else failures + 1
                if failures >= (MAX_FAILURES if self.answered else MAX_UNANSWERED):
                    raise
                delay_s = error.delay_s if isinstance(error, _Busy) else None
                self.watch.pause(2.0 ** (failures - 1) if delay_s is None else delay_s)
        with disk_errors(self.part, hint=FREE_SOME), self.part.open("rb+") as part:
            os.fsync(part.fileno())

    def _complete(self) -> bool:
        return self.total is not None and self.done == self.total

    def _attempt(self) -> None:
        """One request, and as many bytes as it brings."""
        headers: dict[str, str] = {}
        if self.done:
            headers["range"] = f"bytes={self.done}-"
            if not self.sha256:
                headers["if-range"] = self.validator
        with self.client.get(self.file.url, headers) as answer:
            self._judge(answer)
            self._learn(answer)
            self._check_space()
            self._receive(answer)
        if self.total is None:
            self.total = self.done
        if self.done < self.total:
            raise NetworkError(
                f"{self.file.url.host} stopped after {self.done:,} of {self.total:,} bytes.",
                hint="Try again; what is there already is kept.",
            )

    def _judge(self, answer: Answer) -> None:
        """Returns if the body can be taken, from byte `done` on."""
        self.answered = True
        if answer.status in BUSY:
            host = answer.url.host
            raise _Busy(
                f"{host} is busy (status {answer.status}).", _retry_after(answer.headers.get("retry-after", ""))
            )
        if answer.status == 416:
            self.restart()
            raise NetworkError(f"{answer.url.host} has less of the file than is here; it is fetched anew.")
        check_status(answer.status, answer.headers, f"the file {self.file.path or self.file.url}", token=self.token)
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise WebUIError(
                f"{answer.url.host} answers with a web page, not with a file.",
                hint=f"Use the address of the file itself; if the site asks for a login, set {self.token}.",
            )
        if answer.status == 206:
            if _range_start(answer) != self.done:
                self.restart()
                raise NetworkError(f"{answer.url.host} sent another part than asked for; it is fetched anew.")
        elif answer.status == 200:
            if self.done:
                self.restart()
        else:
            raise NetworkError(f"{answer.url.host} answers with status {answer.status}.")

    def _learn(self, answer: Answer) -> None:
        """Size, name and identity of the whole file. Raises WebUIError if they contradict what was announced."""
        linked = answer.first_headers.get("x-linked-etag", "").strip('"').lower()
        if not self.file.sha256 and re.fullmatch(r"[0-9a-f]{64}", linked):
            if self.done and self.sha256 not in ("", linked):
                self.restart()
                raise NetworkError(f"{answer.url.host} has another file now; it is fetched anew.")
            self.sha256 = linked
        etag = answer.headers.get("etag", "")
        strong = "" if etag.startswith("W/") else etag
        self.validator = strong or answer.headers.get("last-modified", "")
        self.name = self.name or _disposition_name(answer.headers.get("content-disposition", ""))
        total = None if answer.size is None else self.done + answer.size
        if self.file.size is not None and total is not None and total != self.file.size:
            raise WebUIError(
                f"{self.file.url.host} announced {self.file.size:,} bytes but sends {total:,}.",
                hint="The file was changed there; try again later.",
            )
        self.total = self.file.size if self.file.size is not None else total
        state = {"url": str(self.file.url), "sha256": self.sha256, "total": self.total}
        _write_state(self.part, {**state, "validator": self.validator, "name": self.name})

    def _check_space(self) -> None:
        missing = 0 if self.total is None else self.total - self.done
        require_space(self.part.parent, missing, what="the rest of the file", hint=FREE_SOME)

    def _receive(self, answer: Answer) -> None:
        limit = MAX_UNANNOUNCED_BYTES if self.total is None else self.total
        next_check = self.done + SPACE_CHECK_BYTES
        with disk_errors(self.part, hint=FREE_SOME), self.part.open("ab", buffering=READ_BYTES) as part:
            for chunk in answer.chunks:
                self.watch.check()
                if self.done + len(chunk) > limit:
                    raise WebUIError(f"{answer.url.host} sends more than the {limit:,} bytes that it may.")
                part.write(chunk)
                self.digest.update(chunk)
                self.done += len(chunk)
                if not self.seen:
                    part.flush()
                    self.seen = self.watch.arrived(self.part, self.done, self.total)
                if self.done >= next_check:
                    next_check += SPACE_CHECK_BYTES
                    if self.total is None:
                        self._check_space()
                self.watch.progress(self.done, self.total)

    def _count_part(self) -> None:
        """Takes the bytes that are there."""
        with disk_errors(self.part, hint=FREE_SOME), self.part.open("rb") as part:
            while chunk := part.read(READ_BYTES):
                self.watch.check()
                self.digest.update(chunk)
                self.done += len(chunk)
        if self.total is not None and self.done > self.total:
            self.restart()


def _range_start(answer: Answer) -> int:
    match = re.match(r"bytes (\d+)-", answer.headers.get("content-range", ""))
    return int(match[1]) if match else -1


def _retry_after(text: str) -> float | None:
    """Seconds, of both forms the header has; at most five minutes."""
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    with contextlib.suppress(ValueError, TypeError):
        until = email.utils.parsedate_to_datetime(text).timestamp()
        return min(max(until - time.time(), 1.0), MAX_RETRY_AFTER_S)
    return None


def _disposition_name(disposition: str) -> str:
    """The file name of a Content-Disposition header; not to be trusted."""
    message = email.message_from_string(f"Content-Disposition: {disposition}\n\n")
    name = message.get_filename("") if disposition else ""
    return str(name)


def _is_of(file: RemoteFile, state: Mapping[str, Any]) -> bool:
    """Whether what was said of a part was said of this version of `file`, as far as anybody knows."""
    same_content = not file.sha256 or state.get("sha256") in (None, "", file.sha256)
    same_size = file.size is None or state.get("total") in (None, file.size)
    return state.get("url") == str(file.url) and same_content and same_size


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".state")


def _read_state(part: Path) -> Mapping[str, Any]:
    try:
        state = json.loads(_state_path(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(part: Path, state: Mapping[str, Any]) -> None:
    path = _state_path(part)
    with disk_errors(path, hint=FREE_SOME):
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(state), encoding="utf-8")
        fresh.replace(path)


@contextlib.contextmanager
def only_one(part: Path) -> Iterator[None]:
    """Raises WebUIError if somebody else fetches the same, here or in another process.

    SQLite's lock ends with its process, however that ends.
    """
    lock = sqlite3.connect(part.with_name(part.name + ".lock"), timeout=0, isolation_level=None)
    with contextlib.closing(lock):
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise WebUIError(
                "This file is already being fetched.", hint="Wait for the other download, or stop it."
            ) from error
        yield
