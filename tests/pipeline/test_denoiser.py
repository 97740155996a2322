"""Guidance, prediction types, memory that runs out, and latents that are no numbers."""

import math

import pytest
import torch
from torch import Tensor

from tests.conftest import CPU
from tests.pipeline.test_samplers import LEVELS
from webui.errors import InvalidNumbers, OutOfDeviceMemory
from webui.pipeline.conditioning import Condition, Guidance
from webui.pipeline.denoiser import Denoiser, LatentBlend, to_denoised
from webui.pipeline.manager import PipelineManager

CLEAN = torch.randn(2, 4, 8, 8, dtype=torch.float64)
NOISE = torch.randn(2, 4, 8, 8, dtype=torch.float64)


def guidance(scale: float, *, cond_tokens: int = 77, uncond_tokens: int = 77) -> Guidance:
    cond = Condition(context=torch.full((1, cond_tokens, 2), 3.0))
    uncond = Condition(context=torch.full((1, uncond_tokens, 2), 1.0))
    return Guidance(conditions=(uncond, cond), scales=(scale,)) if scale != 1 else Guidance(conditions=(cond,))


class Network:
    """Answers with the mean of its context, and remembers how many rows it was asked about at once."""

    def __init__(self, *, fits_rows: int = 99) -> None:
        self.asked: list[int] = []
        self._fits_rows = fits_rows

    def __call__(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        self.asked.append(len(x))
        if len(x) > self._fits_rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return condition.context.mean(dim=(1, 2))[:, None, None, None].expand_as(x)


def denoiser(network: Network, how: Guidance, blend: LatentBlend | None = None) -> Denoiser:
    return Denoiser(network, CPU, LEVELS, "sample", how, blend=blend)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_every_prediction_type_finds_the_clean_latent(prediction_type: str, sigma: float) -> None:
    alpha, noise_share = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    predicted = {"epsilon": NOISE, "v_prediction": alpha * NOISE - noise_share * CLEAN, "sample": CLEAN}[
        prediction_type
    ]
    found = to_denoised(predicted, CLEAN + sigma * NOISE, sigma, prediction_type)  # type: ignore[arg-type]
    assert torch.allclose(found, CLEAN)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 3.0), (0.0, 1.0), (7.0, 15.0)])
def test_guidance_goes_from_the_negative_prompt_through_the_prompt(scale: float, expected: float) -> None:
    assert torch.allclose(denoiser(Network(), guidance(scale))(torch.zeros(1, 4, 8, 8), 1.0), torch.tensor(expected))


def test_both_prompts_share_a_call_where_their_lengths_allow() -> None:
    together, apart = Network(), Network()
    x = torch.zeros(2, 4, 8, 8)
    first = denoiser(together, guidance(7.0))(x, 1.0)
    second = denoiser(apart, guidance(7.0, cond_tokens=154))(x, 1.0)
    assert (together.asked, apart.asked) == ([4], [2, 2])
    assert torch.equal(first, second)


def test_scale_one_asks_for_the_prompt_only() -> None:
    network = Network()
    denoiser(network, guidance(1.0))(torch.zeros(1, 4, 8, 8), 1.0)
    assert network.asked == [1]


def test_where_memory_runs_out_smaller_batches_are_tried_and_remembered() -> None:
    network = Network(fits_rows=2)
    denoise = denoiser(network, guidance(7.0))
    x = torch.zeros(4, 4, 8, 8)
    assert torch.allclose(denoise(x, 1.0), torch.tensor(15.0))
    assert network.asked == [8, 4, 2, 2, 2, 2]
    denoise(x, 1.0)
    assert network.asked[6:] == [2, 2, 2, 2]


def test_where_not_even_one_picture_fits_the_size_is_named() -> None:
    with pytest.raises(OutOfDeviceMemory, match="64 x 64"):
        denoiser(Network(fits_rows=0), guidance(7.0))(torch.zeros(1, 4, 8, 8), 1.0)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def broken(x: Tensor, timestep: float, condition: Condition) -> Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Denoiser(broken, CPU, LEVELS, "sample", guidance(7.0))(torch.zeros(1, 4, 8, 8), 1.0)


def test_the_blend_keeps_the_original_outside_the_mask() -> None:
    original = torch.randn(1, 4, 8, 8)
    mask = torch.zeros(8, 8)
    mask[2:5, 2:5] = 1
    result = denoiser(Network(), guidance(1.0), LatentBlend(original=original, mask=mask))(torch.zeros(1, 4, 8, 8), 1.0)
    assert torch.equal(result[..., mask == 0], original[..., mask == 0])
    assert torch.allclose(result[..., mask == 1], torch.tensor(3.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_latents_that_are_no_numbers_are_never_decoded(manager: PipelineManager, bad: float) -> None:
    latents = torch.zeros(1, 4, 8, 8)
    latents[0, 2, 3, 4] = bad
    with pytest.raises(InvalidNumbers, match="NaN"):
        manager.load("tiny").codec.decode(latents)
