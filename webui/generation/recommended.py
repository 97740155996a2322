"""Settings that a model is made for, in the infotext's words: "Steps: 4-8, Sampler: LCM, CFG scale: 1".

They are only ever offered and named; nothing here changes a request.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from webui.errors import InvalidRequest, ModelNotFound, UnsupportedModel
from webui.generation.infotext import read_field
from webui.generation.request import GenerationRequest, Sampling
from webui.library.catalog import ModelFile
from webui.prompt.grammar import parse_prompt

FIELD = "recommended_settings"
"""The field of `library.sidecars` that holds them."""
KEYS: Mapping[str, str] = MappingProxyType(
    {key.lower(): key for key in ("Sampler", "Schedule type", "Steps", "CFG scale")}
)
"""What can be recommended, by its lower-case name."""
WITH_RANGES = ("Steps", "CFG scale")
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "sampler": "{}",
        "schedule": "schedule {}",
        "num_inference_steps": "{} steps",
        "guidance_scale": "CFG scale {}",
    }
)
"""How a sentence names each setting, in this order."""
EXAMPLE = "Steps: 4-8, Sampler: LCM, CFG scale: 1"
_RANGE = re.compile(r"([\d.]+)\s*(?:-|–|to)\s*([\d.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """`ranges` are the lowest and the highest that fit, by the field of `Sampling`; the same twice where one fits."""

    ranges: Mapping[str, tuple[Any, Any]]

    def fits(self, sampling: Sampling) -> bool:
        return all(low <= getattr(sampling, name) <= high for name, (low, high) in self.ranges.items())

    def words(self) -> str:
        """ "LCM, 4 to 8 steps, CFG scale 1"."""
        return _words(self.ranges)

    def words_of(self, sampling: Sampling) -> str:
        """The same settings as `sampling` has them."""
        return _words({name: (getattr(sampling, name),) * 2 for name in self.ranges})


def parse_recommended(text: str) -> Recommended:
    """Steps and CFG scale may be ranges. Nothing is recommended by an empty text.

    Raises InvalidRequest for `FIELD` with the first thing that cannot be used.
    """
    ranges: dict[str, tuple[Any, Any]] = {}
    for part in filter(None, map(str.strip, re.split(r"[,\n]", text))):
        name, _, value = map(str.strip, part.partition(":"))
        key = KEYS.get(name.lower())
        if key is None or not value:
            raise InvalidRequest(FIELD, f"'{part}' is no setting that can be recommended.", hint=f"Write: {EXAMPLE}")
        ranges |= _read(key, value)
    return Recommended(ranges={name: ranges[name] for name in WORDS if name in ranges})


def notes_on(request: GenerationRequest, shelves: "Shelves") -> Iterator[str]:
    """A sentence for each adapter and hypernetwork in the prompt that is made for other settings."""
    prompt = parse_prompt(request.prompt)
    finders = ((prompt.loras, shelves.find_adapter), (prompt.hypernets, shelves.find_hypernetwork))
    for tag, find in ((tag, find) for tags, find in finders for tag in tags):
        try:
            recommended = parse_recommended(find(tag.name).notes.recommended_settings)
        except (ModelNotFound, UnsupportedModel):  # said where it is loaded
            continue
        except InvalidRequest as error:
            yield f"The recommended settings of '{tag.name}' cannot be read: {error}"
            continue
        if not recommended.fits(request.sampling):
            used = recommended.words_of(request.sampling)
            yield f"'{tag.name}' is made for {recommended.words()}; here it is used with {used}."


class Shelves(Protocol):
    """What is asked of the library. Both raise ModelNotFound or UnsupportedModel."""

    def find_adapter(self, name: str) -> ModelFile: ...
    def find_hypernetwork(self, name: str) -> ModelFile: ...


def _read(key: str, value: str) -> dict[str, tuple[Any, Any]]:
    found = _RANGE.fullmatch(value) if key in WITH_RANGES else None
    ends = (found[1], found[2]) if found else (value, value)
    try:
        low, high = (read_field(key, end) for end in ends)
        for values in (low, high):
            Sampling(**values)
    except ValueError as error:
        raise InvalidRequest(FIELD, f"{key} is '{value}', which is no number.", hint=f"Write: {EXAMPLE}") from error
    except InvalidRequest as error:
        raise InvalidRequest(FIELD, error.message.replace(error.field, key, 1), hint=error.hint) from error
    if any(low[name] > high[name] for name in low):
        raise InvalidRequest(FIELD, f"{key} {value} begins above its end.", hint="Write the smaller number first.")
    return {name: (low[name], high[name]) for name in low}


def _words(ranges: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(WORDS[name].format(_span(*ends)) for name, ends in ranges.items())


def _span(low: Any, high: Any) -> str:
    """ "4 to 8", or what both are."""
    first, last = (f"{end:g}" if isinstance(end, float) else str(end) for end in (low, high))
    return first if first == last else f"{first} to {last}"
