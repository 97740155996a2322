"""Networks from their sources, read without a copy too many.

Modules are made without memory (meta device); each weight is read from the memory map and converted to the working
precision on its way into memory of its own, so that a file that is changed or removed later harms nothing that runs.
Nothing is ever fetched from a network.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from webui.errors import UnsupportedModel
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.networks import make_network

READERS = min(4, os.cpu_count() or 1)
"""Threads that read and convert: while one waits for the disk, another converts."""

PORTION = 16
"""Weights that a thread reads before it looks for more."""

NAMED_WEIGHTS = 3
"""How many weights an error names."""

CPU = torch.device("cpu")


def checked_network(source: ComponentSource) -> nn.Module:
    """The network of `source` without memory (on the meta device), for which all its weights are known to be there.

    Raises UnsupportedModel if the config is impossible, or weights are missing, left over or of another shape.
    """
    try:
        with torch.device("meta"):
            model = make_network(source.name, source.config)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise UnsupportedModel(source.path, f"{source.name}/config.json does not fit ({error})") from error
    _check_names(source, _shapes(model))
    return model


def filled(
    model: nn.Module,
    source: ComponentSource,
    dtype: torch.dtype,
    device: torch.device = CPU,
    *,
    layout: torch.memory_format = torch.contiguous_format,
) -> nn.Module:
    """`model`, as `checked_network` made it, with its weights, in eval mode, needing no gradients.

    The weights of convolutions are in memory layout `layout`.
    Raises UnsupportedModel if they cannot be read.
    """
    with torch.inference_mode(mode=False):
        model.load_state_dict(_read(source, _shapes(model), dtype, device, layout), strict=True, assign=True)
        for name, buffer in list(model.named_buffers()):
            if buffer.is_meta:
                _restore_buffer(model, name, buffer, device)
        return model.eval().requires_grad_(False)


def size_bytes(source: ComponentSource, dtype: torch.dtype) -> int:
    """Memory that the network of `source` takes in `dtype`."""
    return source.num_values * dtype.itemsize


def _check_names(source: ComponentSource, expected: Mapping[str, tuple[int, ...]]) -> None:
    found = set(source.names())
    problems = {
        "missing": expected.keys() - found,
        "unknown": found - expected.keys(),
        "of another shape": {
            name
            for name in found & expected.keys()
            if _without_ones(source.info(name).shape) != _without_ones(expected[name])
        },
    }
    reasons = [
        f"{_some(names)} {'is' if len(names) == 1 else 'are'} {word}" for word, names in problems.items() if names
    ]
    if reasons:
        raise UnsupportedModel(source.path, f"{source.name}'s weights do not fit its config: {'; '.join(reasons)}")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A 1 x 1 convolution and a matrix are the same weights; files have either where our network has the other."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - NAMED_WEIGHTS
    return ", ".join(ordered[:NAMED_WEIGHTS]) + (f" and {more} more" if more > 0 else "")


def _read(
    source: ComponentSource,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
    layout: torch.memory_format,
) -> dict[str, Tensor]:
    def read(names: Sequence[str]) -> dict[str, Tensor]:
        return {name: converted(source.tensor(name).reshape(shapes[name])) for name in names}

    def converted(tensor: Tensor) -> Tensor:
        kept = dtype if tensor.is_floating_point() else tensor.dtype
        own_layout = layout if tensor.ndim == 4 else torch.contiguous_format
        return tensor.to(device, kept, copy=True, memory_format=own_layout)

    names = source.names()
    source.open()
    portions = [names[start : start + PORTION] for start in range(0, len(names), PORTION)]
    with ThreadPoolExecutor(READERS) as pool:
        return {name: tensor for part in pool.map(read, portions) for name, tensor in part.items()}


def _restore_buffer(model: nn.Module, name: str, buffer: Tensor, device: torch.device) -> None:
    """Buffers that files leave out: CLIP's position ids count from 0."""
    owner, _, attribute = name.rpartition(".")
    if attribute != "position_ids":
        raise RuntimeError(f"No rule to fill the buffer {name}.")
    positions = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
    model.get_submodule(owner).register_buffer(attribute, positions, persistent=False)
