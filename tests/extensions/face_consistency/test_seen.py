"""A photo is looked at once, however often it is used; the oldest are forgotten first."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extensions.face_consistency.analysis import Models
from extensions.face_consistency.face import Pixels
from extensions.face_consistency.params import FaceParams
from extensions.face_consistency.process import improve_faces
from extensions.face_consistency.seen import SeenPictures
from extensions.face_consistency.sources import Given
from tests.extensions.face_consistency import story


def picture(level: int, side: int = 10) -> Pixels:
    return np.full((side, side, 3), level, np.uint8)


def looked(seen: SeenPictures, pixels: Pixels) -> bool:
    """Whether it had to look."""
    calls: list[int] = []

    def look() -> tuple[()]:
        calls.append(1)
        return ()

    assert seen.of(pixels, look) == ()
    return bool(calls)


def test_what_was_seen_is_known_by_its_pixels_alone() -> None:
    seen = SeenPictures()
    assert looked(seen, picture(1))
    assert not looked(seen, picture(1).copy())
    assert looked(seen, picture(2))
    assert looked(seen, np.ascontiguousarray(picture(1).reshape(20, 5, 3))), "the same bytes in another shape"


def test_the_oldest_are_forgotten_by_number_and_by_size() -> None:
    few = SeenPictures(max_pictures=2)
    assert [looked(few, picture(level)) for level in (1, 2, 1, 3)] == [True, True, False, True]
    assert [looked(few, picture(level)) for level in (1, 2)] == [False, True]
    small = SeenPictures(max_bytes=700)
    assert [looked(small, picture(level)) for level in (1, 2, 3, 2, 1)] == [True, True, True, False, True]
    huge = picture(9, side=100)
    assert [looked(small, huge), looked(small, huge), len(small)] == [True, False, 1]


def test_the_pictures_of_a_job_look_at_its_photo_once_and_end_the_same(
    astronaut: Pixels, networks: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []
    detect = networks.detect

    def counted(pixels: Pixels, *, min_score: float) -> np.ndarray:
        searched.append(1)
        return detect(pixels, min_score=min_score)

    monkeypatch.setattr(networks, "detect", counted)
    engine = story.engine_in(tmp_path, networks)
    target, given = story.picture(story.liquified(astronaut)), Given(init=story.picture(astronaut))
    counts, made = [], []
    for _ in range(2):
        searched.clear()
        made.append(improve_faces(target, FaceParams(), given=given, engine=engine).image)
        counts.append(len(searched))
    assert counts == [2, 1]
    assert made[0] == made[1] != target
    engine.close()
    assert len(engine.seen) == 0


def test_nobody_is_remembered_after_the_extension_is_closed(
    astronaut: Pixels, networks: Models, tmp_path: Path
) -> None:
    engine = story.engine_in(tmp_path, networks)
    improve_faces(
        Image.new("RGB", (64, 64)), FaceParams(), given=Given(photos=(story.picture(astronaut),)), engine=engine
    )
    assert len(engine.seen) == 1
    engine.close()
    assert len(engine.seen) == 0
