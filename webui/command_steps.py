"""Postprocess steps as options of a command: `--with ID`, `--set ID.FIELD=VALUE`. Imports no torch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from webui.command_generate import open_file
from webui.errors import InvalidRequest
from webui.generation.postprocess import Additions, Postprocessor, PostprocessStep
from webui.generation.request import GenerationRequest
from webui.generation.steps import checked_steps, is_picture_field, parse_params
from webui.images.reading import flatten
from webui.images.store import HeldPictures


def with_steps(
    request: GenerationRequest,
    ids: Sequence[str],
    assignments: Sequence[str],
    *,
    additions: Additions,
    pictures: HeldPictures,
    max_pixels: int,
) -> GenerationRequest:
    """`request` with the steps `ids`, and those that `assignments` ("ID.FIELD=VALUE") name, checked.

    A value is JSON or plain text, whichever the field takes; several are separated by commas. A picture is a path;
    it is put into `pictures`. Raises InvalidRequest and UnreadableImage.
    """
    params: dict[str, dict[str, Any]] = {id: {} for id in ids}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        id, _, path = name.strip().partition(".")
        if not (equals and id and path):
            raise InvalidRequest("set", f"'{assignment}' is not of the form ID.FIELD=VALUE.")
        postprocessor = additions.postprocessor(id)
        given = params.setdefault(id, {})
        if postprocessor is not None:  # one that is not there is told below
            fields = path.split(".")
            _assign(given, fields, _value(postprocessor, fields, text, pictures, max_pixels), postprocessor)
    steps = tuple(PostprocessStep(id=id, params=given) for id, given in params.items())
    asked = replace(request, postprocess=steps)
    return replace(asked, postprocess=checked_steps(asked, additions, pictures.__contains__))


def _value(
    postprocessor: Postprocessor, fields: Sequence[str], text: str, pictures: HeldPictures, max_pixels: int
) -> Any:
    info = _field(postprocessor.params_model, fields)
    if info is not None and is_picture_field(info):
        name = pictures.put(flatten(open_file(Path(text), max_pixels))) if text else ""
        return [name] if _is_list(info) and text else name
    readings = _readings(text)
    return next((value for value in readings if _takes(postprocessor, fields, value)), readings[0])


def _assign(params: dict[str, Any], fields: Sequence[str], value: Any, postprocessor: Postprocessor) -> None:
    """Pictures that a field takes several of add up, anything else is what was said last."""
    *parents, leaf = fields
    place = params
    for parent in parents:
        place = place.setdefault(parent, {})
    info = _field(postprocessor.params_model, fields)
    adds_up = info is not None and is_picture_field(info) and isinstance(value, list)
    place[leaf] = [*place.get(leaf, ()), *value] if adds_up else value


def _readings(text: str) -> list[Any]:
    """What `text` may mean, the likeliest first."""
    return [*_as_json(text), text, *_as_json(f"[{text}]"), [part.strip() for part in text.split(",")]]


def _as_json(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return []


def _takes(postprocessor: Postprocessor, fields: Sequence[str], value: Any) -> bool:
    for field in reversed(fields):
        value = {field: value}
    try:
        parse_params(postprocessor, value)
    except InvalidRequest as error:
        # Two settings that do not go together may still be mended by the next assignment.
        return not error.field.startswith(f"{postprocessor.id}.{fields[0]}")
    return True


def _field(model: type[BaseModel], fields: Sequence[str]) -> FieldInfo | None:
    """The field at the end of the path; None where there is none."""
    info = model.model_fields.get(fields[0])
    if info is None or len(fields) == 1:
        return info
    inner = info.annotation
    return _field(inner, fields[1:]) if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def _is_list(info: FieldInfo) -> bool:
    return get_origin(info.annotation) in (tuple, list)
