"""What extensions do around the stages of a generation, so that none of them can harm it."""

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from PIL import Image

from webui.errors import ExtensionError, OutOfDeviceMemory
from webui.generation.postprocess import Moment
from webui.jobs.cancel import ImageSkipped, JobInterrupted
from webui.plugins.loading import Loaded, failure

PASSED_ON = (JobInterrupted, ImageSkipped, OutOfDeviceMemory)
"""What an extension may raise: these are the program's own and mean what they say."""
TIMES_SLOW = 3
"""A hook that was too slow so often is switched off."""


class Blame(Protocol):
    """Keeps on record that the extension did something wrong, and may switch off what did it."""

    def __call__(self, extension: Loaded, error: ExtensionError) -> None: ...


class StageHooks:
    """Runs on the worker's thread. `clock` gives seconds."""

    def __init__(self, *, limit_s: float, blame: Blame, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._blame = blame
        self._clock = clock
        self._times_slow: dict[str, int] = {}

    def before(self, moment: Moment, extensions: Sequence[Loaded]) -> list[str]:
        """What the extensions have to say, and what was wrong with them."""
        notes = []
        for extension in extensions:
            try:
                said = self._asked(extension, "before_stage", moment=moment)
                if not isinstance(said, str | None):
                    raise ExtensionError(f"it returned a {type(said).__name__} instead of a text.")
            except ExtensionError as error:
                said = self._switched_off(extension, "before_stage", moment, error)
            if said:
                notes.append(f"{extension.manifest.title}: {said}")
        return notes

    def after(self, moment: Moment, result: Any, extensions: Sequence[Loaded]) -> tuple[Any, list[str]]:
        """`result` as the extensions leave it, one after the other, and what was wrong with them."""
        notes = []
        for extension in extensions:
            try:
                made = self._asked(extension, "after_stage", moment=moment, result=_copied(result))
                if made is not None:
                    _check_alike(made, result, moment)
                    result = made
            except ExtensionError as error:
                said = self._switched_off(extension, "after_stage", moment, error)
                notes.append(f"{extension.manifest.title}: {said}")
        return result, notes

    def forget(self, id: str) -> None:
        """The extension starts anew."""
        self._times_slow.pop(id, None)

    def _asked(self, extension: Loaded, hook: str, **arguments: Any) -> Any:
        began = self._clock()
        try:
            answer = extension.ask(hook, **arguments)
        except PASSED_ON:
            raise
        except (Exception, SystemExit) as error:
            raise failure(error, extension.folder) from error
        took_s = self._clock() - began
        if took_s > self._limit_s:
            self._times_slow[extension.id] = self._times_slow.get(extension.id, 0) + 1
            if self._times_slow[extension.id] >= TIMES_SLOW:
                raise ExtensionError(
                    f"`{hook}` took longer than {self._limit_s:g} s for the third time, now {took_s:.1f} s.",
                    hint="The limit is the setting extension_hook_s.",
                )
        return answer

    def _switched_off(self, extension: Loaded, hook: str, moment: Moment, error: ExtensionError) -> str:
        """Tells the Extensions page, and returns the note for the user."""
        told = ExtensionError(
            f"Its hooks around the stages are off: {error.message.rstrip('.')} (`{hook}`, {moment.stage}).",
            hint=error.hint,
        )
        self._blame(extension, told)
        return f"{told.message} The picture is made without them."


def _copied(result: Any) -> Any:
    """So that what an extension changes in place, and then fails, does not count. A tensor copies itself."""
    return [picture.copy() for picture in result] if isinstance(result, list) else copy.deepcopy(result)


def _check_alike(made: Any, result: Any, moment: Moment) -> None:
    """Raises ExtensionError unless `made` can take the place of `result`."""
    match result:
        case None:
            alike = False
        case Image.Image():
            alike = isinstance(made, Image.Image) and made.mode == "RGB"
        case list():
            alike = isinstance(made, list) and [_look(new) for new in made] == [_look(old) for old in result]
        case _:
            alike = type(made) is type(result) and _kind(made) == _kind(result)
    if not alike:
        raise ExtensionError(f"it returned {_told(made)} in place of {_told(result)}.")


def _look(picture: Any) -> Any:
    return (picture.mode, picture.size) if isinstance(picture, Image.Image) else picture


def _kind(tensor: Any) -> tuple[Any, ...]:
    return tuple(getattr(tensor, name, None) for name in ("shape", "dtype", "device"))


def _told(value: Any) -> str:
    match value:
        case Image.Image():
            return f"a picture in {value.mode}, {value.width} x {value.height}"
        case list():
            return f"a list of {len(value)}: {', '.join(_told(item) for item in value[:3])}"
        case None:
            return "nothing"
        case _:
            shape = getattr(value, "shape", None)
            return type(value).__name__ if shape is None else f"{type(value).__name__} {tuple(shape)} {value.dtype}"
