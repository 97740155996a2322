"""Takes files into a photo set: pictures, their captions and masks, and zips of these. Each comes in whole or not at
all, and what cannot be used is told by name. Nothing that is there is replaced but captions and masks.
"""

import filecmp
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from webui.errors import InvalidRequest, StorageError, UnreadableImage, WebUIError
from webui.training.data.captions import CAPTION_SUFFIXES
from webui.training.data.listings import LIST_NAMES, MASK_END, PICTURE_SUFFIXES, SILENT_NAMES
from webui.training.data.photo_set import PhotoSet
from webui.training.data.photos import PhotoReader, file_key
from webui.training.data.set_names import file_name
from webui.training.data.sources import MAX_READERS
from webui.training.data.unpacking import unpack

MOST_BYTES = 200_000_000
"""Of one file."""
MOST_UNPACKED_BYTES = 8 * 2**30
"""Of one zip that was sent."""
MOST_CAPTION_BYTES = 100_000
MOST_LIST_BYTES = 20_000_000
INCOMING = ".incoming-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """`name` as the sender has it, with "/" for folders; `path` is where its bytes are now, and may be moved away."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    name: str
    sentence: str


@dataclass(slots=True)
class Taken:
    """`pictures` are names in the set, `beside` captions, masks and lists. `kept` files were there already, byte for
    byte.
    """

    pictures: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    kept: int = 0
    refused: list[Refused] = field(default_factory=list)


@contextmanager
def incoming(folder: Path) -> Iterator[Path]:
    """A folder beside the photos for files that are on their way; it is not looked into. Raises StorageError."""
    path = folder / f"{INCOMING}{secrets.token_hex(6)}"
    try:
        path.mkdir()
    except OSError as error:
        raise StorageError(
            f"The folder {folder} cannot be written to: {error.strerror or error}.", hint="Change its permissions."
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def take(
    photo_set: PhotoSet,
    uploads: Sequence[Upload],
    room: Path,
    reader: PhotoReader,
    *,
    check: Callable[[], None] = lambda: None,
) -> Taken:
    """`uploads` into the set; `room` is an `incoming` folder of it. Raises StorageError where the disk is full.

    A picture gets another name where one of its name is there, and so do the caption and the mask sent with it.
    """
    batch = _Batch(photo_set, reader, Taken())
    files = list(_opened(uploads, room, batch.taken, check))
    pictures = [each for each in files if _kind(each.name) == "picture"]
    for upload, readable in zip(pictures, _readable(pictures, reader, batch.taken), strict=True):
        check()
        if readable:
            batch.add_picture(upload)
    for upload in files:
        kind = _kind(upload.name)
        if kind == "caption":
            batch.add_caption(upload)
        elif kind == "mask":
            batch.add_mask(upload, reader)
        elif kind == "list":
            batch.add_list(upload)
        elif kind == "other":
            batch.refuse(upload, f"'{upload.name}' is not a picture.")
    photo_set.look_again()
    return batch.taken


class _Batch:
    """What came together, so that captions and masks follow their pictures to new names."""

    def __init__(self, photo_set: PhotoSet, reader: PhotoReader, taken: Taken) -> None:
        self.taken = taken
        self._set = photo_set
        self._reader = reader
        self._folder = photo_set.info.source
        self._called: dict[str, list[str]] = defaultdict(list)
        """Stems in the set, by the stem that was sent."""

    def refuse(self, upload: Upload, sentence: str) -> None:
        self.taken.refused.append(Refused(name=upload.name, sentence=sentence))

    def add_picture(self, upload: Upload) -> None:
        with self._set.locked():
            name = self._free(upload)
            self._called[_stem(upload.name)].append(_stem(name))
            target = self._folder / name
            if target.is_file():
                self.taken.kept += 1
                return
            key = file_key(upload.path)
            self._move(upload.path, target)
            self._reader.moved(key, target)
            self.taken.pictures.append(name)

    def add_caption(self, upload: Upload) -> None:
        if upload.path.stat().st_size > MOST_CAPTION_BYTES:
            self.refuse(upload, f"'{upload.name}' is too long for a caption ({upload.path.stat().st_size // 1000} KB).")
            return
        suffix = PurePosixPath(upload.name).suffix.lower()
        stems = self._called.get(_stem(upload.name)) or [_stem(upload.name)]
        for stem in stems:
            self._put(upload, f"{stem}{suffix}")
        if not any(self._has_picture(stem) for stem in stems):
            self.refuse(upload, f"'{upload.name}' is kept as the caption of a picture that is not there yet.")

    def add_mask(self, upload: Upload, reader: PhotoReader) -> None:
        try:
            reader.read(upload.path)
        except (UnreadableImage, OSError) as error:
            self.refuse(upload, str(error).replace(upload.path.name, upload.name))
            return
        photo, suffix = _stem(upload.name).removesuffix(MASK_END), PurePosixPath(upload.name).suffix.lower()
        for stem in self._called.get(photo) or [photo]:
            self._put(upload, f"{stem}{MASK_END}{suffix}")

    def add_list(self, upload: Upload) -> None:
        if upload.path.stat().st_size > MOST_LIST_BYTES:
            self.refuse(upload, f"'{upload.name}' is too long for a list of captions.")
            return
        self._put(upload, PurePosixPath(upload.name).name)

    def _put(self, upload: Upload, name: str) -> None:
        """A copy, as several may be wanted, instead of what is there."""
        target = self._folder / name
        with self._set.locked():
            if target.is_file() and filecmp.cmp(upload.path, target, shallow=False):
                self.taken.kept += 1
                return
            copy = upload.path.with_name(secrets.token_hex(8))
            shutil.copyfile(upload.path, copy)
            self._move(copy, target)
            self.taken.beside.append(name)

    def _move(self, path: Path, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        except OSError as error:
            raise StorageError(
                f"'{target.name}' could not be written into {target.parent}: {error.strerror or error}.",
                hint="Check that the folder can be written to and the disk has room.",
            ) from error

    def _free(self, upload: Upload) -> str:
        """A name that no other picture has, whatever its suffix: captions and masks go by the rest. Or that of the
        same picture, byte for byte.
        """
        name = PurePosixPath(upload.name)
        there = self._pictures_in((self._folder / name).parent)
        stem, count = name.stem, 1
        while stem.casefold() in there:
            for other in there[stem.casefold()]:
                if filecmp.cmp(upload.path, other, shallow=False):
                    return other.relative_to(self._folder).as_posix()
            count += 1
            stem = f"{name.stem} ({count})"
        return name.with_name(f"{stem}{name.suffix}").as_posix()

    def _pictures_in(self, folder: Path) -> Mapping[str, list[Path]]:
        """By stem, in any case: some systems tell no case apart."""
        found: dict[str, list[Path]] = defaultdict(list)
        if folder.is_dir():
            for path in folder.iterdir():
                if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith("."):
                    found[path.stem.casefold()].append(path)
        return found

    def _has_picture(self, stem: str) -> bool:
        path = self._folder / stem
        return path.name.casefold() in self._pictures_in(path.parent)


def _kind(name: str) -> str:
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return "mask" if path.stem.endswith(MASK_END) else "picture"
    if suffix in CAPTION_SUFFIXES:
        return "caption"
    return "list" if path.name.lower() in LIST_NAMES else "other"


def _stem(name: str) -> str:
    """With its folders."""
    return PurePosixPath(name).with_suffix("").as_posix()


def _opened(uploads: Sequence[Upload], room: Path, taken: Taken, check: Callable[[], None]) -> Iterator[Upload]:
    """Zips unpacked, names made fit for any system, and files that systems leave about dropped."""
    for upload in uploads:
        check()
        if upload.name.lower().endswith(".zip"):
            try:
                yield from _unpacked(upload, room, check)
            except (InvalidRequest, StorageError) as error:
                taken.refused.append(
                    Refused(name=upload.name, sentence=str(error).replace(upload.path.name, upload.name))
                )
            continue
        base = upload.name.replace("\\", "/").rpartition("/")[2]
        if base.lower() in SILENT_NAMES or base.startswith("."):
            continue
        name = file_name(upload.name)
        if not name:
            taken.refused.append(Refused(name=upload.name, sentence=f"'{upload.name}' is no name for a file."))
        elif upload.path.stat().st_size > MOST_BYTES:
            sentence = f"'{name}' is larger than {MOST_BYTES // 10**6} MB."
            taken.refused.append(Refused(name=name, sentence=sentence))
        else:
            yield Upload(name=name, path=upload.path)


def _unpacked(upload: Upload, room: Path, check: Callable[[], None]) -> Iterator[Upload]:
    folder = unpack(upload.path, room / "zips", check=check, most_bytes=MOST_UNPACKED_BYTES)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name.lower() not in SILENT_NAMES:
            yield Upload(name=file_name(path.relative_to(folder).as_posix()) or "file", path=path)


def _readable(pictures: Sequence[Upload], reader: PhotoReader, taken: Taken) -> list[bool]:
    """Which of them are pictures; the others are told of. Each is decoded here, once."""

    def problem(upload: Upload) -> str:
        try:
            reader.read(upload.path)
        except (WebUIError, OSError) as error:
            return str(error).replace(f"'{upload.path.name}'", f"'{upload.name}'")
        return ""

    with ThreadPoolExecutor(min(MAX_READERS, os.cpu_count() or 1)) as pool:
        problems = list(pool.map(problem, pictures))
    taken.refused += [
        Refused(name=each.name, sentence=sentence)
        for each, sentence in zip(pictures, problems, strict=True)
        if sentence
    ]
    return [not sentence for sentence in problems]
