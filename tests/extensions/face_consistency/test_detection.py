"""Faces are found however they are turned, and what is no face gives none, without an error."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.detection import find_faces, overlap, turned_back
from extensions.face_consistency.face import Face, Pixels

RIGHT_EYE, LEFT_EYE = (33, 133), (362, 263)


def resized(pixels: Pixels, factor: float) -> Pixels:
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=interpolation), np.uint8)


def turned(pixels: Pixels, degrees: float, around: tuple[float, float]) -> tuple[Pixels, np.ndarray]:
    """The picture turned clockwise around a point that comes to the middle, and the matrix (2, 3) of that."""
    matrix = cv2.getRotationMatrix2D(around, -degrees, 0.9)
    height, width = pixels.shape[:2]
    matrix[:, 2] += (width / 2 - around[0], height / 2 - around[1])
    return np.asarray(cv2.warpAffine(pixels, matrix, (width, height), borderValue=(127, 127, 127)), np.uint8), matrix


def test_the_face_is_found_with_its_mesh_inside_the_head(astronaut_face: Face) -> None:
    assert astronaut_face.score > 0.9
    assert astronaut_face.presence > 15
    assert astronaut_face.points.shape == (468, 3)
    assert abs(astronaut_face.roll_degrees) < 6
    assert abs(astronaut_face.yaw_degrees) < 5
    left, top, right, bottom = astronaut_face.box
    assert astronaut_face.points[:, 0].min() > left - 15
    assert astronaut_face.points[:, 0].max() < right + 15
    assert astronaut_face.points[:, 1].min() > top - 15
    assert astronaut_face.points[:, 1].max() < bottom + 15


@settings(max_examples=12)
@given(degrees=st.floats(-180, 180))
def test_a_face_is_found_at_every_turn(
    degrees: float, astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    picture, matrix = turned(astronaut, degrees, astronaut_face.center)
    (face,) = find_faces(picture, models=networks)
    expected = astronaut_face.points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    off = np.linalg.norm(face.points[:, :2] - expected, axis=1).mean()
    assert off < 0.02 * astronaut_face.width_px
    difference = (face.roll_degrees - astronaut_face.roll_degrees - degrees + 180) % 360 - 180
    assert abs(difference) < 2


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_face_that_only_a_turned_copy_shows_is_found_in_its_place(
    quarters: int, astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    picture = np.rot90(astronaut, quarters)
    high = 0.91
    assert find_faces(picture, models=networks, min_score=high, all_angles=False) == []
    (face,) = find_faces(picture, models=networks, min_score=high)
    marked = np.zeros(astronaut.shape[:2], bool)
    left, top, right, bottom = (round(side) for side in astronaut_face.box)
    marked[top:bottom, left:right] = True
    rows, columns = np.nonzero(np.rot90(marked, quarters))
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert overlap(face.box, expected) > 0.85


@given(
    quarters=st.sampled_from([1, 2, 3]),
    width=st.integers(20, 60),
    height=st.integers(20, 60),
    corner=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    size=st.tuples(st.integers(1, 10), st.integers(1, 10)),
)
def test_a_box_of_a_turned_picture_is_turned_back(
    quarters: int, width: int, height: int, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    marked = np.zeros((height, width), bool)
    box = (corner[0], corner[1], corner[0] + size[0], corner[1] + size[1])
    marked[box[1] : box[3], box[0] : box[2]] = True
    rows, columns = np.nonzero(np.rot90(marked, quarters))
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert turned_back(found, quarters, width, height) == box


def test_two_faces_come_largest_first(astronaut: Pixels, networks: Models) -> None:
    small = resized(astronaut, 0.6)
    both = np.full((512, 512 + small.shape[1], 3), 127, np.uint8)
    both[: small.shape[0], : small.shape[1]] = small
    both[:, small.shape[1] :] = astronaut
    first, second = find_faces(both, models=networks)
    assert first.center[0] > small.shape[1] > second.center[0]
    assert first.width_px > 1.4 * second.width_px


def test_a_gray_picture_has_its_face(astronaut: Pixels, astronaut_face: Face, networks: Models) -> None:
    gray = np.repeat(astronaut.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    (face,) = find_faces(gray, models=networks)
    assert overlap(face.box, astronaut_face.box) > 0.8


def test_sunglasses_hide_no_face(astronaut: Pixels, astronaut_face: Face, networks: Models) -> None:
    picture = astronaut.copy()
    for corners in (RIGHT_EYE, LEFT_EYE):
        middle = astronaut_face.points[list(corners), :2].mean(axis=0)
        cv2.ellipse(picture, (round(float(middle[0])), round(float(middle[1]))), (18, 13), 0, 0, 360, (10, 10, 10), -1)
    (face,) = find_faces(picture, models=networks)
    assert overlap(face.box, astronaut_face.box) > 0.8


@pytest.mark.parametrize("side", ["left", "right"])
def test_half_a_face_at_the_border_is_found_with_numbers_only(
    side: str, astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    middle = round(astronaut_face.center[0])
    half = astronaut[:, middle:] if side == "left" else astronaut[:, :middle]
    faces = find_faces(half, models=networks)
    assert len(faces) == 1
    assert np.isfinite(faces[0].points).all()


@pytest.mark.parametrize("width", [60, 30, 20])
def test_a_small_face_is_found_in_its_size(
    width: int, astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    (face,) = find_faces(resized(astronaut, width / astronaut_face.width_px), models=networks)
    assert abs(face.width_px - width) < 0.15 * width


@pytest.mark.parametrize("factor", [1, 4, 9, 14])
def test_a_face_that_fills_the_picture_is_found_in_its_size(
    factor: int, astronaut: Pixels, astronaut_face: Face, networks: Models
) -> None:
    left, top, right, bottom = (round(side) for side in astronaut_face.box)
    close = resized(astronaut[top:bottom, left:right], factor)
    (face,) = find_faces(close, models=networks)
    assert 0.8 * close.shape[1] < face.width_px < 1.2 * close.shape[1]


def test_a_small_face_in_a_large_picture_is_found_in_full_resolution(astronaut: Pixels, networks: Models) -> None:
    small = resized(astronaut, 0.25)
    picture = np.full((1500, 3000, 3), 90, np.uint8)
    picture[1200 : 1200 + small.shape[0], 2500 : 2500 + small.shape[1]] = small
    (face,) = find_faces(picture, models=networks)
    (alone,) = find_faces(small, models=networks)
    expected = tuple(side + shift for side, shift in zip(alone.box, (2500, 1200, 2500, 1200), strict=True))
    assert overlap(face.box, expected) > 0.7


def drawing() -> Pixels:
    picture = np.full((400, 400, 3), 255, np.uint8)
    cv2.circle(picture, (200, 200), 130, (240, 200, 170), -1)
    for x in (150, 250):
        cv2.circle(picture, (x, 170), 15, (0, 0, 0), -1)
    cv2.ellipse(picture, (200, 250), (60, 30), 0, 0, 180, (150, 0, 0), 4)
    return picture


@pytest.mark.parametrize("name", ["chelsea", "coffee", "rocket", "moon", "coins", "hubble_deep_field"])
def test_a_photo_without_people_has_no_face(name: str, networks: Models) -> None:
    photo = getattr(data, name)()
    pixels = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)
    assert find_faces(pixels, models=networks) == []


def test_a_simple_drawing_is_no_face(networks: Models) -> None:
    assert find_faces(drawing(), models=networks) == []


@settings(max_examples=25)
@given(height=st.integers(1, 90), width=st.integers(1, 90), seed=st.integers(0, 2**32 - 1))
def test_noise_of_any_size_has_no_face(height: int, width: int, seed: int, networks: Models) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert find_faces(noise, models=networks) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 8000), (8000, 50), (20, 40_000)])
def test_a_picture_of_an_odd_shape_raises_nothing(shape: tuple[int, int], networks: Models) -> None:
    assert find_faces(np.zeros((*shape, 3), np.uint8), models=networks) == []


def test_the_picture_may_be_read_only_and_a_view(astronaut: Pixels, astronaut_face: Face, networks: Models) -> None:
    wide = np.repeat(astronaut, 2, axis=1)
    wide.flags.writeable = False
    (face,) = find_faces(wide[:, ::2], models=networks)
    assert face.box == astronaut_face.box
