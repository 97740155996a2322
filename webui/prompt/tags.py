"""Tags in a prompt: `<lora:name:weight>` and `<hypernet:name:weight>`, with what other programs of the field add.

    <lora:NAME:TE:UNET:RANK>     weights in this order; one number is both
    te= unet= dyn= lbw= start= stop= step=A-B area=mask

A tag that cannot be read is left out as a whole, and a problem says where and why; an argument of a name that means
nothing here is passed over with a problem.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from webui.prompt.blocks import BlockWeights, parse_block_weights

Area = Literal["picture", "mask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraTag:
    """An adapter to apply. `unet_weight` and `text_encoder_weight` multiply its strength; any finite number.

    `max_rank` cuts low-rank factors to their first rows (`dyn=`). `start` and `stop` say for which steps: those from
    `start` on, up to but without `stop`, counted from 0; a number below 1 is a share of the run's steps, `stop` None
    its end. `area` "mask" limits the adapter to what an inpainting mask covers. `position` is the tag's 0-based
    place in the prompt.
    """

    name: str
    unet_weight: float = 1.0
    text_encoder_weight: float = 1.0
    max_rank: int | None = None
    block_weights: BlockWeights | None = None
    start: float = 0.0
    stop: float | None = None
    area: Area = "picture"
    position: int = 0

    def steps(self, num_steps: int) -> range:
        """The 0-based steps of a run of `num_steps` in which the adapter is there."""
        stop = num_steps if self.stop is None else _step(self.stop, num_steps)
        return range(min(_step(self.start, num_steps), num_steps), min(stop, num_steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class HypernetTag:
    """A hypernetwork to apply with `weight`."""

    name: str
    weight: float = 1.0
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TagProblem:
    """What of a tag was not taken and why. `position` is the 0-based place of the tag in the prompt."""

    tag: str
    position: int
    reason: str

    def __str__(self) -> str:
        return f"{self.tag} (character {self.position + 1}): {self.reason}."


def read_tag(kind: str, arguments: str, *, position: int) -> tuple[LoraTag | HypernetTag | None, list[str]]:
    """The tag `<kind:arguments>`, or None, and what is wrong with it."""
    reader = _READERS.get(kind.lower())
    if reader is None:
        return None, ["means nothing here and was left out"]
    name, *rest = [part.strip() for part in arguments.split(":")]
    if not name:
        return None, ["names no file and was left out"]
    try:
        values, problems = reader(rest)
    except ValueError as error:
        return None, [f"{error}; the tag was left out"]
    build = HypernetTag if kind.lower() == "hypernet" else LoraTag
    return build(name=name, position=position, **values), problems


def _read_lora(parts: list[str]) -> tuple[dict[str, Any], list[str]]:
    named = [part for part in parts if "=" in part]
    positional = [part for part in parts if "=" not in part]
    values: dict[str, Any] = {}
    if positional and not _is_number(positional[-1]):  # `<lora:name:1:OUTD>`, the older way to write lbw=
        values["block_weights"] = parse_block_weights(positional.pop())
    if len(positional) > 3:
        raise ValueError(f"{len(positional)} weights are given, and 3 have a meaning: text encoder, U-Net, rank")
    for key, part in zip(("te", "unet", "dyn"), positional, strict=False):
        _NAMED[key](part, values)
    if len(positional) == 1:
        values["unet_weight"] = values["text_encoder_weight"]
    problems = []
    for part in named:
        key, _, text = part.partition("=")
        read = _NAMED.get(key.strip().lower())
        if read is None:
            problems.append(f"'{key.strip()}=' means nothing here and was passed over")
        else:
            read(text.strip(), values)
    if "text_encoder_weight" in values:
        values.setdefault("unet_weight", values["text_encoder_weight"])
    return values, problems


def _read_hypernet(parts: list[str]) -> tuple[dict[str, Any], list[str]]:
    if len(parts) > 1:
        raise ValueError(f"'{':'.join(parts)}' is not one weight")
    return {"weight": _float("weight", parts[0])} if parts else {}, []


_READERS: Mapping[str, Callable[[list[str]], tuple[dict[str, Any], list[str]]]] = MappingProxyType(
    {"lora": _read_lora, "lyco": _read_lora, "hypernet": _read_hypernet}
)


def _float(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{key} is '{text}', which is not a number")
    return value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _rank(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"dyn is '{text}', which is not a rank of 1 or more")
    return int(text)


def _mark(key: str, text: str) -> float:
    value = _float(key, text)
    if value < 0 or (value > 1 and value != int(value)):
        raise ValueError(f"{key} is {text}, which is neither a number of steps nor a share between 0 and 1")
    return value


def _range(text: str) -> tuple[float, float]:
    start, dash, stop = text.partition("-")
    if not dash:
        raise ValueError(f"step is '{text}', which is not two steps with a dash between them, such as 5-10")
    return _mark("step", start.strip()), _mark("step", stop.strip())


def _area(text: str) -> Area:
    if text.lower() != "mask":
        raise ValueError(f"area is '{text}', and only area=mask is known")
    return "mask"


_NAMED: Mapping[str, Callable[[str, dict[str, Any]], None]] = MappingProxyType(
    {
        "te": lambda text, values: values.update(text_encoder_weight=_float("te", text)),
        "unet": lambda text, values: values.update(unet_weight=_float("unet", text)),
        "dyn": lambda text, values: values.update(max_rank=_rank(text)),
        "lbw": lambda text, values: values.update(block_weights=parse_block_weights(text)),
        "start": lambda text, values: values.update(start=_mark("start", text)),
        "stop": lambda text, values: values.update(stop=_mark("stop", text)),
        "step": lambda text, values: values.update(zip(("start", "stop"), _range(text), strict=True)),
        "area": lambda text, values: values.update(area=_area(text)),
    }
)


def _step(mark: float, num_steps: int) -> int:
    """A share of the run becomes at least one step, so that `stop=0.01` is not the same as `stop=0`."""
    return max(1, math.floor(mark * num_steps + 0.5)) if 0 < mark < 1 else int(mark)
