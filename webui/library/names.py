"""Finds models by the names people give them: file name, path below the folder, or the name inside the file."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath
from typing import Generic, TypeVar

from webui.library.old_files import PICKLE_SUFFIXES
from webui.library.scan import DIFFUSERS_INDEX

T = TypeVar("T")
SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
MAX_CLOSE_MATCHES = 5
EXTERNAL_VAE = ".vae"
"""`name.vae.safetensors` beside a checkpoint is an autoencoder, which that checkpoint then takes."""


def is_external_vae(name: str) -> bool:
    """`name` without the suffix."""
    return name.lower().endswith(EXTERNAL_VAE)


def misleading(file_name: str, *, is_checkpoint: bool) -> str:
    """Why a new file or folder must not be called so: it would change models that are there. "" if it may."""
    stem = next((file_name[: -len(end)] for end in SUFFIXES if file_name.lower().endswith(end)), file_name)
    if is_checkpoint and is_external_vae(stem):
        return f"'{file_name}' would be taken for the VAE of the checkpoint '{stem[: -len(EXTERNAL_VAE)]}'."
    if stem.lower() == PurePath(DIFFUSERS_INDEX).stem:
        return f"'{file_name}' is the name that makes a folder a model."
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named(Generic[T]):
    """`path` is the file's path below its folder, with "/" and without the suffix; unique in its table."""

    item: T
    path: str
    alias: str = ""

    @property
    def stem(self) -> str:
        return self.path.rpartition("/")[2]


class NameTable(Generic[T]):
    """An exact path counts before a file name, that before an alias, and exact case before any case.

    Where several entries share a name, the first one has it.
    """

    def __init__(self, entries: Iterable[Named[T]]) -> None:
        self._entries = tuple(entries)
        keys: tuple[Callable[[Named[T]], str], ...] = (lambda e: e.path, lambda e: e.stem, lambda e: e.alias)
        self._exact = [_first(self._entries, key) for key in keys]
        self._folded = [_folded(table) for table in self._exact]

    def find(self, name: str) -> T | None:
        """`name` may have a file's suffix, and "\\" for "/"."""
        entry = self._entry(name)
        return None if entry is None else entry.item

    def name_of(self, path: str) -> str:
        """The shortest name that leads to the entry with this path: its file name if that is free, else the path."""
        stem = path.rpartition("/")[2]
        entry = self._entry(stem)
        return stem if entry is not None and entry.path == path else path

    def close_matches(self, name: str) -> list[str]:
        """Names that exist and look like `name`; some names if none does."""
        names = list(dict.fromkeys(self.name_of(entry.path) for entry in self._entries))
        folded = {known.casefold(): known for known in reversed(names)}
        stem = _plain(name).rpartition("/")[2].casefold()
        close = get_close_matches(stem, [key.rpartition("/")[2] for key in folded], n=MAX_CLOSE_MATCHES)
        by_stem = {key.rpartition("/")[2]: known for key, known in folded.items()}
        return [by_stem[key] for key in close] or names[:MAX_CLOSE_MATCHES]

    def _entry(self, name: str) -> Named[T] | None:
        for wanted in dict.fromkeys((name, _plain(name), _without_suffix(_plain(name)))):
            for key, tables in ((wanted, self._exact), (wanted.casefold(), self._folded)):
                for table in tables:
                    if key in table:
                        return table[key]
        return None


def _plain(name: str) -> str:
    return name.strip().replace("\\", "/")


def _without_suffix(name: str) -> str:
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def _first(entries: Iterable[Named[T]], key_of: Callable[[Named[T]], str]) -> dict[str, Named[T]]:
    table: dict[str, Named[T]] = {}
    for entry in entries:
        if key := key_of(entry):
            table.setdefault(key, entry)
    return table


def _folded(table: Mapping[str, Named[T]]) -> dict[str, Named[T]]:
    folded: dict[str, Named[T]] = {}
    for key, entry in table.items():
        folded.setdefault(key.casefold(), entry)
    return folded
