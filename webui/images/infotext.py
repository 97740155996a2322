"""The text that pictures of this field carry, as every program of the field writes and reads it.

    the prompt, any number of lines
    Negative prompt: any number of lines, left out if empty
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Lora hashes: "a: 123, b: 456"

Only text and fields: what the fields mean is no business of this module.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

NEGATIVE_PREFIX = "Negative prompt:"

MIN_FIELDS = 3
"""A last line with fewer fields is a line of the prompt: the convention of all readers."""

_KEY = re.compile(r"\w[\w \-/]+")
# A run of name characters without a colon after it matches too, without a value: else reading takes quadratic time.
_FIELD = re.compile(rf'({_KEY.pattern}+)(?::\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$))?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Infotext:
    """Prompts and the ordered `fields` of the last line, such as {"Steps": "20"}. "Size" stays "512x512"."""

    prompt: str
    negative_prompt: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def is_field_name(text: str) -> bool:
    """Whether readers would find a field of this name again."""
    return _KEY.fullmatch(text) is not None


def format_infotext(infotext: Infotext) -> str:
    """`infotext` as text. ValueError for a field name that no reader would find again.

    Space around the prompts is dropped. The text reads back equal unless there are fewer than `MIN_FIELDS` fields, or
    a line of the prompt begins with `NEGATIVE_PREFIX`.
    """
    lines = [_one_kind_of_line_end(infotext.prompt)]
    negative_prompt = _one_kind_of_line_end(infotext.negative_prompt)
    if negative_prompt:
        lines.append(f"{NEGATIVE_PREFIX} {negative_prompt}")
    lines.append(", ".join(_format_field(name, value) for name, value in infotext.fields.items()))
    return "\n".join(line for line in lines if line)


def parse_infotext(text: str) -> Infotext:
    """What `text` says. Any text can be read: without a line of fields all of it is prompt."""
    *lines, last = _one_kind_of_line_end(text).split("\n")
    fields = [(match[1], _unquoted(match[2])) for match in _FIELD.finditer(last) if match[2] is not None]
    if len(fields) < MIN_FIELDS:
        lines, fields = [*lines, last], []
    starts = [number for number, line in enumerate(lines) if line.lstrip().startswith(NEGATIVE_PREFIX)]
    prompt = lines[: starts[0]] if starts else lines
    negative_prompt = "\n".join(lines[starts[0] :]).lstrip().removeprefix(NEGATIVE_PREFIX) if starts else ""
    return Infotext(prompt="\n".join(prompt).strip(), negative_prompt=negative_prompt.strip(), fields=dict(fields))


def _one_kind_of_line_end(text: str) -> str:
    return re.sub(r"\r+\n", "\n", text).strip()


def _format_field(name: str, value: str) -> str:
    if not is_field_name(name):
        raise ValueError(f"{name!r} cannot be the name of a field.")
    # The last two conditions are ours: other programs read such a value back without its quotes or outer space.
    if any(mark in value for mark in ",\n:") or value.startswith('"') or value != value.strip():
        value = json.dumps(value, ensure_ascii=False)
    return f"{name}: {value}"


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
