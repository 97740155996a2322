"""Thin factors: the best ones by a full float64 decomposition, and the number of singular values each rule keeps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from webui.errors import InvalidRequest
from webui.pipeline.adapters.deltas import LowRank
from webui.pipeline.tools.low_rank import RankChoice, approximate, concatenate, recompress


def product(factors: LowRank) -> torch.Tensor:
    return factors.up.double() @ factors.down.double() * factors.scale


def best(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u[:, :rank] * s[:rank] @ vh[:rank]


def error(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((ours - wanted).norm() / wanted.norm())


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(8, 40), st.integers(8, 40))
def test_recompressing_gives_the_best_approximation_of_the_product(seed: int, rank: int, out: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    factors = LowRank(
        up=torch.randn(out, 7, generator=generator), down=torch.randn(7, inputs, generator=generator), scale=0.3
    )
    whole = product(factors)
    ours = product(recompress(factors, RankChoice(rank=rank)))
    least = float((best(whole, rank) - whole).norm())
    assert float((ours - whole).norm()) == pytest.approx(least, rel=1e-3, abs=1e-5 * float(whole.norm()))


def test_a_change_of_low_rank_is_found_exactly_also_by_the_randomized_way() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(320, 3) @ torch.randn(3, 300)
    assert error(product(approximate(matrix, RankChoice(rank=4))), matrix.double()) < 1e-5


def test_the_randomized_way_is_as_good_as_the_full_one_on_decaying_values() -> None:
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(400, 400))
    v, _ = torch.linalg.qr(torch.randn(400, 400))
    matrix = u * 0.9 ** torch.arange(400) @ v.T
    ours = product(approximate(matrix, RankChoice(rank=16)))
    least = float((best(matrix, 16) - matrix.double()).norm())
    assert float((ours - matrix.double()).norm()) < 1.01 * least


def test_the_randomized_way_repeats_itself_and_leaves_the_process_random_state_alone() -> None:
    matrix = torch.randn(400, 300, generator=torch.Generator().manual_seed(2))
    before = torch.random.get_rng_state()
    first = approximate(matrix, RankChoice(rank=4))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(approximate(matrix, RankChoice(rank=4)).up, first.up)


def test_concatenated_factors_are_the_weighted_sum() -> None:
    torch.manual_seed(0)
    a = LowRank(up=torch.randn(9, 2), down=torch.randn(2, 5), scale=0.5)
    b = LowRank(up=torch.randn(9, 3), down=torch.randn(3, 5), scale=2.0)
    joined = concatenate([(a, 0.7), (b, -0.4)])
    assert joined.up.shape == (9, 5)
    assert error(product(joined), 0.7 * product(a) - 0.4 * product(b)) < 1e-6


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        (RankChoice(rank=3), 3),
        (RankChoice(rank=99), 5),
        (RankChoice(rank=99, method="sv_ratio", threshold=10), 4),
        (RankChoice(rank=2, method="sv_ratio", threshold=10), 2),
        (RankChoice(rank=99, method="sv_cumulative", threshold=0.8), 2),
        (RankChoice(rank=99, method="sv_cumulative", threshold=1.0), 5),
        (RankChoice(rank=99, method="sv_fro", threshold=0.99), 3),
    ],
)
def test_each_rule_keeps_as_many_singular_values_as_it_says(choice: RankChoice, kept: int) -> None:
    assert choice.count(torch.tensor([8.0, 4.0, 2.0, 0.8, 0.2])) == kept


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"rank": 4, "method": "sv_ratio"}, {"rank": 4, "method": "sv_fro", "threshold": 1.5}]
)
def test_a_choice_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        RankChoice(**wrong)  # type: ignore[arg-type]
