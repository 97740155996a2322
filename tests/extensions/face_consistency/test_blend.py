"""Both ways of mixing keep the target outside the mask and give the other picture inside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extensions.face_consistency.blend import mix

WAYS = ("multiband", "feather")


def pictures(width: int, height: int, seed: int = 0):
    random = np.random.default_rng(seed)
    return tuple(random.integers(0, 256, (height, width, 3), np.uint8) for _ in range(2))


def bump(width: int, height: int, reach: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    away = np.hypot(x - width / 2, y - height / 2) / max(1, min(width, height) / 2)
    return np.clip((reach - away) * 3, 0, 1).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1.2), st.sampled_from(WAYS))
def test_outside_the_mask_every_pixel_is_the_targets(width, height, reach, how):
    target, other = pictures(width, height)
    mask = bump(width, height, reach)
    mixed = mix(target, other, mask, how)
    assert mixed.dtype == np.uint8 and (mixed[mask == 0] == target[mask == 0]).all()


@pytest.mark.parametrize("how", WAYS)
def test_a_full_mask_gives_the_other_picture(how):
    target, other = pictures(64, 48)
    assert np.abs(mix(target, other, np.ones((48, 64), np.float32), how).astype(int) - other).max() <= 1


@pytest.mark.parametrize("how", WAYS)
def test_equal_pictures_stay_equal(how):
    target, _ = pictures(50, 60)
    assert (mix(target, target, bump(50, 60, 0.9), how) == target).all()


def test_feather_mixes_each_pixel_by_its_mask():
    target, other = pictures(40, 30)
    mask = bump(40, 30, 0.8)
    expected = target + (other.astype(float) - target) * mask[..., None]
    assert np.abs(mix(target, other, mask, "feather") - expected).max() <= 0.51


def test_multiband_changes_tones_more_softly_than_details():
    """Across a hard edge of the mask a plain tone steps less, while the checks on it end within a few pixels."""
    target = np.full((64, 128, 3), 90, np.uint8)
    tone = np.full_like(target, 150)
    mask = np.repeat((np.arange(128) < 64).astype(np.float32)[None], 64, axis=0) * np.float32(0.8) + np.float32(0.2)
    steps = [float(np.abs(np.diff(mix(target, tone, mask, how)[32, :, 0].astype(int))).max()) for how in WAYS]
    assert steps[0] < 0.4 * steps[1]
    checks = (
        np.where((np.indices((64, 128)).sum(axis=0) % 2)[..., None] > 0, 120, 60).astype(np.uint8).repeat(3, axis=2)
    )
    detail = mix(target, checks, mask, "multiband")[32, :, 0].astype(float)
    contrast = np.abs(np.diff(detail))
    assert contrast[40:60].mean() > 50 and contrast[70:90].mean() < 20


@pytest.mark.parametrize("how", WAYS)
def test_half_of_the_mask_changes_half_as_much(how):
    target, other = np.full((40, 40, 3), 100, np.uint8), np.full((40, 40, 3), 180, np.uint8)
    mask = bump(40, 40, 1.0)
    whole, half = (mix(target, other, mask * np.float32(s), how).astype(float) - 100 for s in (1, 0.5))
    assert np.abs(half - whole / 2).max() <= 1
