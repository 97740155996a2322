import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidRequest
from webui.pipeline.schedules import SCHEDULES, NoiseLevels, find_schedule, img2img_sigmas, karras, uniform

LEVELS = NoiseLevels.from_betas(np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def test_noise_levels_are_those_of_stable_diffusion() -> None:
    assert LEVELS.sigma_min == pytest.approx(0.0291675, rel=1e-4)
    assert LEVELS.sigma_max == pytest.approx(14.614642, rel=1e-4)


@given(st.floats(0, 999))
def test_timestep_and_sigma_are_inverse(timestep: float) -> None:
    assert LEVELS.timestep_at(LEVELS.sigma_at(timestep)) == pytest.approx(timestep, abs=1e-6)


@pytest.mark.parametrize("levels", [LEVELS, LEVELS.with_zero_terminal_snr()], ids=["usual", "zero terminal SNR"])
@pytest.mark.parametrize("label", [label for label, row in SCHEDULES.items() if row.sigmas])
@given(n=st.integers(1, 150))
def test_every_schedule_falls_from_high_noise_to_none(label: str, levels: NoiseLevels, n: int) -> None:
    function = SCHEDULES[label].sigmas
    assert function is not None
    sigmas = function(n, levels)
    assert len(sigmas) == n + 1
    assert sigmas[-1] == 0
    assert all(high > low for high, low in pairwise(sigmas))
    assert sigmas[0] <= levels.sigma_max * (1 + 1e-9)


def test_karras_follows_the_paper() -> None:
    n, rho = 7, 7.0
    low, high = LEVELS.sigma_min ** (1 / rho), LEVELS.sigma_max ** (1 / rho)
    expected = [(high + i / (n - 1) * (low - high)) ** rho for i in range(n)]
    assert karras(n, LEVELS)[:-1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("steps", "strength", "calls"),
    [(20, 0.75, 16), (20, 1.0, 20), (20, 0.0, 0), (20, 0.5, 11), (20, 0.01, 1), (1, 1.0, 1)],
)
def test_img2img_makes_the_model_calls_users_know(steps: int, strength: float, calls: int) -> None:
    assert len(img2img_sigmas(uniform(steps, LEVELS), strength)) - 1 == calls


@given(steps=st.integers(1, 150), strength=st.floats(0.001, 1))
def test_img2img_never_runs_more_than_all_steps(steps: int, strength: float) -> None:
    sigmas = img2img_sigmas(uniform(steps, LEVELS), strength)
    assert 1 <= len(sigmas) - 1 <= steps
    assert math.isclose(sigmas[-1], 0)


def test_unknown_schedule_names_what_there_is() -> None:
    with pytest.raises(InvalidRequest, match="Karras"):
        find_schedule("karas")


def test_schedules_are_found_by_their_internal_names() -> None:
    assert find_schedule("sgm_uniform").label == "SGM Uniform"
