"""From what a user points at to photos: a folder, a zip, or a list. What cannot be used is told with its reason."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from webui.errors import InvalidRequest, UnreadableImage
from webui.training.data.edits import Edit, read_edits
from webui.training.data.listings import LeftOut, Listed, Listing, list_file, list_folder
from webui.training.data.photos import Box, FileFacts, Photo, PhotoReader
from webui.training.data.unpacking import unpack

Report = Callable[[int, int], None]
"""(done, of how many)."""
Check = Callable[[], None]
"""Raises where the work shall stop."""

LIST_SUFFIXES = frozenset({".json", ".jsonl"})
MAX_READERS = 8


def _silent(done: int, total: int) -> None:
    return


def _go_on() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """`photos` by name. `folder` is where decisions about them are kept. `notes` say what was understood."""

    photos: tuple[Photo, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    folder: Path


def find_photos(
    source: Path,
    *,
    unpack_to: Path,
    reader: PhotoReader | None = None,
    is_prior: bool = False,
    report: Report = _silent,
    check: Check = _go_on,
) -> Collection:
    """All photos of `source`, each read once. A photo that cannot be read is left out and named; none are is refused.

    `is_prior`: they are pictures of the class. Raises InvalidRequest where there is no source, or no photo in it.
    """
    folder, listing = list_source(source, unpack_to, check)
    edits = read_edits(folder)
    files, excluded = _without_excluded(listing.files, edits)
    photos, unreadable = _read_all(files, reader or PhotoReader(), report, check)
    photos = [edited(replace(photo, is_prior=photo.is_prior or is_prior), edits.get(photo.name)) for photo in photos]
    left_out = sorted([*listing.left_out, *excluded, *unreadable], key=lambda each: each.name)
    if not photos:
        raise _nothing(source, left_out)
    return Collection(
        photos=tuple(sorted(photos, key=lambda photo: photo.name)),
        left_out=tuple(left_out),
        notes=tuple(listing.notes),
        folder=folder,
    )


def list_source(source: Path, unpack_to: Path, check: Check = _go_on) -> tuple[Path, Listing]:
    """Where decisions are kept, and the files with names of their own; no picture is opened. Raises InvalidRequest."""
    folder, listing = _listing(source, unpack_to, check)
    listing.files = _named_apart(listing.files)
    return folder, listing


def _listing(source: Path, unpack_to: Path, check: Check) -> tuple[Path, Listing]:
    if source.is_dir():
        return source, list_folder(source)
    if not source.exists():
        raise InvalidRequest("data.photos", f"There is no file or folder '{source}'.", hint="Check where it lies.")
    if source.suffix.lower() in LIST_SUFFIXES:
        return source.parent, list_file(source)
    if source.suffix.lower() == ".zip":
        folder = unpack(source, unpack_to, check=check)
        return folder, list_folder(folder)
    raise InvalidRequest(
        "data.photos",
        f"'{source.name}' is neither a folder, nor a zip, nor a list of photos.",
        hint="Choose the folder that the photos lie in.",
    )


def _named_apart(files: Iterable[Listed]) -> list[Listed]:
    """Lists may name a file twice, and concepts may be called the same."""
    seen: Counter[str] = Counter()
    named = []
    for listed in files:
        seen[listed.name] += 1
        again = f"{listed.name} ({seen[listed.name]})"
        named.append(listed if seen[listed.name] == 1 else replace(listed, name=again))
    return named


def _without_excluded(files: Iterable[Listed], edits: Mapping[str, Edit]) -> tuple[list[Listed], list[LeftOut]]:
    used, excluded = [], []
    for listed in files:
        if listed.name in edits and edits[listed.name].excluded:
            sentence = f"'{listed.name}' was taken out by hand."
            excluded.append(LeftOut(name=listed.name, path=listed.path, kind="excluded", sentence=sentence))
        else:
            used.append(listed)
    return used, excluded


def _read_all(
    files: list[Listed], reader: PhotoReader, report: Report, check: Check
) -> tuple[list[Photo], list[LeftOut]]:
    photos: list[Photo] = []
    unreadable: list[LeftOut] = []
    with ThreadPoolExecutor(min(MAX_READERS, os.cpu_count() or 1)) as pool:
        try:
            for i, result in enumerate(pool.map(lambda listed: _read(listed, reader), files)):
                check()
                (photos if isinstance(result, Photo) else unreadable).append(result)  # type: ignore[arg-type]
                report(i + 1, len(files))
        finally:
            pool.shutdown(cancel_futures=True)
    return photos, unreadable


def _read(listed: Listed, reader: PhotoReader) -> Photo | LeftOut:
    try:
        facts = reader.read(listed.path)
    except (UnreadableImage, OSError) as error:
        sentence = str(error) if isinstance(error, UnreadableImage) else f"'{listed.name}' cannot be read: {error}."
        return LeftOut(name=listed.name, path=listed.path, kind="unreadable", sentence=sentence)
    return photo_of(listed, facts)


def photo_of(listed: Listed, facts: FileFacts) -> Photo:
    return Photo(
        name=listed.name,
        path=listed.path,
        facts=facts,
        caption=listed.caption,
        mask=listed.mask,
        repeats=listed.repeats,
        is_prior=listed.is_prior,
        held_out=listed.held_out,
    )


def edited(photo: Photo, edit: Edit | None) -> Photo:
    """As it was decided by hand."""
    if edit is None:
        return photo
    caption = photo.caption if edit.caption is None else edit.caption
    crop = fitting(edit.crop, (photo.width, photo.height))
    return replace(photo, crop=crop, repeats=edit.repeats or photo.repeats, caption=caption)


def fitting(crop: Box | None, size: tuple[int, int]) -> Box | None:
    """A crop that the photo has outgrown, since it is another one now, is cut to what is left, or dropped."""
    if crop is None:
        return None
    left, top, right, bottom = crop
    right, bottom = min(right, size[0]), min(bottom, size[1])
    return (left, top, right, bottom) if left < right and top < bottom else None


def _nothing(source: Path, left_out: list[LeftOut]) -> InvalidRequest:
    if not left_out:
        return InvalidRequest(
            "data.photos", f"There are no pictures in '{source}'.", hint="PNG, JPEG, WebP, AVIF, BMP and TIFF are read."
        )
    more = f" {len(left_out) - 1} more files are of no use either." if len(left_out) > 1 else ""
    return InvalidRequest(
        "data.photos", f"None of the files in '{source}' can be used. {left_out[0].sentence}{more}",
        hint="Choose a folder with photos.",
    )  # fmt: skip
