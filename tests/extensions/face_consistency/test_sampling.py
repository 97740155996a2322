"""Crops show what lies there, without aliasing and whatever the picture's size."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from extensions.face_consistency.sampling import GRAY, applied, cut, similarity_to, square

COORDINATE = st.floats(-200, 200)


@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(0.05, 20),
    shift=st.tuples(COORDINATE, COORDINATE),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_turn_scale_and_shift_is_found_again(
    degrees: float, scale: float, shift: tuple[float, float], seed: int
) -> None:
    points = np.random.default_rng(seed).uniform(-100, 100, (5, 2))
    angle = np.radians(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points @ turn.T + shift
    found = similarity_to(points, moved.astype(np.float32))
    np.testing.assert_allclose(found[:, :2], turn, atol=1e-4 * scale + 1e-5)
    np.testing.assert_allclose(applied(found, points), moved, atol=0.02)


def test_points_that_are_all_the_same_still_give_numbers() -> None:
    found = similarity_to(np.full((5, 2), 7.0), np.zeros((5, 2), np.float32))
    assert np.isfinite(found).all()


def test_a_crop_of_the_same_size_is_the_picture_itself() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    np.testing.assert_array_equal(cut(picture, square((19.5, 19.5), 40, 0, 40), 40), picture)


def test_a_crop_turned_by_a_quarter_is_the_picture_turned_back() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    crop = cut(picture, square((19.5, 19.5), 40, 90, 40), 40)
    np.testing.assert_array_equal(crop, np.rot90(picture))


def test_fine_stripes_become_their_mean_when_made_small() -> None:
    picture = np.zeros((800, 800, 3), np.uint8)
    picture[:, ::2] = 200
    crop = cut(picture, square((399.5, 399.5), 800, 0, 100), 100)
    assert np.abs(crop[5:-5, 5:-5].astype(int) - 100).max() <= 2


def test_a_small_crop_lies_where_it_should() -> None:
    rows, columns = np.mgrid[0:600, 0:600]
    picture = np.stack([columns / 3, rows / 3, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    crop = cut(picture, square((300, 240), 300, 0, 60), 60).astype(float)
    middle = crop[29:31, 29:31].mean(axis=(0, 1))
    np.testing.assert_allclose(middle[:2], (100, 80), atol=1)


def test_outside_the_picture_is_gray() -> None:
    crop = cut(np.zeros((20, 20, 3), np.uint8), square((-500, -500), 40, 30, 32), 32)
    assert (crop == GRAY).all()


@given(
    height=st.integers(1, 60),
    width=st.sampled_from([1, 2, 31, 300, 40_000]),
    side=st.floats(0.5, 90_000),
    degrees=st.floats(-180, 180),
)
def test_a_crop_has_its_size_whatever_it_is_cut_from(height: int, width: int, side: float, degrees: float) -> None:
    crop = cut(np.zeros((height, width, 3), np.uint8), square((width / 2, height / 2), side, degrees, 24), 24)
    assert crop.shape == (24, 24, 3)
