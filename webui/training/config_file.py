"""A run's settings as a file that explains itself: TOML with each value's meaning, range and default beside it.

Imports no torch. What is written reads back equal.
"""

import json
import textwrap
import tomllib
import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from webui.errors import InvalidRequest, StorageError
from webui.training.config import TrainingConfig

COMMENT_WIDTH = 118
PATHS = (("data", "photos"), ("data", "prior_photos"))
"""Relative ones count from the file's folder."""


def config_text(config: TrainingConfig) -> str:
    """`config` as TOML with comments."""
    sections = [name for name, field in TrainingConfig.model_fields.items() if _is_section(field.annotation)]
    lines = ["# A training run. Start it with: python launch.py train THIS_FILE", ""]
    lines += [line for name in TrainingConfig.model_fields if name not in sections for line in _entry(config, name)]
    for name in sections:
        part: BaseModel = getattr(config, name)
        summary = (type(part).__doc__ or "").strip().splitlines()[0]
        lines += [
            f"# {summary}",
            f"[{name}]",
            *(line for each in type(part).model_fields for line in _entry(part, each)),
        ]
    return "\n".join(lines).rstrip() + "\n"


def read_config(path: Path) -> TrainingConfig:
    """Raises StorageError if there is no such file, InvalidRequest with the field if it cannot be run."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror}).", hint="Write one with `train --new`."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("config", f"{path.name} is no text.", hint="Give a TOML file.") from error
    values = _values_of(text, path.name)
    for section, name in PATHS:
        if isinstance(values.get(section), dict) and isinstance(values[section].get(name), str):
            values[section][name] = (path.parent / Path(values[section][name]).expanduser()).resolve()
    return parse_config(values)


def config_of_text(text: str) -> TrainingConfig:
    """What `config_text` wrote, wherever its photos are. Raises InvalidRequest with the field."""
    return parse_config(_values_of(text, "The file"))


def _values_of(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest("config", f"{name} is no valid TOML: {error}.", hint="Correct that line.") from error


def parse_config(values: Mapping[str, Any]) -> TrainingConfig:
    """Raises InvalidRequest with the first field that is wrong, and why."""
    try:
        return TrainingConfig.model_validate(values)
    except ValidationError as error:
        raise _refusal(error.errors()[0]) from error


def problems_of(values: Mapping[str, Any]) -> list[InvalidRequest]:
    """Every field that is wrong, and why."""
    try:
        TrainingConfig.model_validate(values)
    except ValidationError as error:
        return [_refusal(each) for each in error.errors()]
    return []


def _refusal(error: Any) -> InvalidRequest:
    """One of pydantic's errors in words."""
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        close = get_close_matches(field.rpartition(".")[2], _names(error["loc"][:-1]), cutoff=0.5)
        hint = f"Did you mean {', '.join(close)}?" if close else "Leave it out."
        return InvalidRequest(field, f"There is no setting '{field}'.", hint=hint)
    given = "" if error["type"] in ("missing", "value_error") else f", not {error['input']!r}"
    message = str(error.get("ctx", {}).get("error", error["msg"]))
    return InvalidRequest(field or "config", f"{field}: {message}{given}." if field else message)


def _names(location: tuple[int | str, ...]) -> list[str]:
    fields = TrainingConfig.model_fields
    for part in location:
        annotation = fields[str(part)].annotation
        fields = annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}
    return list(fields)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _entry(part: BaseModel, name: str) -> Iterator[str]:
    field, value = type(part).model_fields[name], getattr(part, name)
    about = " ".join(text for text in (field.description, _range(field), _default(field)) if text)
    if about:
        yield from textwrap.wrap(about, COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ")
    yield f"# {name} =" if value is None else f"{name} = {toml_value(value)}"
    yield ""


def _range(field: FieldInfo) -> str:
    """ "One of ..." or the limits of a number."""
    choices = _choices(field.annotation)
    if choices:
        return f"One of {', '.join(choices)}."
    limits: dict[str, Any] = {}
    for each in _constraints(field):
        limits |= {name: getattr(each, name) for name in ("ge", "gt", "le", "lt") if hasattr(each, name)}
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    told = [f"{word} {limits[name]}" for name, word in words.items() if limits.get(name) is not None]
    return f"{' and '.join(told)}.".capitalize() if told else ""


def _constraints(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for part in get_args(field.annotation):
        if get_origin(part) is Annotated:
            yield from get_args(part)[1:]


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) in (Union, types.UnionType):
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return []


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is None or field.default == "":
        return ""
    return f"Default {toml_value(field.default)}."


def toml_value(value: Any) -> str:
    """One value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case tuple() | list():
            return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
