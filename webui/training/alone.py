"""One process at a time works in a run's folder. The system lets go of it when a process ends, however it does."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from webui.errors import StorageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


NUM_TRIES = 3
TRY_EVERY_S = 0.05


class RunInUse(StorageError):
    """Another process works in the folder."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Raises RunInUse at once if another process is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as file:
        if not any(_locked(file) for _ in _tries()):
            raise RunInUse(
                f"Another process is working on the run in {folder}.", hint="Wait for it, or pause it there first."
            )
        try:
            yield
        finally:
            _release(file)


def is_in_use(folder: Path) -> bool:
    """Whether a process works on the run in `folder`."""
    try:
        with (folder / "lock").open("r+b") as file:
            if _locked(file):
                _release(file)
                return False
            return True
    except OSError:
        return False


def _tries() -> Iterator[int]:
    """Who only looks whether the folder is in use holds the lock for a moment."""
    for number in range(NUM_TRIES):
        if number:
            time.sleep(TRY_EVERY_S)
        yield number


def _locked(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _release(file: BinaryIO) -> None:
    with suppress(OSError):
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_UN)
