"""Hashes of model files, one after the other in the background, never while something else needs the machine."""

import contextlib
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from webui.library.index import Hashes, ModelIndex
from webui.library.scan import Stamp

CHUNK_BYTES = 4 << 20
PAUSE_S = 0.5
"""How long to wait before looking again whether the machine is free."""
LOOK_AGAIN_S = 30.0
FILES_AT_ONCE = 20
"""After so many the list is made anew: small files that have come meanwhile need not wait for large ones."""
NICENESS = 15


class Stopped(Exception):
    """The program ends."""


class Hasher:
    """A thread that hashes what `pending` lists, smallest first, and tells `index`.

    `busy` is asked before every few megabytes; while it says yes nothing is read.
    """

    def __init__(self, index: ModelIndex, pending: Callable[[], Iterable[Stamp]], busy: Callable[[], bool]) -> None:
        self._index = index
        self._pending = pending
        self._busy = busy
        self._stop = threading.Event()
        self._failed: set[Stamp] = set()
        self._thread = threading.Thread(target=self._run, name="hashes of models", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended: after the chunk it reads."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        _step_back()
        with contextlib.suppress(Stopped):
            self._wait_until_free()
            self._index.forget_missing()
            while True:
                waiting = [file for file in self._pending() if file not in self._failed]
                chosen = sorted(waiting, key=lambda file: file.size_bytes)[:FILES_AT_ONCE]
                done = [self._hash(file) for file in chosen]
                if self._stop.wait(0 if any(done) else LOOK_AGAIN_S):
                    return

    def _hash(self, file: Stamp) -> bool:
        """False if the file changed meanwhile, as one does that is still being written: its turn comes again."""
        try:
            hashes = hash_file(file.path, self._wait_until_free)
            stat = file.path.stat()
        except OSError:
            self._failed.add(file)
            return True
        if Stamp(file.path, stat.st_size, stat.st_mtime_ns) != file:
            return False
        self._index.learn_hashes(file, hashes)
        return True

    def _wait_until_free(self) -> None:
        while self._busy():
            if self._stop.wait(PAUSE_S):
                raise Stopped
        if self._stop.is_set():
            raise Stopped


def hash_file(path: Path, before_chunk: Callable[[], None] = lambda: None) -> Hashes:
    """SHA-256 of the file, and of what follows its safetensors header. Raises OSError."""
    whole, data = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        start = _data_start(file.read(8)) if path.suffix.lower() == ".safetensors" else None
        file.seek(0)
        position = 0
        while True:
            before_chunk()
            chunk = file.read(CHUNK_BYTES)
            if not chunk:
                break
            whole.update(chunk)
            if start is not None and position + len(chunk) > start:
                data.update(chunk[max(start - position, 0) :])
            position += len(chunk)
    return Hashes(sha256=whole.hexdigest(), data_sha256=data.hexdigest() if start is not None else "")


def _data_start(first: bytes) -> int | None:
    """Where the weights begin; None for what is no safetensors file."""
    return 8 + struct.unpack("<Q", first)[0] if len(first) == 8 else None


def _step_back() -> None:
    """Lets everything else go first, where the system can do that for one thread."""
    if hasattr(os, "setpriority") and hasattr(os, "PRIO_PROCESS"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
