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
            if group["orthogonal"]:
                updates = self._orthogonal_updates(parameters, group["momentum"])
            else:
                updates = [self._adam(parameter, group) for parameter in parameters]
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"])

    def _orthogonal_updates(self, parameters: list[nn.Parameter], momentum: float) -> list[Tensor]:
        directions = [self._direction(parameter, momentum) for parameter in parameters]
        updates = [torch.zeros_like(direction) for direction in directions]
        mine = range(self._ranks.index, len(directions), self._ranks.count)
        for positions in _by_shape(directions, mine):
            stacked = torch.stack([_as_matrix(directions[position]) for position in positions])
            scale = UPDATE_RMS * max(stacked.shape[-2:]) ** 0.5
            for position, matrix in zip(positions, orthogonalize(stacked) * scale, strict=True):
                updates[position] = matrix.reshape(directions[position].shape)
        if self._ranks.count > 1:
            self._ranks.add_up(updates)
        return updates

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        direction: Tensor = gradient.lerp(state["momentum"], momentum)
        return direction

    def _adam(self, parameter: nn.Parameter, group: dict[str, Any]) -> Tensor:
        state, gradient, (beta1, beta2) = self.state[parameter], parameter.grad, group["betas"]
        assert gradient is not None
        if not state:
            state["count"] = 0
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["count"] += 1
        state["first"].lerp_(gradient, 1 - beta1)
        state["second"].lerp_(gradient.square(), 1 - beta2)
        first = state["first"] / (1 - beta1 ** state["count"])
        second = state["second"] / (1 - beta2 ** state["count"])
        update: Tensor = first / (second.sqrt() + group["eps"])
        return update


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
