"""Postprocess steps in the words of A1111's HTTP API: scripts by title, with arguments by name or by position."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from webui.errors import InvalidRequest
from webui.generation.postprocess import Postprocessor, PostprocessStep
from webui.generation.steps import is_picture_field
from webui.images.reading import flatten, open_image

FIELD = "alwayson_scripts"

Keep = Callable[[str], str]
"""The name of a picture that came as text; see `picture_of`."""


def steps_of_scripts(
    alwayson_scripts: Mapping[str, Any], postprocessors: Sequence[Postprocessor], keep: Keep
) -> tuple[PostprocessStep, ...]:
    """The steps that {TITLE: {"args": [...]}} asks for, in its order; a title's case does not matter, an id will do.

    `args` is one object with values by field, or values in the order of the fields; none at all means the defaults.
    Pictures go to `keep`; other values are not checked here. Raises InvalidRequest.
    """
    if not isinstance(alwayson_scripts, Mapping):
        raise InvalidRequest(FIELD, f"{FIELD} is {alwayson_scripts!r:.60}, not an object of scripts by title.")
    return tuple(_step(str(title), script, postprocessors, keep) for title, script in alwayson_scripts.items())


def picture_of(text: str, *, max_pixels: int) -> Image.Image:
    """The RGB picture that `text` is, in base64 or as a data: address. Raises InvalidRequest or UnreadableImage."""
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(FIELD, f"'{text[:20]}' is no picture in base64.") from error
    return flatten(open_image(data, max_pixels=max_pixels, name="The picture"))


def _step(title: str, script: Any, postprocessors: Sequence[Postprocessor], keep: Keep) -> PostprocessStep:
    wanted = title.strip().casefold()
    found = [one for one in postprocessors if wanted in (one.title.casefold(), one.id.casefold())]
    if not found:
        known = ", ".join(one.title for one in postprocessors)
        raise InvalidRequest(
            FIELD, f"There is no script '{title}'.", hint=f"There is: {known}." if known else "No extension has any."
        )
    fields = found[0].params_model.model_fields
    params = {
        name: _kept(value, keep) if name in fields and is_picture_field(fields[name]) else value
        for name, value in _params(found[0], script).items()
    }
    return PostprocessStep(id=found[0].id, params=params)


def _kept(value: Any, keep: Keep) -> Any:
    if isinstance(value, list):
        return [_kept(one, keep) for one in value]
    return keep(value) if isinstance(value, str) else value


def _params(postprocessor: Postprocessor, script: Any) -> dict[str, Any]:
    arguments = script.get("args", []) if isinstance(script, Mapping) else None
    if isinstance(arguments, Mapping):
        arguments = [arguments]
    if not isinstance(arguments, list):
        raise InvalidRequest(
            FIELD,
            f"{postprocessor.title}: {script!r:.60} is not of the form {{'args': [...]}}.",
            hint="Give one object with values by field, or the values in the order of the fields.",
        )
    if len(arguments) == 1 and isinstance(arguments[0], Mapping):
        return {str(name): value for name, value in arguments[0].items()}
    names = list(postprocessor.params_model.model_fields)
    if len(arguments) > len(names):
        raise InvalidRequest(
            FIELD,
            f"{postprocessor.title} has {len(names)} settings, but {len(arguments)} arguments were given.",
            hint=f"In this order: {', '.join(names)}.",
        )
    return dict(zip(names, arguments, strict=False))
