"""One error tree. Every error says what happened with its values, and a hint says what to do."""

from collections.abc import Sequence
from pathlib import Path


class WebUIError(Exception):
    """What happened (`message`, with the values) and what to do about it (`hint`)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidRequest(WebUIError):
    """A value that cannot be run. `field` is the request's field name, such as "width"."""

    def __init__(self, field: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.field = field


class PromptSyntaxError(WebUIError):
    """`position` is the 0-based character offset into the prompt."""

    def __init__(self, position: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.position = position


class UnreadableImage(WebUIError):
    """A file that is not a picture, is damaged, or is larger than the limits."""


class ModelNotFound(WebUIError):
    """`kind` is "checkpoint", "LoRA", ...; `close_matches` are names that exist."""

    def __init__(self, kind: str, name: str, close_matches: Sequence[str]) -> None:
        hint = f"Did you mean {', '.join(close_matches)}?" if close_matches else "Choose another one from the list."
        super().__init__(f"There is no {kind} named '{name}'.", hint=hint)
        self.kind = kind
        self.name = name
        self.close_matches = tuple(close_matches)


class UnsupportedModel(WebUIError):
    """A model file that is nothing we can run, with the reason."""

    def __init__(self, path: Path, reason: str, *, hint: str = "") -> None:
        super().__init__(f"'{path.name}' cannot be used: {reason}.", hint=hint)
        self.path = path
        self.reason = reason


class AdapterMismatch(WebUIError):
    """An adapter that was made for another model than the one it is put on."""


class OutOfDeviceMemory(WebUIError):
    """The device has not enough memory, even for the smallest batch."""


class InvalidNumbers(WebUIError):
    """The model produced NaN or Inf instead of a picture."""


class StorageError(WebUIError):
    """A file or folder that could not be read or written."""


class ExtensionError(WebUIError):
    """An extension that cannot run, or did what it must not. Tells of "it": whoever shows it names the extension."""
