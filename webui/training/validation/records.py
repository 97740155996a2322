"""What was measured of a run, in its folder: a file per candidate, and the sample pictures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from webui.errors import StorageError
from webui.library.whole_files import write_whole
from webui.training.validation.choosing import Choice, Judged, Row, Scale, choose


class Records:
    """Files of `folder`/validation and `folder`/samples. Only what has the same `digest` can be compared, so only that
    is found again."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self._digest = digest

    @classmethod
    def latest(cls, folder: Path) -> "Records":
        """Those that can be compared with the base as it was measured last."""
        try:
            digest = json.loads((folder / "validation" / "base.json").read_text(encoding="utf-8"))["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            digest = ""
        return cls(folder, digest)

    def choose(self) -> Choice | None:
        """The best of what was measured; None where nothing was."""
        base, rows = self.read("base"), self.rows()
        if base is None or not rows:
            return None
        return choose([row_of(row) for row in rows], Scale(**base["scale"]) if base["scale"] else None)

    def best_picture(self, step: int, weight: float) -> Path | None:
        """The sample of that candidate that is most like the subject; None where none was drawn."""
        samples = [
            sample
            for row in self.rows()
            if (row["step"], row["weight"]) == (step, weight)
            for sample in row["samples"]
            if sample["path"]
        ]
        best = max(samples, key=lambda sample: sample["likeness"] or 0.0, default=None)
        return None if best is None else self.folder / best["path"]

    def read(self, name: str) -> dict[str, Any] | None:
        """What was written as `name`; None where nothing was, or about other photos, noises or prompts."""
        try:
            content = json.loads(self._path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) and content.get("digest") == self._digest else None

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Whole or not at all. Raises StorageError."""
        path = self._path(name)
        data = json.dumps({"digest": self._digest, **content}, ensure_ascii=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data.encode())
        except OSError as error:
            raise _not_written(path, error) from error

    def rows(self) -> list[dict[str, Any]]:
        """Of all candidates, in the order of their steps."""
        names = sorted(path.stem for path in self._path("").parent.glob("[0-9]*.json"))
        contents = [content for name in names if (content := self.read(name)) is not None]
        return [row for content in contents for row in content["rows"]]

    def save(self, picture: Image.Image, name: str) -> str:
        """The picture's path below the folder. Raises StorageError."""
        path = self.folder / "samples" / f"{name}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
        except OSError as error:
            raise _not_written(path, error) from error
        return f"samples/{name}.png"

    def picture(self, path: str) -> Image.Image:
        """One that was saved, RGB. Raises OSError."""
        with Image.open(self.folder / path) as picture:
            return picture.convert("RGB")

    def _path(self, name: str) -> Path:
        return self.folder / "validation" / f"{name}.json"


def row_of(content: Mapping[str, Any]) -> Row:
    """What `choose` takes, of what was written."""
    keys = ("likeness", "following", "copied", "broken")
    return Row(
        step=content["step"],
        weight=content["weight"],
        gains=tuple(content["gains"]),
        trained_gain=content["trained_gain"],
        samples=tuple(Judged(**{key: sample[key] for key in keys}) for sample in content["samples"]),
        is_finite=content["is_finite"],
    )


def _not_written(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"'{path.name}' could not be written: {error.strerror or error}.",
        hint="Check the space on the disk and the rights of the run's folder, then resume.",
    )
