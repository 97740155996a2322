"""The choice on tables that were made up: each tells a story whose end is known."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.training.validation.choosing import Choice, Judged, Row, Scale, choose

SCALE = Scale(base_likeness=0.2, photo_likeness=0.8, base_following=0.9)


def samples(
    likeness: float, following: float = 0.9, *, num: int = 6, copied: int = 0, broken: int = 0
) -> tuple[Judged, ...]:
    """`likeness` from 0 (the base) to 1 (the photos), around which single pictures lie."""
    return tuple(
        Judged(
            likeness=0.2 + 0.6 * (likeness + 0.02 * (i % 3 - 1)),
            following=following,
            copied=i < copied,
            broken=i < broken,
        )
        for i in range(num)
    )


def row(
    step: int, likeness: float, following: float = 0.9, *, weight: float = 1.0, gain: float = 0.05, **more: int
) -> Row:
    gains = tuple(gain + 0.001 * i for i in (-1, 0, 1))
    return Row(step=step, weight=weight, gains=gains, samples=samples(likeness, following, **more))


def chosen(*rows: Row, scale: Scale | None = SCALE) -> Choice:
    shuffled = list(rows)
    random.Random(len(rows)).shuffle(shuffled)
    return choose(shuffled, scale)


def test_the_likest_step_that_still_follows_prompts_wins() -> None:
    choice = chosen(row(100, 0.2), row(200, 0.6), row(300, 0.8), row(400, 0.95, following=0.3))
    assert (choice.step, choice.weight) == (300, 1.0)
    assert "likeness 80% of the way" in choice.reason
    assert choice.warning == ""
    last = next(one for one in choice.runners_up if one.step == 400)
    assert "rompt-following 33% instead of 100%" in last.reason


def test_a_run_that_learns_its_photos_by_heart_is_stopped_before() -> None:
    """Likeness only rises and the error on trained photos only falls, but what comes out are the photos themselves."""
    choice = chosen(
        row(100, 0.3, gain=0.02),
        row(200, 0.7, gain=0.06),
        row(300, 0.9, gain=0.03, copied=3),
        row(400, 1.0, gain=-0.10, copied=6),
    )
    assert choice.step == 200
    assert any("3 of 6 samples repeat a training photo" in one.reason for one in choice.runners_up)
    assert choice.rows[-1].out.endswith("repeat a training photo")


def test_a_run_that_collapses_is_taken_back_to_where_it_was_good() -> None:
    collapsed = Row(step=300, weight=1.0, is_finite=False, samples=samples(1.0, broken=6))
    choice = chosen(row(100, 0.5), row(200, 0.6), collapsed, row(400, 0.9, broken=4))
    assert choice.step == 200
    reasons = {one.step: one.reason for one in choice.runners_up}
    assert reasons[400] == "4 of 6 samples show nothing."


def test_a_lower_weight_of_a_later_step_can_be_the_best() -> None:
    choice = chosen(
        row(200, 0.5, weight=0.8),
        row(200, 0.6),
        row(400, 0.9, following=0.85, weight=0.8),
        row(400, 0.95, following=0.4),
    )
    assert (choice.step, choice.weight) == (400, 0.8)


def test_of_equally_good_steps_the_smaller_error_decides_and_then_fewer_steps() -> None:
    """The pictures differ by less than they scatter."""

    def noisy(step: int, gain: float, seed: int) -> Row:
        noise = random.Random(seed)
        scores = tuple(Judged(likeness=0.65 + noise.uniform(-0.1, 0.1), following=0.9) for _ in range(6))
        return Row(step=step, weight=1.0, gains=(gain, gain + 0.002), samples=scores)

    assert chosen(noisy(100, 0.02, 1), noisy(200, 0.08, 1), noisy(300, 0.05, 1)).step == 200
    assert chosen(noisy(100, 0.08, 1), noisy(200, 0.08, 1), noisy(300, 0.08, 1)).step == 100


def test_of_equal_weights_the_one_nearest_to_one_is_taken() -> None:
    choice = chosen(*[row(100, 0.8, weight=weight) for weight in (0.5, 0.9, 1.2)])
    assert choice.weight == 0.9


def test_without_samples_the_error_on_photos_kept_back_decides() -> None:
    """It falls and rises again while the one on trained photos goes on falling."""
    rows = [
        Row(step=step, weight=1.0, gains=(gain, gain + 0.003, gain - 0.003), trained_gain=step / 1000)
        for step, gain in {100: 0.02, 200: 0.05, 300: 0.08, 400: 0.06, 500: 0.01}.items()
    ]
    choice = chosen(*rows, scale=None)
    assert choice.step == 300
    assert "8.0% below the base's" in choice.reason


def test_without_anything_to_measure_it_is_the_last_step_and_the_reason_says_so() -> None:
    rows = [Row(step=step, weight=weight) for step in (100, 200) for weight in (0.6, 1.0)]
    choice = chosen(*rows, scale=None)
    assert (choice.step, choice.weight) == (200, 1.0)
    assert "Nothing was kept back" in choice.reason


def test_a_run_that_learned_nothing_says_so() -> None:
    assert "no more like the photos" in chosen(row(100, -0.1), row(200, -0.05)).warning
    worse = [Row(step=100, weight=1.0, gains=(-0.02, -0.01))]
    assert "than the base" in chosen(*worse, scale=None).warning


def test_where_all_steps_went_wrong_one_is_named_with_a_warning() -> None:
    choice = chosen(row(100, 0.9, copied=4), row(200, 0.9, copied=6))
    assert choice.step == 100
    assert "No step can be recommended" in choice.reason
    assert "4 of 6 samples repeat a training photo" in choice.warning


def test_the_last_step_is_always_among_those_compared() -> None:
    choice = chosen(*[row(100 * i, 0.9 - 0.1 * abs(i - 4)) for i in range(1, 11)])
    assert choice.step == 400
    assert 1000 in {one.step for one in choice.runners_up}
    assert len(choice.runners_up) == 4


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="Nothing was measured"):
        choose([], SCALE)


measures = st.floats(-1, 2) | st.just(float("nan"))
judged = st.builds(
    Judged,
    likeness=st.none() | measures,
    following=st.none() | st.floats(0, 1),
    copied=st.booleans(),
    broken=st.booleans(),
)
tables = st.lists(
    st.builds(
        Row,
        step=st.integers(1, 20).map(lambda i: i * 100),
        weight=st.sampled_from([0.6, 0.8, 1.0]),
        gains=st.lists(st.floats(-1, 1), max_size=3).map(tuple),
        samples=st.lists(judged, max_size=4).map(tuple),
        is_finite=st.booleans(),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: (one.step, one.weight),
)


@given(tables, st.none() | st.just(SCALE), st.randoms(use_true_random=False))
def test_any_table_gives_one_of_its_rows_whatever_their_order(
    rows: list[Row], scale: Scale | None, order: random.Random
) -> None:
    choice = choose(rows, scale)
    assert (choice.step, choice.weight) in {(one.step, one.weight) for one in rows}
    assert len(choice.rows) == len(rows)
    assert (choice.rows[0].step, choice.rows[0].weight) == (choice.step, choice.weight)
    shuffled = list(rows)
    order.shuffle(shuffled)
    again = choose(shuffled, scale)
    assert (again.step, again.weight) == (choice.step, choice.weight)
    json.dumps(choice.as_json())


def test_a_lead_that_few_pictures_may_have_by_chance_does_not_outweigh_the_error_on_photos_kept_back() -> None:
    """Seen: after a quarter of the steps four pictures happened to follow their prompts better, but were poor."""
    by_chance = tuple(Judged(likeness=0.2 + 0.6 * value, following=0.9) for value in (1.0, 0.62, 0.9, 0.7))
    later = tuple(Judged(likeness=0.2 + 0.6 * value, following=0.9) for value in (0.75, 0.7, 0.72, 0.65))
    early = Row(step=75, weight=0.8, gains=(0.36, 0.37, 0.38), samples=by_chance)
    late = Row(step=300, weight=1.0, gains=(0.41, 0.42, 0.43), samples=later)
    assert chosen(early, late).step == 300
    certain = Row(step=75, weight=0.8, gains=early.gains, samples=samples(0.9, num=4))
    assert chosen(certain, Row(step=300, weight=1.0, gains=late.gains, samples=samples(0.6, num=4))).step == 75


def test_pictures_that_are_liker_than_photos_are_to_each_other_are_told_apart() -> None:
    """Three photos kept back say only roughly how like each other new ones are."""
    assert chosen(row(100, 1.1, gain=0.1), row(200, 1.4, gain=0.05)).step == 200
