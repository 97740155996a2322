"""Any frozen pydantic model as controls, and back: parameters of postprocessors, settings of extensions.

A model is read by its JSON schema and its defaults, so whatever pydantic can describe can be drawn; a type without a
control of its own is typed as JSON. docs/extensions.md lists what `json_schema_extra` may say.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import gradio as gr
from pydantic import BaseModel, ValidationError

from webui.errors import InvalidRequest
from webui.generation.postprocess import PICTURE_MARK
from webui.ui.picture_input import PictureInput

Schema = Mapping[str, Any]

MAX_SLIDER_STEPS = 10_000
"""With more, a hand cannot find a value on a slider: a number is typed instead."""
MIN_WIDTH_PX = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One control. `default` is JSON, as are `choices`: pairs of label and value."""

    name: str
    """Dotted, such as "refine.strength"."""
    kind: str
    """A row of `KINDS`."""
    label: str
    info: str = ""
    default: Any = None
    optional: bool = False
    """May be left empty, which is None."""
    whole: bool = False
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[tuple[str, Any], ...] = ()
    lines: int = 1
    placeholder: str = ""
    groups: tuple[str, ...] = ()
    """Titles of the accordions around it, outermost first."""
    group_open: bool = False
    personal: bool = False
    """What somebody answered, such as a consent: no picture brings it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one kind of field is drawn, shown and read."""

    draw: Callable[[Field, dict[str, Any]], Any]
    """Makes the component; the second argument has what all components take."""
    show: Callable[[Field, Any], Any]
    """The control's value for a JSON value."""
    read: Callable[[Field, Any], Any]
    """The inverse; raises ValueError in words for what it cannot read."""
    fits: Callable[[Field, Any], bool]
    """Whether the control can show this value, wherever it comes from."""


def fields_of(model: type[BaseModel]) -> tuple[Field, ...]:
    """The fields to draw, in the model's order; every field of `model` needs a default."""
    schema = model.model_json_schema(by_alias=False)
    defaults = model().model_dump(mode="json")
    return tuple(_fields(schema, schema.get("$defs", {}), defaults, "", (), ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Controls by name, and the accordions that are around each, outermost first."""

    controls: Mapping[str, Any]
    folds: Mapping[str, tuple[Any, ...]]


def draw(fields: Sequence[Field], *, id_of: Callable[[str], str]) -> Drawn:
    """Makes the controls where it is called."""
    controls: dict[str, Any] = {}
    folds: dict[str, tuple[Any, ...]] = {}

    def draw_level(fields: Sequence[Field], around: tuple[Any, ...]) -> None:
        for title, members in _blocks(fields, len(around)):
            if title is None:
                with gr.Row(elem_classes="at-fields"):
                    for field in members:
                        controls[field.name] = _draw_one(field, id_of(field.name))
                        folds[field.name] = around
            else:
                unfolded = any(field.group_open for field in members)
                with gr.Accordion(title, open=unfolded, elem_classes="at-group") as fold:
                    draw_level(members, (*around, fold))

    draw_level(fields, ())
    return Drawn(controls=controls, folds=folds)


def read(model: type[BaseModel], fields: Sequence[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all controls, as JSON that `model` accepts; pictures by name.

    Raises InvalidRequest whose `field` is a control's name, or "" if several together are wrong.
    """
    nested: dict[str, Any] = {}
    for field in fields:
        try:
            value = KINDS[field.kind].read(field, values[field.name])
        except ValueError as error:
            raise InvalidRequest(field.name, f"{field.label}: {error}") from error
        *parents, leaf = field.name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    try:
        parsed = model.model_validate_json(json.dumps(nested), by_name=True)
    except ValidationError as error:
        raise _in_words(error, fields) from error
    dumped: dict[str, Any] = parsed.model_dump(mode="json")
    return dumped


def control_values(fields: Sequence[Field], params: Mapping[str, Any]) -> dict[str, Any]:
    """What the controls show for `params`, JSON of the model; the default for what is missing or does not fit."""
    return {field.name: _shown(field, params) for field in fields}


def misfits(fields: Sequence[Field], params: Mapping[str, Any]) -> list[str]:
    """Labels of the fields whose value in `params` their control cannot show."""
    told = [(field, _at(params, field.name, field.default)) for field in fields]
    return [field.label for field, value in told if not _can_show(field, value)]


def usable(fields: Sequence[Field], values: Mapping[str, Any]) -> dict[str, Any]:
    """Of remembered control values those that their control can still show. Pictures are not remembered."""
    by_name = {field.name: field for field in fields if field.kind not in PICTURE_KINDS}
    return {
        name: value
        for name, value in values.items()
        if name in by_name and KINDS[by_name[name].kind].fits(by_name[name], value)
    }


def _fields(
    schema: Schema, definitions: Schema, defaults: Mapping[str, Any], prefix: str, groups: tuple[str, ...], seen: Any
) -> Iterator[Field]:
    for key, raw in schema.get("properties", {}).items():
        name = prefix + key
        part, optional = _resolved(raw, definitions)
        if part.get("hidden"):
            continue
        around = (*groups, part["group"]) if isinstance(part.get("group"), str) else groups
        default = defaults[key]
        model = raw.get("$ref")
        if "properties" in part and not optional and model not in seen and isinstance(default, dict):
            inner = (*around, _label(key, raw))
            yield from _fields(part, definitions, default, f"{name}.", inner, (*seen, model))
        else:
            yield _field(name, _label(key, raw), part, default, optional=optional, groups=around)


def _resolved(schema: Schema, definitions: Schema) -> tuple[Schema, bool]:
    """`schema` with what it refers to put in its place, and whether None is allowed too."""
    more = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
    if "$ref" in schema:
        target, optional = _resolved(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
        return {**target, **more}, optional
    variants = schema.get("anyOf", ())
    others = [variant for variant in variants if variant.get("type") != "null"]
    if len(others) == 1:
        target, _ = _resolved(others[0], definitions)
        return {**target, **more}, True
    if "items" in schema:
        return {**schema, "items": _resolved(schema["items"], definitions)[0]}, False
    return schema, False


def _label(key: str, schema: Schema) -> str:
    """The title somebody wrote; pydantic's own would be in Title Case."""
    written = schema.get("title", "")
    made_up = key.replace("_", " ").title()
    return written if written and written.replace(" ", "").lower() != made_up.replace(" ", "").lower() else _said(key)


def _said(key: str) -> str:
    text = key.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def _field(name: str, label: str, schema: Schema, default: Any, *, optional: bool, groups: tuple[str, ...]) -> Field:
    options = _options(schema, optional=optional)
    whole = schema.get("type") == "integer"
    low, high, step = _range(schema, whole=whole)
    field = Field(
        name=name,
        kind=_kind_of(schema, optional=optional, bounds=(low, high, step)),
        label=label,
        info=schema.get("description", ""),
        default=default,
        optional=optional,
        whole=whole or schema.get("items", {}).get("type") == "integer",
        low=low,
        high=high,
        step=step,
        choices=options,
        lines=int(schema.get("lines", 1)),
        placeholder=schema.get("placeholder", ""),
        groups=groups,
        group_open=bool(schema.get("group_open")),
        personal=bool(schema.get("personal")),
    )
    return field if _can_show(field, default) else _as_json(field)


def _as_json(field: Field) -> Field:
    """For a default that its own control could not show."""
    return Field(
        name=field.name,
        kind="json",
        label=field.label,
        info=field.info,
        default=field.default,
        groups=field.groups,
        group_open=field.group_open,
        personal=field.personal,
    )


def _kind_of(schema: Schema, *, optional: bool, bounds: tuple[float | None, float | None, float | None]) -> str:
    items = schema.get("items")
    if schema.get(PICTURE_MARK):
        return "picture"
    if "enum" in schema or "const" in schema:
        return "choice"
    if isinstance(items, Mapping) and "prefixItems" not in schema and not optional:
        return _kind_of_items(items)
    match schema.get("type"):
        case "boolean":
            return "choice" if optional else "switch"
        case "integer" | "number":
            low, high, step = bounds
            if optional:
                return "maybe_number"
            if low is None or high is None or step is None:
                return "number"
            return "slider" if step > 0 and low < high <= low + step * MAX_SLIDER_STEPS else "number"
        case "string":
            return "text"
    return "json"


def _kind_of_items(items: Schema) -> str:
    if items.get(PICTURE_MARK):
        return "pictures"
    if "enum" in items:
        return "several"
    return {"integer": "numbers", "number": "numbers", "string": "lines"}.get(str(items.get("type")), "json")


def _options(schema: Schema, *, optional: bool) -> tuple[tuple[str, Any], ...]:
    of_items = schema.get("items") if isinstance(schema.get("items"), Mapping) else None
    source = of_items if of_items and "enum" in of_items else schema
    values = list(source.get("enum", [source["const"]] if "const" in source else []))
    if source.get("type") == "boolean" and optional:
        values = [True, False]
    if optional and values and source is schema and None not in values:
        values = [None, *values]
    written = {**source.get("labels", {}), **schema.get("labels", {})}
    return tuple((str(written.get(str(value), _spoken(value))), value) for value in values)


def _spoken(value: Any) -> Any:
    if value is None:
        return "Automatic"
    return ("On" if value else "Off") if isinstance(value, bool) else value


def _range(schema: Schema, *, whole: bool) -> tuple[float | None, float | None, float | None]:
    """Lowest and highest value, and a step from one to the other; None where there is no bound."""
    low, high = schema.get("minimum"), schema.get("maximum")
    below, above = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    first, last = below if low is None else low, above if high is None else high
    multiple = schema.get("multipleOf")
    step = schema.get("step") or multiple or (1 if whole else None)
    if first is None or last is None:
        return low, high, step
    if step is None:
        step = _nice(last - first)
    low, high = first + step if low is None else low, last - step if high is None else high
    if multiple:
        low, high = math.ceil(low / multiple) * multiple, math.floor(high / multiple) * multiple
    return low, high, step


def _nice(span: float) -> float:
    """A hundredth of `span`, down to a power of ten."""
    return float(f"1e{math.floor(math.log10(span / 100) + 1e-9)}") if span > 0 and math.isfinite(span) else 0.01


def _blocks(fields: Sequence[Field], depth: int) -> list[tuple[str | None, list[Field]]]:
    """Runs of fields without a group, and groups, each at the place of its first field."""
    blocks: list[tuple[str | None, list[Field]]] = []
    for field in fields:
        title = field.groups[depth] if len(field.groups) > depth else None
        if title is None:
            found = blocks[-1] if blocks and blocks[-1][0] is None else None
        else:
            found = next((block for block in blocks if block[0] == title), None)
        if found is None:
            blocks.append((title, [field]))
        else:
            found[1].append(field)
    return blocks


def _draw_one(field: Field, elem_id: str) -> Any:
    wide = field.lines > 1 or field.personal or field.kind in WIDE_KINDS
    common = {
        "label": field.label,
        "value": KINDS[field.kind].show(field, field.default),
        "elem_id": elem_id,
        "elem_classes": ["at-field", "at-flush", "at-wide"] if wide else ["at-field", "at-flush"],
    }
    return KINDS[field.kind].draw(field, common)


def _shown(field: Field, params: Mapping[str, Any]) -> Any:
    value = _at(params, field.name, field.default)
    return KINDS[field.kind].show(field, value if _can_show(field, value) else field.default)


def _can_show(field: Field, value: Any) -> bool:
    kind = KINDS[field.kind]
    try:
        return kind.fits(field, kind.show(field, value))
    except (TypeError, ValueError, AttributeError):
        return False


def _at(params: Any, name: str, default: Any) -> Any:
    for key in name.split("."):
        if not isinstance(params, Mapping) or key not in params:
            return default
        params = params[key]
    return params


def _in_words(error: ValidationError, fields: Sequence[Field]) -> InvalidRequest:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    names = [".".join(path[:end]) for end in range(len(path), 0, -1)]
    found = next((field for name in names for field in fields if field.name == name), None)
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if found is None:
        return InvalidRequest("", f"{message}.")
    if first.get("input") is None:
        return InvalidRequest(found.name, f"{found.label} is empty.", hint="Fill it in.")
    return InvalidRequest(found.name, f"{found.label} is {first['input']!r}: {message[:1].lower()}{message[1:]}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(field: Field, value: Any) -> bool:
    return isinstance(value, str)


def _draw_slider(field: Field, common: dict[str, Any]) -> Any:
    shape: dict[str, Any] = {"step": field.step, "buttons": [], "min_width": MIN_WIDTH_PX}
    return gr.Slider(field.low, field.high, info=field.info or None, **shape, **common)


def _draw_number(field: Field, common: dict[str, Any]) -> Any:
    # No bounds here: Gradio would refuse the value itself, with a message that does not name the control.
    return gr.Number(step=field.step or 1, info=field.info or None, min_width=MIN_WIDTH_PX, **common)


def _draw_choice(field: Field, common: dict[str, Any]) -> Any:
    choices = [(label, _key(field, value)) for label, value in field.choices]
    return gr.Dropdown(choices, info=field.info or None, filterable=len(choices) > 8, min_width=MIN_WIDTH_PX, **common)


def _draw_several(field: Field, common: dict[str, Any]) -> Any:
    choices = [(label, _key(field, value)) for label, value in field.choices]
    return gr.CheckboxGroup(choices, info=field.info or None, **common)


def _draw_text(field: Field, common: dict[str, Any]) -> Any:
    lines = field.lines if field.kind != "lines" else max(field.lines, 2)
    shape: dict[str, Any] = {"lines": lines, "max_lines": max(lines, 12), "placeholder": field.placeholder or None}
    return gr.Textbox(info=field.info or None, min_width=MIN_WIDTH_PX, **shape, **common)


def _draw_pictures(field: Field, common: dict[str, Any]) -> Any:
    return PictureInput(info=field.info, multiple=field.kind == "pictures", **{**common, "value": None})


def _key(field: Field, value: Any) -> str:
    """The dropdown's value for a choice: texts as they are, all else as JSON."""
    return value if all(isinstance(other, str) for _, other in field.choices) else json.dumps(value)


def _show_choice(field: Field, value: Any) -> Any:
    return _key(field, value)


def _read_choice(field: Field, key: Any) -> Any:
    for _, value in field.choices:
        if _key(field, value) == key:
            return value
    raise ValueError(f"'{key}' is none of its choices.")


def _read_number(field: Field, value: Any) -> Any:
    if value is None or (_is_number(value) and not field.whole):
        return value
    if not _is_number(value):
        raise ValueError(f"{value!r} is not a number.")
    return int(value) if value == int(value) else value


def _fits_number(field: Field, value: Any) -> bool:
    return _is_number(value) and (not field.whole or value == int(value))


def _draw_maybe_number(field: Field, common: dict[str, Any]) -> Any:
    # Not gr.Number: that one shows an empty value as 0.
    placeholder = field.placeholder or "Automatic"
    return gr.Textbox(info=field.info or None, placeholder=placeholder, min_width=MIN_WIDTH_PX, **common)


def _read_maybe_number(field: Field, text: Any) -> Any:
    if not (text or "").strip():
        return None
    try:
        return int(text) if field.whole else _finite(text)
    except ValueError as error:
        what = "whole number" if field.whole else "number"
        raise ValueError(f"'{text}' is no {what}. Type one, or leave it empty.") from error


def _fits_slider(field: Field, value: Any) -> bool:
    low, high = field.low, field.high
    return low is not None and high is not None and _fits_number(field, value) and low <= value <= high


def _show_text(field: Field, value: Any) -> Any:
    return "" if value is None and field.optional else value


def _read_text(field: Field, value: Any) -> Any:
    return None if field.optional and not value else value or ""


def _read_numbers(field: Field, text: Any) -> list[float]:
    parts = [part.strip() for part in str(text or "").replace(";", ",").split(",") if part.strip()]
    try:
        return [int(part) if field.whole else _finite(part) for part in parts]
    except ValueError as error:
        what = "whole numbers" if field.whole else "numbers"
        raise ValueError(f"'{text}' is not a list. Use {what} with commas between them.") from error


def _spelled(value: Any) -> str:
    if not _is_number(value):
        raise ValueError(f"{value!r} is not a number.")
    return str(value)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _is_readable(field: Field, text: Any) -> bool:
    if not isinstance(text, str):
        return False
    try:
        KINDS[field.kind].read(field, text)
    except ValueError:
        return False
    return True


def _show_lines(field: Field, value: Sequence[str]) -> Any:
    """None, which fits nowhere, if an entry would not come back."""
    plain = all(isinstance(entry, str) and entry == entry.strip() and [entry] == entry.splitlines() for entry in value)
    return "\n".join(value) if plain else None


def _read_lines(field: Field, text: Any) -> list[str]:
    return [line.strip() for line in str(text or "").splitlines() if line.strip()]


def _read_json(field: Field, text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise ValueError(f"this is not JSON ({error}).") from error


def _same(field: Field, value: Any) -> Any:
    return value


def _fits_several(field: Field, keys: Any) -> bool:
    known = {_key(field, value) for _, value in field.choices}
    return isinstance(keys, list) and all(isinstance(key, str) and key in known for key in keys)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "switch": Kind(
            draw=lambda field, common: gr.Checkbox(info=field.info or None, min_width=MIN_WIDTH_PX, **common),
            show=_same,
            read=lambda field, value: bool(value),
            fits=lambda field, value: isinstance(value, bool),
        ),
        "choice": Kind(
            draw=_draw_choice,
            show=_show_choice,
            read=_read_choice,
            fits=lambda field, key: (
                isinstance(key, str) and any(_key(field, value) == key for _, value in field.choices)
            ),
        ),
        "several": Kind(
            draw=_draw_several,
            show=lambda field, values: [_key(field, value) for value in values],
            read=lambda field, keys: [_read_choice(field, key) for key in keys or ()],
            fits=_fits_several,
        ),
        "slider": Kind(draw=_draw_slider, show=_same, read=_read_number, fits=_fits_slider),
        "number": Kind(draw=_draw_number, show=_same, read=_read_number, fits=_fits_number),
        "maybe_number": Kind(
            draw=_draw_maybe_number,
            show=lambda field, value: "" if value is None else _spelled(value),
            read=_read_maybe_number,
            fits=_is_readable,
        ),
        "text": Kind(draw=_draw_text, show=_show_text, read=_read_text, fits=_is_text),
        "numbers": Kind(
            draw=_draw_text,
            show=lambda field, values: ", ".join(map(_spelled, values)),
            read=_read_numbers,
            fits=_is_readable,
        ),
        "lines": Kind(draw=_draw_text, show=_show_lines, read=_read_lines, fits=_is_text),
        "json": Kind(draw=_draw_text, show=lambda field, value: json.dumps(value), read=_read_json, fits=_is_readable),
        "picture": Kind(draw=_draw_pictures, show=_show_text, read=_read_text, fits=_is_text),
        "pictures": Kind(
            draw=_draw_pictures,
            show=lambda field, names: list(names),
            read=lambda field, names: list(names or ()),
            fits=lambda field, names: isinstance(names, list) and all(isinstance(name, str) for name in names),
        ),
    }
)
"""Every kind of control there is."""

PICTURE_KINDS = frozenset({"picture", "pictures"})
WIDE_KINDS = PICTURE_KINDS | {"lines", "several"}
