"""Which models there are: a list per kind that is always up to date, and models by name. Imports no torch."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from webui.errors import ModelNotFound, UnsupportedModel
from webui.library.entries import (
    DEFAULT_GUIDANCE_SCALE,
    DEFAULT_NATIVE_SIZE_PX,
    DEFAULT_STEPS,
    NOTHING_BESIDE,
    CheckpointInfo,
    ModelFile,
    checkpoint_info,
    look_into,
    model_file,
    tokenizer_folder,
)
from webui.library.hashes import Hasher
from webui.library.index import Hashes, Known, ModelIndex
from webui.library.names import Named, NameTable, is_external_vae
from webui.library.scan import DIFFUSERS_INDEX, PICTURES, ROOMS, FoundFile, RoomKind, Stamp, found_folder, scan
from webui.library.sidecars import Sidecar, read_sidecars, write_notes, write_preview

__all__ = [
    "AUTOMATIC_VAE",
    "DEFAULT_GUIDANCE_SCALE",
    "DEFAULT_NATIVE_SIZE_PX",
    "DEFAULT_STEPS",
    "OWN_VAE",
    "SHIPPED",
    "STARTER",
    "CheckpointInfo",
    "Library",
    "ModelFile",
    "tokenizer_folder",
]

STARTER = "starter"
SHIPPED = (STARTER, "starter-inpaint")
"""Folders of checkpoints that come with the program, beside the rooms for the user's own."""
RESCAN_S = 1.0
"""A list that is younger than this is not made again."""
INDEX_FILE = "models.db"
LEARN_AT_ONCE = 100
"""Files that are written to the index together: a program that is ended in between need not begin anew."""
AUTOMATIC_VAE = "Automatic"
"""Chosen as VAE: the one beside the checkpoint with the same name, else the checkpoint's own."""
OWN_VAE = "None"
"""Chosen as VAE: the checkpoint's own, whatever lies beside it."""


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The models of one kind at one moment. `checkpoints` has what only checkpoints have, by path."""

    found: Sequence[FoundFile]
    files: Mapping[Path, ModelFile]
    names: NameTable[ModelFile]
    checkpoints: Mapping[Path, CheckpointInfo]
    seen_at: float
    version: int
    """Counts changes."""


class Library:
    """The models below `models_dirs`, the first of equal paths. New, changed and removed files are seen by themselves.

    Thread-safe. What files hold is kept in `cache_dir`, so that a header is read once.
    """

    def __init__(self, models_dirs: Sequence[Path], cache_dir: Path) -> None:
        self.models_dirs = tuple(models_dirs)
        self._index = ModelIndex(cache_dir / INDEX_FILE)
        # One each, so that no checkpoint has to wait while thousands of new LoRAs are read.
        self._locks: Mapping[RoomKind, threading.RLock] = {kind: threading.RLock() for kind in ROOMS}
        self._shelves: dict[RoomKind, _Shelf] = {}
        self._notes: dict[Path, tuple[Mapping[Path, int], Sidecar]] = {}
        self._hasher: Hasher | None = None
        self._born = secrets.token_hex(4)

    def checkpoints(self) -> list[CheckpointInfo]:
        """All checkpoints by name, the unusable ones last with their problem."""
        infos = self._shelf("checkpoint").checkpoints.values()
        return sorted(infos, key=lambda info: (bool(info.problem), info.name.lower()))

    def adapters(self) -> list[ModelFile]:
        """LoRAs and their relatives."""
        return self.files("adapter")

    def embeddings(self) -> list[ModelFile]:
        return self.files("embedding")

    def vaes(self) -> list[ModelFile]:
        """Autoencoders, also those beside a checkpoint as `name.vae.safetensors`."""
        return self.files("vae")

    def hypernetworks(self) -> list[ModelFile]:
        return self.files("hypernetwork")

    def files(self, kind: RoomKind) -> list[ModelFile]:
        """All models of one kind by location, the unusable ones with their problem."""
        return list(self._shelf(kind).files.values())

    def find_checkpoint(self, name: str) -> CheckpointInfo:
        """Raises ModelNotFound with close matches, or UnsupportedModel with the problem."""
        with self._locks["checkpoint"]:
            path = self._find("checkpoint", name).path
            return self._shelves["checkpoint"].checkpoints[path]

    def find_adapter(self, name: str) -> ModelFile:
        """By file name, path below `loras`, or the name its maker gave it. Raises ModelNotFound or UnsupportedModel."""
        return self._find("adapter", name)

    def find_vae(self, name: str) -> ModelFile:
        """As `find_adapter`."""
        return self._find("vae", name)

    def find_hypernetwork(self, name: str) -> ModelFile:
        """As `find_adapter`."""
        return self._find("hypernetwork", name)

    def file(self, model_id: str) -> ModelFile:
        """Raises ModelNotFound."""
        for kind in ROOMS:
            for file in self._shelf(kind).files.values():
                if file.id == model_id:
                    return file
        raise ModelNotFound("model", model_id, [])

    def checkpoint_of(self, file: ModelFile) -> CheckpointInfo | None:
        """What only checkpoints have; None for every other kind."""
        return self._shelf("checkpoint").checkpoints.get(file.path) if file.kind == "checkpoint" else None

    def stamp(self) -> str:
        """Changes whenever any of the lists does."""
        versions = (shelf.version for _, shelf in sorted(self._shelves.copy().items()))
        return "-".join([self._born, *map(str, versions)])

    def write_notes(self, file: ModelFile, changes: Mapping[str, Any]) -> None:
        """Some of `sidecars.EDITABLE`, by name. Raises InvalidRequest or StorageError."""
        with self._locks[file.kind]:
            write_notes(file.path, changes)
            self._shelf(file.kind, max_age_s=0)

    def write_preview(self, file: ModelFile, picture: Image.Image) -> None:
        """Raises StorageError."""
        with self._locks[file.kind]:
            write_preview(file.path, picture)
            self._shelf(file.kind, max_age_s=0)

    def hashes_of(self, file: ModelFile) -> Hashes | None:
        """None until they are known; never waits."""
        return self._index.hashes(file.stamp)

    def sha256_of(self, path: Path) -> str | None:
        """In lower case hex; None until it is known. Never waits for it to be computed."""
        try:
            stat = path.stat()
        except OSError:
            return None
        hashes = self._index.hashes(Stamp(path, stat.st_size, stat.st_mtime_ns))
        return hashes.sha256 if hashes else None

    def start_hashing(self, busy: Callable[[], bool]) -> None:
        """Hashes every file in the background, while `busy` says no."""
        self._hasher = Hasher(self._index, self._without_hash, busy)
        self._hasher.start()

    def refresh(self) -> None:
        """Looks into the folders now, whenever that was done last."""
        for kind in self._shelves.copy():
            self._shelf(kind, max_age_s=0)

    def close(self) -> None:
        if self._hasher is not None:
            self._hasher.stop()
        self._index.close()

    def _find(self, kind: RoomKind, name: str) -> ModelFile:
        file = self._shelf(kind).names.find(name) or self._shelf(kind, max_age_s=0).names.find(name)
        if file is None:
            raise ModelNotFound(ROOMS[kind].word, name, self._shelf(kind).names.close_matches(name))
        if file.problem:
            raise UnsupportedModel(file.path, file.problem)
        return file

    def _shelf(self, kind: RoomKind, max_age_s: float = RESCAN_S) -> _Shelf:
        with self._locks[kind]:
            old = self._shelves.get(kind)
            if old is not None and time.monotonic() - old.seen_at < max_age_s:
                return old
            found = list(_found(kind, self.models_dirs))
            if old is not None and found == old.found:
                shelf = replace(old, seen_at=time.monotonic())
            else:
                shelf = self._filled(kind, found, version=old.version + 1 if old else 1)
            self._shelves[kind] = shelf
            return shelf

    def _filled(self, kind: RoomKind, found: Sequence[FoundFile], *, version: int) -> _Shelf:
        known = self._known(found)
        kept = [file for file in found if not _is_stray_picture(kind, file, known[file.path])]
        paths = NameTable([Named(item=file, path=file.name, alias=known[file.path].alias) for file in kept])
        files = {
            file.path: model_file(kind, file, known[file.path], paths.name_of(file.name), self._notes_of(file))
            for file in kept
        }
        names = NameTable([Named(item=file, path=file.location, alias=file.alias) for file in files.values()])
        checkpoints = {path: checkpoint_info(file) for path, file in files.items()} if kind == "checkpoint" else {}
        return _Shelf(found, files, names, checkpoints, time.monotonic(), version)

    def _known(self, found: Sequence[FoundFile]) -> dict[Path, Known]:
        """What each file holds; headers are read of new and changed files only."""
        known: dict[Path, Known] = {}
        news: list[tuple[Stamp, Known]] = []
        for file in found:
            old = self._index.known(file.stamp)
            if old is None:
                old = look_into(file.path)
                news.append((file.stamp, old))
                if len(news) == LEARN_AT_ONCE:
                    self._index.learn(news)
                    news = []
            known[file.path] = old
        self._index.learn(news)
        return known

    def _without_hash(self) -> list[Stamp]:
        files = [file for kind in ROOMS for file in self.files(kind)]
        return [file.stamp for file in files if self.hashes_of(file) is None and not file.path.is_dir()]

    def _notes_of(self, file: FoundFile) -> Sidecar:
        """Read again only when a file beside the model has changed."""
        if not file.sidecars:
            return NOTHING_BESIDE
        old = self._notes.get(file.path)
        if old is None or old[0] != file.sidecars:
            old = (file.sidecars, read_sidecars(file.sidecars))
            self._notes[file.path] = old
        return old[1]


def _found(kind: RoomKind, models_dirs: Sequence[Path]) -> Iterator[FoundFile]:
    """The first of equal names counts."""
    taken: set[str] = set()
    for models_dir in models_dirs:
        for file in _found_in(kind, models_dir):
            if file.name not in taken:
                taken.add(file.name)
                yield file


def _found_in(kind: RoomKind, models_dir: Path) -> list[FoundFile]:
    room = ROOMS[kind]
    found = scan(models_dir / room.folder, room.suffixes)
    if kind == "checkpoint":
        found = [file for file in found if not is_external_vae(file.name)]
        ours = [name for name in SHIPPED if (models_dir / name / DIFFUSERS_INDEX).is_file()]
        return [*found, *(found_folder(models_dir / name, name) for name in ours)]
    if kind == "vae":
        beside = scan(models_dir / ROOMS["checkpoint"].folder, room.suffixes)
        return [*found, *(file for file in beside if is_external_vae(file.name))]
    return found


def _is_stray_picture(kind: RoomKind, file: FoundFile, known: Known) -> bool:
    return kind == "embedding" and file.path.suffix.lower() in PICTURES and known.facts.kind != "embedding"
