import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.training.config import Optimizer, RateSchedule
from webui.training.rates import SCHEDULES, rate_factor, warmup_steps


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(num_steps=st.integers(1, 3000), warmup=st.floats(0, 1))
def test_every_schedule_rises_to_one_and_stays_between_zero_and_one(
    schedule: RateSchedule, num_steps: int, warmup: float
) -> None:
    settings = Optimizer(schedule=schedule, warmup=warmup, num_restarts=2)
    rising = warmup_steps(settings, num_steps)
    factors = [rate_factor(settings, step, num_steps) for step in range(0, num_steps, max(1, num_steps // 50))]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0, "the first update moves something"
    if 0 < rising < num_steps:
        assert rate_factor(settings, rising - 1, num_steps) == 1
        assert rate_factor(settings, rising, num_steps) == 1


def test_cosine_and_linear_fall_as_their_names_say() -> None:
    cosine, linear = (Optimizer(schedule=name, warmup=0) for name in ("cosine", "linear"))  # type: ignore[arg-type]
    for step in (0, 25, 50, 99):
        assert rate_factor(cosine, step, 100) == pytest.approx((1 + math.cos(math.pi * step / 100)) / 2)
        assert rate_factor(linear, step, 100) == pytest.approx(1 - step / 100)


def test_restarts_begin_again_at_the_top() -> None:
    settings = Optimizer(schedule="cosine with restarts", warmup=0, num_restarts=3)
    tops = [step for step in range(100) if rate_factor(settings, step, 100) == 1]
    assert tops == [0, 25, 50, 75]
