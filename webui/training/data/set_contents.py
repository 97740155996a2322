"""What lies in a photo set at one moment: its pictures with what was said and decided of them. Nothing is decoded."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from webui.errors import InvalidRequest
from webui.training.data.captions import CAPTION_SUFFIXES
from webui.training.data.edits import FILE_NAME, Edit, read_edits
from webui.training.data.listings import LeftOut, Listed
from webui.training.data.photos import Box, FileKey, file_key
from webui.training.data.sources import list_source

AS_IT_IS = Edit()
MOST_FILES = 50_000
"""Of a folder. With more it is hardly one of photos: somebody's home, or a whole drive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPhoto:
    """A picture with what its source says of it, and what was decided by hand. `key` is its file's."""

    listed: Listed
    edit: Edit
    key: FileKey

    @property
    def name(self) -> str:
        return self.listed.name

    @property
    def path(self) -> Path:
        return self.listed.path

    @property
    def caption(self) -> str | None:
        return self.listed.caption if self.edit.caption is None else self.edit.caption

    @property
    def mask(self) -> Path | None:
        return self.listed.mask

    @property
    def excluded(self) -> bool:
        return self.edit.excluded

    @property
    def crop(self) -> Box | None:
        return self.edit.crop

    @property
    def repeats(self) -> int:
        return self.edit.repeats or self.listed.repeats

    @property
    def is_prior(self) -> bool:
        return self.listed.is_prior


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """`photos` by name. `folder` is where decisions are kept. `stamp` is another one when anything is another."""

    photos: tuple[SetPhoto, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    folder: Path
    stamp: str

    def photo(self, name: str) -> SetPhoto:
        """Raises InvalidRequest."""
        for photo in self.photos:
            if photo.name == name:
                return photo
        raise InvalidRequest("names", f"There is no photo '{name}' in this set.", hint="It may have been removed.")


def read_contents(source: Path) -> Contents:
    """Raises InvalidRequest where the source is gone, or what was decided of it is damaged."""
    files = files_of(source)
    stamp = stamp_of(files)
    folder, listing = list_source(source, source)  # zip files are no sets: nothing is unpacked
    edits = read_edits(folder)
    photos = [
        SetPhoto(listed=listed, edit=edits.get(listed.name, AS_IT_IS), key=key)
        for listed in listing.files
        if (key := files.get(listed.path) or _key(listed.path))
    ]
    if not source.is_dir():
        stamp = stamp_of({**files, **_beside(photos)})
    return Contents(
        photos=tuple(sorted(photos, key=lambda photo: photo.name)),
        left_out=tuple(sorted(listing.left_out, key=lambda each: each.name)),
        notes=tuple(listing.notes),
        folder=folder,
        stamp=stamp,
    )


def current_stamp(source: Path, contents: Contents) -> str:
    """The stamp that `read_contents` would have now. Raises InvalidRequest where the source is gone."""
    files = files_of(source)
    return stamp_of(files if source.is_dir() else {**files, **_beside(contents.photos)})


def files_of(source: Path) -> dict[Path, FileKey]:
    """All files of a folder; a list, and what was decided of its photos. Raises InvalidRequest."""
    try:
        if source.is_dir():
            found = {key[0]: key for key in islice(_walk(source), MOST_FILES + 1)}
            if len(found) > MOST_FILES:
                raise InvalidRequest(
                    "data.photos",
                    f"{source} holds more than {MOST_FILES} files.",
                    hint="Choose the folder in it that the photos lie in.",
                )
            return found
        return {key[0]: key for path in (source, source.parent / FILE_NAME) if (key := _key(path))}
    except OSError as error:
        raise InvalidRequest(
            "data.photos",
            f"{source} cannot be read: {error.strerror or error}.",
            hint="Check that its drive is there.",
        ) from error


def stamp_of(files: Mapping[Path, FileKey]) -> str:
    digest = hashlib.sha256()
    for path, changed, size in sorted((str(key[0]), key[1], key[2]) for key in files.values()):
        digest.update(f"{path}\0{changed}\0{size}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def _walk(folder: Path) -> Iterator[FileKey]:
    """What nobody may look at is passed over, but for the first folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _walk(Path(entry.path))
                elif entry.is_file():
                    stat = entry.stat()
                    yield Path(entry.path), stat.st_mtime_ns, stat.st_size
            except PermissionError:
                continue


def _key(path: Path) -> FileKey | None:
    try:
        return file_key(path)
    except OSError:
        return None


def _beside(photos: Iterable[SetPhoto]) -> dict[Path, FileKey]:
    """The photos of a list, with the files about each."""
    found = {}
    for photo in photos:
        captions = [photo.path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES]
        for path in (photo.path, photo.mask, *captions):
            if path is not None and (key := _key(path)):
                found[path] = key
    return found
