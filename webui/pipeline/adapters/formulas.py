"""The change of a weight, type by type, as the papers and the trainers define it. Pure functions of tensors.

`weight` is W: (out, in), (out, in, kh, kw) or (out,). A result has W's number of values in W's order, flattened
or not. Everything is computed in the type of the tensors that come in.
"""

import math

import torch
from torch import Tensor


def tucker(core: Tensor, out_factor: Tensor, in_factor: Tensor) -> Tensor:
    """(out, in, kh, kw) from `core` (p, q, kh, kw), `out_factor` (p, out) and `in_factor` (q, in)."""
    return torch.einsum("pqxy,po,qi->oixy", core, out_factor, in_factor)


def tucker_down(core: Tensor, down: Tensor) -> Tensor:
    """The core and the input factor in one: (p, in, kh, kw) from (p, q, kh, kw) and (q, in). Keeps the rank."""
    return torch.einsum("pqxy,qi->pixy", core, down)


def kronecker(first: Tensor, second: Tensor) -> Tensor:
    """(a * c, b * d) from (a, b) and (c, d). With d = inputs times kernel the order is a convolution's."""
    return torch.kron(first.contiguous(), second.contiguous())


def cayley(blocks: Tensor, max_norm: float | None) -> Tensor:
    """Rotations (..., n, n) from free matrices of that shape: (I + Q)(I - Q)^-1 with Q = B - B^T.

    `max_norm` limits the Frobenius norm of all Q together; None is no limit. Source: Qiu et al. 2023, arXiv:2306.07280.
    """
    skew = blocks - blocks.mT
    if max_norm is not None:
        skew = skew * (max_norm / skew.norm().clamp_min(torch.finfo(skew.dtype).tiny)).clamp_max(1)
    identity = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    rotations: Tensor = torch.linalg.solve(identity - skew, identity + skew)
    return rotations


def neumann(vectors: Tensor) -> Tensor:
    """Nearly rotations (k, n, n) from the entries (k, n (n - 1) / 2) above the diagonals of skew matrices Q.

    They are I + 2Q + 2Q^2 + 2Q^3 + Q^4, the start of Cayley's series that PEFT and OneTrainer train with.
    Source: Qiu et al. 2025, arXiv:2506.19847.
    """
    size = math.isqrt(2 * vectors.shape[-1]) + 1
    upper = torch.zeros(len(vectors), size, size, dtype=vectors.dtype, device=vectors.device)
    rows, columns = torch.triu_indices(size, size, 1)
    upper[:, rows, columns] = vectors
    skew = upper - upper.mT
    squared = skew @ skew
    identity = torch.eye(size, dtype=vectors.dtype, device=vectors.device)
    return identity + 2 * (skew + squared + squared @ skew) + squared @ squared


def rotated(rotations: Tensor, weight: Tensor) -> Tensor:
    """W with each run of n output rows turned by the transpose of its `rotations` (k, n, n), as both trainers do it."""
    blocks = weight.reshape(rotations.shape[0], rotations.shape[1], -1)
    return torch.einsum("knm,kni->kmi", rotations, blocks).reshape(weight.shape)


def rotated_inputs(rotations: Tensor, weight: Tensor) -> Tensor:
    """W for inputs x whose runs of n values were turned to x R before: `rotations` (k, n, n), or (1, n, n) for all."""
    size = rotations.shape[-1]
    runs = weight.reshape(weight.shape[0], -1, size)
    blocks = rotations.expand(runs.shape[1], size, size)
    return torch.einsum("okc,kic->oki", runs, blocks).reshape(weight.shape)


def butterfly(rotations: Tensor, weight: Tensor) -> Tensor:
    """W through stages of rotations (stages, k, n, n): stage i mixes rows that lie n/2 * 2^i apart.

    Source: Liu et al. 2023, arXiv:2311.06243, in the order of rows that LyCORIS uses.
    """
    rows = weight.flatten(1)
    half = rotations.shape[-1] // 2
    for stage, blocks in enumerate(rotations):
        distance = half * 2**stage
        shuffled = rows.reshape(-1, 2, distance, rows.shape[-1]).transpose(1, 2).reshape(*blocks.shape[:2], -1)
        mixed = torch.einsum("kij,kjx->kix", blocks, shuffled)
        rows = mixed.reshape(-1, distance, 2, rows.shape[-1]).transpose(1, 2).reshape(rows.shape)
    return rows.reshape(weight.shape)


def with_magnitude(weight: Tensor, delta: Tensor, magnitude: Tensor, *, per_output: bool) -> Tensor:
    """The change of W to g * V / ||V|| with V = W + `delta`: DoRA. `magnitude` g has one value per output or per input.

    Source: Liu et al. 2024, arXiv:2402.09353; per input in LyCORIS before 3.2 and OneTrainer.
    """
    directed = weight + delta
    kept = 0 if per_output else 1
    others = [axis for axis in range(weight.ndim) if axis != kept]
    norm = torch.linalg.vector_norm(directed, dim=others, keepdim=True)
    gain = magnitude.reshape(norm.shape) / norm.clamp_min(torch.finfo(norm.dtype).eps)
    change: Tensor = directed * gain - weight
    return change
