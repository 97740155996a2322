"""What the user decided about extensions, kept in `extensions.json`: on or off, settings, where each came from."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from webui.errors import StorageError
from webui.library.whole_files import write_whole

FILE = "extensions.json"


class Entry(BaseModel):
    """Of one extension. What newer versions of the program add is kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    enabled: bool = True
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Values of its settings model that were chosen."""
    source: Mapping[str, str] = Field(default_factory=dict)
    """Where it was installed from; empty for one that was put there by hand."""


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")

    extensions: dict[str, Entry] = Field(default_factory=dict)


class ExtensionStates:
    """The file `path`. Read anew before each change, so that the page and the command line keep each other's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def problem(self) -> str:
        """Why the file cannot be read; "" if it can, or is not there."""
        try:
            self._read()
        except StorageError as error:
            return str(error)
        return ""

    def get(self, id: str) -> Entry:
        """Of an extension without an entry, and while the file cannot be read: on, nothing chosen."""
        try:
            return self._read().extensions.get(id, Entry())
        except StorageError:
            return Entry()

    def change(self, id: str, **changes: Any) -> Entry:
        """Writes fields of the extension's `Entry`. Raises StorageError, and then nothing has changed."""
        with self._lock:
            content = self._read()
            entry = Entry.model_validate(content.extensions.get(id, Entry()).model_dump() | changes)
            content.extensions[id] = entry
            self._write(content)
        return entry

    def forget(self, id: str) -> None:
        """Of an extension that was removed. Raises StorageError."""
        with self._lock:
            content = self._read()
            if content.extensions.pop(id, None) is not None:
                self._write(content)

    def _read(self) -> _Content:
        try:
            return _Content.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Content()
        except OSError as error:
            raise StorageError(
                f"{self._path} cannot be read ({error.strerror}).", hint="Check its permissions."
            ) from error
        except ValidationError as error:
            raise StorageError(
                f"{self._path} cannot be understood, so it is not written over, and all extensions are on.",
                hint="Mend or remove it, then start again.",
            ) from error

    def _write(self, content: _Content) -> None:
        data = json.dumps(content.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, data.encode())
        except OSError as error:
            raise StorageError(
                f"{self._path} cannot be written ({error.strerror}).", hint="Check the folder's permissions."
            ) from error
