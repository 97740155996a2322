"""Low-rank approximations: the best two thin factors of a matrix, or of a product of thin factors."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from webui.errors import InvalidRequest
from webui.library.tool_requests import RankMethod, refuse_threshold
from webui.pipeline.adapters.deltas import LowRank

OVERSAMPLING = 16
POWER_ITERATIONS = 4
"""For the randomized decomposition: Halko, Martinsson & Tropp 2011, arXiv:0909.4061, sections 4.4 and 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankChoice:
    """How many singular values to keep: at most `rank`; with a `method`, as few as its `threshold` asks for.

    sv_ratio: all down to the largest divided by `threshold` (> 1). sv_fro: until the Frobenius norm of what is kept is
    `threshold` (0..1) of the whole. sv_cumulative: the same with the sum of the singular values.
    """

    rank: int
    method: RankMethod | None = None
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InvalidRequest("rank", f"The rank is {self.rank}.", hint="Use 1 or more.")
        refuse_threshold(self.method, self.threshold)

    def count(self, values: Tensor) -> int:
        """How many of the singular `values`, largest first, are kept: at least one."""
        wanted = len(values) if self.method is None else _COUNTS[self.method](values, self.threshold)
        return max(1, min(self.rank, wanted, len(values)))


def _count_by_ratio(values: Tensor, threshold: float) -> int:
    return int((values >= values[0] / threshold).sum())


def _count_by_share(values: Tensor, threshold: float) -> int:
    shares = values.cumsum(0) / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
    return int((shares < threshold - 1e-6).sum()) + 1


_COUNTS: Mapping[RankMethod, Callable[[Tensor, float], int]] = MappingProxyType(
    {
        "sv_ratio": _count_by_ratio,
        "sv_fro": lambda values, threshold: _count_by_share(values**2, threshold**2),
        "sv_cumulative": _count_by_share,
    }
)


def approximate(matrix: Tensor, choice: RankChoice) -> LowRank:
    """The best factors of `matrix` (out, in), the singular values shared evenly: both fit half precision."""
    u, s, v = _decompose(matrix.float(), choice)
    return _factors(u, s, v, choice)


def recompress(factors: LowRank, choice: RankChoice) -> LowRank:
    """As `approximate`, of the product of `factors`, exactly and without ever making that product."""
    q_up, r_up = torch.linalg.qr(factors.up.float())
    q_down, r_down = torch.linalg.qr(factors.down.float().T)
    u, s, vh = torch.linalg.svd(r_up @ r_down.T * factors.scale)
    return _factors(q_up @ u, s, q_down @ vh.T, choice)


def concatenate(parts: list[tuple[LowRank, float]]) -> LowRank:
    """The sum of several changes, each times its weight, as one of the summed rank: exact."""
    ups = [part.up.float() * math.sqrt(abs(part.scale * weight)) for part, weight in parts]
    downs = [
        part.down.float() * math.copysign(math.sqrt(abs(part.scale * weight)), part.scale * weight)
        for part, weight in parts
    ]
    return LowRank(up=torch.cat(ups, dim=1), down=torch.cat(downs), scale=1.0)


def _decompose(matrix: Tensor, choice: RankChoice) -> tuple[Tensor, Tensor, Tensor]:
    """(out, k), (k,), (in, k). All values where a rule has to see them, else randomized where that is faster."""
    needed = choice.rank + OVERSAMPLING
    if choice.method is None and 4 * needed <= min(matrix.shape):
        return _randomized(matrix, needed)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u, s, vh.T


def _randomized(matrix: Tensor, num_values: int) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values by a random projection with power iterations (Halko et al., algorithms 4.4, 5.1).

    torch.svd_lowrank draws from the generator of the whole process, which other threads use too. This gives the same
    result for the same matrix and disturbs nobody.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], num_values, generator=generator)).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    u, s, vh = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u, s, vh.T


def _factors(u: Tensor, s: Tensor, v: Tensor, choice: RankChoice) -> LowRank:
    rank = choice.count(s)
    root = s[:rank].clamp_min(0).sqrt()
    return LowRank(up=u[:, :rank] * root, down=(v[:, :rank] * root).T.contiguous(), scale=1.0)
