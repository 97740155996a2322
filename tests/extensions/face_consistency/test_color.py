"""The warped skin takes on the target's light, and eyes, hair and identity stay out of it."""

import cv2
import numpy as np
import pytest

from extensions.face_consistency import topology
from extensions.face_consistency.color import match_colors
from extensions.face_consistency.masks import area_mask, width_of


@pytest.fixture(scope="module")
def scene(astronaut, astronaut_face):
    """A crop around the face, the mesh in it, the face's width and its skin."""
    left, top = 130, 20
    crop = np.ascontiguousarray(astronaut[top:220, left:320])
    points = astronaut_face.points - np.array([left, top, 0], np.float32)
    skin = np.zeros(crop.shape[:2], np.uint8)
    for part in (topology.RIGHT_CHEEK, topology.LEFT_CHEEK):
        cv2.fillPoly(skin, [np.int32(points[list(part), :2])], 1)
    return crop, points, width_of(points), skin > 0


def lab(picture):
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def tinted(picture, gains):
    return np.uint8(np.clip(picture * np.array(gains), 0, 255))


def test_equal_pictures_stay_as_they_are(scene):
    crop, points, width, _ = scene
    assert np.abs(match_colors(crop, crop, points, width, 1.0).astype(int) - crop).max() <= 1


@pytest.mark.parametrize("gains", [(1.1, 0.95, 0.75), (0.7, 0.85, 1.0), (0.5, 0.5, 0.5), (1.15, 1.1, 1.1)])
def test_the_skin_gets_the_targets_tone(scene, gains):
    crop, points, width, skin = scene
    target = tinted(crop, gains)
    before, after = (
        np.linalg.norm((lab(picture) - lab(target))[skin].mean(axis=0))
        for picture in (crop, match_colors(crop, target, points, width, 1.0))
    )
    assert before > 4 and after < 2


def test_half_of_the_amount_goes_half_of_the_way(scene):
    crop, points, width, skin = scene
    target = tinted(crop, (0.7, 0.7, 0.7))
    whole, half = (lab(match_colors(crop, target, points, width, a))[skin].mean(axis=0) for a in (1.0, 0.5))
    assert np.allclose(half, (lab(crop)[skin].mean(axis=0) + whole) / 2, atol=1)


def test_light_from_the_side_stays_light_from_the_side(scene):
    crop, points, width, _ = scene
    across = np.linspace(1.3, 0.5, crop.shape[1])[None, :, None]
    target = np.uint8(np.clip(crop * across, 0, 255))
    matched = match_colors(crop, target, points, width, 1.0)

    def slope(picture):
        """Lightness of the cheek on the left less that of the other."""
        right, left = (
            float(lab(picture)[..., 0][_inside(points, part, picture)].mean())
            for part in (topology.RIGHT_CHEEK, topology.LEFT_CHEEK)
        )
        return right - left

    assert slope(target) > slope(crop) + 15
    assert 0.7 * slope(target) < slope(matched) < 1.1 * slope(target)


def test_a_fringe_in_the_source_does_not_change_the_skin(scene):
    crop, points, width, skin = scene
    forehead = (area_mask(points, "oval", crop.shape[1::-1]) & ~area_mask(points, "brows", crop.shape[1::-1])) > 0
    fringe = crop.copy()
    fringe[forehead] = (40, 28, 20)
    target = tinted(crop, (1.0, 0.9, 0.8))
    bare, covered = (match_colors(picture, target, points, width, 1.0) for picture in (crop, fringe))
    assert np.abs(lab(bare) - lab(covered))[skin].mean() < 1.5


def test_paler_skin_leaves_white_white(scene):
    crop, points, width, _ = scene
    source = crop.copy()
    eye = _inside(points, topology.LEFT_EYE, crop)
    source[eye] = (235, 235, 235)
    colors = lab(crop)
    colors[..., 1:] *= 0.55
    target = np.uint8(np.clip(255 * cv2.cvtColor(colors, cv2.COLOR_LAB2RGB), 0, 255))
    matched = lab(match_colors(source, target, points, width, 1.0))
    assert np.abs(matched[eye][:, 1:].mean(axis=0)).max() < 4


@pytest.mark.parametrize("fill", [0, 255])
def test_a_picture_of_one_tone_gives_no_nonsense(scene, fill):
    crop, points, width, _ = scene
    flat = np.full_like(crop, fill)
    assert np.abs(match_colors(crop, flat, points, width, 1.0).mean() - fill) < 60
    assert match_colors(flat, crop, points, width, 1.0).shape == crop.shape


def test_a_face_outside_the_window_leaves_the_picture_alone(scene):
    crop, points, width, _ = scene
    away = points + np.array([5000, 0, 0], np.float32)
    assert (match_colors(crop, 255 - crop, away, width, 1.0) == crop).all()


def _inside(points, part, picture):
    drawn = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(drawn, [np.int32(points[list(part), :2])], 1)
    return drawn > 0
