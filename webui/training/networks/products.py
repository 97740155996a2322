"""LoHa and LoKr: changes that are products of two halves, element by element or block by block."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from webui.training.networks.halves import split_size
from webui.training.networks.layers import (
    Adaptable,
    AdaptedLayer,
    Dropouts,
    applied,
    input_gradient,
    kaiming,
    kernel_of,
    weight_gradient,
)

HADAMARD_FACTORS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


class LohaLayer(AdaptedLayer):
    """W + alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b), of rank up to rank^2. Hyeon-Woo et al. 2021, arXiv:2108.06098.

    The product has no short way: the change is written out for a pass, and again on the way back instead of being kept.
    """

    def __init__(self, layer: Adaptable, dropouts: Dropouts, *, rank: int, alpha: float) -> None:
        outputs, values = len(layer.weight), layer.weight[0].numel()
        factors = {
            "hada_w1_a": torch.randn(outputs, rank) * 0.1,
            "hada_w1_b": torch.randn(rank, values),
            "hada_w2_a": torch.zeros(outputs, rank),
            "hada_w2_b": torch.randn(rank, values),
        }
        super().__init__(layer, dropouts, factors, {"alpha": torch.tensor(float(alpha))})
        self._scale = alpha / rank

    def adapted(self, x: Tensor) -> Tensor:
        factors = (self.factors[name] for name in HADAMARD_FACTORS)
        result: Tensor = _Hadamard.apply(x, self.layer, self._scale, *factors)  # type: ignore[no-untyped-call]
        return result


class _Hadamard(torch.autograd.Function):
    """The layer with the change, keeping the input and the factors alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layer: Adaptable, scale: float, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, a1, b1, a2, b2)
        ctx.layer, ctx.scale = layer, scale
        weight = layer.weight
        change = ((a1 * scale) @ b1).mul_(a2 @ b2).reshape(weight.shape)
        if weight.dtype == torch.float32:
            return applied(layer, x, change.add_(weight), layer.bias)
        # The sum of a weight and a small change would be rounded to the weight in half precision.
        return applied(layer, x, weight, layer.bias).add_(applied(layer, x, change.to(weight.dtype), None))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, a1, b1, a2, b2 = ctx.saved_tensors
        layer: Adaptable = ctx.layer
        weight = layer.weight
        first, second = (a1 * ctx.scale) @ b1, a2 @ b2
        x_gradient = None
        if ctx.needs_input_grad[0]:
            whole = torch.addcmul(weight, first.reshape(weight.shape), second.reshape(weight.shape)).to(weight.dtype)
            x_gradient = input_gradient(layer, x.shape, whole, gradient)
        whole_gradient = weight_gradient(layer, x, weight.shape, gradient).float().flatten(1)
        of_first, of_second = second.mul_(whole_gradient), first.mul_(whole_gradient)
        return (
            x_gradient,
            None,
            None,
            (of_first @ b1.mT).mul_(ctx.scale),
            (a1.mT @ of_first).mul_(ctx.scale),
            of_second @ b2.mT,
            a2.mT @ of_second,
        )


class LokrLayer(AdaptedLayer):
    """W + alpha / rank * kron(w1, w2), w2 whole or w2_a @ w2_b. Yeh et al. 2023, arXiv:2309.14859.

    kron(A, B) x is A X B^T with x as a matrix X, so that no product is written out. Two whole halves have no rank, and
    their alpha counts for nothing, as all programs read it.
    """

    def __init__(self, layer: Adaptable, dropouts: Dropouts, *, rank: int, alpha: float, factor: int) -> None:
        outputs, inputs = layer.weight.shape[:2]
        (rows, row_size), (columns, column_size) = split_size(outputs, factor), split_size(inputs, factor)
        kernel = kernel_of(layer)
        factors = {"lokr_w1": kaiming(rows, columns)}
        if is_whole := 2 * rank >= max(row_size, column_size):
            factors["lokr_w2"] = torch.zeros(row_size, column_size, *kernel)
        else:
            factors["lokr_w2_a"] = kaiming(row_size, rank)
            factors["lokr_w2_b"] = torch.zeros(rank, column_size * math.prod(kernel))
        super().__init__(layer, dropouts, factors, {"alpha": torch.tensor(float(rank if is_whole else alpha))})
        self._scale = 1.0 if is_whole else alpha / rank

    def adapted(self, x: Tensor) -> Tensor:
        first = (self.factors["lokr_w1"] * self._scale).to(x.dtype)
        second = self._second().to(x.dtype)
        if isinstance(self.layer, nn.Linear):
            runs = x.reshape(*x.shape[:-1], -1, second.shape[1])
            change = (first @ F.linear(runs, second)).flatten(-2)
        else:
            batch, columns = len(x), first.shape[1]
            runs = x.reshape(batch * columns, -1, *x.shape[2:])
            turned = applied(self.layer, runs, second, None)
            mixed = first @ turned.reshape(batch, columns, -1)
            change = mixed.reshape(batch, -1, *turned.shape[2:])
        return self.base(x) + change

    def change_norm(self) -> float:
        first, second = self.factors["lokr_w1"], self._second()
        return self._scale * float(first.norm() * second.norm())

    def _second(self) -> Tensor:
        if "lokr_w2" in self.factors:
            return self.factors["lokr_w2"]
        product = self.factors["lokr_w2_a"] @ self.factors["lokr_w2_b"]
        return product.reshape(len(product), -1, *kernel_of(self.layer))
