"""Samplers against closed forms in float64 and against diffusers' schedulers on the same network."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from webui.errors import InvalidRequest
from webui.pipeline.noise import NoiseSource
from webui.pipeline.samplers import SAMPLERS, Sampler, find_sampler, num_model_calls
from webui.pipeline.schedules import NoiseLevels, karras, leading, uniform

LEVELS = NoiseLevels.from_betas(np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ODE_SAMPLERS = ["Euler", "DPM++ 2M", "Heun", "DDIM", "UniPC"]
MEAN, SPREAD = 0.7, 0.4


def gaussian_denoise(x: Tensor, sigma: float) -> Tensor:
    """The perfect denoiser of data drawn from N(MEAN, SPREAD^2)."""
    return (x * SPREAD**2 + MEAN * sigma**2) / (SPREAD**2 + sigma**2)


def gaussian_solution(x: Tensor, sigma: float) -> Tensor:
    """Where the probability flow ODE takes x from level sigma to 0, in closed form."""
    return MEAN + (x - MEAN) * SPREAD / math.sqrt(SPREAD**2 + sigma**2)


def noise_of(*seeds: int) -> NoiseSource:
    return NoiseSource(seeds, (4, 8, 8), torch.device("cpu"))


def run(sampler: Sampler, denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    return sampler.sample(denoise, x, sigmas, noise=noise_of(*range(1, len(x) + 1)), eta=sampler.default_eta)


@pytest.mark.parametrize("label", ODE_SAMPLERS)
def test_more_steps_come_closer_to_the_exact_solution(label: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64) * LEVELS.sigma_max
    exact = gaussian_solution(x, LEVELS.sigma_max)
    errors = [
        (run(SAMPLERS[label], gaussian_denoise, x, karras(n, LEVELS)) - exact).abs().max().item() for n in (8, 32, 128)
    ]
    assert errors[0] > 3 * errors[1]
    assert errors[2] < min(0.05, errors[1] * 1.05)  # what remains is the jump from sigma_min to 0


@pytest.mark.parametrize("label", ["DPM++ 2M", "Heun", "UniPC"])
def test_higher_order_samplers_are_more_exact_than_euler(label: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64) * LEVELS.sigma_max
    exact = gaussian_solution(x, LEVELS.sigma_max)
    sigmas = karras(20, LEVELS)
    euler = (run(SAMPLERS["Euler"], gaussian_denoise, x, sigmas) - exact).abs().max()
    assert (run(SAMPLERS[label], gaussian_denoise, x, sigmas) - exact).abs().max() < euler / 2


@pytest.mark.parametrize("label", ["Euler a", "DPM++ 2M SDE"])
def test_stochastic_samplers_give_the_distribution_of_the_data(label: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4, 8, 8, dtype=torch.float64) * LEVELS.sigma_max
    result = run(SAMPLERS[label], gaussian_denoise, x, karras(100, LEVELS))
    assert result.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert result.std().item() == pytest.approx(SPREAD, abs=0.03)


def network(scaled: Tensor, sigma: float) -> Tensor:
    """Some smooth prediction of the noise; what it computes does not matter, only that both sides ask the same."""
    return torch.tanh(scaled * 1.3 + 0.2 * math.log(sigma)) + 0.1 * scaled


def denoise_by_network(x: Tensor, sigma: float) -> Tensor:
    return x - sigma * network(x / math.sqrt(sigma**2 + 1), sigma)


def by_scheduler(
    scheduler: object, x: Tensor, num_steps: int, asked: list[Tensor] | None = None
) -> tuple[Tensor, tuple[float, ...]]:
    """diffusers' loop over the same network; `x` is unit noise. Returns the result and the sigmas it went through.

    `asked` collects what the network was asked about.
    """
    scheduler.set_timesteps(num_steps)  # type: ignore[attr-defined]
    latents = x * scheduler.init_noise_sigma  # type: ignore[attr-defined]
    for i, timestep in enumerate(scheduler.timesteps):  # type: ignore[attr-defined]
        scaled = scheduler.scale_model_input(latents, timestep)  # type: ignore[attr-defined]
        sigma = float(scheduler.sigmas[i]) if hasattr(scheduler, "sigmas") else LEVELS.sigma_at(float(timestep))
        if asked is not None:
            asked.append(scaled)
        latents = scheduler.step(network(scaled, sigma), timestep, latents).prev_sample  # type: ignore[attr-defined]
    sigmas = scheduler.sigmas.tolist() if hasattr(scheduler, "sigmas") else []  # type: ignore[attr-defined]
    return latents, tuple(sigmas)


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max().item() < 2e-3 * theirs.abs().max().item()


def test_euler_equals_diffusers() -> None:
    x = torch.randn(1, 4, 8, 8)
    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="linspace")
    theirs, _ = by_scheduler(scheduler, x, 10)
    assert_close(run(SAMPLERS["Euler"], denoise_by_network, x * LEVELS.sigma_max, uniform(10, LEVELS)), theirs)


def test_heun_equals_diffusers() -> None:
    x = torch.randn(1, 4, 8, 8)
    scheduler = HeunDiscreteScheduler(**BETAS, use_karras_sigmas=True)
    theirs, sigmas = by_scheduler(scheduler, x, 10)
    own = karras(10, LEVELS)
    assert sigmas[0] == pytest.approx(own[0], rel=1e-4)
    assert_close(run(SAMPLERS["Heun"], denoise_by_network, x * own[0], own), theirs)


def variance_exploding_start(x: Tensor, sigma: float) -> Tensor:
    """Unit noise taken as a variance-preserving start is this in our terms: x = x_vp * sqrt(1 + sigma^2)."""
    return x * math.sqrt(1 + sigma**2)


def test_dpmpp_2m_equals_diffusers() -> None:
    x = torch.randn(1, 4, 8, 8)
    scheduler = DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True, lower_order_final=False)
    theirs, sigmas = by_scheduler(scheduler, x, 12)
    start = variance_exploding_start(x, sigmas[0])
    assert_close(run(SAMPLERS["DPM++ 2M"], denoise_by_network, start, sigmas), theirs)


@pytest.mark.parametrize("num_steps", [3, 4, 12])
def test_unipc_equals_diffusers(num_steps: int) -> None:
    x = torch.randn(1, 4, 8, 8)
    scheduler = UniPCMultistepScheduler(
        **BETAS, use_karras_sigmas=True, solver_order=3, solver_type="bh1", final_sigmas_type="zero"
    )
    theirs: list[Tensor] = []
    _, sigmas = by_scheduler(scheduler, x, num_steps, asked=theirs)
    ours: list[Tensor] = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        ours.append(x / math.sqrt(1 + sigma**2))
        return denoise_by_network(x, sigma)

    run(SAMPLERS["UniPC"], denoise, variance_exploding_start(x, sigmas[0]), sigmas)
    for our_input, their_input in zip(ours, theirs, strict=True):  # their last step to sigma 0 divides 0 by 0
        assert_close(our_input, their_input)


def test_ddim_equals_diffusers() -> None:
    x = torch.randn(1, 4, 8, 8)
    scheduler = DDIMScheduler(**BETAS, set_alpha_to_one=True, steps_offset=1, clip_sample=False)
    theirs, _ = by_scheduler(scheduler, x, 20)
    sigmas = leading(20, LEVELS)
    start = variance_exploding_start(x, sigmas[0])
    assert_close(run(SAMPLERS["DDIM"], denoise_by_network, start, sigmas), theirs)


def test_ddim_with_full_noise_keeps_the_distribution() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4, 8, 8, dtype=torch.float64) * LEVELS.sigma_max
    result = SAMPLERS["DDIM"].sample(gaussian_denoise, x, karras(100, LEVELS), noise=noise_of(*range(64)), eta=1.0)
    assert result.std().item() == pytest.approx(SPREAD, abs=0.03)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=list(SAMPLERS))
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_every_sampler_makes_the_model_calls_it_announces(sampler: Sampler, num_steps: int) -> None:
    calls = []

    def denoise(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return gaussian_denoise(x, sigma)

    result = run(sampler, denoise, torch.randn(1, 4, 8, 8) * LEVELS.sigma_max, karras(num_steps, LEVELS))
    assert len(calls) == num_model_calls(sampler, num_steps)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=list(SAMPLERS))
def test_a_picture_does_not_depend_on_its_batch(sampler: Sampler) -> None:
    x = noise_of(5, 6)() * LEVELS.sigma_max
    sigmas = karras(6, LEVELS)

    def sample(x: Tensor, *seeds: int) -> Tensor:
        return sampler.sample(gaussian_denoise, x, sigmas, noise=noise_of(*seeds), eta=sampler.default_eta)

    assert torch.equal(sample(x, 5, 6)[1:], sample(x[1:], 6))


def test_unknown_sampler_names_what_there_is() -> None:
    with pytest.raises(InvalidRequest, match="DPM\\+\\+ 2M") as caught:
        find_sampler("DPM 2M")
    assert caught.value.field == "sampler"


@pytest.mark.parametrize("name", ["euler a", "k_euler_a", " Euler A "])
def test_samplers_are_found_by_alias_and_in_any_case(name: str) -> None:
    assert find_sampler(name).label == "Euler a"
