from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.images.compositing import paste_back
from webui.images.geometry import resize

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Paste:
    original: Image.Image
    generated: Image.Image
    mask: Image.Image
    box: Box | None

    @property
    def area(self) -> Box:
        return self.box or (0, 0, *self.original.size)


@st.composite
def pastes(draw: st.DrawFn) -> Paste:
    side = st.integers(1, 40)
    width, height = draw(side), draw(side)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    box = (left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = random.integers(0, 256, (height, width), dtype=np.uint8)
    mask[random.random(mask.shape) < 0.4] = 0
    mask[random.random(mask.shape) < 0.2] = 255
    return Paste(
        original=Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)),
        generated=Image.fromarray(random.integers(0, 256, (draw(side), draw(side), 3), dtype=np.uint8)),
        mask=Image.fromarray(mask),
        box=draw(st.sampled_from([box, None])),
    )


@given(pastes())
def test_pixels_outside_the_mask_and_the_box_are_unchanged(paste: Paste) -> None:
    before = paste.original.tobytes()
    result = np.asarray(paste_back(paste.original, paste.generated, paste.mask, paste.box))
    left, top, right, bottom = paste.area
    touched = np.zeros(result.shape[:2], dtype=bool)
    touched[top:bottom, left:right] = np.asarray(paste.mask)[top:bottom, left:right] > 0
    assert np.array_equal(result[~touched], np.asarray(paste.original)[~touched])
    assert paste.original.tobytes() == before


@given(pastes())
def test_the_mask_blends_linearly_up_to_the_generated_picture(paste: Paste) -> None:
    left, top, right, bottom = paste.area
    here = np.s_[top:bottom, left:right]
    result = np.asarray(paste_back(paste.original, paste.generated, paste.mask, paste.box))[here]
    old = np.asarray(paste.original)[here].astype(float)
    new = np.asarray(resize(paste.generated, right - left, bottom - top, "crop")).astype(float)
    share = np.asarray(paste.mask)[here][..., None] / 255.0
    assert np.abs(result - (old + (new - old) * share)).max() <= 0.51
    full = share[..., 0] == 1
    assert np.array_equal(result[full], new[full])


def test_a_generated_picture_of_the_original_size_is_not_resampled(photo: Image.Image) -> None:
    new = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    assert paste_back(photo, new, Image.new("L", photo.size, 255), None).tobytes() == new.tobytes()


def test_a_mask_of_another_size_is_a_mistake(photo: Image.Image) -> None:
    with pytest.raises(ValueError, match="mask"):
        paste_back(photo, photo, Image.new("L", (9, 9)), None)
