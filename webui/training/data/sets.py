"""The photo sets of the page: folders of its own below one folder, and folders of this machine that it refers to."""

import json
import re
import secrets
import shutil
import threading
import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from webui.errors import InvalidRequest, StorageError
from webui.library.whole_files import write_whole
from webui.training.data.faces import FaceReader
from webui.training.data.listings import MASK_END, PICTURE_SUFFIXES
from webui.training.data.photo_set import PhotoSet, SetInfo
from webui.training.data.photos import PhotoReader
from webui.training.data.set_checks import Checker, Faces
from webui.training.data.set_contents import files_of
from webui.training.data.set_names import set_name, similar_name
from webui.training.data.sources import LIST_SUFFIXES, list_source
from webui.training.data.thumbnails import Thumbnails
from webui.training.data.unpacking import unpack
from webui.training.data.uploads import INCOMING, Taken, Upload, incoming, take

FOLDERS_NAME = "folders.json"
"""The folders that are referred to, below the folder of sets."""
REFERRED = re.compile(r"~[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class OpenSet:
    """A set with what looks at it."""

    photos: PhotoSet
    checker: Checker


class PhotoSets:
    """Any number of threads may use it. Raises InvalidRequest("set", ...) for sets that are not there."""

    def __init__(
        self,
        root: Path,
        cache_dir: Path,
        *,
        faces: Callable[[], FaceReader | None] = lambda: None,
        why_no_faces: Callable[[], str] = str,
        in_use: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`faces` reads faces, None where nobody can, and then why in a sentence.

        `in_use`: ids of the sets that jobs need.
        """
        self.root = root
        self.thumbnails = Thumbnails(cache_dir / "photos")
        self.reader = PhotoReader(on_read=self.thumbnails.seen)
        self._faces = Faces(reader=faces, why_not=why_no_faces)
        self._in_use = in_use
        self._lock = threading.RLock()
        self._open: dict[str, OpenSet] = {}

    def all(self) -> list[SetInfo]:
        """Own ones by name, then those that are referred to."""
        own = [
            SetInfo(id=_plain(path.name), name=_plain(path.name), source=path, own=True)
            for path in self._folders()
            if not path.name.startswith((".", "~"))
        ]
        return sorted(own, key=lambda info: info.name.casefold()) + list(self._referred().values())

    def info(self, id: str) -> SetInfo:
        if not id:
            raise InvalidRequest("set", "No photos are chosen.")
        if REFERRED.fullmatch(id):
            found = self._referred().get(id)
        else:
            found = next((info for info in self.all() if info.id == _plain(id)), None)
        if found is None:
            raise InvalidRequest("set", f"There is no photo set '{id}'.", hint="It may have been removed.")
        return found

    def source(self, id: str) -> Path:
        """What a training's data.photos names."""
        return self.info(id).source

    def open(self, id: str) -> PhotoSet:
        return self.opened(id).photos

    def opened(self, id: str) -> OpenSet:
        """With its checks."""
        info = self.info(id)
        with self._lock:
            found = self._open.get(info.id)
            if found is None:
                photos = PhotoSet(info)
                found = self._open[info.id] = OpenSet(photos, Checker(photos, self.reader, self._faces))
            return found

    def create(self, name: str, *, similar: bool = False) -> str:
        """An empty set of the program's own. Its id. `similar`: if the name is taken or cannot be, one like it."""
        with self._lock:
            name = self._free_name(name) if similar else set_name(name)
            if any(_plain(path.name).casefold() == name.casefold() for path in self._entries()):
                raise InvalidRequest("name", f"There is a photo set '{name}' already.", hint="Choose another name.")
            try:
                (self.root / name).mkdir(parents=True)
            except OSError as error:
                raise _unwritable(self.root / name, error) from error
        return name

    def refer(self, folder: str) -> str:
        """To a folder or a list of this machine; a zip is unpacked into a set of its own. The set's id."""
        path = _whole_path(folder)
        if path.suffix.lower() == ".zip" and path.is_file():
            return self._imported(path)
        if path.is_file() and path.suffix.lower() not in LIST_SUFFIXES:
            raise InvalidRequest(
                "folder", f"'{path.name}' is neither a folder, nor a zip, nor a list of photos.",
                hint="Choose the folder that the photos lie in.",
            )  # fmt: skip
        own = next((info for info in self.all() if info.own and info.source.resolve() == path), None)
        if own is not None:
            return own.id
        files_of(path)  # refuses what holds too much to be looked into
        list_source(path, path)  # refuses what is not there or cannot be read
        id = f"~{sha256(str(path).encode(errors='surrogatepass')).hexdigest()[:12]}"
        with self._lock:
            self._write_referred([*(info.source for info in self._referred().values() if info.id != id), path])
        return id

    def remove(self, id: str) -> None:
        """Own pictures are deleted; a folder is only forgotten. Refused while a training needs the set."""
        info = self.info(id)
        if info.id in self._in_use():
            raise InvalidRequest(
                "set",
                f"A job that waits or runs needs the photos of '{info.name}'.",
                hint="Stop it first, or wait for it.",
            )
        with self._lock:
            opened = self._open.pop(info.id, None)
            if opened is not None:
                opened.checker.stop()
            if not info.own:
                self._write_referred([other.source for other in self._referred().values() if other.id != info.id])
                return
            self._delete(info.source)

    def add(self, id: str, uploads: Sequence[Upload], room: Path) -> Taken:
        """Files into an own set. `room` is an `uploads.incoming` folder of it."""
        info = self.info(id)
        self.require_own(info)
        return take(self.open(id), uploads, room, self.reader)

    def require_own(self, info: SetInfo) -> None:
        if not info.own:
            raise InvalidRequest(
                "files",
                f"'{info.name}' is a folder of this machine: photos are put into it by hand.",
                hint=f"It is {info.source}.",
            )

    def count(self, info: SetInfo) -> int:
        """Of its pictures; 0 where the set cannot be read."""
        try:
            if not info.source.is_dir():
                return len(self.open(info.id).photos())
            with self._lock:
                opened = self._open.get(info.id)
            if opened is not None:
                return len(opened.photos.photos())
            return sum(_is_picture(path) for path in files_of(info.source))
        except (InvalidRequest, StorageError):
            return 0

    def close(self) -> None:
        with self._lock:
            for opened in self._open.values():
                opened.checker.stop()

    def _imported(self, archive: Path) -> str:
        """A zip as a set of its own, so that captions and decisions have a place."""
        with self._lock:
            name = self._free_name(archive.stem)
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                with incoming(self.root) as room:
                    folder = unpack(archive, room, check=lambda: None)
                    folder.rename(self.root / name)
            except OSError as error:
                raise _unwritable(self.root / name, error) from error
        return name

    def _free_name(self, wanted: str) -> str:
        base = similar_name(wanted)
        taken = {_plain(path.name).casefold() for path in self._entries()}
        name, count = base, 1
        while name.casefold() in taken:
            count += 1
            name = f"{base} ({count})"
        return set_name(name)

    def _entries(self) -> list[Path]:
        try:
            return list(self.root.iterdir()) if self.root.is_dir() else []
        except OSError as error:
            raise StorageError(f"The folder {self.root} cannot be read: {error.strerror or error}.") from error

    def _folders(self) -> list[Path]:
        return [path for path in self._entries() if path.is_dir()]

    def _referred(self) -> dict[str, SetInfo]:
        path = self.root / FOLDERS_NAME
        try:
            named = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
            folders = [Path(str(folder)) for folder in named]
        except (OSError, ValueError, TypeError) as error:
            raise StorageError(f"{path} cannot be read: {error}.", hint="Mend the file, or delete it.") from error
        infos = (
            SetInfo(
                id=f"~{sha256(str(folder).encode(errors='surrogatepass')).hexdigest()[:12]}",
                name=folder.name or str(folder),
                source=folder,
                own=False,
            )
            for folder in folders
        )
        return {info.id: info for info in infos}

    def _write_referred(self, folders: Sequence[Path]) -> None:
        path = self.root / FOLDERS_NAME
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps([str(folder) for folder in folders], indent=1).encode())
        except OSError as error:
            raise _unwritable(path, error) from error

    def _delete(self, folder: Path) -> None:
        """A link is only taken away; what it leads to stays."""
        try:
            if folder.is_symlink():
                folder.unlink()
                return
            self.thumbnails.forget(self._contents_of(folder))
            gone = folder.with_name(f"{INCOMING}{secrets.token_hex(6)}")
            folder.rename(gone)
            shutil.rmtree(gone)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def _contents_of(self, folder: Path) -> list[str]:
        known = (self.reader.known(key) for key in files_of(folder).values())
        return [facts.sha256 for facts in known if facts is not None]


def _whole_path(text: str) -> Path:
    """Of this machine. Raises InvalidRequest."""
    text = text.strip().strip('"')
    try:
        path = Path(text).expanduser()
        if path.is_absolute():
            return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, a loop of links, a NUL in it
        raise InvalidRequest("folder", f"'{text[:300]}' is no path: {error}.") from error
    raise InvalidRequest("folder", f"'{text[:300]}' is not a whole path.", hint="Such as /photos/anna or C:\\Photos.")


def _plain(name: str) -> str:
    """Some systems keep letters with accents in two parts."""
    return unicodedata.normalize("NFC", name)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.stem.endswith(MASK_END)


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} could not be written: {error.strerror or error}.",
        hint="Check that the folder can be written to and the disk has room.",
    )
