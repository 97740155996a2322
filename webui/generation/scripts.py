"""Postprocess steps in the words of A1111's HTTP API: scripts by title, with arguments by name or by position."""

from collections.abc import Mapping, Sequence
from typing import Any

from webui.errors import InvalidRequest
from webui.generation.postprocess import Postprocessor, PostprocessStep

FIELD = "alwayson_scripts"


def steps_of_scripts(
    alwayson_scripts: Mapping[str, Any], postprocessors: Sequence[Postprocessor]
) -> tuple[PostprocessStep, ...]:
    """The steps that {TITLE: {"args": [...]}} asks for, in its order; a title's case does not matter, an id will do.

    `args` is one object with values by field, or values in the order of the fields; none at all means the defaults.
    The values are not checked here. Raises InvalidRequest.
    """
    if not isinstance(alwayson_scripts, Mapping):
        raise InvalidRequest(FIELD, f"{FIELD} is {alwayson_scripts!r:.60}, not an object of scripts by title.")
    return tuple(_step(str(title), script, postprocessors) for title, script in alwayson_scripts.items())


def _step(title: str, script: Any, postprocessors: Sequence[Postprocessor]) -> PostprocessStep:
    wanted = title.strip().casefold()
    found = [one for one in postprocessors if wanted in (one.title.casefold(), one.id.casefold())]
    if not found:
        known = ", ".join(one.title for one in postprocessors)
        raise InvalidRequest(
            FIELD, f"There is no script '{title}'.", hint=f"There is: {known}." if known else "No extension has any."
        )
    return PostprocessStep(id=found[0].id, params=_params(found[0], script))


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
