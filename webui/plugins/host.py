"""The extensions of a running program: which there are, what they add, on and off, and what is wrong with them.

Nothing here raises because of an extension. Only a change that the user asks for and that cannot be done does.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from webui.errors import ExtensionError, InvalidRequest
from webui.generation.postprocess import Moment, Postprocessor
from webui.hooks import Command, ExtensionContext, Tab
from webui.plugins.discovery import Found, extension_folders, find_extensions
from webui.plugins.faces import GuardedFaces
from webui.plugins.guarded import Guarded
from webui.plugins.loading import Loaded, check_list, failure, forget_modules, load_extension, within
from webui.plugins.manifest import Manifest
from webui.plugins.stages import Blame, StageHooks
from webui.plugins.state import FILE, ExtensionStates
from webui.plugins.subjects import guarded_masker
from webui.plugins.values import SettingsValues
from webui.settings import CHECKOUT, Settings
from webui.training.data.faces import FaceReader
from webui.training.data.subjects import SubjectMasker

LOG = logging.getLogger(__name__)

MAX_PROBLEMS = 8
"""So many are kept of one extension, the latest ones."""
UNLOAD_S = 5.0
"""The longest that an extension may take to clean up."""

State = Literal["on", "off", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What the Extensions page shows. One without a `manifest` has a problem that says why."""

    id: str
    folder: Path
    built_in: bool
    state: State
    """"failed": the user wants it on, but it does not run."""
    problems: tuple[str, ...]
    """What is wrong, or went wrong since the start; one that is "on" may have some."""
    manifest: Manifest | None
    settings_model: type[BaseModel] | None
    settings: BaseModel | None
    needs_restart: bool
    """Its tabs, or the sections of its postprocessors, are as they should be only after the next start."""

    @property
    def title(self) -> str:
        return self.id if self.manifest is None else self.manifest.title


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionTab:
    """A tab of the page. `build` makes its components and returns what went wrong, "" if nothing did."""

    extension: str
    id: str
    label: str
    build: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What the page has of an extension: whether its tabs, and the parameters of its postprocessors by id."""

    tabs: bool
    sections: Mapping[str, Mapping[str, Any]]


def _shown(loaded: Loaded) -> _Shown:
    models = {postprocessor.id: postprocessor.params_model for postprocessor in loaded.postprocessors}
    return _Shown(tabs=loaded.has("tabs"), sections={id: model.model_json_schema() for id, model in models.items()})


class PluginHost:
    """One per program. Loads nothing until `load`. All of it may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        folders: Sequence[Path] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._folders = extension_folders(settings) if folders is None else tuple(folders)
        self.states = ExtensionStates(settings.data_dir / FILE)
        self._found: list[Found] = []
        self._tried: set[str] = set()
        self._loaded: dict[str, Loaded] = {}
        self._postprocessors: dict[str, Guarded] = {}
        self._without_stages: set[str] = set()
        self._without_faces: set[str] = set()
        self._problems: dict[str, tuple[str, ...]] = {}
        self._problems_lock = threading.Lock()
        self._values = SettingsValues(self.states)
        self._shown: dict[str, _Shown] | None = None
        self._lock = threading.RLock()
        self._stages = StageHooks(limit_s=settings.extension_hook_s, blame=self._stages_off, clock=clock)

    # -- The program ---------------------------------------------------------------------------------------------------

    def load(self, only: Collection[str] | None = None) -> None:
        """Finds all extensions and loads those that are on; with `only`, no others."""
        with self._lock:
            self.refresh(only=only)
            for extension in self._found:
                if only is None or extension.id in only:
                    for problem in filter(None, [extension.problem, *self._problems.get(extension.id, ())]):
                        LOG.warning("Extension %s: %s", extension.id, problem)

    def refresh(self, only: Collection[str] | None = None) -> None:
        """Looks at the folders again: loads what is new there, and forgets what is gone.

        What could not be loaded is not tried again; `enable` does that.
        """
        with self._lock:
            self._found = find_extensions(self._folders)
            present = {extension.id for extension in self._found if extension.manifest is not None}
            for id in self._tried - present:
                self._unload(id)
            for extension in self._found:
                wanted = only is None or extension.id in only
                if wanted and extension.id not in self._tried and self._is_on(extension):
                    self._start(extension)

    def close(self) -> None:
        """Tells the extensions that the program ends."""
        with self._lock:
            for id in list(self._loaded):
                self._unload(id)

    # -- The user ------------------------------------------------------------------------------------------------------

    def extensions(self) -> list[Extension]:
        """All that there are, by id."""
        with self._lock:
            return [self._described(found) for found in self._found]

    def extension(self, id: str) -> Extension:
        """Raises InvalidRequest if there is none."""
        with self._lock:
            return self._described(self._named(id))

    def problem(self) -> str:
        """What is wrong with all of them: they are switched off by a setting, or their file cannot be read."""
        if not self._settings.extensions:
            return "Extensions are switched off here. The setting is `extensions` (WEBUI_EXTENSIONS)."
        return self.states.problem()

    def enable(self, id: str) -> Extension:
        """Also loads the extension anew, from its files as they are now. Raises StorageError, and for a wrong id."""
        with self._lock:
            self._named(id)
            self.states.change(id, enabled=True)
            self._unload(id)
            forget_modules(id)
            self.refresh()
            return self.extension(id)

    def disable(self, id: str) -> Extension:
        """At once, for all but its tabs. Raises StorageError, and InvalidRequest for a wrong id."""
        with self._lock:
            self._named(id)
            self.states.change(id, enabled=False)
            self._unload(id)
            return self.extension(id)

    def change_settings(self, id: str, values: Mapping[str, Any]) -> BaseModel:
        """Keeps `values`, all or some of the settings model's fields. Raises InvalidRequest (field) or StorageError."""
        with self._lock:
            loaded = self._loaded.get(id)
            if loaded is None:
                raise InvalidRequest("id", f"The extension '{id}' does not run, so its settings cannot be changed.")
            return self._values.change(loaded, values)

    # -- What they add -------------------------------------------------------------------------------------------------

    def postprocessors(self) -> list[Postprocessor]:
        """Of all that run, by extension."""
        return list(self._postprocessors.values())

    def postprocessor(self, id: str) -> Postprocessor | None:
        return self._postprocessors.get(id)

    def before_stage(self, moment: Moment) -> list[str]:
        return self._stages.before(moment, self._with_hook("before_stage"))

    def after_stage(self, moment: Moment, result: Any) -> tuple[Any, list[str]]:
        return self._stages.after(moment, result, self._with_hook("after_stage"))

    def face_reader(self) -> FaceReader | None:
        """Of the first extension that has one; None without. Its `read` raises ExtensionError.

        One whose reader fails is not asked again until it is enabled anew, or the program is.
        """
        for loaded in self._loaded.values():
            if loaded.has("face_reader") and loaded.id not in self._without_faces:
                reader = self._asked(loaded, "face_reader", blame=self._faces_off)
                if reader is not None:
                    with suppress(ExtensionError):
                        return GuardedFaces(loaded, reader, self._faces_off)
        return None

    def why_no_faces(self) -> str:
        """Why there is no reader of faces, in sentences: whatever does not run might have had one."""
        if problem := self.problem():
            return problem
        faulty = [each for each in self.extensions() if each.state == "failed" or each.id in self._without_faces]
        told = [f"{each.title}: {each.problems[-1]}" for each in faulty if each.problems]
        return " ".join(told) or "No extension that is switched on reads faces."

    def subject_maskers(self) -> list[SubjectMasker]:
        """Of all that run, by extension, the first of equal ids. Their `mask` raises ExtensionError."""
        found: dict[str, SubjectMasker] = {}
        for loaded in list(self._loaded.values()):
            if loaded.has("subject_maskers"):
                maskers: Sequence[SubjectMasker] = self._asked(loaded, "subject_maskers", SubjectMasker) or ()
                for masker in maskers:
                    found.setdefault(masker.id, guarded_masker(loaded, masker, self.blame))
        return list(found.values())

    def tabs(self) -> list[ExtensionTab]:
        """For the page that is built now; it shows these, and the present postprocessors, until the next start."""
        with self._lock:
            made = [tab for loaded in list(self._loaded.values()) for tab in self._tabs_of(loaded)]
            self._shown = {id: _shown(loaded) for id, loaded in self._loaded.items()}
            return made

    def router(self, id: str) -> Any:
        """The extension's fastapi.APIRouter; None if it has none or does not run."""
        loaded = self._loaded.get(id)
        return None if loaded is None else self._asked(loaded, "routes")

    def loaded(self, id: str) -> Loaded | None:
        """The extension as it runs now; another one after it was loaded anew."""
        return self._loaded.get(id)

    def command(self, name: str, id: str) -> Command:
        """The command `name` of the extension `id`. Raises ExtensionError if that does not run, or has none."""
        loaded = self._loaded.get(id)
        if loaded is None:
            problems = self._described(self._named(id)).problems or (self.problem(),)
            raise ExtensionError(f"The extension '{id}', which has the command '{name}', does not run: {problems[0]}")
        commands: Sequence[Command] = self._asked(loaded, "commands", Command) or ()
        found = next((command for command in commands if command.name == name), None)
        if found is None:
            problem = next(iter(self._problems.get(id, ())), f"its hook `commands` knows no '{name}'.")
            raise ExtensionError(f"The extension '{id}' has no command '{name}': {problem}")
        return found

    def blame(self, extension: Loaded, error: ExtensionError) -> None:
        """Keeps what went wrong for the Extensions page; the extension stays on."""
        if self._loaded.get(extension.id) is extension:
            self._keep_problem(extension.id, error)
        LOG.warning("Extension %s: %s", extension.id, error)

    # -- How it is done ------------------------------------------------------------------------------------------------

    def _keep_problem(self, id: str, problem: object) -> None:
        with self._problems_lock:
            known = self._problems.get(id, ())
            if str(problem) not in known:
                self._problems[id] = (*known, str(problem))[-MAX_PROBLEMS:]

    def _named(self, id: str) -> Found:
        found = next((found for found in self._found if found.id == id), None)
        if found is None:
            raise InvalidRequest("id", f"There is no extension '{id}'.", hint="Look at the list again.")
        return found

    def _is_on(self, found: Found) -> bool:
        return self._settings.extensions and found.manifest is not None and self.states.get(found.id).enabled

    def _described(self, found: Found) -> Extension:
        loaded = self._loaded.get(found.id) if found.manifest is not None else None
        problems = [found.problem] if found.problem else list(self._problems.get(found.id, ()))
        wanted = found.manifest is None or self._is_on(found)
        return Extension(
            id=found.id,
            folder=found.folder,
            built_in=found.built_in,
            state="on" if loaded is not None else "failed" if wanted and problems else "off",
            problems=tuple(problems),
            manifest=found.manifest,
            settings_model=None if loaded is None else loaded.settings_model,
            settings=None if loaded is None else self._values.get(found.id),
            needs_restart=found.manifest is not None and self._page_lags(found.id, loaded),
        )

    def _page_lags(self, id: str, loaded: Loaded | None) -> bool:
        if self._shown is None:
            return False
        shown = self._shown.get(id, _Shown(tabs=False, sections={}))
        if loaded is None:  # the page hides sections of what is off
            return shown.tabs
        present = _shown(loaded)
        return present.tabs != shown.tabs or not present.sections.items() <= shown.sections.items()

    def _start(self, found: Found) -> None:
        self._tried.add(found.id)
        self._without_stages.discard(found.id)
        self._without_faces.discard(found.id)
        self._stages.forget(found.id)
        try:
            loaded = load_extension(
                found,
                limit_s=self._settings.extension_load_s,
                context_of=lambda model: self._context_of(found, model),
            )
        except ExtensionError as error:
            self._keep_problem(found.id, error)
            return
        try:
            guarded = {**self._postprocessors, **self._guarded(loaded)}
        except ExtensionError as error:
            self._keep_problem(found.id, error)
            self._say_goodbye(loaded)
            return
        self._loaded = dict(sorted({**self._loaded, found.id: loaded}.items()))
        self._postprocessors = dict(sorted(guarded.items(), key=lambda item: item[1].extension.id))

    def _guarded(self, loaded: Loaded) -> dict[str, Guarded]:
        """The extension's postprocessors. Raises ExtensionError if another one has an id or title of them."""
        new: dict[str, Guarded] = {}
        for inner in loaded.postprocessors:
            for other in (*self._postprocessors.values(), *new.values()):
                if inner.id == other.id or inner.title.lower() == other.title.lower():
                    raise ExtensionError(
                        f"Its postprocessor '{inner.title}' ({inner.id}) has the id or title of another one, "
                        f"'{other.title}' ({other.id})."
                    )
            new[inner.id] = Guarded(loaded, inner, self.blame)
        return new

    def _unload(self, id: str) -> None:
        self._tried.discard(id)
        self._problems.pop(id, None)
        loaded = self._loaded.get(id)
        if loaded is None:
            return
        own = {postprocessor.id for postprocessor in loaded.postprocessors}
        self._loaded = {other: kept for other, kept in self._loaded.items() if other != id}
        self._postprocessors = {other: kept for other, kept in self._postprocessors.items() if other not in own}
        self._say_goodbye(loaded)

    def _say_goodbye(self, loaded: Loaded) -> None:
        try:
            within(UNLOAD_S, lambda: loaded.ask("unload"), what="Switching it off", folder=loaded.folder)
        except ExtensionError as error:
            LOG.warning("Extension %s: %s", loaded.id, error)

    def _context_of(self, found: Found, model: type[BaseModel] | None) -> ExtensionContext:
        if model is not None:
            self._values.load(found.id, model, say=lambda problem: self._keep_problem(found.id, problem))
        shipped = CHECKOUT / "models"
        own = self._settings.models_dir
        return ExtensionContext(
            id=found.id,
            folder=found.folder,
            data_dir=self._settings.data_dir / "extension-data" / found.id,
            models_dirs=(own,) if own == shipped else (own, shipped),
            settings=lambda: self._values.get(found.id),
            max_image_pixels=self._settings.max_image_pixels,
        )

    def _with_hook(self, hook: str) -> list[Loaded]:
        return [
            loaded for loaded in self._loaded.values() if loaded.id not in self._without_stages and loaded.has(hook)
        ]

    def _stages_off(self, extension: Loaded, error: ExtensionError) -> None:
        if self._loaded.get(extension.id) is extension:
            self._without_stages.add(extension.id)
        self.blame(extension, error)

    def _faces_off(self, extension: Loaded, error: ExtensionError) -> None:
        if self._loaded.get(extension.id) is extension:
            self._without_faces.add(extension.id)
        self.blame(extension, ExtensionError(f"It reads no faces any more: {error.message}", hint=error.hint))

    def _asked(self, loaded: Loaded, hook: str, kind: type | None = None, *, blame: Blame | None = None) -> Any:
        """What the hook returns; None if it fails, and `blame` is told. With `kind`, it has to be a list of that."""
        limit_s = self._settings.extension_load_s
        try:
            answer = within(limit_s, lambda: loaded.ask(hook), what=f"Its hook `{hook}`", folder=loaded.folder)
            if kind is not None and answer is not None:
                check_list(answer, hook, kind)
        except ExtensionError as error:
            told = ExtensionError(f"Its hook `{hook}` failed: {error.message}", hint=error.hint)
            (blame or self.blame)(loaded, told)
            return None
        return answer

    def _tabs_of(self, loaded: Loaded) -> list[ExtensionTab]:
        tabs: Sequence[Tab] = self._asked(loaded, "tabs", Tab) or ()
        return [
            ExtensionTab(
                extension=loaded.id, id=f"{loaded.id}-{tab.id}", label=tab.label, build=self._builder(loaded, tab)
            )
            for tab in tabs
        ]

    def _builder(self, loaded: Loaded, tab: Tab) -> Callable[[], str]:
        def build() -> str:
            try:
                tab.build()
            except (Exception, SystemExit) as error:
                LOG.exception("The tab %s of the extension %s failed.", tab.id, loaded.id)
                told = failure(error, loaded.folder)
                self.blame(loaded, ExtensionError(f"Its tab '{tab.label}' failed: {told.message}", hint=told.hint))
                return str(told)
            return ""

        return build
