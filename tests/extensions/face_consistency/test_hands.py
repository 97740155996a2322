"""Hands are put where the palm network sees palms. The network itself does not come along: a stand-in sees red dots."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from extensions.face_consistency.analysis import MESH, PALM_SIDE, PALMS, MissingFaceModel, Models
from extensions.face_consistency.face import Pixels
from extensions.face_consistency.hands import anchors, can_find_hands, find_hands


class RedDots(Models):
    """Takes a red disc of a tenth of the crop or more for a palm that points up, as the network would."""

    def palms(self, crop: Pixels, *, min_score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        red = ((crop[..., 0] > 170) & (crop[..., 1] < 60)).astype(np.uint8)
        _, _, stats, centers = cv2.connectedComponentsWithStats(red)
        kept, rows = [], []
        for (*_, width, height, _area), center in zip(stats[1:], centers[1:], strict=True):
            whole = abs(width - height) <= 3 and PALM_SIDE // 10 <= width <= PALM_SIDE // 2
            if not whole or min_score > 0.9:
                continue
            near = int(np.abs(anchors() * PALM_SIDE - center).sum(axis=1).argmin())
            offset = center - anchors()[near] * PALM_SIDE
            row = np.zeros(18, np.float32)
            row[:4] = (*offset, width, height)
            row[4:] = np.tile(offset, 7)
            row[5] += width / 2
            row[9] -= width / 2
            kept.append(near)
            rows.append(row)
        return np.array(kept, int), np.reshape(rows, (-1, 18)), np.full(len(kept), 0.9)


@pytest.fixture(scope="module")
def red_dots(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return RedDots(tmp_path_factory.mktemp("models"))


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(200, 900), st.integers(200, 900)),
    place=st.tuples(st.floats(0.25, 0.75), st.floats(0.35, 0.7)),
    share=st.floats(0.06, 0.25),
)
def test_a_hand_is_found_above_its_palm_in_a_picture_of_any_size(
    size: tuple[int, int], place: tuple[float, float], share: float, red_dots: Models
) -> None:
    height, width = size
    picture = np.full((height, width, 3), 90, np.uint8)
    middle = round(place[0] * width), round(place[1] * height)
    radius = max(round(share * min(size) / 2), 12)
    assume(radius >= 0.03 * max(size))
    cv2.circle(picture, middle, radius, (255, 0, 0), -1)
    found = find_hands(picture, models=red_dots)
    ((box, score),) = found
    palm = 2 * radius
    expected = (middle[0], middle[1] - palm / 2)
    wide = min(middle[0] + 1.3 * palm, width) - max(middle[0] - 1.3 * palm, 0)
    assert score == pytest.approx(0.9)
    assert abs(box[2] - box[0] - wide) < 0.2 * palm + 4
    assert abs((box[0] + box[2]) / 2 - expected[0]) < 0.7 * palm
    assert box[1] < middle[1] - palm / 2 < middle[1] < box[3]
    assert 0 <= box[0] < box[2] <= width
    assert 0 <= box[1] < box[3] <= height


def test_two_hands_are_two_boxes(red_dots: Models) -> None:
    picture = np.full((600, 900, 3), 90, np.uint8)
    for x in (200, 650):
        cv2.circle(picture, (x, 400), 40, (255, 0, 0), -1)
    boxes = sorted(box for box, _ in find_hands(picture, models=red_dots))
    assert [round((box[0] + box[2]) / 20) * 10 for box in boxes] == [200, 650]


def test_a_hand_that_fills_the_picture_is_found(red_dots: Models) -> None:
    picture = np.full((300, 300, 3), 90, np.uint8)
    cv2.circle(picture, (150, 170), 110, (255, 0, 0), -1)
    ((box, _),) = find_hands(picture, models=red_dots)
    assert box == (0, 0, 300, pytest.approx(300))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (2000, 3), (700, 900)])
def test_a_picture_without_hands_has_none(shape: tuple[int, int], red_dots: Models) -> None:
    assert find_hands(np.zeros((*shape, 3), np.uint8), models=red_dots) == []


def test_without_the_detector_the_sentence_says_where_to_get_it(tmp_path: Path) -> None:
    models = Models(tmp_path / "shipped", added=(tmp_path / "face",))
    assert not can_find_hands(models)
    with pytest.raises(MissingFaceModel, match=PALMS) as problem:
        find_hands(np.zeros((64, 64, 3), np.uint8), models=models)
    assert "Extensions page" in problem.value.hint


def test_another_network_under_its_name_is_refused(tmp_path: Path, shipped: Path) -> None:
    (tmp_path / PALMS).write_bytes((shipped / MESH).read_bytes())
    with pytest.raises(MissingFaceModel, match="no palm detector"):
        find_hands(np.zeros((64, 64, 3), np.uint8), models=Models(shipped, added=(tmp_path,)))


def test_a_detector_that_the_user_added_is_seen(tmp_path: Path) -> None:
    (tmp_path / PALMS).write_bytes(b"")
    assert can_find_hands(Models(tmp_path / "shipped", added=(tmp_path,)))
