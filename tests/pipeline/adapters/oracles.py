"""What every type of adapter means, in float64 and as the papers write it: element by element where that is clearest.

Each function gets the tensors of a file (by the ends of their keys) and the weight W, and returns the weight that
training ended with. Written from the definitions, not from the program.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tests.adapter_files import VARIANTS

Array = NDArray[np.float64]
Arrays = Mapping[str, Array]
Trained = Callable[[Arrays, Array], Array]


def trained_weight(variant: str, tensors: Mapping[str, Tensor], weight: Tensor) -> Array:
    """The weight at strength 1 in float64."""
    arrays = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    return TRAINED[variant](arrays, weight.double().numpy())


def _strength(t: Arrays, rank: int) -> float:
    return float(t["alpha"]) / rank if "alpha" in t else 1.0


def _lora(t: Arrays, w: Array) -> Array:
    """W + alpha/r B A: Hu et al. 2021, arXiv:2106.09685."""
    up, down = t["lora_up.weight"], t["lora_down.weight"]
    rank = down.shape[0]
    change = sum(np.multiply.outer(up.reshape(len(up), rank)[:, r], down[r]) for r in range(rank))
    return w + _strength(t, rank) * change


def _cp(core: Array, out_factor: Array, in_factor: Array) -> Array:
    """sum over p, q of core[p, q, x, y] out[p, o] in[q, i]."""
    result = np.zeros((out_factor.shape[1], in_factor.shape[1], *core.shape[2:]))
    for p in range(core.shape[0]):
        for q in range(core.shape[1]):
            result += np.multiply.outer(np.multiply.outer(out_factor[p], in_factor[q]), core[p, q])
    return result


def _tucker(t: Arrays, w: Array) -> Array:
    up, down = t["lora_up.weight"][:, :, 0, 0], t["lora_down.weight"][:, :, 0, 0]
    return w + _strength(t, len(down)) * _cp(t["lora_mid.weight"], up.T, down)


def _loha(t: Arrays, w: Array) -> Array:
    """Hadamard product of two low-rank matrices: Hyeon-Woo et al. 2021, arXiv:2108.06098."""
    product = (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
    return w + _strength(t, len(t["hada_w1_b"])) * product.reshape(w.shape)


def _loha_tucker(t: Arrays, w: Array) -> Array:
    halves = [_cp(t[f"hada_t{i}"], t[f"hada_w{i}_a"], t[f"hada_w{i}_b"]) for i in (1, 2)]
    return w + _strength(t, len(t["hada_w1_b"])) * halves[0] * halves[1]


def _lokr(t: Arrays, w: Array) -> Array:
    """Kronecker product of two factors, each whole or low-rank: Yeh et al. 2023, arXiv:2309.14859."""
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    kernel = w.shape[2:]
    if "lokr_t2" in t:
        second = _cp(t["lokr_t2"], t["lokr_w2_a"], t["lokr_w2_b"])
    elif "lokr_w2" in t:
        second = t["lokr_w2"]
    else:
        second = (t["lokr_w2_a"] @ t["lokr_w2_b"]).reshape(len(t["lokr_w2_a"]), -1, *kernel)
    product = np.zeros(w.shape)
    c, d = second.shape[:2]
    for a in range(first.shape[0]):
        for b in range(first.shape[1]):
            product[a * c : (a + 1) * c, b * d : (b + 1) * d] = first[a, b] * second
    factored = t.get("lokr_w1_b", t.get("lokr_w2_b"))
    return w + (1.0 if factored is None else _strength(t, len(factored))) * product


def _dora(plain: Trained, *, per_output: bool) -> Trained:
    """g * V / ||V||, row by row or column by column: Liu et al. 2024, arXiv:2402.09353."""

    def trained(t: Arrays, w: Array) -> Array:
        directed = plain(t, w).copy()
        magnitudes = t["dora_scale"].reshape(-1)
        for n, magnitude in enumerate(magnitudes):
            part = directed[n] if per_output else directed[:, n]
            part *= magnitude / math.sqrt(float((part**2).sum()))
        return directed

    return trained


def _ia3(t: Arrays, w: Array) -> Array:
    """(1 + l) times what comes in or goes out, as LyCORIS stores it: Liu et al. 2022, arXiv:2205.05638."""
    gains = np.diag(1 + t["weight"].reshape(-1))
    return np.einsum("oi...,ij->oj...", w, gains) if t["on_input"] else np.einsum("po,oi...->pi...", gains, w)


def _rotations(blocks: Array, limit: float) -> Array:
    """Cayley's map of the skew parts; the norm of all of them is at most `limit` unless that is 0."""
    skew = blocks - np.swapaxes(blocks, -1, -2)
    norm = math.sqrt(float((skew**2).sum()))
    if 0 < limit < norm:
        skew = skew * (limit / norm)
    identity = np.eye(blocks.shape[-1])
    return (identity + skew) @ np.linalg.inv(identity - skew)


def _rescaled(t: Arrays, w: Array) -> Array:
    return np.einsum("o,o...->o...", t["rescale"].reshape(-1), w) if "rescale" in t else w


def _oft(t: Arrays, w: Array) -> Array:
    """Block-diagonal rotation of the output rows: Qiu et al. 2023, arXiv:2306.07280. Trainers take R transposed."""
    rotations = _rotations(t["oft_blocks"], float(t["alpha"]) * len(w))
    count, size, _ = rotations.shape
    whole = np.zeros((len(w), len(w)))
    for k in range(count):
        whole[k * size : (k + 1) * size, k * size : (k + 1) * size] = rotations[k].T
    return _rescaled(t, np.tensordot(whole, w, 1))


def _oft_input(t: Arrays, w: Array) -> Array:
    """W R^T with R block-diagonal of the five-term series of Cayley's map: Qiu et al. 2025, arXiv:2506.19847."""
    flat = w.reshape(len(w), -1).copy()
    size = 4
    for run in range(flat.shape[1] // size):
        entries = iter(t["oft_R.weight"][run % len(t["oft_R.weight"])])
        skew = np.zeros((size, size))
        for i in range(size):
            for j in range(i + 1, size):
                skew[i, j] = next(entries)
                skew[j, i] = -skew[i, j]
        terms = [np.linalg.matrix_power(skew, n) * factor for n, factor in enumerate((1, 2, 2, 2, 1))]
        flat[:, run * size : (run + 1) * size] = flat[:, run * size : (run + 1) * size] @ sum(terms).T
    return flat.reshape(w.shape)


def _boft(t: Arrays, w: Array) -> Array:
    """A product of block-diagonal rotations between butterfly permutations: Liu et al. 2023, arXiv:2311.06243."""
    stages = _rotations(t["oft_blocks"], float(t["alpha"]) * len(w))
    size = stages.shape[-1]
    for i, rotations in enumerate(stages):
        distance = 2**i * size // 2
        # Row (c, g, k) of W stands at (c, k, g) in front of the blocks: partners lie `distance` apart.
        order = [c * 2 * distance + g * distance + k for c in range(len(w) // (2 * distance))
                 for k in range(distance) for g in range(2)]  # fmt: skip
        whole = np.zeros((len(w), len(w)))
        for row, to in enumerate(order):
            for column, source in enumerate(order):
                if row // size == column // size:
                    whole[to, source] = rotations[row // size][row % size, column % size]
        w = np.tensordot(whole, w, 1)
    return _rescaled(t, w)


def _glora(t: Arrays, w: Array) -> Array:
    """W + s (B1 B2 + W A1 A2): Chavan et al. 2023, arXiv:2306.07967."""
    flat = {name: tensor.reshape(len(tensor), -1) for name, tensor in t.items() if name != "alpha"}
    added = (flat["b1.weight"] @ flat["b2.weight"]).reshape(w.shape)
    turned = np.einsum("oi...,ij->oj...", w, flat["a1.weight"] @ flat["a2.weight"])
    return w + _strength(t, len(flat["a2.weight"])) * (added + turned)


def _glora_old(t: Arrays, w: Array) -> Array:
    swapped = {f"{name[0]}{3 - int(name[1])}.weight": a for name, a in t.items() if name != "alpha"}
    return _glora({**swapped, "alpha": t["alpha"]}, w)


def _added(name: str) -> Trained:
    return lambda t, w: w + t[name]


TRAINED: Mapping[str, Trained] = {
    "lora": _lora,
    "lora-tucker": _tucker,
    "loha": _loha,
    "loha-tucker": _loha_tucker,
    **{name: _lokr for name in VARIANTS if name.startswith("lokr")},
    "dora-out": _dora(_lora, per_output=True),
    "dora-in": _dora(_lora, per_output=False),
    "dora-out-tucker": _dora(_tucker, per_output=True),
    "dora-in-tucker": _dora(_tucker, per_output=False),
    "dora-out-loha-tucker": _dora(_loha_tucker, per_output=True),
    "dora-out-lokr-tucker": _dora(_lokr, per_output=True),
    "dora-out-loha": _dora(_loha, per_output=True),
    "dora-in-loha": _dora(_loha, per_output=False),
    "dora-out-lokr": _dora(_lokr, per_output=True),
    "dora-in-lokr": _dora(_lokr, per_output=False),
    "ia3": _ia3,
    "ia3-on-input": _ia3,
    "oft": _oft,
    "oft-constrained": _oft,
    "oft-rescaled": _oft,
    "oft-input": _oft_input,
    "oft-input-shared": _oft_input,
    "boft": _boft,
    "boft-constrained": _boft,
    "boft-rescaled": _boft,
    "glora": _glora,
    "glora-old": _glora_old,
    "full": _added("diff"),
    "norm": _added("w_norm"),
}
