"""The postprocess steps of a request: checked by the models that know them, and in an infotext's words.

Parameters travel as JSON values by field name. Imports no torch.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from webui.errors import InvalidRequest, WebUIError
from webui.generation.postprocess import PERSONAL_MARK, PICTURE_MARK, Additions, Postprocessor, PostprocessStep
from webui.generation.request import GenerationRequest

ON = "on"
FAILED = "failed"
"""What an infotext says of a step that raised: the picture is as if it had not been asked for."""

STEP_WORDS = (ON, FAILED)

HasPicture = Callable[[str], bool]
"""Whether the program keeps a picture by this name."""

logger = logging.getLogger(__name__)

_NO_PART_OF_A_KEY = re.compile(r"[^\w\-/]+")


def field_label(name: str, info: FieldInfo) -> str:
    """What people read beside a field: its title, or its name as a sentence begins."""
    return info.title or name.replace("_", " ").capitalize()


def parse_params(postprocessor: Postprocessor, params: Mapping[str, Any]) -> BaseModel:
    """The instance of `params_model` that JSON values mean; names that it does not know are errors too.

    Raises InvalidRequest with the field "ID.field", or "ID.field.inner" where models are nested.
    """
    known = postprocessor.params_model.model_fields
    for name in params:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise InvalidRequest(
                f"{postprocessor.id}.{name}",
                f"{postprocessor.title} has no setting '{name}'.",
                hint=f"Did you mean '{near[0]}'?" if near else f"It has: {', '.join(known)}.",
            )
    try:
        return _validated(postprocessor, params)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        what = f"{path} cannot be {first.get('input')!r}" if path else "these settings do not go together"
        raise InvalidRequest(
            f"{postprocessor.id}.{path}".rstrip("."), f"{postprocessor.title}: {what}: {first['msg']}."
        ) from error


def complete(params: BaseModel) -> dict[str, Any]:
    """All fields as JSON values, defaults included."""
    values: dict[str, Any] = params.model_dump(mode="json")
    return values


def told_step(postprocessor: Postprocessor, params: BaseModel) -> PostprocessStep:
    """The step as a picture tells it: complete, but for what is personal."""
    fields = postprocessor.params_model.model_fields
    values = {name: value for name, value in complete(params).items() if not is_personal(fields[name])}
    return PostprocessStep(id=postprocessor.id, params=values)


def checked_steps(
    request: GenerationRequest, additions: Additions, has_picture: HasPicture
) -> tuple[PostprocessStep, ...]:
    """The steps of `request` with complete parameters, which can run as far as can be known.

    Raises InvalidRequest that names the step's control ("ID.field"), or "postprocess" for one that nobody brings.
    """
    return tuple(_checked(step, request, additions, has_picture) for step in request.postprocess)


def restored_steps(
    steps: Iterable[PostprocessStep], additions: Additions, has_picture: HasPicture
) -> tuple[tuple[PostprocessStep, ...], tuple[str, ...]]:
    """What of `steps`, from a picture or an older version, can be asked for here; and notes on what cannot."""
    found: list[PostprocessStep] = []
    notes: list[str] = []
    for step in steps:
        postprocessor = additions.postprocessor(step.id)
        if postprocessor is None:
            notes.append(_not_there(step.id))
            continue
        params, more = _nearest(postprocessor, step.params)
        gone = [path for path, name in picture_names(params) if name and not has_picture(name)]
        if gone:
            more.append(f"{postprocessor.title}: its pictures are not kept here; choose them again.")
        found.append(replace(step, params=_without(complete(params), gone)))
        notes += more
    return tuple(found), tuple(notes)


def picture_names(params: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted field, name) of every `Picture` in `params`, also "" for one that is not chosen."""
    for name, info in type(params).model_fields.items():
        value = getattr(params, name)
        if isinstance(value, BaseModel):
            yield from picture_names(value, f"{prefix}{name}.")
        elif is_picture_field(info):
            names = (value,) if isinstance(value, str) else value or ()
            yield from ((f"{prefix}{name}", picture) for picture in names)


def is_picture_field(info: FieldInfo) -> bool:
    """Whether the field holds a `Picture`, several of them, or perhaps none."""
    return _is_marked(info, PICTURE_MARK) or _holds_pictures(info.annotation)


def is_personal(info: FieldInfo) -> bool:
    """Whether the field is a person's answer, which no picture may give; see `PERSONAL_MARK`."""
    return _is_marked(info, PERSONAL_MARK)


def step_words(postprocessor: Postprocessor, params: BaseModel, state: str = ON) -> dict[str, str]:
    """The step in an infotext: "TITLE: on", and what differs from the defaults as "TITLE LABEL: value"."""
    defaults = complete(postprocessor.params_model())
    values = complete(params)
    words = {infotext_key(postprocessor.title): state}
    for key, name in step_keys(postprocessor).items():
        if values[name] != defaults[name]:
            words[key] = _written(values[name])
    return words


def read_steps(
    fields: Mapping[str, str], additions: Additions, *, known: Iterable[str]
) -> tuple[tuple[PostprocessStep, ...], tuple[str, ...]]:
    """The steps that an infotext's fields tell, as they stand there; and notes on those that nobody brings here.

    `known` are keys that mean something else.
    """
    by_title = {infotext_key(one.title): one for one in additions.postprocessors()}
    values = {key for one in by_title.values() for key in step_keys(one)} - set(by_title)
    steps: list[PostprocessStep] = []
    notes: list[str] = []
    for key in (key for key, word in fields.items() if word in STEP_WORDS and key not in {*known, *values}):
        if key not in by_title:
            notes.append(_not_there(key))
            continue
        postprocessor = by_title[key]
        params = {name: _read(fields[word]) for word, name in step_keys(postprocessor).items() if word in fields}
        steps.append(PostprocessStep(id=postprocessor.id, params=params))
    return tuple(steps), tuple(notes)


def step_keys(postprocessor: Postprocessor) -> dict[str, str]:
    """The infotext's key for each field of the parameters but personal ones; by name where two have one label."""
    title = infotext_key(postprocessor.title)
    keys: dict[str, str] = {}
    for name, info in postprocessor.params_model.model_fields.items():
        if is_personal(info):
            continue
        label = infotext_key(f"{title} {field_label(name, info)}")
        keys[f"{title} {name}" if label in keys or label == title else label] = name
    return keys


def infotext_key(text: str) -> str:
    """`text` with nothing that a reader of infotexts would not take for part of a key."""
    return _NO_PART_OF_A_KEY.sub(" ", text).strip(" -/")


def _validated(postprocessor: Postprocessor, params: Mapping[str, Any]) -> BaseModel:
    return postprocessor.params_model.model_validate_json(json.dumps(dict(params)), by_name=True)


def _checked(
    step: PostprocessStep, request: GenerationRequest, additions: Additions, has_picture: HasPicture
) -> PostprocessStep:
    postprocessor = additions.postprocessor(step.id)
    if postprocessor is None:
        known = ", ".join(one.id for one in additions.postprocessors())
        raise InvalidRequest(
            "postprocess", _not_there(step.id), hint=f"There is: {known}." if known else "No extension brings steps."
        )
    params = parse_params(postprocessor, step.params)
    for path, name in picture_names(params):
        if name and not has_picture(name):
            raise InvalidRequest(
                f"{step.id}.{path}",
                f"{postprocessor.title}: the picture {name[:12]} is not kept here.",
                hint="Choose the picture again.",
            )
    _check(postprocessor, params, request)
    return replace(step, params=complete(params))


def _check(postprocessor: Postprocessor, params: BaseModel, request: GenerationRequest) -> None:
    try:
        postprocessor.check(params, request)
    except InvalidRequest as error:
        own = error.field.split(".")[0] in postprocessor.params_model.model_fields
        field = f"{postprocessor.id}.{error.field}" if own else error.field
        raise InvalidRequest(field, error.message, hint=error.hint) from error
    except WebUIError:
        raise
    except Exception as error:  # an extension's own mistake must not look like the program's
        logger.exception("%s could not check its settings.", postprocessor.id)
        raise InvalidRequest(
            postprocessor.id,
            f"{postprocessor.title} could not check its settings: {type(error).__name__}: {error}",
            hint="Switch it off to go on without it; the log says more.",
        ) from error


def _nearest(postprocessor: Postprocessor, params: Mapping[str, Any]) -> tuple[BaseModel, list[str]]:
    """`params` as far as the model takes them, and notes on the rest, which is as by default."""
    title = postprocessor.title
    fields = postprocessor.params_model.model_fields
    notes = [f"{title} has no setting '{name}' here; it was left out." for name in params if name not in fields]
    kept = {name: value for name, value in params.items() if name in fields and not is_personal(fields[name])}
    while kept:
        try:
            return _validated(postprocessor, kept), notes
        except ValidationError as error:
            wrong = {str(found["loc"][0]) for found in error.errors() if found["loc"]} & kept.keys()
        if not wrong:
            notes.append(f"{title}: its settings do not go together here and were left as they are by default.")
            break
        for name in sorted(wrong):
            label = field_label(name, fields[name])
            notes.append(f"{title}: {label} '{kept.pop(name)}' is not known here and was left as it is by default.")
    return postprocessor.params_model(), notes


def _without(values: dict[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """JSON `values` with no pictures at the dotted `paths`."""
    for path in paths:
        *parents, leaf = path.split(".")
        place = values
        for parent in parents:
            place = place[parent]
        place[leaf] = [] if isinstance(place[leaf], list) else ""
    return values


def _is_marked(info: FieldInfo, mark: str) -> bool:
    return isinstance(info.json_schema_extra, dict) and bool(info.json_schema_extra.get(mark))


def _holds_pictures(annotation: Any) -> bool:
    return any(
        _is_marked(part, PICTURE_MARK) if isinstance(part, FieldInfo) else _holds_pictures(part)
        for part in get_args(annotation)
    )


def _written(value: Any) -> str:
    """A text as it is, unless it would be read as something else; all other values as JSON."""
    if isinstance(value, str) and isinstance(_read(value), str) and _read(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _read(text: str) -> Any:
    """The inverse of `_written`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _not_there(name: str) -> str:
    return f"'{name}' is not installed here, or switched off."
