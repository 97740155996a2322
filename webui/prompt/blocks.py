"""Weights per block of a network, as `lbw=` writes them.

Blocks are counted as the original U-Net counts them: IN00 to IN11, MID, OUT00 to OUT11, and BASE for the text encoder.
A list has a number for each block of one of four layouts, told apart by length; the blocks that a layout leaves out get
weight 0, as in the extension that brought this syntax (hako-mikan's LoRA Block Weight). SDXL's U-Net has nine blocks
each way.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

NetworkShape = Literal["sd", "sdxl"]


def _names(*places: str) -> tuple[str, ...]:
    """("IN:1,2", "MID") -> ("IN01", "IN02", "MID")."""
    names: list[str] = []
    for place in places:
        side, _, numbers = place.partition(":")
        names.extend(f"{side}{int(number):02}" for number in numbers.split(",")) if numbers else names.append(side)
    return tuple(names)


SD_BLOCKS = _names("BASE", "IN:0,1,2,3,4,5,6,7,8,9,10,11", "MID", "OUT:0,1,2,3,4,5,6,7,8,9,10,11")
SDXL_BLOCKS = _names("BASE", "IN:0,1,2,3,4,5,6,7,8", "MID", "OUT:0,1,2,3,4,5,6,7,8")
BLOCKS: Mapping[NetworkShape, tuple[str, ...]] = MappingProxyType({"sd": SD_BLOCKS, "sdxl": SDXL_BLOCKS})

LAYOUTS: Mapping[int, tuple[NetworkShape, tuple[str, ...]]] = MappingProxyType(
    {
        12: ("sdxl", _names("BASE", "IN:4,5,7,8", "MID", "OUT:0,1,2,3,4,5")),
        17: ("sd", _names("BASE", "IN:1,2,4,5,7,8", "MID", "OUT:3,4,5,6,7,8,9,10,11")),
        20: ("sdxl", SDXL_BLOCKS),
        26: ("sd", SD_BLOCKS),
    }
)
"""Which blocks a list of so many numbers speaks of: those that a LoRA (12, 17) or a LoCon (20, 26) touches."""

_DEEP: Mapping[NetworkShape, tuple[int, int]] = MappingProxyType({"sd": (5, 6), "sdxl": (6, 2)})
"""The first input block and the last output block that count as deep, near the middle."""

_PARTS = ("BASE", "IN shallow", "IN deep", "MID", "OUT deep", "OUT shallow")
_PRESETS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "NONE": (0, 0, 0, 0, 0, 0),
        "ALL": (1, 1, 1, 1, 1, 1),
        "ALL0.5": (0.5, 0.5, 0.5, 0.5, 0.5, 0.5),
        "INS": (1, 1, 0, 0, 0, 0),
        "IND": (1, 0, 1, 0, 0, 0),
        "INALL": (1, 1, 1, 0, 0, 0),
        "MIDD": (1, 0, 1, 1, 1, 0),
        "OUTD": (1, 0, 0, 0, 1, 0),
        "OUTS": (1, 0, 0, 0, 0, 1),
        "OUTALL": (1, 0, 0, 0, 1, 1),
    }
)
"""Weights of `_PARTS` by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWeights:
    """A weight for every block of an SD 1.x / 2.x U-Net, of an SDXL U-Net, or both where names say it for both.

    `sd` has 26 numbers in the order of `SD_BLOCKS`, `sdxl` 20 in that of `SDXL_BLOCKS`.
    """

    sd: tuple[float, ...] | None
    sdxl: tuple[float, ...] | None

    def of(self, shape: NetworkShape) -> Mapping[str, float] | None:
        """Weight by block, or None if the text spoke of the other shape of network."""
        weights = self.sd if shape == "sd" else self.sdxl
        return None if weights is None else dict(zip(BLOCKS[shape], weights, strict=True))


def parse_block_weights(text: str) -> BlockWeights:
    """Numbers ("1,0,0.5,..."), a preset ("OUTD"), or blocks and ranges ("IN04-OUT05", "NOT BASE, MID").

    Raises ValueError that says what is wrong.
    """
    items = [item.strip().upper() for item in text.split(",")]
    if len(items) == 1 and items[0] in _PRESETS:
        return BlockWeights(sd=_preset(items[0], "sd"), sdxl=_preset(items[0], "sdxl"))
    numbers = [_number(item) for item in items]
    if all(number is not None for number in numbers):
        return _listed([number for number in numbers if number is not None])
    return _named(items)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _listed(numbers: list[float]) -> BlockWeights:
    if len(numbers) not in LAYOUTS:
        raise ValueError(f"{len(numbers)} block weights are none of {', '.join(map(str, LAYOUTS))}")
    shape, names = LAYOUTS[len(numbers)]
    given = dict(zip(names, numbers, strict=True))
    weights = tuple(given.get(block, 0.0) for block in BLOCKS[shape])
    return BlockWeights(sd=weights, sdxl=None) if shape == "sd" else BlockWeights(sd=None, sdxl=weights)


def _named(items: list[str]) -> BlockWeights:
    """Blocks and ranges: 1 for those named and 0 for the others, the other way round after NOT."""
    inverted = items[0].startswith("NOT ")
    if inverted:
        items = [items[0].removeprefix("NOT ").strip(), *items[1:]]
    items = ["MID" if item == "M00" else item.replace("M00", "MID") for item in items]
    known = {shape: _select(items, BLOCKS[shape]) for shape in BLOCKS}
    if all(chosen is None for chosen in known.values()):
        raise ValueError(f"'{', '.join(items)}' names no blocks; presets are {', '.join(_PRESETS)}")

    def weights(shape: NetworkShape) -> tuple[float, ...] | None:
        chosen = known[shape]
        return None if chosen is None else tuple(float((block in chosen) != inverted) for block in BLOCKS[shape])

    return BlockWeights(sd=weights("sd"), sdxl=weights("sdxl"))


def _select(items: Iterable[str], blocks: tuple[str, ...]) -> set[str] | None:
    """The blocks that `items` name; None if one of them is no block of this network."""
    chosen: set[str] = set()
    for item in items:
        ends = [end.strip() for end in item.split("-")]
        if len(ends) > 2 or any(end not in blocks for end in ends):
            return None
        low, high = sorted((blocks.index(ends[0]), blocks.index(ends[-1])))
        chosen.update(blocks[low : high + 1])
    return chosen


def _preset(name: str, shape: NetworkShape) -> tuple[float, ...]:
    weights = dict(zip(_PARTS, _PRESETS[name], strict=True))
    return tuple(float(weights[_part(block, shape)]) for block in BLOCKS[shape])


def _part(block: str, shape: NetworkShape) -> str:
    first_in, last_out = _DEEP[shape]
    if block.startswith("IN"):
        return "IN deep" if int(block[2:]) >= first_in else "IN shallow"
    if block.startswith("OUT"):
        return "OUT deep" if int(block[3:]) <= last_out else "OUT shallow"
    return block
