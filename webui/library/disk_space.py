"""Room on the disk, asked for before anything large is written: a full disk is trouble for everything on it."""

import shutil
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
