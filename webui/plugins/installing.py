"""Installing, updating and removing the user's extensions, in two steps: fetch and show what would run, then do it.

Until the user agrees nothing of an extension is imported or run; what was fetched lies in a folder that is not looked
at, and is gone when the user declines or anything is wrong with it.
"""

import ast
import logging
import re
import secrets
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from webui.errors import ExtensionError, InvalidRequest, StorageError, WebUIError
from webui.hooks import Hooks
from webui.plugins.discovery import BUILT_IN
from webui.plugins.host import Extension, PluginHost
from webui.plugins.installing_files import copy_folder, digest_of, files_of, remove_folder, unpack
from webui.plugins.installing_git import GitAddress, checkout_of, fetch_files, newest_commit, parse_address
from webui.plugins.installing_pip import install_packages
from webui.plugins.manifest import ID_PATTERN, MANIFEST, Manifest, check_compatible, missing_packages, read_manifest
from webui.plugins.rights import why_no_installs
from webui.settings import Settings

QUARANTINE = ".incoming"
"""Below the user's extensions, so that installing is one move; names with a dot are no extensions."""
KEEP_S = 24 * 3600.0
"""So long a proposal may wait for its answer, should the program end meanwhile."""
PROBLEM = "problem"
"""Key in an extension's kept source: why installing it did not end well."""
LICENCE_FILES = ("licence*", "license*", "copying*")
MAX_LICENCE_CHARS = 80
MAX_SOURCE_BYTES = 2_000_000
"""Of one Python file that is looked through for hooks."""
LOG = logging.getLogger(__name__)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An extension in quarantine, for the user to look at. `folder` holds its files."""

    token: str
    manifest: Manifest
    folder: Path
    source: Mapping[str, str]
    """As it is kept with an installed extension: "kind" is "folder", "zip" or "git"."""
    licence: str
    """The first line of its licence file; "" if it has none."""
    files: tuple[tuple[str, int], ...]
    packages: tuple[tuple[str, str], ...]
    """Python packages that pip would be asked for, and what is there instead."""
    hooks: tuple[str, ...]
    replaces: str
    """The version that is installed now and would be gone; "" for a new extension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateState:
    """`has_newer` is None where nobody can tell. `can_update`: this program can bring it."""

    text: str
    has_newer: bool | None = None
    can_update: bool = False


class Installer:
    """One per program. May be called from any thread; one thing is fetched, installed or removed at a time."""

    def __init__(self, settings: Settings, host: PluginHost) -> None:
        self._settings = settings
        self._host = host
        self._quarantine = settings.extensions_dir / QUARANTINE
        self._proposal: Proposal | None = None
        self._busy = threading.Lock()

    def why_not(self) -> str:
        """Why nothing can be installed here, in one sentence; "" if it can."""
        return why_no_installs(self._settings)

    def proposal(self) -> Proposal | None:
        """What waits for an answer."""
        return self._proposal

    def waiting(self, token: str) -> Proposal:
        """Raises InvalidRequest if nothing waits under `token`, or nothing may be installed here."""
        if reason := self.why_not():
            raise InvalidRequest("token", reason)
        proposal = self._proposal
        if proposal is None or proposal.token != token:
            raise InvalidRequest("token", "This extension does not wait to be installed any more.", hint="Begin again.")
        return proposal

    def problem_of(self, id: str) -> str:
        """Why an extension that was installed does not run; "" if nothing is wrong with it."""
        return " ".join((*self._host.extension(id).problems, self._host.states.get(id).source.get(PROBLEM, ""))).strip()

    # -- First step ----------------------------------------------------------------------------------------------------

    def from_folder(self, text: str) -> Proposal:
        """Copies a folder of this machine. Raises WebUIError."""
        return self._propose(lambda inside: self._copied(Path(text.strip()).expanduser(), inside))

    def from_zip(self, archive: Path, name: str) -> Proposal:
        """Unpacks `archive`, which the user calls `name`. Raises WebUIError."""

        def fetch(inside: Path) -> Mapping[str, str]:
            unpack(archive, inside / "files")
            return {"kind": "zip", "name": name}

        return self._propose(fetch)

    def from_git(self, url: str, ref: str = "") -> Proposal:
        """Gets the newest commit of a repository, or of its branch, tag or commit `ref`. Raises WebUIError."""
        address = self._address(url, ref)
        return self._propose(lambda inside: _cloned(address, inside))

    def update(self, id: str) -> Proposal:
        """The newer version of an extension that was installed from a folder or a git address. Raises WebUIError."""
        self._users_own(id)
        source = self._host.states.get(id).source
        match source.get("kind"):
            case "git":
                address = self._address(source["url"], source.get("ref", ""))
                return self._propose(lambda inside: _cloned(address, inside), of=id)
            case "folder":
                return self._propose(lambda inside: self._copied(Path(source["path"]), inside), of=id)
        raise InvalidRequest("id", self.update_state(id).text)

    def discard(self, token: str) -> None:
        """Declined; its files go. Raises InvalidRequest if it does not wait for an answer any more."""
        with self._alone():
            self._forget(self.waiting(token))

    # -- Second step ---------------------------------------------------------------------------------------------------

    def install(self, token: str, say: Say) -> Extension:
        """Installs packages and files of the proposal `token`, and switches it on; `say` gets lines of what happens.

        If its packages cannot be installed, or it does not load, it is there but does not run, and its problems say
        why. Raises WebUIError where nothing could be installed.
        """
        with self._alone():
            proposal = self.waiting(token)
            id = proposal.manifest.id
            try:
                self._require_free(proposal)
                problem = _packages_problem(proposal, say)
                self._put_in_place(proposal)
            finally:
                self._forget(proposal)
            say(f"Installed {id} {proposal.manifest.version} in {self._settings.extensions_dir / id}.")
            return self._start(proposal, problem)

    def remove(self, id: str) -> None:
        """Removes the files and settings of one of the user's extensions. Raises WebUIError."""
        with self._alone():
            folder = self._users_own(id).folder
            self._host.disable(id)
            with _disk(folder):
                if folder.is_symlink():
                    folder.unlink()
                else:
                    gone = self._new_room() / "removed"
                    folder.rename(gone)
                    self._clear(gone.parent)
            self._host.states.forget(id)
            self._host.refresh()

    # -- Updates -------------------------------------------------------------------------------------------------------

    def update_state(self, id: str) -> UpdateState:
        """Whether there is a newer version. Asks the server that it came from. Raises WebUIError."""
        extension = self._host.extension(id)
        if extension.built_in:
            return UpdateState(text="It comes with the program, and is updated with it.")
        source = self._host.states.get(id).source
        match source.get("kind"):
            case "git":
                address = self._address(source["url"], source.get("ref", ""))
                return _git_state(address, source["commit"], can_update=True)
            case "folder":
                return _folder_state(Path(source["path"]), source["digest"])
            case "zip":
                return UpdateState(text=f"It came as {source['name']}; remove it to install a newer one.")
        return self._state_by_hand(extension.folder)

    def _state_by_hand(self, folder: Path) -> UpdateState:
        checkout = checkout_of(folder)
        if checkout is None:
            return UpdateState(text=f"It was put into {folder} by hand; there is nothing to compare it with.")
        address, commit = checkout
        try:
            state = _git_state(self._address(address.url, address.ref), commit, can_update=False)
        except ExtensionError as error:
            return UpdateState(text=f"It is a git checkout. {error}")
        return replace(state, text=f"{state.text} To get it: git -C {folder} pull") if state.has_newer else state

    # -- How it is done ------------------------------------------------------------------------------------------------

    def _address(self, url: str, ref: str) -> GitAddress:
        return parse_address(url, ref, private=self._settings.private_downloads)

    def _propose(self, fetch: Callable[[Path], Mapping[str, str]], *, of: str = "") -> Proposal:
        """`fetch` fills "files" in the folder it is given and says where they are from; `of`: an update of that."""
        if reason := self.why_not():
            raise InvalidRequest("source", reason)
        with self._alone():
            if self._proposal is not None:
                self._forget(self._proposal)
            self._clear_old()
            room = self._new_room()
            try:
                with _disk(room):
                    source = fetch(room)
                    proposal = self._looked_at(room, source, of)
            except BaseException:
                self._clear(room)
                raise
            self._proposal = proposal
            return proposal

    def _new_room(self) -> Path:
        room = self._quarantine / secrets.token_hex(8)
        with _disk(room):
            room.mkdir(parents=True)
        return room

    def _copied(self, folder: Path, inside: Path) -> Mapping[str, str]:
        if not folder.is_absolute() or not folder.is_dir():
            raise InvalidRequest("source", f"'{folder}' is no folder of this machine.", hint="Give its full path.")
        if not (folder / MANIFEST).is_file():
            raise ExtensionError(f"{folder} has no {MANIFEST}.", hint="Choose the folder of one extension.")
        copy_folder(folder, inside / "files")
        return {"kind": "folder", "path": str(folder), "digest": digest_of(inside / "files")}

    def _looked_at(self, room: Path, source: Mapping[str, str], of: str) -> Proposal:
        folder = _named_by_id(room / "files")
        manifest = read_manifest(folder)
        check_compatible(manifest.model_copy(update={"dependencies": ()}))
        if not (folder / "__init__.py").is_file():
            raise ExtensionError("It has no __init__.py.")
        if of and manifest.id != of:
            raise ExtensionError(f"It is '{manifest.id}' there now, and not '{of}' any more.")
        proposal = Proposal(
            token=room.name,
            manifest=manifest,
            folder=folder,
            source=source,
            licence=_licence_of(folder),
            files=files_of(folder),
            packages=_packages_of(manifest),
            hooks=hooks_of(folder),
            replaces=_version_of(self._host.extension(of)) if of else "",
        )
        self._require_free(proposal)
        return proposal

    def _require_free(self, proposal: Proposal) -> None:
        """Raises ExtensionError if the id is another extension's."""
        id = proposal.manifest.id
        known = next((extension for extension in self._host.extensions() if extension.id == id), None)
        if (known is not None and known.built_in) or id in BUILT_IN:
            raise ExtensionError(f"The extension '{id}' comes with the program and cannot be replaced.")
        if not proposal.replaces and (known is not None or (self._settings.extensions_dir / id).exists()):
            raise ExtensionError(
                f"There is an extension '{id}' already, in {self._settings.extensions_dir / id}.",
                hint="Update that one, or remove it first.",
            )

    def _put_in_place(self, proposal: Proposal) -> None:
        target = self._settings.extensions_dir / proposal.manifest.id
        with _disk(target):
            if not proposal.replaces:
                proposal.folder.rename(target)
                return
            old = proposal.folder.parent / "replaced"
            target.rename(old)
            try:
                proposal.folder.rename(target)
            except OSError:
                old.rename(target)
                raise

    def _start(self, proposal: Proposal, problem: str) -> Extension:
        """An update of an extension that is off leaves it off."""
        id, states = proposal.manifest.id, self._host.states
        source = {**proposal.source, **({PROBLEM: problem} if problem else {})}
        is_on = not problem and (not proposal.replaces or states.get(id).enabled)
        states.change(id, source=source, enabled=False)
        self._host.refresh()
        return self._host.enable(id) if is_on else self._host.disable(id)

    def _users_own(self, id: str) -> Extension:
        """Raises InvalidRequest if there is no such extension, or it cannot be changed here."""
        if reason := self.why_not():
            raise InvalidRequest("id", reason)
        extension = self._host.extension(id)
        if extension.built_in:
            raise InvalidRequest("id", f"'{extension.title}' comes with the program; it can be switched off.")
        if extension.folder.parent != self._settings.extensions_dir:
            raise InvalidRequest("id", f"'{extension.title}' lies in {extension.folder}, which is not yours to change.")
        return extension

    def _forget(self, proposal: Proposal) -> None:
        self._proposal = None
        self._clear(self._quarantine / proposal.token)

    def _clear(self, folder: Path) -> None:
        """Leaves nothing of `folder`, and no empty quarantine; what cannot be removed now is, the next time."""
        try:
            if folder.exists():
                remove_folder(folder)
            if self._quarantine.exists() and not any(self._quarantine.iterdir()):
                self._quarantine.rmdir()
        except OSError:
            LOG.warning("%s cannot be removed.", folder, exc_info=True)

    def _clear_old(self) -> None:
        """What a program left that ended in the middle. Fresh ones may be another process's."""
        oldest = time.time() - KEEP_S
        for room in self._quarantine.iterdir() if self._quarantine.is_dir() else ():
            if room.stat().st_mtime < oldest:
                self._clear(room)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise InvalidRequest("source", "An extension is being fetched or installed.", hint="Wait until it is done.")
        try:
            yield
        finally:
            self._busy.release()


def hooks_of(folder: Path) -> tuple[str, ...]:
    """Names of the hooks that the files of an extension mark as theirs. Reads them; runs nothing."""
    known = {name for name in vars(Hooks) if not name.startswith("_")}
    found = set()
    for path in sorted(folder.rglob("*.py")):
        try:
            if path.stat().st_size > MAX_SOURCE_BYTES:
                continue
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # loading the extension will say what is wrong
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in known:
                found |= {node.name for mark in node.decorator_list if _is_hookimpl(mark)}
    return tuple(name for name in vars(Hooks) if name in found)


def _is_hookimpl(mark: ast.expr) -> bool:
    named = mark.func if isinstance(mark, ast.Call) else mark
    return getattr(named, "id", getattr(named, "attr", "")) == "hookimpl"


def _cloned(address: GitAddress, inside: Path) -> Mapping[str, str]:
    archive, commit = fetch_files(address, inside / "git")
    unpack(archive, inside / "files", what="The repository")
    return {"kind": "git", "url": address.url, "ref": address.ref, "commit": commit}


def _named_by_id(folder: Path) -> Path:
    """`folder` under the name that its manifest asks for; what else may be wrong with that, `read_manifest` says."""
    try:
        id = tomllib.loads((folder / MANIFEST).read_text("utf-8")).get("id")
    except (OSError, ValueError):
        return folder
    if not isinstance(id, str) or not re.fullmatch(ID_PATTERN, id) or id == folder.name:
        return folder
    named = folder.parent / "extension" / id
    named.parent.mkdir()
    return folder.rename(named)


def _packages_of(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """The manifest's own words for each package that is missing, and what is there."""
    alone = ((text, manifest.model_copy(update={"dependencies": (text,)})) for text in manifest.dependencies)
    return tuple((text, missing[0][1]) for text, single in alone if (missing := missing_packages(single)))


def _packages_problem(proposal: Proposal, say: Say) -> str:
    """Installs what is missing; returns why that failed, or ""."""
    if not proposal.packages:
        return ""
    try:
        install_packages([text for text, _ in proposal.packages], say)
        check_compatible(proposal.manifest)
    except ExtensionError as error:
        say(str(error))
        return str(error)
    return ""


def _licence_of(folder: Path) -> str:
    names = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_file()}
    for pattern in LICENCE_FILES:
        for name, path in names.items():
            if Path(name).match(pattern):
                lines = (line.strip() for line in path.read_text("utf-8", errors="replace").splitlines())
                return next((line[:MAX_LICENCE_CHARS] for line in lines if line), "")
    return ""


def _version_of(extension: Extension) -> str:
    return "?" if extension.manifest is None else extension.manifest.version


def _git_state(address: GitAddress, commit: str, *, can_update: bool) -> UpdateState:
    newest = newest_commit(address)
    if address.is_fixed:
        return UpdateState(text=f"It was installed at the fixed commit {commit[:8]}.", has_newer=False)
    if newest == commit:
        return UpdateState(text=f"It is up to date with {address.url} ({commit[:8]}).", has_newer=False)
    text = f"{address.url} has another version: {newest[:8]}; here is {commit[:8]}."
    return UpdateState(text=text, has_newer=True, can_update=can_update)


def _folder_state(folder: Path, digest: str) -> UpdateState:
    if not folder.is_dir():
        return UpdateState(text=f"It came from {folder}, which is gone.")
    if digest_of(folder) == digest:
        return UpdateState(text=f"It is the same as in {folder}.", has_newer=False)
    return UpdateState(text=f"The files in {folder} have changed since.", has_newer=True, can_update=True)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    """What goes wrong on the disk, as a StorageError."""
    try:
        yield
    except WebUIError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}).", hint="Check the folder's permissions and space."
        ) from error
