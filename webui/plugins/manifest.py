"""What an extension says of itself in `extension.toml`, and whether this program can run it. Nothing is imported."""

import re
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

import webui
from webui.errors import ExtensionError

MANIFEST = "extension.toml"
"""The file's name."""
MAX_MANIFEST_BYTES = 1_000_000
ID_PATTERN = r"[a-z][a-z0-9_]{0,63}"
TAKEN_COMMANDS = frozenset(
    {"bench", "caption", "extensions", "generate", "inspect", "mask", "models", "serve", "test", "train"}
    | {"training-pick", "training-run"}
)
"""Commands of the program itself."""


_NOT_IN_A_NAME = re.compile(r"[\x00-\x1f\\:*?\"<>|]")
"""Characters that some system does not have in file names, or gives another meaning."""


def _version(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion as error:
        raise ValueError("use one such as 1.0.2") from error


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError('use a range such as ">=0.1,<1"') from error
    return text


def _requirement(text: str) -> str:
    try:
        Requirement(text)
    except InvalidRequirement as error:
        raise ValueError('use a package with a range, such as "scipy>=1.12"') from error
    return text


def _plain_path(text: str) -> str:
    """A path that stays below the folder it is put in, on every system."""
    parts = PurePosixPath(text).parts
    if not parts or ".." in parts or text.startswith("/") or _NOT_IN_A_NAME.search(text):
        raise ValueError('use a relative path with "/" and without ".."')
    return text


def _commands(named: dict[str, str]) -> Mapping[str, str]:
    taken = sorted(set(named) & TAKEN_COMMANDS)
    if taken:
        raise ValueError(f"the program itself has a command '{taken[0]}'")
    return MappingProxyType(named)


class ModelFile(BaseModel):
    """A model that the extension ships or can use. `file` is what lies on the disk in the end."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, AfterValidator(_plain_path)]
    """Below the extension's own folder if it is shipped, otherwise below the user's `models` folder."""
    url: Annotated[str, Field(pattern=r"^https?://\S+$")]
    member: Annotated[str, Field(max_length=500)] = ""
    """Path inside the zip or tar archive that `url` gives; empty: `url` gives the file itself."""
    bytes: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(gt=0)]] | None = None
    """From the first to before the second byte of what `url` or `member` gives; without it: all of it."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of `file`."""
    size_bytes: Annotated[int, Field(gt=0)]
    licence: Annotated[str, Field(min_length=1, max_length=200)]
    licence_url: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    non_commercial: bool = False
    shipped: bool = False
    """Comes with the extension; all others are got only when the user has seen their licence and asks for them."""


class Manifest(BaseModel):
    """The whole of `extension.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=rf"^{ID_PATTERN}$")]
    """The folder's name, and the name of the package: `extensions.ID`."""
    title: Annotated[str, Field(min_length=1, max_length=60)]
    version: Annotated[str, AfterValidator(_version)]
    description: Annotated[str, Field(max_length=500)] = ""
    requires_atelier: Annotated[str, Field(alias="requires-atelier"), AfterValidator(_specifier)]
    """Versions of this program that it runs with."""
    dependencies: tuple[Annotated[str, AfterValidator(_requirement)], ...] = ()
    """Python packages; the program installs none, it says what is missing."""
    commands: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")], str], AfterValidator(_commands)] = (
        Field(default_factory=dict)
    )
    """Commands of `launch.py` that the extension has, with one line for the help."""
    models: tuple[ModelFile, ...] = ()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the extension in `folder`. Raises ExtensionError with one sentence."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise ExtensionError(f"Its {MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes.")
        manifest = Manifest.model_validate(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError as error:
        raise ExtensionError(f"It has no {MANIFEST}.", hint="It may be made for another program.") from error
    except OSError as error:
        raise ExtensionError(f"Its {MANIFEST} cannot be read ({error.strerror}).") from error
    except ValidationError as error:
        raise ExtensionError(f"Its {MANIFEST} is not right: {first_mistake(error)}.") from error
    except (ValueError, RecursionError) as error:  # of tomllib, or bytes that are not UTF-8
        raise ExtensionError(f"Its {MANIFEST} is not TOML: {error}.") from error
    if manifest.id != folder.name:
        raise ExtensionError(
            f"Its id is '{manifest.id}', but its folder '{folder.name}'.", hint="Both have to have the same name."
        )
    return manifest


def first_mistake(error: ValidationError) -> str:
    """The first thing that is wrong, with its key: "models.0.sha256: String should match ..."."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    text = str(first["msg"]).removeprefix("Value error, ")
    return f"{key}: {text}" if key else text


def check_compatible(manifest: Manifest) -> None:
    """Raises ExtensionError if this program, or this Python, cannot run the extension."""
    if not SpecifierSet(manifest.requires_atelier).contains(webui.__version__, prereleases=True):
        raise ExtensionError(f"It is made for Atelier {manifest.requires_atelier}, and this is {webui.__version__}.")
    missing = missing_packages(manifest)
    if missing:
        packages = " ".join(f'"{text}"' for text, _ in missing)
        found = ", ".join(f"{text} ({there})" for text, there in missing)
        raise ExtensionError(
            f"It needs Python packages that are not there: {found}.",
            hint=f"To get them: {sys.executable} -m pip install {packages}",
        )


def missing_packages(manifest: Manifest) -> list[tuple[str, str]]:
    """(what is asked for, what is there instead) for each Python package that the extension still needs."""
    return [unmet for unmet in map(_unmet, manifest.dependencies) if unmet is not None]


def _unmet(dependency: str) -> tuple[str, str] | None:
    """(what is asked for, what is there instead), or None if that is fine."""
    requirement = Requirement(dependency)
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return wanted, "not installed"
    if requirement.specifier.contains(installed, prereleases=True):
        return None
    return wanted, f"{installed} is installed"
