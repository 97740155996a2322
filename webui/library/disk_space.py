"""Room on the disk, asked for before anything large is written: a full disk is trouble for everything on it."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from webui.errors import StorageError

RESERVE_BYTES = 512 * 2**20
"""What stays free on the disk."""


def require_space(folder: Path, size_bytes: int, *, what: str, hint: str) -> None:
    """Raises StorageError unless `what`, `size_bytes` large, fits the disk of `folder` and the reserve stays free."""
    free = shutil.disk_usage(folder).free
    if free < size_bytes + RESERVE_BYTES:
        raise StorageError(
            f"The disk that holds {folder.name} has {free / 1e9:.1f} GB free; {what} needs "
            f"{(size_bytes + RESERVE_BYTES) / 1e9:.1f} GB, of which {RESERVE_BYTES / 1e9:.1f} GB stay free.",
            hint=hint,
        )


@contextlib.contextmanager
def disk_errors(path: Path, *, hint: str) -> Iterator[None]:
    """What goes wrong while `path` is written, as a StorageError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        raise StorageError(
            f"The disk that holds {path.parent} is full."
            if full
            else f"{path} cannot be written ({error.strerror or error}).",
            hint=hint,
        ) from error
