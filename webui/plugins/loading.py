"""Imports an extension and asks it for what it has, with a time limit. Whatever it does, the caller gets an answer."""

import importlib.util
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pluggy
from pydantic import BaseModel

from webui.errors import ExtensionError, WebUIError
from webui.generation.infotext import OWN_KEYS
from webui.generation.steps import infotext_key
from webui.hooks import PROJECT, ExtensionContext, Hooks, Postprocessor
from webui.plugins.discovery import Found
from webui.plugins.manifest import ID_PATTERN, Manifest, check_compatible

PACKAGE = "extensions"
MAX_SENTENCE_CHARS = 400
LOG = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An extension that runs. `ask` calls one of its hooks; `has` says whether it has it."""

    manifest: Manifest
    folder: Path
    hooks: pluggy.PluginManager
    context: ExtensionContext
    settings_model: type[BaseModel] | None
    postprocessors: tuple[Postprocessor, ...]

    @property
    def id(self) -> str:
        return self.manifest.id

    def has(self, hook: str) -> bool:
        return bool(getattr(self.hooks.hook, hook).get_hookimpls())

    def ask(self, hook: str, **arguments: Any) -> Any:
        """What the extension's hook returns, None if it has none. Raises what the hook raises."""
        return _ask(self.hooks, hook, context=self.context, **arguments)


def load_extension(
    found: Found, *, limit_s: float, context_of: Callable[[type[BaseModel] | None], ExtensionContext]
) -> Loaded:
    """Imports the extension anew, or takes it as it is where a program has imported it already.

    `context_of` is given the extension's settings model. Raises ExtensionError with one sentence; the traceback is in
    the log. What hangs stays behind in its thread and is never asked again.
    """
    if found.manifest is None:
        raise ExtensionError(found.problem)
    manifest = found.manifest
    check_compatible(manifest)
    given_up = threading.Event()

    def opened() -> Loaded:
        module = _import(found.folder)
        if given_up.is_set():
            raise ExtensionError("It came too late.")
        return _open(module, found.folder, manifest, context_of)

    try:
        return within(limit_s, opened, what="Loading it", folder=found.folder)
    except ExtensionError:
        given_up.set()
        forget_modules(found.id)
        raise


def forget_modules(id: str) -> None:
    """The next load imports the extension's files as they are then."""
    name = f"{PACKAGE}.{id}"
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[module]
    importlib.invalidate_caches()


def within(limit_s: float, action: Callable[[], T], *, what: str, folder: Path) -> T:
    """What `action` returns, in a thread of its own. Raises ExtensionError if it raises or takes longer."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:  # also SystemExit: an extension's exit is not the program's
            LOG.exception("The extension in %s failed.", folder)
            outcome.set_exception(failure(error, folder))

    threading.Thread(target=run, daemon=True, name=f"extension {folder.name}").start()
    try:
        return outcome.result(timeout=limit_s)
    except TimeoutError as error:
        raise ExtensionError(
            f"{what} takes longer than {limit_s:g} s.", hint="The limit is the setting extension_load_s."
        ) from error


def failure(error: BaseException, folder: Path) -> ExtensionError:
    """`error` in one sentence, with the extension's own line that it came from."""
    if isinstance(error, ExtensionError):
        return error
    if isinstance(error, WebUIError):
        return ExtensionError(error.message, hint=error.hint)
    if isinstance(error, SyntaxError):
        where = f"{Path(error.filename or '').name}, line {error.lineno}"
        return ExtensionError(f"{type(error).__name__}: {error.msg} ({where}).")
    said = " ".join(str(error).split()).rstrip(".")
    text = f"{type(error).__name__}: {said:.{MAX_SENTENCE_CHARS}}" if said else type(error).__name__
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)]
    where = f" ({Path(own[-1].filename).relative_to(folder).as_posix()}, line {own[-1].lineno})" if own else ""
    return ExtensionError(f"{text}{where}.")


def _open(
    module: ModuleType,
    folder: Path,
    manifest: Manifest,
    context_of: Callable[[type[BaseModel] | None], ExtensionContext],
) -> Loaded:
    hooks = pluggy.PluginManager(PROJECT)
    hooks.add_hookspecs(Hooks)
    hooks.register(module, manifest.id)
    hooks.check_pending()
    if not hooks.get_hookcallers(module):
        raise ExtensionError("It has no hooks.", hint="Mark its functions with @hookimpl of webui.hooks.")
    settings_model = _ask(hooks, "settings_model")
    if settings_model is not None:
        _check_model(settings_model, "Its settings model")
    context = context_of(settings_model)
    _ask(hooks, "load", context=context)
    postprocessors = _ask(hooks, "postprocessors", context=context) or ()
    check_list(postprocessors, "postprocessors")
    for postprocessor in postprocessors:
        _check_postprocessor(postprocessor)
    return Loaded(
        manifest=manifest,
        folder=folder,
        hooks=hooks,
        context=context,
        settings_model=settings_model,
        postprocessors=tuple(postprocessors),
    )


def _import(folder: Path) -> ModuleType:
    name, file = f"{PACKAGE}.{folder.name}", folder / "__init__.py"
    known = sys.modules.get(name)
    if known is not None and known.__file__ is not None and Path(known.__file__) == file:
        return known
    forget_modules(folder.name)
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None or not file.is_file():
        raise ExtensionError("It has no __init__.py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _ask(hooks: pluggy.PluginManager, hook: str, **arguments: Any) -> Any:
    answers = getattr(hooks.hook, hook)(**arguments)
    return answers[0] if answers else None


def check_list(given: object, hook: str, kind: type = object) -> None:
    """Raises ExtensionError unless `given` is a list or tuple of `kind`."""
    if not isinstance(given, list | tuple) or not all(isinstance(item, kind) for item in given):
        wanted = "list" if kind is object else f"list of {kind.__name__}"
        raise ExtensionError(f"Its hook `{hook}` returned {given!r:.200}, which is no {wanted}.")


def _check_postprocessor(postprocessor: Postprocessor) -> None:
    missing = [
        name for name in ("id", "title", "params_model", "check", "__call__") if not hasattr(postprocessor, name)
    ]
    if missing:
        raise ExtensionError(f"Its postprocessor {postprocessor!r:.200} has no `{missing[0]}`.")
    id, title = postprocessor.id, postprocessor.title
    if not (isinstance(id, str) and re.fullmatch(ID_PATTERN, id) and isinstance(title, str) and title):
        raise ExtensionError(
            f"A postprocessor of it has the id {id!r} and the title {title!r}.",
            hint="The id is lower case letters, digits and _; the title is a text.",
        )
    if infotext_key(title) in {"", *OWN_KEYS}:
        raise ExtensionError(
            f"The title {title!r} of its postprocessor '{id}' means something else in the text of a picture.",
            hint="Choose another title.",
        )
    _check_model(postprocessor.params_model, f"The params_model of its postprocessor '{id}'")


def _check_model(model: object, name: str) -> None:
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ExtensionError(f"{name} is {model!r:.200}, which is no pydantic model.")
    if not model.model_config.get("frozen"):
        raise ExtensionError(f"{name} is not frozen.", hint="Give it model_config = ConfigDict(frozen=True).")
    required = [field for field, info in model.model_fields.items() if info.is_required()]
    if required:
        raise ExtensionError(f"{name} has no default for '{required[0]}'.")
    model().model_dump(mode="json")
    model.model_json_schema()
