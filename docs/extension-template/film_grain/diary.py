"""A text file in the extension's own folder."""

from pathlib import Path


class Diary:
    """Lines, the oldest first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def say(self, line: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def text(self) -> str:
        return self._path.read_text("utf-8") if self._path.exists() else ""
