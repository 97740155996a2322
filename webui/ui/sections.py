"""The postprocessors of a tab: a section each, with a switch. From their controls to a request's steps, and back.

A control is named "ID" (the switch) or "ID.field", as the errors of the rooms below name them.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from webui.errors import InvalidRequest, UnreadableImage
from webui.generation.postprocess import Postprocessor
from webui.ui import forms
from webui.ui.forms import PICTURE_KINDS, Field

log = logging.getLogger(__name__)

Keep = Callable[[Path], str]
"""Stores an uploaded picture and returns its name. Raises UnreadableImage or StorageError."""
PathOf = Callable[[str], Path | None]
"""Where the picture of a name lies; None if it is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What is drawn of one postprocessor; `problem` says why it cannot be."""

    id: str
    title: str
    model: type[BaseModel]
    fields: tuple[Field, ...] = ()
    problem: str = ""

    def control(self, field: Field) -> str:
        return f"{self.id}.{field.name}"


def sections_of(postprocessors: Iterable[Postprocessor]) -> tuple[Section, ...]:
    """In their order. One whose parameters cannot be drawn has a problem instead of fields, and harms no other."""
    return tuple(_section(one) for one in postprocessors)


def _section(one: Postprocessor) -> Section:
    try:
        return Section(id=one.id, title=one.title, model=one.params_model, fields=forms.fields_of(one.params_model))
    except Exception as error:  # an extension's own code
        log.warning("The settings of %s cannot be drawn.", one.id, exc_info=error)
        problem = f"{one.title} cannot show its settings: {type(error).__name__}: {error}"
        return Section(id=one.id, title=one.title, model=one.params_model, problem=problem)


def steps_of(sections: Iterable[Section], values: Mapping[str, Any], keep: Keep) -> list[dict[str, Any]]:
    """The steps that are switched on. Raises InvalidRequest whose `field` is a control's name."""
    return [
        {"id": section.id, "params": _params(section, values, keep)} for section in sections if values.get(section.id)
    ]


def values_of(
    sections: Iterable[Section], steps: Sequence[Mapping[str, Any]], path_of: PathOf
) -> tuple[dict[str, Any], list[str]]:
    """The control values that set these steps and no others; and notes on what cannot be shown.

    What a person has to answer stays as it is.
    """
    by_id = {step["id"]: step["params"] for step in steps}
    values: dict[str, Any] = {}
    notes: list[str] = []
    for section in sections:
        params = by_id.get(section.id)
        values[section.id] = params is not None
        if params is None:
            continue
        shown = forms.control_values(section.fields, params)
        for field in (field for field in section.fields if not field.personal):
            value = shown[field.name]
            values[section.control(field)] = _paths(value, path_of) if field.kind in PICTURE_KINDS else value
        notes += [
            f"{section.title}: {label} cannot be shown here and is as by default."
            for label in forms.misfits(section.fields, params)
        ]
    return values, notes


def usable_values(sections: Iterable[Section], values: Mapping[str, Any]) -> dict[str, Any]:
    """Of remembered values those that their control can show."""
    usable: dict[str, Any] = {}
    for section in sections:
        if isinstance(values.get(section.id), bool):
            usable[section.id] = values[section.id]
        start = f"{section.id}."
        own = {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}
        usable |= {start + name: value for name, value in forms.usable(section.fields, own).items()}
    return usable


def _params(section: Section, values: Mapping[str, Any], keep: Keep) -> dict[str, Any]:
    own = {field.name: _json_value(section, field, values, keep) for field in section.fields}
    try:
        return forms.read(section.model, section.fields, own)
    except InvalidRequest as error:
        name = f"{section.id}.{error.field}".rstrip(".")
        raise InvalidRequest(name, error.message, hint=error.hint) from error


def _json_value(section: Section, field: Field, values: Mapping[str, Any], keep: Keep) -> Any:
    value = values[section.control(field)]
    if field.kind not in PICTURE_KINDS:
        return value
    try:
        names = [keep(path) for path in value or ()]
    except UnreadableImage as error:
        raise InvalidRequest(section.control(field), f"{field.label}: {error.message}", hint=error.hint) from error
    return names if field.kind == "pictures" else (names or [""])[0]


def _paths(names: str | Sequence[str], path_of: PathOf) -> list[Path]:
    wanted = [names] if isinstance(names, str) else names
    return [path for path in map(path_of, filter(None, wanted)) if path is not None]
