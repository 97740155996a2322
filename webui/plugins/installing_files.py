"""Files that somebody offers as an extension, brought into a folder of ours: nothing outside, no links, not too much.

What is refused is refused with one sentence, and the caller removes the folder.
"""

import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from webui.errors import ExtensionError
from webui.plugins.manifest import MANIFEST

MAX_FILES = 5_000
MAX_BYTES = 500_000_000
MAX_NAME_CHARS = 200
"""Of a path below the extension's folder."""
COPY_BYTES = 2**20
LEFT_OUT = frozenset({".git", "__pycache__", "__MACOSX", ".DS_Store", ".venv"})
"""Never part of an extension: compiled files could hold other code than the files that are shown."""

_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


class _Room:
    """What is still allowed. Raises ExtensionError for too many files, too many bytes, and for the same name twice."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._names: set[str] = set()
        self._bytes = 0

    def take_name(self, name: PurePosixPath) -> None:
        folded = str(name).casefold()
        if folded in self._names:
            raise ExtensionError(f"{self._what} has '{name}' twice, also as disks see it that do not tell A from a.")
        self._names.add(folded)
        if len(self._names) > MAX_FILES:
            raise ExtensionError(f"{self._what} has more than {MAX_FILES} files, which is no extension.")

    def take_bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > MAX_BYTES:
            raise ExtensionError(f"{self._what} holds more than {MAX_BYTES // 10**6} MB, which is no extension.")


def copy_folder(source: Path, target: Path) -> None:
    """Copies the files of `source` into the new folder `target`. Raises ExtensionError."""
    room = _Room("The folder")
    target.mkdir(parents=True)
    for path, name in walk(source):
        room.take_name(name)
        room.take_bytes(path.stat().st_size)
        copied = target / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copied, follow_symlinks=False)


def walk(folder: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """The extension's files with their names below `folder`, sorted. Raises ExtensionError for links and devices."""
    for path in sorted(folder.rglob("*")):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if LEFT_OUT & set(name.parts):
            continue
        if path.is_symlink():
            raise ExtensionError(f"'{name}' is a link to somewhere else; an extension holds its own files.")
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            yield path, _checked(str(name))
        elif not stat.S_ISDIR(mode):
            raise ExtensionError(f"'{name}' is neither a file nor a folder.")


def unpack(archive: Path, target: Path, *, what: str = "The zip file") -> None:
    """Unpacks `archive` into the new folder `target`, without a folder around all of it. Raises ExtensionError."""
    target.mkdir(parents=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            _unpack(opened, target, _Room(what))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise ExtensionError(f"{what} cannot be unpacked ({error}).", hint="It may be damaged.") from error
    except OSError as error:
        raise ExtensionError(f"{what} cannot be unpacked here ({error.strerror or error}).") from error


def _unpack(opened: zipfile.ZipFile, target: Path, room: _Room) -> None:
    entries = [(entry, _checked(entry.filename)) for entry in opened.infolist()]
    wrapped = _folder_around([name for entry, name in entries if not entry.is_dir()])
    for entry, full_name in entries:
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ExtensionError(f"'{full_name}' is a link to somewhere else; an extension holds its own files.")
        name = full_name.relative_to(wrapped) if full_name.is_relative_to(wrapped) else full_name
        if entry.is_dir() or LEFT_OUT & set(name.parts):
            continue
        room.take_name(name)
        if entry.flag_bits & 1:
            raise ExtensionError(f"'{name}' is encrypted.")
        unpacked = target / name
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(entry) as source, unpacked.open("xb") as file:
            while chunk := source.read(COPY_BYTES):
                room.take_bytes(len(chunk))
                file.write(chunk)


def _folder_around(names: list[PurePosixPath]) -> str:
    """The one folder that holds everything, as archives of hosting sites have it; "." if there is none."""
    outermost = {name.parts[0] for name in names if not LEFT_OUT & set(name.parts)}
    inner = {name for name in names if len(name.parts) == 2 and name.name == MANIFEST}
    return next(iter(outermost)) if len(outermost) == 1 and inner else "."


def _checked(text: str) -> PurePosixPath:
    """A path below the extension's folder that every system can have. Raises ExtensionError."""
    name = PurePosixPath(text)
    parts = text.rstrip("/").split("/")
    outside = name.is_absolute() or ".." in parts or re.match(r"[A-Za-z]:", text) or "\\" in text
    if outside:
        raise ExtensionError(f"'{text[:100]}' would lie outside of the extension's folder.")
    odd = any(not part or part.endswith((".", " ")) or _DEVICES.fullmatch(part) for part in parts)
    if odd or _FORBIDDEN.search(text) or len(text) > MAX_NAME_CHARS:
        raise ExtensionError(f"'{text[:100]}' is not a file name that every system can have.")
    return name


def files_of(folder: Path) -> tuple[tuple[str, int], ...]:
    """(name, bytes) of the extension's files."""
    return tuple((str(name), path.stat().st_size) for path, name in walk(folder))


def digest_of(folder: Path) -> str:
    """Two folders with the same digest have the same files."""
    digest = hashlib.sha256()
    for path, name in walk(folder):
        with path.open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


def remove_folder(folder: Path) -> None:
    """Also where files are read-only, as git's are."""

    def make_writable(function: object, path: str, _: object) -> None:
        os.chmod(path, stat.S_IWUSR | stat.S_IRUSR)  # noqa: PTH101 - a callback of shutil
        Path(path).unlink(missing_ok=True)

    shutil.rmtree(folder, onerror=make_writable)
