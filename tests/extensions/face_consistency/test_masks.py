"""Areas lie where they say, fade smoothly, and leave a forehead with hair alone."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extensions.face_consistency import topology
from extensions.face_consistency.masks import area_mask, choose_area, feathered, hair_share, rounded, width_of

SIZE = (300, 320)


@pytest.fixture(scope="module")
def points(astronaut_face):
    """200 px wide, in the middle of SIZE."""
    scale = 200 / width_of(astronaut_face.points)
    middle = np.array([*astronaut_face.points[:, :2].mean(axis=0), 0], np.float32)
    return (astronaut_face.points - middle) * np.float32(scale) + np.array([150, 160, 0], np.float32)


def painted(points, *, skin, forehead) -> np.ndarray:
    """A plain head, its forehead down to the brows in a colour of its own."""
    picture = np.full((SIZE[1], SIZE[0], 3), skin, np.uint8)
    above = points[:, 1] < points[list(topology.BROW_TOPS), 1].min()
    picture[: int(points[list(topology.BROW_TOPS), 1].min())] = forehead
    assert above.any()
    return picture


def test_the_smaller_areas_lie_inside_the_oval(points):
    oval, brows, features = (area_mask(points, area, SIZE) for area in ("oval", "brows", "features"))
    assert not (brows & ~oval).any() and not (features & ~oval).any()
    assert oval.sum() > brows.sum() > features.sum() > 0


def test_brows_leave_the_forehead_and_keep_the_brows(points):
    brows = area_mask(points, "brows", SIZE)
    column, row = points[topology.FOREHEAD_TOP, :2].astype(int)
    assert not brows[row : row + 12, column].any()
    for index in (*topology.RIGHT_BROW, *topology.LEFT_BROW, topology.CHIN - 1):
        x, y = points[index, :2].astype(int)
        assert brows[y, x]


def test_features_hold_eyes_nose_and_mouth_and_leave_the_jaw(points):
    features = area_mask(points, "features", SIZE)
    for index in (*topology.RIGHT_EYE, *topology.LEFT_EYE, *topology.NOSE, *topology.LIPS):
        x, y = points[index, :2].astype(int)
        assert features[y, x]
    for index in (topology.RIGHT_JAW, topology.LEFT_JAW):
        x, y = points[index, :2].astype(int)
        assert not features[y - 3 : y + 4, x - 3 : x + 4].all()


@settings(max_examples=20, deadline=None)
@given(angle=st.floats(-180, 180), area=st.sampled_from(("oval", "brows", "features")))
def test_a_turned_face_has_the_turned_area(points, angle, area):
    middle = (150.0, 160.0)
    turn = cv2.getRotationMatrix2D(middle, -angle, 1.0)
    turned = points.copy()
    turned[:, :2] = points[:, :2] @ turn[:, :2].T + turn[:, 2]
    expected = cv2.warpAffine(area_mask(points, area, SIZE) * 255, turn, SIZE) > 127
    got = area_mask(turned, area, SIZE) > 0
    assert (expected != got).sum() < 0.03 * expected.sum()


def test_bare_foreheads_are_warped_whole(points, astronaut_face):
    face = replace(astronaut_face, points=points)
    plain = painted(points, skin=(224, 172, 140), forehead=(236, 188, 156))
    assert hair_share(plain, face) < 0.05
    assert choose_area(plain, face, plain, face) == "oval"


@pytest.mark.parametrize("hair", [(60, 40, 30), (20, 20, 24), (235, 205, 120), (130, 60, 20)])
def test_hair_on_either_forehead_keeps_the_forehead_out(points, astronaut_face, hair):
    face = replace(astronaut_face, points=points)
    bare = painted(points, skin=(224, 172, 140), forehead=(224, 172, 140))
    fringe = painted(points, skin=(224, 172, 140), forehead=hair)
    assert hair_share(fringe, face) > 0.5
    assert choose_area(fringe, face, bare, face) == "brows"
    assert choose_area(bare, face, fringe, face) == "brows"


def test_dark_skin_is_no_hair(points, astronaut_face):
    dark = painted(points, skin=(92, 62, 48), forehead=(104, 70, 54))
    assert hair_share(dark, replace(astronaut_face, points=points)) < 0.05


def test_a_face_beyond_the_picture_shows_no_hair(points, astronaut_face):
    away = replace(astronaut_face, points=points + np.array([2000, -900, 0], np.float32))
    assert hair_share(np.zeros((50, 60, 3), np.uint8), away) == 0


@settings(max_examples=20, deadline=None)
@given(radius=st.integers(8, 60), edge=st.floats(0, 4), feather=st.floats(1, 30))
def test_the_feather_rises_from_the_edge_inwards(radius, edge, feather):
    disc = np.zeros((140, 140), np.uint8)
    cv2.circle(disc, (70, 70), radius, 1, -1)
    mask = feathered(disc, edge_px=edge, feather_px=feather)
    assert not mask[disc == 0].any() and mask.min() >= 0 and mask.max() <= 1
    outwards = mask[70, 70:]
    assert (np.diff(outwards) <= 1e-6).all()
    depth = (radius + 0.5 - np.arange(70)) - edge
    assert (outwards[depth > feather + 2] == 1).all() and not outwards[depth < -1].any()


def test_a_mask_that_runs_out_of_the_picture_does_not_fade_there():
    half = np.zeros((60, 60), np.uint8)
    half[:, :30] = 1
    mask = feathered(half, edge_px=1, feather_px=8)
    assert (mask[:, 0] == 1).all() and not mask[:, 30:].any()


def test_rounding_takes_spikes_and_nothing_else():
    shape = np.zeros((120, 120), np.uint8)
    cv2.circle(shape, (60, 60), 35, 1, -1)
    spiked = shape.copy()
    spiked[58:62, 60:115] = 1
    result = rounded(spiked, 12)
    assert not (result & ~spiked).any()
    assert (result != shape).sum() < 0.03 * shape.sum()


def test_what_is_narrower_than_the_radius_everywhere_stays():
    line = np.zeros((40, 40), np.uint8)
    line[20:23] = 1
    assert (rounded(line, 10) == line).all()
