"""Writing what was made: pictures that say so, and faces that somebody wants to keep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from webui.hooks import (
    ImageMetadata,
    Infotext,
    InvalidRequest,
    encode_image,
    format_infotext,
    parse_infotext,
    read_metadata,
)

from .backends.catalog import MissingModel
from .engine import Engine
from .face_models import Method, SavedFace
from .sources import Given, Unusable, find_people

TITLE = "Face consistency"
KEYWORD = "face_consistency"
"""Of the PNG text that says what was done."""


def encoded(
    image: Image.Image,
    fields: Mapping[str, str],
    fmt: Literal["png", "jpeg", "webp"],
    *,
    is_changed: bool,
    original: Path | bytes | None = None,
) -> bytes:
    """The file of `image`. What `original` says of how it was made is kept, with what was done to its faces."""
    known = read_metadata(original) if original is not None else None
    infotext = known.infotext if known else ""
    if infotext:
        told = parse_infotext(infotext)
        infotext = format_infotext(
            Infotext(
                prompt=told.prompt,
                negative_prompt=told.negative_prompt,
                fields={**told.fields, TITLE: "on", **fields},
            )
        )
    metadata = ImageMetadata(
        infotext=infotext,
        request_json=known.request_json if known else "",
        texts={KEYWORD: "; ".join(fields.values())} if fields else {},
        is_composite=is_changed,
    )
    return encode_image(image, metadata, fmt)


def save_person(
    name: str, photos: Sequence[Image.Image], engine: Engine, *, method: Method = "mean", replace: bool = False
) -> SavedFace:
    """Keeps the numbers of the face in `photos`, for measuring and, with an ArcFace network, for swapping.

    Raises InvalidRequest.
    """
    try:
        person = find_people(Given(photos=tuple(photos)), engine, lambda: None).people[0]
    except Unusable as unusable:
        raise InvalidRequest("photos", str(unusable), hint="Use one that shows the face larger.") from unusable
    try:
        network = engine.backends.arcface()
    except MissingModel:
        arcface, arcface_file = [], ""
    else:
        arcface = [network.embed(photo.pixels, photo.face) for photo in person.photos]
        arcface_file = network.name
    return engine.saved.save(
        name,
        sface=[photo.embedding for photo in person.photos],
        arcface=arcface,
        arcface_file=arcface_file,
        method=method,
        replace=replace,
    )
