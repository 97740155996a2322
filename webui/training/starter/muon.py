"""Muon: momentum, then the nearest orthogonal matrix, for every weight that is a matrix; AdamW for the rest.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the update's size follows
Liu et al. 2025, arXiv:2502.16982, so that one learning rate serves both halves.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from webui.training.starter.ranks import Ranks

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
UPDATE_RMS = 0.2  # root mean square of an AdamW update, which the orthogonal update is scaled to


def orthogonalize(matrices: Tensor, num_iterations: int = 5) -> Tensor:
    """Roughly U V^T of the singular value decomposition of each of `matrices` (..., rows, columns); same shape."""
    a, b, c = NEWTON_SCHULZ
    is_wide = matrices.shape[-2] <= matrices.shape[-1]
    wide = matrices if is_wide else matrices.mT
    x = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(num_iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x if is_wide else x.mT
    return result


class Muon(torch.optim.Optimizer):
    """`matrices` are updated as (shape[0], rest); `others` get AdamW with the same learning rate.

    Each rank orthogonalizes its share of the matrices and the ranks add up what they have.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], *, learning_rate: float, ranks: Ranks
    ) -> None:
        self._ranks = ranks
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "orthogonal": True},
            {"params": list(others), "orthogonal": False},
        ]
        defaults = {"lr": learning_rate, "momentum": 0.95, "betas": (0.9, 0.99), "weight_decay": 0.01, "eps": 1e-8}
        super().__init__([group for group in groups if group["params"]], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients; parameters without a gradient are left alone."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            if group["orthogonal"]:
                updates = self._orthogonal_updates(parameters, group["momentum"])
            else:
                updates = self._adam_updates(parameters, group["betas"], group["eps"])
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _orthogonal_updates(self, parameters: list[nn.Parameter], momentum: float) -> list[Tensor]:
        directions = self._directions(parameters, momentum)
        updates = [torch.zeros_like(direction) for direction in directions] if self._ranks.count > 1 else [*directions]
        mine = range(self._ranks.index, len(directions), self._ranks.count)
        for positions in _by_shape(directions, mine):
            stacked = torch.stack([_as_matrix(directions[position]) for position in positions])
            scale = UPDATE_RMS * max(stacked.shape[-2:]) ** 0.5
            for position, matrix in zip(positions, orthogonalize(stacked) * scale, strict=True):
                updates[position] = matrix.reshape(directions[position].shape)
        if self._ranks.count > 1:
            self._ranks.add_up(updates)
        return updates

    def _directions(self, parameters: list[nn.Parameter], momentum: float) -> list[Tensor]:
        gradients = _gradients(parameters)
        momenta = [self._kept(parameter, "momentum") for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, momenta, momentum))

    def _adam_updates(self, parameters: list[nn.Parameter], betas: tuple[float, float], eps: float) -> list[Tensor]:
        gradients = _gradients(parameters)
        firsts = [self._kept(parameter, "first") for parameter in parameters]
        seconds = [self._kept(parameter, "second") for parameter in parameters]
        for parameter in parameters:
            self.state[parameter]["count"] = self.state[parameter].get("count", 0) + 1
        torch._foreach_lerp_(firsts, gradients, 1 - betas[0])
        torch._foreach_lerp_(seconds, list(torch._foreach_mul(gradients, gradients)), 1 - betas[1])
        counts = [self.state[parameter]["count"] for parameter in parameters]
        unbiased = torch._foreach_div(firsts, [1 - betas[0] ** count for count in counts])
        sizes = torch._foreach_div(seconds, [1 - betas[1] ** count for count in counts])
        torch._foreach_sqrt_(sizes)
        torch._foreach_add_(sizes, eps)
        return list(torch._foreach_div(list(unbiased), list(sizes)))

    def _kept(self, parameter: nn.Parameter, name: str) -> Tensor:
        """What is remembered of `parameter` under `name`, at first zeros."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        kept: Tensor = state[name]
        return kept


def _gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _as_matrix(tensor: Tensor) -> Tensor:
    return tensor.reshape(tensor.shape[0], -1)


def _by_shape(tensors: list[Tensor], positions: Iterable[int]) -> list[list[int]]:
    """`positions` in groups whose tensors are equally large as matrices: one product serves a whole group."""
    groups: dict[torch.Size, list[int]] = {}
    for position in positions:
        groups.setdefault(_as_matrix(tensors[position]).shape, []).append(position)
    return list(groups.values())


def muon_for(module: nn.Module, *, learning_rate: float, plain: tuple[str, ...], ranks: Ranks) -> Muon:
    """Muon for `module`; parameters whose name contains one of `plain`, and all vectors, get AdamW."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        is_matrix = parameter.ndim >= 2 and not any(part in name for part in plain)
        (matrices if is_matrix else others).append(parameter)
    return Muon(matrices, others, learning_rate=learning_rate, ranks=ranks)
