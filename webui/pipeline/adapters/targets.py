"""What an adapter changes, and with which tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

AdaptedComponent = Literal["unet", "text_encoder", "text_encoder_2"]
ADAPTED_COMPONENTS: tuple[AdaptedComponent, ...] = ("unet", "text_encoder", "text_encoder_2")

Shape = tuple[int, ...]


class BadFactors(ValueError):
    """Factors that do not fit each other or the weight; the text says which."""


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A module with a `weight`: its path in `component`'s own naming, such as "down_blocks.0.resnets.0.conv1"."""

    component: AdaptedComponent
    path: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterGroup:
    """All tensors of one module in an adapter file, by their canonical names: "lora_up", "lora_down", "alpha", ...

    `shapes` cost nothing. `tensors` may read the file at every access: in the file's dtype, on the CPU. Such an access
    raises UnsupportedModel for values that are not finite and for a file that changed since it was listed.
    """

    prefix: str
    shapes: Mapping[str, Shape]
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, prefix: str, tensors: Mapping[str, Tensor]) -> "AdapterGroup":
        """A group of tensors in memory."""
        return cls(prefix=prefix, shapes={name: tuple(t.shape) for name, t in tensors.items()}, tensors=tensors)
