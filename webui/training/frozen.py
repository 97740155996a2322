"""Networks whose own weights stand still, without what diffusers' forward does for nothing: less memory and time, the
same numbers.

Autograd keeps the input of every convolution, in case its weight wants a gradient, and of every norm and activation
apart; diffusers divides by factors that are 1; and weights in float32 are twice as large as in most files. Here frozen
convolutions keep nothing, a norm and its activation keep their common input and work the rest out again, nothing is
divided by 1, and weights are as large as in the file. Layers that an adapter sits on are called as they are.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from webui.pipeline.allocator import give_back

LARGE_WEIGHT = 2**16
"""Values; smaller weights are not worth being stored otherwise."""
WIDE_WEIGHT = 2**20
FEW_PLACES = 256
"""Largest number of places in a batch for which a convolution is worked out as a product."""
PIECE = 2**20
"""Values of a weight that are float32 at once there: few enough for the processor's cache."""


class Scratch:
    """One piece of memory for the float32 self of every weight, in turn: asked for anew each time, pieces of that size
    leave holes that fit nothing else."""

    def __init__(self, num_values: int, device: torch.device) -> None:
        self._values = torch.empty(num_values, device=device)

    def whole(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """`weight` as `dtype`; good until the next one is asked for."""
        if weight.dtype == dtype:
            return weight
        if dtype != torch.float32 or weight.numel() > self._values.numel():
            return weight.to(dtype)
        return self._values[: weight.numel()].as_strided(weight.shape, weight.stride()).copy_(weight)


def lighten(network: nn.Module) -> Callable[[], None]:
    """Replaces what can be of a network that is in use for long, and returns what puts it back. After adapters are
    attached.

    Parts with a weight that is trained, or of a kind that is not known here, stay as they are. Weights in float32 that
    came from a file in half precision are stored in that again, to the bit, and are float32 while they are used.
    """
    halved: list[Any] = [module for module in network.modules() if _can_be_halved(module)]
    undo = [_halved(module) for module in halved]
    if undo:
        give_back()
    scratch = Scratch(max((module.weight.numel() for module in halved), default=0), next(network.parameters()).device)
    undo += [_replaced(module, partial(_looked_up, module)) for module in halved if isinstance(module, nn.Embedding)]
    undo += [_replaced(module, forward) for module in network.modules() if (forward := _light(module, scratch))]

    def restore() -> None:
        for each in undo:
            each()

    return restore


def _light(module: nn.Module, scratch: Scratch) -> Callable[..., Tensor] | None:
    """The forward to use instead; None to keep the module's own."""
    if "forward" in module.__dict__:
        return None
    if isinstance(module, nn.Conv2d) and _is_frozen(module) and module.padding_mode == "zeros":
        return lambda x, *_: _convolved(module, x, scratch)
    if isinstance(module, nn.Linear) and _is_frozen(module) and module.weight.dtype == torch.float16:
        return lambda x, *_: _projected(module, x, scratch)
    if isinstance(module, ResnetBlock2D) and _is_plain_resnet(module):
        return lambda x, temb, *_, **__: _resnet(module, x, temb)
    if isinstance(module, GEGLU):
        return lambda x, *_, **__: _gated(module.proj(x))
    if isinstance(module, Attention) and _is_plain_attention(module):
        return lambda x, encoder_hidden_states=None, attention_mask=None, **__: _attention(
            module, x, encoder_hidden_states, attention_mask
        )
    return None


def _replaced(module: nn.Module, forward: Callable[..., Tensor]) -> Callable[[], None]:
    module.forward = forward

    def restore() -> None:
        del module.forward

    return restore


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _frozen(*modules: nn.Module) -> Iterator[bool]:
    return (_is_frozen(module) for module in modules)


class _FrozenConvolution(torch.autograd.Function):
    """Keeps nothing of its input but the shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Conv2d, scratch: Scratch) -> Tensor:
        ctx.layer, ctx.shape, ctx.scratch = layer, x.shape, scratch
        if _is_wide(layer, x.shape):
            return _wide_forward(layer, x, scratch)
        weight = scratch.whole(layer.weight, x.dtype)
        return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        layer, scratch = ctx.layer, ctx.scratch
        if _is_wide(layer, ctx.shape):
            return _wide_backward(layer, gradient, ctx.shape, scratch), None, None
        shape = gradient.new_empty(1).expand(ctx.shape)  # its values are not looked at
        of_input, _, _ = torch.ops.aten.convolution_backward(
            gradient, shape, scratch.whole(layer.weight, gradient.dtype), None, layer.stride, layer.padding,
            layer.dilation, False, [0, 0], layer.groups, (True, False, False),
        )  # fmt: skip
        return of_input, None, None


def _convolved(layer: nn.Conv2d, x: Tensor, scratch: Scratch) -> Tensor:
    result: Tensor = _FrozenConvolution.apply(x, layer, scratch)  # type: ignore[no-untyped-call]
    return result


def _is_wide(layer: nn.Conv2d, shape: torch.Size) -> bool:
    """Many channels over few places, on a processor: there the weight is all the work, and a product that takes it
    piece by piece, as it lies, is up to twice as fast as a convolution that puts it in another order first."""
    return (
        layer.weight.device.type == "cpu"
        and layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.padding == (1, 1)
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.weight.is_contiguous()
        and layer.weight.numel() >= WIDE_WEIGHT
        and shape[0] * shape[2] * shape[3] <= FEW_PLACES
    )


def _pieces(layer: nn.Conv2d, scratch: Scratch, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the weight as a matrix (outputs, inputs * 9), some at a time."""
    matrix = layer.weight.detach().flatten(1)
    rows = max(1, PIECE // matrix.shape[1])
    for start in range(0, len(matrix), rows):
        some = slice(start, min(start + rows, len(matrix)))
        yield some, scratch.whole(matrix[some], dtype)


def _wide_forward(layer: nn.Conv2d, x: Tensor, scratch: Scratch) -> Tensor:
    batch, _, height, width = x.shape
    columns = F.unfold(x, 3, padding=1).transpose(0, 1).flatten(1)
    out = columns.new_empty(layer.out_channels, columns.shape[1])
    for some, weight in _pieces(layer, scratch, x.dtype):
        torch.mm(weight, columns, out=out[some])
    if layer.bias is not None:
        out += layer.bias[:, None]
    return out.view(-1, batch, height, width).transpose(0, 1)


def _wide_backward(layer: nn.Conv2d, gradient: Tensor, shape: torch.Size, scratch: Scratch) -> Tensor:
    batch, inputs, height, width = shape
    of_out = gradient.transpose(0, 1).flatten(1)
    columns = of_out.new_zeros(inputs * 9, of_out.shape[1])
    for some, weight in _pieces(layer, scratch, gradient.dtype):
        columns.addmm_(weight.mT, of_out[some])
    return F.fold(columns.view(inputs * 9, batch, -1).transpose(0, 1), (height, width), 3, padding=1)


class _FrozenProjection(torch.autograd.Function):
    """A linear layer whose weight is stored in another type than it computes in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Linear, scratch: Scratch) -> Tensor:
        ctx.layer, ctx.scratch = layer, scratch
        return F.linear(x, scratch.whole(layer.weight, x.dtype), layer.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient @ ctx.scratch.whole(ctx.layer.weight, gradient.dtype), None, None


def _projected(layer: nn.Linear, x: Tensor, scratch: Scratch) -> Tensor:
    result: Tensor = _FrozenProjection.apply(x, layer, scratch)  # type: ignore[no-untyped-call]
    return result


def _looked_up(table: nn.Embedding, ids: Tensor) -> Tensor:
    return F.embedding(ids, table.weight).to(torch.float32)


def _can_be_halved(module: Any) -> bool:
    known = isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding) and "forward" not in module.__dict__
    if not known or not _is_frozen(module):
        return False
    weight = module.weight
    if weight.dtype != torch.float32 or weight.numel() < LARGE_WEIGHT:
        return False
    return torch.equal(weight.to(torch.float16).to(torch.float32), weight)


def _halved(module: nn.Module) -> Callable[[], None]:
    """Stores the weight in half precision, and its float32 self nowhere."""
    weight: nn.Parameter = module.weight  # type: ignore[assignment]
    weight.data = weight.data.to(torch.float16)

    def restore() -> None:
        weight.data = weight.data.to(torch.float32)

    return restore


class _NormedSilu(torch.autograd.Function):
    """SiLU of a group norm that is frozen; keeps the norm's input and statistics."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.GroupNorm) -> Tensor:
        rows, channels, places = len(x), x.shape[1], x[0, 0].numel()
        normed, mean, rstd = torch.native_group_norm(
            x, norm.weight, norm.bias, rows, channels, places, norm.num_groups, norm.eps
        )
        ctx.norm = norm
        ctx.save_for_backward(x, mean, rstd)
        return F.silu(normed, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, mean, rstd = ctx.saved_tensors
        norm = ctx.norm
        rows, channels, places = len(x), x.shape[1], x[0, 0].numel()
        normed = torch.native_group_norm(x, norm.weight, norm.bias, rows, channels, places, norm.num_groups, norm.eps)[
            0
        ]
        gradient = torch.ops.aten.silu_backward(gradient, normed)
        of_input = torch.ops.aten.native_group_norm_backward(
            gradient, x, mean, rstd, norm.weight, rows, channels, places, norm.num_groups, (True, False, False)
        )[0]
        return of_input, None


def _normed_silu(norm: nn.Module, x: Tensor) -> Tensor:
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and x.stride(0) == x[0].numel()
    if not x.is_contiguous() and not channels_last:
        x = x.contiguous()  # what comes out of an autoencoder's attention
    result: Tensor = _NormedSilu.apply(x, norm)  # type: ignore[no-untyped-call]
    return result


def _is_plain_resnet(block: Any) -> bool:
    known = (
        block.upsample is None
        and block.downsample is None
        and block.time_embedding_norm == "default"
        and isinstance(block.nonlinearity, nn.SiLU)
        and isinstance(block.norm1, nn.GroupNorm)
        and isinstance(block.norm2, nn.GroupNorm)
    )
    return known and all(_frozen(block.norm1, block.norm2))


def _resnet(block: Any, x: Tensor, temb: Tensor | None) -> Tensor:
    """Source: He et al. 2015, arXiv:1512.03385, with the time added between the convolutions (Ho et al. 2020)."""
    hidden = block.conv1(_normed_silu(block.norm1, x))
    if block.time_emb_proj is not None and temb is not None:
        time = temb if block.skip_time_act else F.silu(temb)
        hidden = hidden + block.time_emb_proj(time)[:, :, None, None]
    hidden = block.conv2(block.dropout(_normed_silu(block.norm2, hidden)))
    shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
    total: Tensor = shortcut + hidden
    return total if block.output_scale_factor == 1.0 else total / block.output_scale_factor


class _Gated(torch.autograd.Function):
    """a * gelu(b) of (..., 2 n) halves a and b, keeping them alone. Source: Shazeer 2020, arXiv:2002.05202."""

    @staticmethod
    def forward(ctx: Any, halves: Tensor) -> Tensor:
        ctx.save_for_backward(halves)
        value, gate = halves.chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (halves,) = ctx.saved_tensors
        value, gate = halves.chunk(2, dim=-1)
        both = torch.empty_like(halves)
        of_value, of_gate = both.chunk(2, dim=-1)
        torch.mul(gradient, F.gelu(gate), out=of_value)
        of_gate.copy_(torch.ops.aten.gelu_backward(gradient * value, gate))
        return both


def _gated(halves: Tensor) -> Tensor:
    result: Tensor = _Gated.apply(halves)  # type: ignore[no-untyped-call]
    return result


def _is_plain_attention(attention: Any) -> bool:
    return (
        isinstance(attention.processor, AttnProcessor2_0)
        and attention.spatial_norm is None
        and attention.group_norm is None
        and attention.norm_q is None
        and attention.norm_k is None
        and not attention.norm_cross
        and attention.add_k_proj is None
        and not attention.residual_connection
    )


def _attention(attention: Any, x: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
    """Source: Vaswani et al. 2017, arXiv:1706.03762."""
    if mask is not None or x.ndim != 3:
        result: Tensor = attention.processor(attention, x, encoder_hidden_states=context, attention_mask=mask)
        return result
    context = x if context is None else context
    rows, _, heads = len(x), x.shape[1], attention.heads
    query, key, value = (
        projection(told).view(rows, told.shape[1], heads, -1).transpose(1, 2)
        for projection, told in ((attention.to_q, x), (attention.to_k, context), (attention.to_v, context))
    )
    attended = F.scaled_dot_product_attention(query, key, value)
    attended = attended.transpose(1, 2).reshape(rows, x.shape[1], -1)
    out: Tensor = attention.to_out[1](attention.to_out[0](attended))
    return out if attention.rescale_output_factor == 1.0 else out / attention.rescale_output_factor
