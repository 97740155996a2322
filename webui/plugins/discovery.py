"""Which extensions there are: folders with an `extension.toml`. Nothing is imported."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from webui.errors import ExtensionError
from webui.plugins.manifest import Manifest, read_manifest
from webui.settings import CHECKOUT, Settings

BUILT_IN = frozenset({"face_consistency"})
"""Extensions that come with the program: they cannot be removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A folder that is, or should be, an extension. Without a manifest it has a `problem`, in one sentence."""

    folder: Path
    built_in: bool
    manifest: Manifest | None = None
    problem: str = ""

    @property
    def id(self) -> str:
        return self.folder.name


def extension_folders(settings: Settings) -> tuple[Path, ...]:
    """Where extensions lie: those of the program first, then the user's."""
    own = CHECKOUT / "extensions"
    return (own,) if settings.extensions_dir == own else (own, settings.extensions_dir)


def find_extensions(folders: Sequence[Path]) -> list[Found]:
    """All extensions, by id; what is wrong with one is said in its `problem`. Names with "." or "_" first are not ours.

    Where two have the same id the first one has it, and the same goes for a command.
    """
    ids: dict[str, Path] = {}
    commands: dict[str, str] = {}
    found = []
    for folder, built_in in _candidates(folders):
        extension = _read(folder, built_in)
        if folder.name in ids:
            problem = f"Its id '{folder.name}' is taken by the extension in {ids[folder.name].parent}."
            extension = replace(extension, manifest=None, problem=problem)
        ids.setdefault(folder.name, folder)
        found.append(_with_own_commands(extension, commands))
    return sorted(found, key=lambda extension: extension.id)


def _candidates(folders: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """(folder, whether it comes with the program)."""
    for parent in dict.fromkeys(folders):
        if parent.is_dir():
            for folder in sorted(parent.iterdir()):
                if folder.is_dir() and not folder.name.startswith((".", "_")):
                    yield folder, parent == CHECKOUT / "extensions" and folder.name in BUILT_IN


def _read(folder: Path, built_in: bool) -> Found:
    try:
        return Found(folder=folder, built_in=built_in, manifest=read_manifest(folder))
    except ExtensionError as error:
        return Found(folder=folder, built_in=built_in, problem=str(error))


def _with_own_commands(extension: Found, taken: dict[str, str]) -> Found:
    if extension.manifest is None:
        return extension
    for name in extension.manifest.commands:
        if name in taken:
            problem = f"Its command '{name}' is taken by the extension '{taken[name]}'."
            return replace(extension, manifest=None, problem=problem)
    taken.update(dict.fromkeys(extension.manifest.commands, extension.id))
    return extension
