"""Against the papers' formulas, written down anew in plain Python numbers (float64), sample by sample."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from webui.library.families import PredictionType
from webui.training import losses

BETAS = [(0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * i / 999) ** 2 for i in range(1000)]
KEPT = [math.prod(1 - b for b in BETAS[: i + 1]) for i in range(1000)]
ALPHAS = torch.tensor(KEPT)

levels = st.integers(0, 999)
values = st.floats(-3, 3, width=32)


def one(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


@given(clean=values, noise=values, t=levels)
def test_noising_and_targets_follow_the_papers(clean: float, noise: float, t: int) -> None:
    timestep = torch.tensor([t])
    a, b = math.sqrt(KEPT[t]), math.sqrt(1 - KEPT[t])
    shown = losses.noised(one(clean), one(noise), ALPHAS, timestep)
    assert float(shown) == pytest.approx(a * clean + b * noise, abs=1e-5)
    v = losses.target("v_prediction", one(clean), one(noise), ALPHAS, timestep)
    assert float(v) == pytest.approx(a * noise - b * clean, abs=1e-5)
    assert torch.equal(losses.target("epsilon", one(clean), one(noise), ALPHAS, timestep), one(noise))
    assert torch.equal(losses.target("sample", one(clean), one(noise), ALPHAS, timestep), one(clean))
    # From v and what was shown, the clean value and the noise come back.
    assert a * float(shown) - b * float(v) == pytest.approx(clean, abs=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("t", [0, 10, 200, 500, 800, 999])
def test_weights_of_levels_weigh_the_error_of_the_clean_latent(prediction_type: PredictionType, t: int) -> None:
    """min(snr, gamma), and sqrt(snr), on that error; the prediction's own is snr or snr + 1 times as large."""
    snr = KEPT[t] / (1 - KEPT[t])
    got = losses.signal_to_noise(ALPHAS, torch.tensor([t]))
    assert float(got) == pytest.approx(snr, rel=2e-4)
    factor = snr if prediction_type == "epsilon" else snr + 1
    for name, wanted in {"min-snr": min(snr, 5.0) / factor, "debiased": math.sqrt(snr) / factor, "none": 1.0}.items():
        weight = losses.weights_of_levels(name, got, prediction_type, gamma=5.0)  # type: ignore[arg-type]
        assert float(weight) == pytest.approx(wanted, rel=3e-4), name


@pytest.mark.parametrize("weighting", ["none", "min-snr", "debiased"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_level_of_pure_noise_has_a_finite_weight(weighting: str, prediction_type: PredictionType) -> None:
    for snr in (0.0, 1e-12, 1e12):
        weight = losses.weights_of_levels(weighting, torch.tensor([snr]), prediction_type, gamma=5.0)  # type: ignore[arg-type]
        assert bool(torch.isfinite(weight).all())
        assert float(weight) >= 0


@given(difference=values, c=st.floats(0.01, 5))
def test_distances_follow_their_formulas(difference: float, c: float) -> None:
    exact = {
        "mse": difference**2,
        "huber": 2 * c * (math.sqrt(difference**2 + c**2) - c),
        "smooth l1": 2 * (math.sqrt(difference**2 + c**2) - c),
    }
    for kind, wanted in exact.items():
        got = losses.errors(one(difference).double(), one(0.0).double(), kind=kind, huber_c=c)  # type: ignore[arg-type]
        assert float(got) == pytest.approx(wanted, abs=1e-9), kind


def test_huber_is_the_square_near_zero_and_grows_evenly_far_away() -> None:
    near = losses.errors(one(0.001).double(), one(0.0).double(), kind="huber", huber_c=0.1)
    assert float(near) == pytest.approx(1e-6, rel=1e-3)
    ten, eleven = (losses.errors(one(x).double(), one(0.0).double(), kind="huber", huber_c=0.1) for x in (10.0, 11.0))
    assert float(eleven - ten) == pytest.approx(0.2, rel=1e-3)


def test_errors_are_means_per_sample() -> None:
    predicted, wanted = torch.randn(3, 4, 8, 6, dtype=torch.float64), torch.randn(3, 4, 8, 6, dtype=torch.float64)
    got = losses.errors(predicted, wanted)
    for i in range(3):
        squares = [
            (p - w) ** 2 for p, w in zip(predicted[i].flatten().tolist(), wanted[i].flatten().tolist(), strict=True)
        ]
        assert float(got[i]) == pytest.approx(math.fsum(squares) / len(squares), rel=1e-12)


def test_a_mask_averages_over_what_it_shows() -> None:
    predicted, wanted = torch.randn(2, 4, 4, 4, dtype=torch.float64), torch.zeros(2, 4, 4, 4, dtype=torch.float64)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    mask[0, 0, :2], mask[1, 0] = 1.0, 1.0
    got = losses.errors(predicted, wanted, weights=mask)
    assert float(got[0]) == pytest.approx(float(predicted[0, :, :2].square().mean()))
    assert float(got[1]) == pytest.approx(float(predicted[1].square().mean()))


def test_what_a_mask_leaves_out_gets_no_gradient() -> None:
    predicted = torch.randn(1, 4, 4, 4, requires_grad=True)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 1] = 0.5
    torch.autograd.backward(losses.errors(predicted, torch.zeros(1, 4, 4, 4), weights=mask).sum())
    assert predicted.grad is not None
    assert bool((predicted.grad[..., [0, 2, 3]] == 0).all())
    assert bool((predicted.grad[..., 1] != 0).all())
