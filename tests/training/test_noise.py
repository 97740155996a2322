import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from webui.training.noise import generator_of, multires, noise_of, timestep_of, with_offset
from webui.training.seeds import mixed

SHAPE = (4, 16, 24)


@given(seed=st.integers(0, 2**32 - 1), index=st.integers(0, 10**7))
def test_the_noise_of_a_sample_depends_on_seed_and_number_alone(seed: int, index: int) -> None:
    torch.manual_seed(1)
    first = noise_of(seed, index, (1, 2, 2), offset=0.1, iterations=2)
    torch.manual_seed(2)
    noise_of(seed, index + 1, (1, 2, 2))
    assert torch.equal(noise_of(seed, index, (1, 2, 2), offset=0.1, iterations=2), first)
    assert not torch.equal(noise_of(seed + 1, index, (1, 2, 2)), noise_of(seed, index, (1, 2, 2)))


def test_seeds_differ_in_every_argument_and_their_order() -> None:
    seeds = {mixed(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512
    assert mixed(1, 2) != mixed(2, 1)
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_plain_noise_is_normal() -> None:
    drawn = torch.stack([noise_of(0, i, SHAPE) for i in range(64)])
    assert float(drawn.mean()) == pytest.approx(0, abs=0.01)
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)
    assert float((drawn[0] * drawn[1]).mean()) == pytest.approx(0, abs=0.1)


def test_offset_noise_shifts_whole_channels() -> None:
    plain = torch.zeros(SHAPE)
    shifted = torch.stack([with_offset(plain, 0.1, generator_of(7, i)) for i in range(500)])
    assert torch.equal(shifted, shifted[:, :, :1, :1].expand_as(shifted)), "the same for all places of a channel"
    assert float(shifted[:, :, 0, 0].std()) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_multires_noise_has_unit_variance_and_coarse_structure(iterations: int) -> None:
    drawn = torch.stack([noise_of(3, i, SHAPE, iterations=iterations, discount=0.5) for i in range(32)])
    assert float(drawn.std()) == pytest.approx(1, abs=0.02)
    neighbours = (drawn[..., 1:] * drawn[..., :-1]).mean()
    assert float(neighbours) > 0.05, "neighbours of plain noise have nothing in common"


def test_multires_noise_ends_at_one_pixel() -> None:
    assert multires(torch.randn(4, 1, 1), 10, 0.3, generator_of(0)).shape == (4, 1, 1)


@given(seed=st.integers(0, 2**32 - 1), start=st.integers(0, 10**6))
def test_any_hundred_samples_in_a_row_cover_the_levels_evenly(seed: int, start: int) -> None:
    drawn = [timestep_of(seed, index, 1000) for index in range(start, start + 100)]
    assert all(0 <= t < 1000 for t in drawn)
    in_tenths = [sum(tenth * 100 <= t < tenth * 100 + 100 for t in drawn) for tenth in range(10)]
    assert min(in_tenths) >= 8
    assert max(in_tenths) <= 12
    assert math.isclose(sum(drawn) / 100, 499.5, abs_tol=20)
