"""What a person has to agree to before a face is changed, and when that was done first on this machine."""

import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from webui.hooks import WebUIError

TERMS = (
    "The faces I work on are my own, or the people have agreed to it. I make nothing intimate, fraudulent or degrading "
    "of anybody, nothing with minors, and I don't pass the result off as a photo."
)
NOT_GIVEN = "Face consistency changes people's faces, and needs your word first."
FILE = "consent.json"


@dataclass(frozen=True, slots=True)
class ConsentBook:
    """Knows the day of the first consent, in `folder`. Nothing else about anybody is written down."""

    folder: Path

    def given(self) -> str:
        """Day and time in ISO 8601, UTC; "" if it was never given, or cannot be read."""
        try:
            found = json.loads((self.folder / FILE).read_text("utf-8"))
        except (OSError, ValueError):
            return ""
        return str(found.get("given", "")) if isinstance(found, dict) else ""

    def give(self) -> str:
        """Keeps the first time; later ones change nothing. Returns it. Raises WebUIError if the disk won't."""
        if known := self.given():
            return known
        now = datetime.now(UTC).isoformat(timespec="seconds")
        draft = self.folder / f".{FILE}.{os.getpid()}.{threading.get_ident()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps({"given": now, "terms": TERMS}, indent=2) + "\n", "utf-8")
            draft.replace(self.folder / FILE)
        except OSError as error:
            raise WebUIError(f"Your consent could not be kept in {self.folder}: {error.strerror or error}.") from error
        return now

    def take_back(self) -> None:
        """Raises WebUIError if the file stays."""
        try:
            (self.folder / FILE).unlink(missing_ok=True)
        except OSError as error:
            raise WebUIError(f"{self.folder / FILE} could not be deleted: {error.strerror or error}.") from error
