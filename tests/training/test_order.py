from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.training.order import Draw, Group, Order

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def groups_of(counts: list[int]) -> list[Group]:
    start, groups = 0, []
    for count in counts:
        groups.append(Group(tuple(range(start, start + count)), float(count)))
        start += count
    return groups


@given(counts=sizes, batch_size=st.integers(1, 7), seed=st.integers(0, 2**32 - 1))
def test_a_batch_never_mixes_groups_and_is_always_full(counts: list[int], batch_size: int, seed: int) -> None:
    groups = groups_of(counts)
    order = Order(groups, batch_size=batch_size, seed=seed)
    for number in range(30):
        items = {draw.item for draw in order.batch(number)}
        assert len(order.batch(number)) == batch_size
        assert any(items <= set(group.items) for group in groups)


@given(counts=sizes, batch_size=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_every_photo_is_seen_as_often_as_any_other(counts: list[int], batch_size: int, seed: int) -> None:
    order = Order(groups_of(counts), batch_size=batch_size, seed=seed)
    rounds = 12
    seen = Counter(d.item for number in range(rounds * sum(counts)) for d in order.batch(number))
    wanted = rounds * batch_size
    # Each group is ahead or behind by two batches at most, shared by its photos.
    for group in groups_of(counts):
        for item in group.items:
            assert abs(seen[item] - wanted) <= 2 * batch_size / len(group.items) + 2


@given(counts=sizes, seed=st.integers(0, 2**32 - 1))
def test_one_turn_of_a_group_shows_each_of_its_photos_once(counts: list[int], seed: int) -> None:
    order = Order(groups_of(counts), batch_size=3, seed=seed)
    draws = [draw for number in range(60) for draw in order.batch(number)]
    assert len(set(draws)) == len(draws), "no photo twice in the same turn"
    assert all(isinstance(draw, Draw) and draw.turn >= 0 for draw in draws)


@given(counts=sizes, seed=st.integers(0, 2**32 - 1), number=st.integers(0, 60))
def test_a_batch_is_the_same_whatever_was_asked_before(counts: list[int], seed: int, number: int) -> None:
    once = Order(groups_of(counts), batch_size=2, seed=seed)
    straight = [once.batch(i) for i in range(number + 1)]
    assert Order(groups_of(counts), batch_size=2, seed=seed).batch(number) == straight[-1]


def test_two_processes_see_together_what_one_sees_with_twice_the_batch() -> None:
    whole = Order(groups_of([5]), batch_size=4, seed=1)
    halves = Order(groups_of([5]), batch_size=2, seed=1)
    for number in range(10):
        assert whole.batch(number) == halves.batch(2 * number) + halves.batch(2 * number + 1)


@pytest.mark.parametrize("weight", [0.5, 3.0])
def test_a_group_comes_as_often_as_its_weight_says(weight: float) -> None:
    order = Order([Group((0, 1), 1.0), Group((2, 3, 4), weight)], batch_size=1, seed=0)
    seen = Counter(order.batch(number)[0].item > 1 for number in range(400))
    assert seen[True] / seen[False] == pytest.approx(weight, rel=0.02)


def test_another_seed_gives_another_order() -> None:
    first, second = (Order(groups_of([12]), batch_size=12, seed=seed).batch(0) for seed in (1, 2))
    assert first != second
    assert set(first) == set(second)
