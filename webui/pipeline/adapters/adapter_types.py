"""The types of adapters, one row each: which keys make one, which weight it fits, and its change of that weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from webui.pipeline.adapters import factors
from webui.pipeline.adapters.targets import AdapterGroup, Shape

BIAS_KEYS = ("diff_b", "b_norm")
MAGNITUDES = ("dora_scale", "lora_magnitude_vector")
ALWAYS_OPTIONAL = frozenset(("alpha", *BIAS_KEYS))
"""Some trainers write an alpha to modules that have no use for it."""

SINGLE_NUMBERS = frozenset({"alpha", "scale", "on_input"})

NUM_AXES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        **dict.fromkeys(SINGLE_NUMBERS, (0, 1)),
        **dict.fromkeys(("lora_up", "lora_down", "a1", "a2", "b1", "b2", "lokr_w2"), (2, 4)),
        **dict.fromkeys(("lora_mid", "hada_t1", "hada_t2", "lokr_t2"), (4,)),
        **dict.fromkeys(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "oft_R"), (2,)),
        **dict.fromkeys(("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"), (2,)),
        "oft_blocks": (3, 4),
        **dict.fromkeys(("w_norm", "diff_b", "b_norm"), (1,)),
        **dict.fromkeys(("weight", "rescale", "diff", *MAGNITUDES), (1, 2, 4)),
    }
)
"""How many axes each tensor may have."""

WITHOUT_KERNEL = frozenset({"lora_up", "a1", "a2"})
"""Tensors whose axes after the second have length 1: the other factor has the kernel."""

Shapes = Mapping[str, Shape]
Axis = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterType:
    """`keys`: sets of names of which one must be there, whole, next to any of `optional`.

    `equal` lists axes of factors whose lengths have to agree. `extent` and `delta` are as in factors.py.
    `num_axes` of the tensors tells apart types with the same keys.
    """

    id: str
    label: str
    keys: tuple[frozenset[str], ...]
    extent: Callable[[AdapterGroup, Shape], tuple[int, int]]
    delta: Callable[[AdapterGroup, Tensor], Tensor]
    optional: frozenset[str] = frozenset()
    equal: tuple[tuple[Axis, Axis], ...] = ()
    num_axes: int | None = None


def adapter_type(shapes: Shapes) -> AdapterType | None:
    """The row for a group with tensors of these `shapes`; None if there is no such type or something is missing."""
    return next((row for row in ADAPTER_TYPES if _is_of(row, shapes)), None)


def _is_of(row: AdapterType, shapes: Shapes) -> bool:
    names = shapes.keys()
    return any(
        keys <= names <= keys | row.optional | ALWAYS_OPTIONAL
        and (row.num_axes is None or all(len(shapes[name]) == row.num_axes for name in keys))
        for keys in row.keys
    )


DORA = frozenset(("scale", *MAGNITUDES))
LOHA = frozenset(("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"))
LOKR_FIRST = (frozenset({"lokr_w1"}), frozenset({"lokr_w1_a", "lokr_w1_b"}))
LOKR_SECOND = (
    frozenset({"lokr_w2"}),
    frozenset({"lokr_w2_a", "lokr_w2_b"}),
    frozenset({"lokr_w2_a", "lokr_w2_b", "lokr_t2"}),
)

ADAPTER_TYPES: tuple[AdapterType, ...] = (
    AdapterType(
        id="lora",
        label="LoRA",
        keys=(frozenset({"lora_up", "lora_down"}),),
        optional=DORA,
        equal=((("lora_up", 1), ("lora_down", 0)),),
        extent=factors.lora_extent,
        delta=factors.lora_delta,
    ),
    AdapterType(
        id="lora-tucker",
        label="Tucker LoCon",
        keys=(frozenset({"lora_up", "lora_mid", "lora_down"}),),
        optional=DORA,
        equal=((("lora_up", 1), ("lora_mid", 0)), (("lora_mid", 1), ("lora_down", 0))),
        extent=factors.lora_extent,
        delta=factors.lora_delta,
    ),
    AdapterType(
        id="loha",
        label="LoHa",
        keys=(LOHA,),
        optional=DORA,
        equal=tuple(
            ((f"hada_{a}", i), (f"hada_{b}", j))
            for a, i, b, j in (
                ("w1_a", 1, "w1_b", 0),
                ("w2_a", 1, "w2_b", 0),
                ("w1_a", 0, "w2_a", 0),
                ("w1_b", 1, "w2_b", 1),
            )
        ),
        extent=factors.loha_extent,
        delta=factors.loha_delta,
    ),
    AdapterType(
        id="loha-tucker",
        label="Tucker LoHa",
        keys=(LOHA | {"hada_t1", "hada_t2"},),
        optional=DORA,
        equal=tuple(
            ((f"hada_{a}", i), (f"hada_{b}", j))
            for a, i, b, j in (
                ("t1", 0, "w1_a", 0),
                ("t1", 1, "w1_b", 0),
                ("t2", 0, "w2_a", 0),
                ("t2", 1, "w2_b", 0),
                ("w1_a", 1, "w2_a", 1),
                ("w1_b", 1, "w2_b", 1),
            )
        ),
        extent=factors.loha_tucker_extent,
        delta=factors.loha_tucker_delta,
    ),
    AdapterType(
        id="lokr",
        label="LoKr",
        keys=tuple(first | second for first in LOKR_FIRST for second in LOKR_SECOND[:2]),
        optional=DORA,
        equal=((("lokr_w1_a", 1), ("lokr_w1_b", 0)), (("lokr_w2_a", 1), ("lokr_w2_b", 0))),
        extent=factors.lokr_extent,
        delta=factors.lokr_delta,
    ),
    AdapterType(
        id="lokr-tucker",
        label="Tucker LoKr",
        keys=tuple(first | LOKR_SECOND[2] for first in LOKR_FIRST),
        optional=DORA,
        equal=(
            (("lokr_w1_a", 1), ("lokr_w1_b", 0)),
            (("lokr_t2", 0), ("lokr_w2_a", 0)),
            (("lokr_t2", 1), ("lokr_w2_b", 0)),
        ),
        extent=factors.lokr_extent,
        delta=factors.lokr_delta,
    ),
    AdapterType(
        id="ia3",
        label="IA3",
        keys=(frozenset({"weight", "on_input"}),),
        extent=factors.ia3_extent,
        delta=factors.ia3_delta,
    ),
    AdapterType(
        id="oft",
        label="diag-OFT",
        keys=(frozenset({"oft_blocks"}),),
        optional=frozenset({"rescale"}),
        num_axes=3,
        equal=((("oft_blocks", 1), ("oft_blocks", 2)),),
        extent=factors.oft_extent,
        delta=factors.oft_delta,
    ),
    AdapterType(
        id="boft",
        label="BOFT",
        keys=(frozenset({"oft_blocks"}),),
        optional=frozenset({"rescale"}),
        num_axes=4,
        equal=((("oft_blocks", 2), ("oft_blocks", 3)),),
        extent=factors.boft_extent,
        delta=factors.boft_delta,
    ),
    AdapterType(
        id="oft-input",
        label="OFT of the inputs",
        keys=(frozenset({"oft_R"}),),
        num_axes=2,
        extent=factors.oft_input_extent,
        delta=factors.oft_input_delta,
    ),
    AdapterType(
        id="glora",
        label="GLoRA",
        keys=(frozenset({"a1", "a2", "b1", "b2"}),),
        optional=frozenset({"scale"}),
        equal=((("a1", 1), ("a2", 0)), (("a1", 0), ("a2", 1))),
        extent=factors.glora_extent,
        delta=factors.glora_delta,
    ),
    AdapterType(
        id="full",
        label="whole difference",
        keys=(frozenset({"diff"}),),
        extent=factors.diff_extent,
        delta=factors.diff_delta,
    ),
    AdapterType(
        id="norm",
        label="norm difference",
        keys=(frozenset({"w_norm"}),),
        extent=factors.norm_extent,
        delta=factors.norm_delta,
    ),
    AdapterType(
        id="bias",
        label="bias difference",
        keys=tuple(frozenset({name}) for name in BIAS_KEYS),
        extent=factors.no_extent,
        delta=factors.no_delta,
    ),
)
"""A new type is a row here and an oracle in the tests."""

LOW_RANK_TYPES = frozenset({"lora", "lora-tucker"})
