"""Networks larger than the device's free memory: which are on it when; a U-Net that passes through it block by block.

Nothing changes in the results. On unified memory (MPS) and on a processor moving gains nothing, so nothing moves there.
"""

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from webui.pipeline.components import Component, size_of
from webui.pipeline.device import Device

MIN_RESERVE_BYTES = 512 * 2**20
RESERVE_BYTES_PER_PIXEL = 1536
"""Left free for what is computed: 1.5 GiB for 1024 x 1024 pixels. An estimate; a batch that does not fit is split."""

STREAMED_KINDS = ("ResnetBlock2D", "BasicTransformerBlock")
"""Parts of a U-Net that come and go alone: at most about 70 MB each in SDXL at 2 bytes."""

Mode = Literal["resident", "in turn", "streamed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which networks lie on the device, by `mode`.

    "resident": all of them. "in turn": each comes when it is used, and others go if they must. "streamed": so too, but
    of the U-Net only `kept_bytes` of its blocks stay while it runs, and the others pass through.
    """

    mode: Mode
    kept_bytes: int = 0


def plan_placement(
    sizes: Mapping[str, int], block_bytes: Sequence[int], *, free_bytes: int, reserve_bytes: int
) -> Plan:
    """The least moving that fits. `sizes` are the networks' bytes, `block_bytes` those of the U-Net's streamed blocks.

    Streaming needs room for two blocks, the one that runs and the one that is on its way; where even that is not there,
    the plan asks for the least there is, and the device reports what it lacks.
    """
    room = free_bytes - reserve_bytes
    if sum(sizes.values()) <= room:
        return Plan(mode="resident")
    if max(sizes.values()) <= room:
        return Plan(mode="in turn")
    rest = sizes["unet"] - sum(block_bytes)
    return Plan(mode="streamed", kept_bytes=max(0, room - rest - 2 * max(block_bytes, default=0)))


def reserve_bytes(native_size: int) -> int:
    """What a picture of `native_size` pixels each way needs besides the weights."""
    return max(MIN_RESERVE_BYTES, native_size**2 * RESERVE_BYTES_PER_PIXEL)


def streamed_blocks(unet: nn.Module) -> list[nn.Module]:
    """The parts of `unet` that may come and go, none inside another."""
    return [module for module in unet.modules() if type(module).__name__ in STREAMED_KINDS]


class Transfers:
    """Copies between the host and a device; on CUDA the next block is copied while the present one computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: torch.cuda.Stream | None = None
        self._last_use: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def holds(self, tensor: Tensor) -> bool:
        """Whether `tensor` is on the device."""
        return tensor.device.type == self.device.type

    def to_device(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.to(self.device) for tensor in tensors]

    def to_host(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.to("cpu") for tensor in tensors]

    def pinned(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """On the host, where the device can fetch them by itself."""
        return [tensor.pin_memory() if self._stream else tensor for tensor in self.to_host(tensors)]

    def start(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Begins copying `tensors` (pinned); what it returns may be used after `finish`.

        First it waits for the last use of what was `dropped`: the host is far ahead of the device, and would else ask
        for the memory of one block after the other while those before it are still in use.
        """
        if self._stream is None:
            return self.to_device(tensors)
        if self._last_use is not None:
            self._last_use.synchronize()
        with torch.cuda.stream(self._stream):
            return [tensor.to(self.device, non_blocking=True) for tensor in tensors]

    def finish(self, copies: Sequence[Tensor]) -> None:
        """Whatever is computed from now on waits for `copies`, and their memory waits for it."""
        if self._stream is not None:
            present = torch.cuda.current_stream(self.device)
            present.wait_stream(self._stream)
            for copy in copies:
                copy.record_stream(present)

    def settle(self) -> None:
        """Waits until every copy that was begun is there: before that, what it is made of must not be written."""
        if self._stream is not None:
            self._stream.synchronize()

    def dropped(self, copies: Sequence[Tensor]) -> None:
        """`copies` are used no more. Their memory is free when what uses them has been computed."""
        if self._stream is not None:
            self._last_use = torch.cuda.current_stream(self.device).record_event()


class Placement:
    """What lies on the device. One per manager; components that wait stay there while there is room."""

    def __init__(self, device: Device, *, transfers: Transfers | None = None, limit_bytes: int = 0) -> None:
        """`limit_bytes` is the most that may be used of the device; 0: what is free."""
        self._device = device
        self._transfers = transfers or Transfers(device.torch_device)
        self._limit_bytes = limit_bytes
        self._idle: list[weakref.ref[Component]] = []
        self._residence: _Residence | None = None

    def use(self, components: Mapping[str, Component], *, native_size: int) -> Plan:
        """Makes `components` usable by calling them, wherever their weights are. The ones used before may go."""
        self.release()
        reserve = reserve_bytes(native_size)
        used = {id(component) for component in components.values()}
        waiting = [component for ref in self._idle if (component := ref()) is not None and id(component) not in used]
        needed = sum(size_of(component.module) for component in components.values() if not self._is_in(component))
        while waiting and self._free_bytes() < needed + reserve:
            _move(waiting.pop(0).module, self._transfers.to_host)
            self._device.free_memory()
        sizes = {name: size_of(component.module) for name, component in components.items()}
        already = sum(size for name, size in sizes.items() if self._is_in(components[name]))
        blocks = [size_of(block) for block in streamed_blocks(components["unet"].module)]
        plan = plan_placement(sizes, blocks, free_bytes=self._free_bytes() + already, reserve_bytes=reserve)
        modules = {name: component.module for name, component in components.items()}
        room_bytes = self._free_bytes() + already - reserve
        # Known before they move, so that those that came can go again if the others do not fit.
        self._idle = [weakref.ref(component) for component in (*waiting, *components.values())]
        self._residence = _Residence(modules, plan, room_bytes, self._transfers)
        return plan

    def release(self) -> None:
        """Ends the present use; networks stay where they are until room is needed."""
        if self._residence is not None:
            self._residence.close()
            self._residence = None

    def _is_in(self, component: Component) -> bool:
        return all(self._transfers.holds(tensor) for tensor in _tensors(component.module))

    def _free_bytes(self) -> int:
        free = self._device.free_bytes()
        if not self._limit_bytes:
            return free
        known = [component.module for ref in self._idle if (component := ref()) is not None]
        tensors = [tensor for module in known for tensor in _tensors(module)]
        return min(free, self._limit_bytes - sum(tensor.nbytes for tensor in tensors if self._transfers.holds(tensor)))


class _Residence:
    """One model's networks under a plan, kept by hooks: a network is brought in when one of its layers is called."""

    def __init__(self, modules: Mapping[str, nn.Module], plan: Plan, room_bytes: int, transfers: Transfers) -> None:
        self._modules = dict(modules)
        self._transfers = transfers
        self._room_bytes = room_bytes
        self._in: list[str] = []
        """The least recently used first."""
        self._handles: list[RemovableHandle] = []
        self._stream: _BlockStream | None = None
        if plan.mode == "resident":
            for module in self._modules.values():
                _move(module, transfers.to_device)
            return
        # What may fail comes before the hooks, which nobody could take away from networks that did not get their place.
        for module in self._modules.values():
            _move(module, transfers.to_host)
        if plan.mode == "streamed":
            self._stream = _BlockStream(self._modules["unet"], plan.kept_bytes, transfers)
        for name, module in self._modules.items():
            for layer in [module] if name == "unet" else [module, *_layers_of(module)]:
                self._handles.append(layer.register_forward_pre_hook(self._entering(name), with_kwargs=True))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        if self._stream is not None:
            self._stream.close()

    def _entering(self, name: str) -> Callable[..., tuple[Any, Any]]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
            self._bring_in(name)
            return _on_device(args, self._transfers.device), _on_device(kwargs, self._transfers.device)

        return hook

    def _bring_in(self, name: str) -> None:
        if self._in and self._in[-1] == name:
            return
        if name in self._in:
            self._in.remove(name)
        else:
            while self._in and self._used_bytes() + self._size_in(name) > self._room_bytes:
                oldest = self._in.pop(0)
                _move(self._modules[oldest], self._transfers.to_host, leave=self._streamed(oldest))
            _move(self._modules[name], self._transfers.to_device, leave=self._streamed(name))
        self._in.append(name)

    def _used_bytes(self) -> int:
        return sum(self._size_in(name) for name in self._in)

    def _size_in(self, name: str) -> int:
        passing = self._stream.passing_bytes if self._stream and name == "unet" else 0
        return size_of(self._modules[name]) - passing

    def _streamed(self, name: str) -> Collection[nn.Module]:
        return self._stream.blocks if self._stream and name == "unet" else ()


class _BlockStream:
    """Blocks of a U-Net whose weights lie on the host, and on the device only while the block runs.

    The host's tensors are the weights; the device has copies, so that nothing has to be carried back and adapters are
    merged where the weights are.
    """

    def __init__(self, unet: nn.Module, kept_bytes: int, transfers: Transfers) -> None:
        self._transfers = transfers
        self.blocks = _blocks_to_stream(streamed_blocks(unet), kept_bytes)
        sizes = [size_of(block) for block in self.blocks]
        self.passing_bytes = sum(sizes) - 2 * max(sizes, default=0)
        """How much less of the device the U-Net takes for passing through."""
        self._hosts: dict[nn.Module, list[Tensor]] = {}
        self._on_the_way: dict[nn.Module, list[Tensor]] = {}
        self._order: list[nn.Module] = []
        self._next: dict[nn.Module, nn.Module] = {}
        for block in self.blocks:
            _move(block, transfers.pinned)
        self._handles = [
            unet.register_forward_pre_hook(self._begin),
            unet.register_forward_hook(self._end, always_call=True),
        ]
        for block in self.blocks:
            self._handles.append(block.register_forward_pre_hook(self._arrive))
            self._handles.append(block.register_forward_hook(self._leave, always_call=True))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._forget_copies()

    def _begin(self, unet: nn.Module, args: Any) -> None:
        """A new pass: the order of the last one is known, and what an interrupted one left behind is not used."""
        self._next = dict(zip(self._order, self._order[1:], strict=False))
        self._order = []
        self._forget_copies()

    def _end(self, unet: nn.Module, args: Any, output: Any) -> None:
        """Adapters may be written into the host's tensors now, whether the pass came to its end or broke off."""
        self._transfers.settle()

    def _arrive(self, block: nn.Module, args: Any) -> None:
        with torch.inference_mode(mode=False):
            copies = self._on_the_way.pop(block, None) or self._transfers.start(_data(block))
            self._transfers.finish(copies)
            self._hosts[block] = _data(block)
            _set_data(block, copies)
            self._order.append(block)
            following = self._next.get(block)
            if following is not None:
                self._on_the_way[following] = self._transfers.start(_data(following))

    def _leave(self, block: nn.Module, args: Any, output: Any) -> None:
        hosts = self._hosts.pop(block, None)
        if hosts is not None:
            copies = _data(block)
            _set_data(block, hosts)
            self._transfers.dropped(copies)

    def _forget_copies(self) -> None:
        for copies in self._on_the_way.values():
            self._transfers.dropped(copies)
        self._on_the_way.clear()


def _blocks_to_stream(blocks: Sequence[nn.Module], kept_bytes: int) -> list[nn.Module]:
    """All but `kept_bytes` of `blocks`; those that stay lie between the others, so that copying has time."""
    total = sum(size_of(block) for block in blocks)
    share = kept_bytes / total if total else 1.0
    streamed, kept, seen = [], 0.0, 0.0
    for block in blocks:
        size = size_of(block)
        seen += size
        if kept + size <= min(seen * share, kept_bytes):
            kept += size
        else:
            streamed.append(block)
    return streamed


def _move(
    module: nn.Module, transfer: Callable[[Sequence[Tensor]], list[Tensor]], *, leave: Collection[nn.Module] = ()
) -> None:
    """Puts the weights and buffers of `module` where `transfer` puts them, except those of the modules in `leave`."""
    left = {id(tensor) for block in leave for tensor in _tensors(block)}
    tensors = [tensor for tensor in _tensors(module) if id(tensor) not in left]
    with torch.inference_mode(mode=False):
        for tensor, moved in zip(tensors, transfer([tensor.data for tensor in tensors]), strict=True):
            tensor.data = moved


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _data(module: nn.Module) -> list[Tensor]:
    return [tensor.data for tensor in _tensors(module)]


def _set_data(module: nn.Module, values: Sequence[Tensor]) -> None:
    with torch.inference_mode(mode=False):
        for tensor, value in zip(_tensors(module), values, strict=True):
            tensor.data = value


def _layers_of(module: nn.Module) -> list[nn.Module]:
    """Those with weights of their own: whoever runs a part of the network calls one of them first."""
    return [layer for layer in module.modules() if next(layer.parameters(recurse=False), None) is not None]


def _on_device(value: Any, device: torch.device) -> Any:
    """`value` with the tensors in it on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on_device(entry, device) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_on_device(entry, device) for entry in value)
    return value
