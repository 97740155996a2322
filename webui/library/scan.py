"""Which files lie in the folders of models: names, sizes and dates only, no file is opened."""

import functools
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

logger = logging.getLogger(__name__)

RoomKind = Literal["checkpoint", "adapter", "embedding", "vae", "hypernetwork", "upscaler"]

PREVIEW_SUFFIXES = tuple(
    f"{middle}.{ending}" for ending in ("png", "jpg", "jpeg", "webp", "gif") for middle in ("", ".preview")
)
"""What a preview is called after the model's own name; the first that is there counts."""
SIDECAR_SUFFIXES = (".json", ".civitai.info")
PICTURES = frozenset({".png", ".webp"})
"""Embeddings may lie in pictures."""
DIFFUSERS_INDEX = "model_index.json"
SAMPLE = "sample.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where models of one kind lie: a folder below `models`, and what their files end with (in lower case)."""

    folder: str
    suffixes: frozenset[str]
    word: str
    """What people call one of them."""


ROOMS: Mapping[RoomKind, Room] = MappingProxyType(
    {
        "checkpoint": Room(
            folder="checkpoints", suffixes=frozenset({".safetensors", ".ckpt", ".pt"}), word="checkpoint"
        ),
        "adapter": Room(folder="loras", suffixes=frozenset({".safetensors", ".pt", ".ckpt", ".bin"}), word="LoRA"),
        "embedding": Room(
            folder="embeddings", suffixes=frozenset({".safetensors", ".pt", ".bin", *PICTURES}), word="embedding"
        ),
        "vae": Room(folder="vae", suffixes=frozenset({".safetensors", ".pt", ".ckpt", ".bin"}), word="VAE"),
        "hypernetwork": Room(
            folder="hypernetworks", suffixes=frozenset({".safetensors", ".pt", ".ckpt"}), word="hypernetwork"
        ),
        "upscaler": Room(folder="upscalers", suffixes=frozenset({".safetensors", ".pth", ".pt"}), word="upscaler"),
    }
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """One version of a file. Times in ns since 1970."""

    path: Path
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """`name` is the path below the room's folder, with "/" and without the suffix. Sizes in bytes, times in ns.

    For a checkpoint folder, size and time sum up and top those of the files in it, two levels deep.
    """

    path: Path
    name: str
    size_bytes: int
    mtime_ns: int
    preview: Path | None = None
    preview_mtime_ns: int = 0
    sidecars: Mapping[Path, int] = field(default_factory=dict)
    """Files with a description of the model, and their times."""

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.path, self.size_bytes, self.mtime_ns)


def scan(folder: Path, suffixes: frozenset[str]) -> list[FoundFile]:
    """All model files and diffusers folders below `folder`, by name. Links are followed, each folder once.

    A folder that cannot be read counts as empty.
    """
    return sorted(_walk(folder, "", suffixes, set()), key=lambda found: found.name.lower())


def found_folder(path: Path, name: str) -> FoundFile:
    """A checkpoint in diffusers layout. A sample in it is its preview, unless there is one beside it."""
    stats = [entry.stat() for entry in _files_in(path, depth=2)]
    newest = max((stat.st_mtime_ns for stat in stats), default=0)
    size = sum(stat.st_size for stat in stats)
    siblings = {entry.name: entry for entry in _entries(path.parent)}
    found = _described(siblings, path, name, path.name, size, newest)
    sample = next((entry for entry in _entries(path) if entry.name == SAMPLE), None)
    if found.preview is not None or sample is None:
        return found
    return replace(found, preview=Path(sample.path), preview_mtime_ns=_size_and_time(sample)[1])


def _walk(folder: Path, below: str, suffixes: frozenset[str], seen: set[tuple[int, int]]) -> Iterator[FoundFile]:
    try:
        stat = folder.stat()
    except OSError:
        return
    if (stat.st_dev, stat.st_ino) in seen:
        return
    seen.add((stat.st_dev, stat.st_ino))
    entries = {entry.name: entry for entry in _entries(folder)}
    for entry in entries.values():
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if entry.is_dir():
            if (path / DIFFUSERS_INDEX).is_file():
                yield found_folder(path, below + entry.name)
            else:
                yield from _walk(path, f"{below}{entry.name}/", suffixes, seen)
        elif path.suffix.lower() in suffixes and not _is_preview(entry.name, entries):
            size, mtime_ns = _size_and_time(entry)
            yield _described(entries, path, below + path.stem, path.stem, size, mtime_ns)


def _described(
    siblings: Mapping[str, os.DirEntry[str]], path: Path, name: str, stem: str, size: int, mtime_ns: int
) -> FoundFile:
    preview = next(
        (siblings[stem + end] for end in PREVIEW_SUFFIXES if stem + end in siblings and stem + end != path.name), None
    )
    sidecars = [siblings[stem + suffix] for suffix in SIDECAR_SUFFIXES if stem + suffix in siblings]
    return FoundFile(
        path=path,
        name=name,
        size_bytes=size,
        mtime_ns=mtime_ns,
        preview=Path(preview.path) if preview else None,
        preview_mtime_ns=_size_and_time(preview)[1] if preview else 0,
        sidecars={Path(entry.path): _size_and_time(entry)[1] for entry in sidecars},
    )


def _is_preview(name: str, siblings: Mapping[str, object]) -> bool:
    """A picture beside a model of the same name is its preview, not an embedding."""
    stem, _, suffix = name.rpartition(".")
    if f".{suffix.lower()}" not in PICTURES:
        return False
    if stem.endswith(".preview"):
        return True
    return any(stem + other in siblings for other in (".safetensors", ".pt", ".bin"))


def _files_in(folder: Path, *, depth: int) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(folder):
        if entry.is_file():
            yield entry
        elif depth > 1 and entry.is_dir():
            yield from _files_in(Path(entry.path), depth=depth - 1)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """A name that is no Unicode can be shown nowhere, so that such files and folders are left out."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name.isascii() or _is_unicode(folder, entry.name)]
    except OSError:
        return []


@functools.lru_cache(maxsize=10_000)
def _is_unicode(folder: Path, name: str) -> bool:
    """Kept, so that the log has each of them once."""
    try:
        name.encode()
    except UnicodeEncodeError:
        logger.warning("%r in %s is left out: its name is not Unicode. Rename it.", os.fsencode(name), folder)
        return False
    return True


def _size_and_time(entry: os.DirEntry[str]) -> tuple[int, int]:
    """(0, 0) for a link that leads nowhere; reading it then says so."""
    try:
        stat = entry.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
