import math

from hypothesis import given
from hypothesis import strategies as st

from webui.training.data.crops import placed_area

sides = st.integers(32, 4000)
sizes = st.tuples(sides, sides)
shares = st.floats(0.0, 1.0)


def face(size: tuple[int, int], x: float, y: float, side: float) -> tuple[float, float, float, float]:
    px = side * min(size)
    left, top = x * (size[0] - px), y * (size[1] - px)
    return left, top, left + px, top + px


@given(size=sizes, bucket=sizes, faces=st.lists(st.tuples(shares, shares, st.floats(0.01, 1.0)), max_size=3))
def test_a_crop_lies_in_the_photo_has_the_shape_and_is_the_largest(
    size: tuple[int, int], bucket: tuple[int, int], faces: list[tuple[float, float, float]]
) -> None:
    left, top, right, bottom = placed_area(bucket, (0, 0, *size), [face(size, *each) for each in faces])
    assert left >= -1e-6 and top >= -1e-6 and right <= size[0] + 1e-6 and bottom <= size[1] + 1e-6
    assert math.isclose((right - left) * bucket[1], (bottom - top) * bucket[0], rel_tol=1e-6)
    assert math.isclose(right - left, size[0], rel_tol=1e-6) or math.isclose(bottom - top, size[1], rel_tol=1e-6)


@given(size=sizes, bucket=sizes, x=shares, y=shares, side=st.floats(0.01, 0.3))
def test_a_face_that_fits_is_never_cut(
    size: tuple[int, int], bucket: tuple[int, int], x: float, y: float, side: float
) -> None:
    box = face(size, x, y, side)
    left, top, right, bottom = placed_area(bucket, (0, 0, *size), [box])
    for start, end, low, high in ((left, right, box[0], box[2]), (top, bottom, box[1], box[3])):
        if high - low <= end - start:
            assert start <= low + 1e-6 and high <= end + 1e-6


def test_without_faces_the_middle_is_taken() -> None:
    assert placed_area((64, 64), (0, 0, 100, 200)) == (0, 50, 100, 150)
    assert placed_area((64, 64), (20, 10, 60, 30)) == (30, 10, 50, 30)


def test_the_first_face_wins_where_not_all_fit() -> None:
    first, second = (10.0, 10.0, 30.0, 30.0), (270.0, 10.0, 290.0, 30.0)
    left, _, right, _ = placed_area((64, 64), (0, 0, 300, 100), [first, second])
    assert left <= first[0] and first[2] <= right < second[0]


def test_faces_outside_of_the_part_that_counts_do_not_matter() -> None:
    part = (0.0, 0.0, 100.0, 200.0)
    assert placed_area((64, 64), part, [(150.0, 150.0, 180.0, 180.0)]) == placed_area((64, 64), part)
