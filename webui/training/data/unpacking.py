"""Zip files of photos, unpacked once; nothing in them gets outside of their folder, and a bomb is refused."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from webui.errors import InvalidRequest, StorageError

MAX_FILES = 20_000
MAX_BYTES = 40 * 2**30
CHUNK_BYTES = 1 << 20


def unpack(archive: Path, into: Path, *, check: Callable[[], None], most_bytes: int = MAX_BYTES) -> Path:
    """The folder in `into` with what `archive` holds; named by its content, so unpacked once only.

    Raises InvalidRequest for what is no zip, is damaged, encrypted or too large; StorageError where there is no room.
    """
    try:
        folder = into / _digest(archive)
        if folder.is_dir():
            return folder
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        with zipfile.ZipFile(archive) as file:
            members = _members(archive, file, most_bytes)
            part.mkdir(parents=True)
            for member, target in members:
                check()
                _unpack_one(archive, file, member, part / target)
        _take(part, folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise _refused(archive, f"is not a zip file, or is damaged ({error})", "Pack the photos again.") from error
    except OSError as error:
        raise StorageError(
            f"'{archive.name}' could not be unpacked into {into}: {error.strerror or error}.",
            hint="Check that the file is still there and the disk has room.",
        ) from error
    return folder


def _take(part: Path, folder: Path) -> None:
    """Several processes of one run may unpack at once: the first wins."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(part, ignore_errors=True)


def _members(archive: Path, file: zipfile.ZipFile, most_bytes: int) -> list[tuple[zipfile.ZipInfo, Path]]:
    """What is unpacked, and where to within the folder."""
    infos = [info for info in file.infolist() if not info.is_dir()]
    if len(infos) > MAX_FILES:
        raise _refused(archive, f"holds {len(infos)} files, more than {MAX_FILES}", "Split it.")
    size = sum(info.file_size for info in infos)
    if size > most_bytes:
        raise _refused(archive, f"would take {size / 2**30:.0f} GiB, more than {most_bytes / 2**30:.0f}", "Split it.")
    members = []
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if info.flag_bits & 1:
            raise _refused(archive, "is encrypted", "Pack the photos again without a password.")
        if not parts or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
            raise _refused(archive, f"names a file outside of itself ('{info.filename}')", "Pack the photos again.")
        if not any(part == "__MACOSX" or part.startswith(".") for part in parts):
            members.append((info, Path(*parts)))
    return members


def _unpack_one(archive: Path, file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.file_size
    with file.open(member) as source, target.open("wb") as sink:
        while data := source.read(CHUNK_BYTES):
            left -= len(data)
            if left < 0:
                raise _refused(archive, f"is damaged: '{member.filename}' is longer than it says", "Pack it again.")
            sink.write(data)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _refused(archive: Path, reason: str, hint: str) -> InvalidRequest:
    return InvalidRequest("data.photos", f"'{archive.name}' {reason}.", hint=hint)
