"""Where a face of one picture is in another that was made of it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from extensions.face_consistency.face import Face, Pixels
from extensions.face_consistency.places import ResizeMode, place_of
from extensions.face_consistency.seen import Photo
from webui.images.geometry import resize


@pytest.mark.parametrize("mode", ["stretch", "crop", "fill"])
@pytest.mark.parametrize("size", [(512, 512), (300, 640), (640, 300)])
def test_a_mark_is_found_where_the_program_puts_it(
    mode: ResizeMode, size: tuple[int, int], astronaut_face: Face
) -> None:
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[190:230, 270:320] = 255
    face = replace(astronaut_face, box=(270.0, 190.0, 320.0, 230.0))
    made = np.asarray(resize(Image.fromarray(pixels), *size, mode), np.uint8)
    place = place_of(Photo(pixels=pixels, face=face, embedding=np.zeros(1, np.float32)), made, mode)
    y, x = (float(places.mean()) + 0.5 for places in np.nonzero(made[..., 0] > 127))
    assert (place.x, place.y) == pytest.approx((x, y), abs=2)
    width = np.ptp(np.nonzero(made[..., 0] > 127)[1]) + 1
    assert place.width_px == pytest.approx(width, abs=2)


def test_small_faces_may_move_further_than_large_ones(astronaut: Pixels, astronaut_face: Face) -> None:
    def at(x: float, width: float) -> Face:
        return replace(astronaut_face, box=(x - width / 2, 200 - width / 2, x + width / 2, 200 + width / 2))

    def is_far(moved: float, width: float) -> bool:
        photo = Photo(pixels=astronaut, face=at(150, width), embedding=np.zeros(1, np.float32))
        return place_of(photo, astronaut, "stretch").is_far(at(150 + moved, width), astronaut)

    assert not is_far(70, 100)
    assert is_far(140, 100)
    assert not is_far(70, 40), "a whole figure"
    assert is_far(140, 40)


def test_a_large_blob_is_not_near_because_it_is_large(astronaut: Pixels, astronaut_face: Face) -> None:
    photo = Photo(pixels=astronaut, face=replace(astronaut_face, box=(180, 60, 270, 160)), embedding=np.zeros(1))
    place = place_of(photo, astronaut, "stretch")
    assert place.is_far(replace(astronaut_face, box=(100, 200, 350, 430)), astronaut)
    assert not place.is_far(replace(astronaut_face, box=(150, 80, 300, 240)), astronaut)
