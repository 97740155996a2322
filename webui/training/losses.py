"""What a network should have said about a noised latent, how far off it was, and how much that counts.

Pure functions of tensors. `alphas_cumprod` (num_train_timesteps,) is the share of the signal's power that is left at
each timestep (Ho et al. 2020, arXiv:2006.11239); `snr` is that share over the noise's, (B,).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from webui.library.families import PredictionType
from webui.training.config import LossKind, LossWeighting

SMALLEST_SNR = 1e-4
"""Below it a weight that divides by the ratio would have no limit; only a level of pure noise is below."""


def signal_to_noise(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """(B,): infinite nowhere, 0 at a level of pure noise."""
    kept = alphas_cumprod[timesteps]
    return kept / (1.0 - kept)


def noised(clean: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """What the network is shown, with the power of `clean` (B, C, h, w) where that has unit variance."""
    kept = _per_sample(alphas_cumprod, timesteps, clean)
    return kept.sqrt() * clean + (1.0 - kept).sqrt() * noise


def target(
    prediction_type: PredictionType, clean: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor
) -> Tensor:
    """The right answer: the noise; v (Salimans & Ho 2022, arXiv:2202.00512); or the clean latent."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return clean
    kept = _per_sample(alphas_cumprod, timesteps, clean)
    return kept.sqrt() * noise - (1.0 - kept).sqrt() * clean


def _per_sample(alphas_cumprod: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
    return alphas_cumprod[timesteps].reshape(-1, 1, 1, 1).to(like.dtype)


def _squared(difference: Tensor, c: float) -> Tensor:
    return difference.square()


def _huber(difference: Tensor, c: float) -> Tensor:
    """Pseudo-Huber: d^2 for small differences, 2 c |d| for large ones."""
    return 2 * c * ((difference.square() + c * c).sqrt() - c)


def _smooth_l1(difference: Tensor, c: float) -> Tensor:
    """d^2 / c for small differences, 2 |d| for large ones."""
    return 2 * ((difference.square() + c * c).sqrt() - c)


DISTANCES: Mapping[LossKind, Callable[[Tensor, float], Tensor]] = MappingProxyType(
    {"mse": _squared, "huber": _huber, "smooth l1": _smooth_l1}
)


def errors(
    predicted: Tensor, wanted: Tensor, *, kind: LossKind = "mse", huber_c: float = 0.1, weights: Tensor | None = None
) -> Tensor:
    """(B,): each sample's mean distance. `weights` (B, 1, h, w), above 0 somewhere, is the share of each place.

    With weights it is their average, so that a small subject in a large picture counts as much as a large one.
    """
    distances = DISTANCES[kind](predicted - wanted, huber_c)
    if weights is None:
        return distances.mean(dim=(1, 2, 3))
    total = weights.sum(dim=(1, 2, 3)) * distances.shape[1]
    return (distances * weights).sum(dim=(1, 2, 3)) / total.clamp_min(torch.finfo(distances.dtype).tiny)


def _equal_weights(snr: Tensor, prediction_type: PredictionType, gamma: float) -> Tensor:
    return torch.ones_like(snr)


def _min_snr(snr: Tensor, prediction_type: PredictionType, gamma: float) -> Tensor:
    """Stops easy, low-noise levels from dominating: min(snr, gamma) on the error of the clean latent.

    Source: Hang et al. 2023, arXiv:2303.09556. `gamma` is 5 in the paper; larger is closer to no weighting.
    """
    if prediction_type == "epsilon":
        return (gamma / snr).clamp_max(1.0)  # 1 where snr is 0
    return snr.clamp_max(gamma) / _error_factor(snr, prediction_type)


def _debiased(snr: Tensor, prediction_type: PredictionType, gamma: float) -> Tensor:
    """sqrt(snr) on the error of the clean latent, which is 1 / sqrt(snr) on that of the noise.

    Source: Yu et al. 2023, arXiv:2310.08442, who train on the noise; for v it follows from the same weight on the
    clean latent, as min-SNR's does.
    """
    if prediction_type == "epsilon":
        return snr.clamp_min(SMALLEST_SNR).rsqrt()
    return snr.sqrt() / _error_factor(snr, prediction_type)


def _error_factor(snr: Tensor, prediction_type: PredictionType) -> Tensor:
    """How many times the clean latent's squared error the prediction's is."""
    return snr + 1.0 if prediction_type == "v_prediction" else torch.ones_like(snr)


WEIGHTINGS: Mapping[LossWeighting, Callable[[Tensor, PredictionType, float], Tensor]] = MappingProxyType(
    {"none": _equal_weights, "min-snr": _min_snr, "debiased": _debiased}
)


def weights_of_levels(
    weighting: LossWeighting, snr: Tensor, prediction_type: PredictionType, *, gamma: float
) -> Tensor:
    """(B,): how much each sample's error counts at its noise level."""
    return WEIGHTINGS[weighting](snr, prediction_type, gamma)
