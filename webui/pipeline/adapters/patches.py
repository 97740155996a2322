"""Adapters in a network's own weights: merged from the pristine source, removed to the last bit.

Nothing is ever subtracted and nothing is computed on a merged weight, so nothing drifts: every change starts from the
source, which is the checkpoint's file. Weights keep their storage and memory layout. The state lives with the network,
not with a checkpoint, so that a text encoder that two checkpoints share is never in doubt.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from webui.pipeline.adapters.deltas import bias_patched, changes_bias, changes_weight, low_rank, patched
from webui.pipeline.adapters.factors import lora_factors, scale_of
from webui.pipeline.adapters.targets import AdapterGroup


class PristineSource(Protocol):
    def tensor(self, name: str) -> Tensor:
        """The parameter `name` as the checkpoint has it: any float type, on the CPU, as many values as the module's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Patch:
    """One adapter's change of one module. Equal `key` means equal effect, `multiplier` included; it is not 0.

    `is_plain` is `deltas.is_low_rank(group)`, known beforehand because asking takes as long as merging. `max_rank` cuts
    low-rank factors to their first rows, which stay as strong as in the whole; no other type has rows.
    """

    key: Hashable
    group: AdapterGroup
    multiplier: float
    is_plain: bool
    max_rank: int | None = None


Recipe = Sequence[Patch]
"""The changes of one module, in the order in which they are applied."""

Recipes = Mapping[str, Recipe]
"""By module path; a module that is not named is as the source has it."""

NO_RECIPES: Recipes = MappingProxyType({})

_Keys = tuple[Hashable, ...]
_UNKNOWN: _Keys = (object(),)
"""Of a module that was being written when something broke off: equal to no recipe."""


class PatchedWeights:
    """The adapters in one module's weights. One thread at a time, as for the module itself."""

    def __init__(self, module: nn.Module, source: PristineSource) -> None:
        """`module` holds what `source` says, converted to the module's type."""
        self.module = module
        self.num_writes = 0
        """Modules written so far; a stack that is there already adds none."""
        self._source = source
        self._applied: dict[str, _Keys] = {}
        self._prepared: dict[tuple[str, _Keys], dict[str, Tensor]] = {}
        self._own: set[str] = set()

    @property
    def state(self) -> Hashable:
        """Equal for equal weights: what encodings made with them may be kept under."""
        return frozenset(self._applied.items())

    def apply(self, recipes: Recipes) -> None:
        """Makes the module be what `recipes` say, from whatever it is. Only modules whose recipe differs are written.

        An error in between (memory, a file that is gone) leaves a state that the next call mends.
        """
        wanted = {path: _keys(recipe) for path, recipe in recipes.items() if recipe}
        for path in [path for path in self._applied if path not in wanted]:
            self._write(path, ())
            del self._applied[path]
        for path, keys in wanted.items():
            if self._applied.get(path) != keys:
                self._write(path, recipes[path])
                self._applied[path] = keys

    def remove(self) -> None:
        """The module as its source has it, bit for bit."""
        self.apply(NO_RECIPES)

    def prepare(self, stacks: Sequence[Recipes], *, max_bytes: int) -> bool:
        """Merges what differs between `stacks` ahead: until `forget_prepared`, going from one to another is a copy.

        Returns whether `max_bytes` were enough; if not, nothing is kept, and each change merges anew.
        """
        self.forget_prepared()
        differing = _differing(stacks)
        entries = {(path, _keys(stack.get(path, ()))): stack.get(path, ()) for stack in stacks for path in differing}
        if sum(parameter.nbytes for path, _ in entries for _, parameter in self._parameters_of(path)) > max_bytes:
            return False
        with torch.inference_mode():
            for (path, keys), recipe in entries.items():
                self._prepared[path, keys] = {
                    name: self._merge_into(torch.empty_like(parameter), name, recipe)
                    for name, parameter in self._parameters_of(path)
                }
        return True

    def forget_prepared(self) -> None:
        self._prepared.clear()

    def _write(self, path: str, recipe: Recipe) -> None:
        prepared = self._prepared.get((path, _keys(recipe)))
        self._applied[path] = _UNKNOWN
        with torch.inference_mode():
            for name, parameter in self._parameters_of(path):
                if name not in self._own and not _changes(name, recipe):
                    continue
                self._take_ownership(name, parameter)
                if prepared is not None:
                    parameter.copy_(prepared[name])
                else:
                    self._merge_into(parameter, name, recipe)
        self.num_writes += 1

    def _parameters_of(self, path: str) -> Iterator[tuple[str, Tensor]]:
        """The module's weight and bias, as far as it has them, with their full names."""
        module = self.module.get_submodule(path)
        for name in ("weight", "bias"):
            parameter = getattr(module, name, None)
            if parameter is not None:
                yield f"{path}.{name}", parameter

    def _take_ownership(self, name: str, parameter: Tensor) -> None:
        """Before its first write, a parameter that is the source's own memory map becomes a copy in the same layout."""
        if name in self._own:
            return
        if _storage(parameter) == _storage(self._source.tensor(name)):
            parameter.data = parameter.detach().clone(memory_format=torch.preserve_format)
        self._own.add(name)

    def _merge_into(self, destination: Tensor, name: str, recipe: Recipe) -> Tensor:
        """The source's `name` with `recipe`, written to `destination` and rounded to its type once."""
        pristine = self._source.tensor(name).reshape(destination.shape)  # files write 1 x 1 convolutions as matrices
        if not _changes(name, recipe):
            return destination.copy_(pristine)
        direct = destination.dtype == torch.float32
        # A copy in any case: a float32 source on the same device would be changed by what follows.
        weight = destination if direct else torch.empty_like(destination, dtype=torch.float32)
        weight.copy_(pristine)
        if name.endswith(".bias"):
            for patch in recipe:
                weight.copy_(bias_patched(patch.group, weight, patch.multiplier))
        else:
            _merge(weight, [patch for patch in recipe if changes_weight(patch.group)])
        return weight if direct else destination.copy_(weight)


def _merge(weight: Tensor, recipe: Recipe) -> None:
    """Applies `recipe` to the float32 `weight` in place; neighbours of low rank in one product."""
    for is_plain, run in groupby(recipe, key=lambda patch: patch.is_plain):
        if is_plain:
            _add_low_rank(weight, list(run))
            continue
        for patch in run:
            weight.copy_(patched(patch.group, weight, patch.multiplier))


def _add_low_rank(weight: Tensor, recipe: Recipe) -> None:
    factors = [_factors(patch, weight) for patch in recipe]
    up, down = factors[0]
    if len(factors) > 1:
        up, down = (torch.cat(parts, dim=dim) for dim, parts in zip((1, 0), zip(*factors, strict=True), strict=True))
    matrix, down = _as_matrix(weight, down)
    matrix.addmm_(up, down)


def _factors(patch: Patch, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`up` (out, rank), with the strength in it, and `down` (rank, inputs times kernel)."""
    up, down = lora_factors(patch.group, weight)
    scale = scale_of(patch.group, len(down))
    if down.shape[1] != weight[0].numel():  # a first convolution with more channels than the adapter knows
        padded = low_rank(patch.group, tuple(weight.shape), device=weight.device)
        down = down if padded is None else padded.down
    return up[:, : patch.max_rank] * (scale * patch.multiplier), down[: patch.max_rank]


def _as_matrix(weight: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` as (out, rest) without a copy, in the order its memory has, and `down` in that order."""
    if weight.ndim == 2 or weight.is_contiguous():
        return weight.view(len(weight), -1), down
    channels_last = weight.permute(0, 2, 3, 1)
    ordered = down.view(len(down), *weight.shape[1:]).permute(0, 2, 3, 1).reshape(len(down), -1)
    return channels_last.view(len(weight), -1), ordered


def _changes(name: str, recipe: Recipe) -> bool:
    affects = changes_bias if name.endswith(".bias") else changes_weight
    return any(affects(patch.group) for patch in recipe)


def _keys(recipe: Iterable[Patch]) -> _Keys:
    return tuple(patch.key for patch in recipe)


def _differing(stacks: Sequence[Recipes]) -> list[str]:
    """Paths whose recipe is not the same in all `stacks`."""
    paths = dict.fromkeys(path for stack in stacks for path in stack)
    return [path for path in paths if len({_keys(stack.get(path, ())) for stack in stacks}) > 1]


def _storage(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()
