"""What was decided by hand about single photos, kept in a file among them; the photos themselves are never changed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from webui.errors import InvalidRequest, StorageError
from webui.library.whole_files import write_whole

FILE_NAME = "atelier-photos.json"

Edge = Annotated[int, Field(ge=0)]


class Edit(BaseModel):
    """`crop` is left, top, right, bottom in pixels of the upright photo. None: as the source says.

    `caption` is for photos of a list, which says what a caption beside them could not change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    excluded: bool = False
    crop: tuple[Edge, Edge, Edge, Edge] | None = None
    repeats: int | None = Field(default=None, ge=1, le=1000)
    caption: str | None = Field(default=None, max_length=10_000)

    @model_validator(mode="after")
    def _has_an_area(self) -> "Edit":
        if self.crop and not (self.crop[0] < self.crop[2] and self.crop[1] < self.crop[3]):
            raise ValueError(f"The crop {self.crop} has no area: it is left, top, right, bottom.")
        return self


_EDITS = TypeAdapter(dict[str, Edit])


def read_edits(folder: Path) -> dict[str, Edit]:
    """By name of the photo within `folder`; none without a file. Raises InvalidRequest if it is damaged."""
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    try:
        return _EDITS.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidRequest(
            "data.photos",
            f"{path} cannot be read: {place + ': ' if place else ''}{first['msg']}.",
            hint="Mend the file, or delete it: crops and excluded photos are then forgotten.",
        ) from error


def write_edits(folder: Path, edits: Mapping[str, Edit]) -> None:
    """Adds `edits` to those there are, replacing what was said of the same photos. Raises StorageError."""
    together = {name: edit for name, edit in {**read_edits(folder), **edits}.items() if edit != Edit()}
    path = folder / FILE_NAME
    content = {name: edit.model_dump(mode="json", exclude_defaults=True) for name, edit in sorted(together.items())}
    try:
        write_whole(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {error.strerror or error}.",
            hint="Check that the folder can be written to and the disk has room.",
        ) from error
