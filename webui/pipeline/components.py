"""Networks that are kept for the next request: shared between checkpoints, bounded in bytes, the least used out first.

A component is one network of a checkpoint. Two checkpoints with the same autoencoder have one copy of it, found by
comparing the files' bytes; what is thrown out is gone to the last byte, its memory maps included.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import nn

from webui.pipeline.adapters.patches import PatchedWeights
from webui.pipeline.allocator import give_back
from webui.pipeline.component_source import ComponentSource, same_content

SHARE_OF_MEMORY = 0.5
"""Of the machine's memory, for networks; the rest is for pictures, and for other programs."""

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def default_budget_bytes() -> int:
    """Half the memory that this program may use."""
    limits = [psutil.virtual_memory().total]
    if CONTAINER_LIMIT.is_file() and (text := CONTAINER_LIMIT.read_text().strip()).isdigit():
        limits.append(int(text))
    return int(min(limits) * SHARE_OF_MEMORY)


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Component:
    """A network with the source its weights came from, and the precision `dtype` it was asked for in.

    An autoencoder that gave NaN in `dtype` is in float32 since, and whoever asks for it in `dtype` gets it so.
    `patches` is what adapters changed in it; it stays with the network, whichever checkpoints share it.
    """

    name: str
    module: nn.Module
    source: ComponentSource
    dtype: torch.dtype
    patches: PatchedWeights = field(init=False)

    def __post_init__(self) -> None:
        self.patches = PatchedWeights(self.module, self.source)

    @property
    def size_bytes(self) -> int:
        """What its weights take in memory now."""
        return size_of(self.module)


class ComponentCache:
    """Components by content. Those that are `pinned` are in use and stay; the others go when room is needed."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._components: list[Component] = []
        """The least recently used first."""
        self._pinned: tuple[Component, ...] = ()

    def __contains__(self, component: Component) -> bool:
        return component in self._components

    @property
    def used_bytes(self) -> int:
        return sum(component.size_bytes for component in self._components)

    def find(self, source: ComponentSource, dtype: torch.dtype) -> Component | None:
        """The kept network of the same content in `dtype`, if its own file is still there to be compared."""
        for component in self._components:
            if component.dtype == dtype and component.source.is_current() and same_content(component.source, source):
                return component
        return None

    def keep(self, source: ComponentSource, module: nn.Module, dtype: torch.dtype) -> Component:
        """Keeps `module`, which has the weights of `source` in `dtype`."""
        component = Component(name=source.name, module=module, source=source, dtype=dtype)
        self.add(component)
        return component

    def add(self, component: Component) -> None:
        """Keeps `component`, as the last one used."""
        self._components.append(component)

    def pin(self, components: Iterable[Component]) -> None:
        """These are in use now, and were used last; the ones before are not any more."""
        self._pinned = tuple(components)
        for component in self._pinned:
            if component in self._components:
                self._components.remove(component)
                self._components.append(component)

    def make_room(self, size_bytes: int, *, keep: Collection[Component] = ()) -> None:
        """Throws out components until `size_bytes` more fit into the budget, or only pinned and `keep` are left."""
        held = {id(component) for component in (*self._pinned, *keep)}
        candidates = [component for component in self._components if id(component) not in held]
        thrown_out = False
        while candidates and self.used_bytes + size_bytes > self.budget_bytes:
            self._throw_out(candidates.pop(0))
            thrown_out = True
        if thrown_out:
            give_back()

    def throw_out_stale(self) -> None:
        """Throws out what was read from files that have changed since, except what is pinned."""
        for component in [component for component in self._components if component not in self._pinned]:
            if not component.source.is_current():
                self._throw_out(component)

    def clear(self) -> None:
        """Throws everything out, in use or not."""
        self._pinned = ()
        for component in list(self._components):
            self._throw_out(component)
        give_back()

    def _throw_out(self, component: Component) -> None:
        self._components.remove(component)
        component.source.close()


def size_of(module: nn.Module) -> int:
    """Bytes of its weights and buffers."""
    return sum(tensor.nbytes for tensors in (module.parameters(), module.buffers()) for tensor in tensors)
