from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.training.data.pictures import picture, saved
from webui.errors import InvalidRequest, StorageError, UnreadableImage
from webui.training.config import TrainingConfig
from webui.training.data.edits import Edit, write_edits
from webui.training.data.faces import SeenFace
from webui.training.data.holes import random_hole
from webui.training.data.photos import Photo
from webui.training.data.prepared import Placed, prepare
from webui.training.data.sources import find_photos
from webui.training.data.training_set import gather


def only(folder: Path) -> Photo:
    (photo,) = find_photos(folder, unpack_to=folder).photos
    return photo


def config(folder: Path, **data: object) -> TrainingConfig:
    values = {"photos": folder, "trigger": "ohwx", "resolution": 128, "bucket_step": 16, **data}
    return TrainingConfig.model_validate({"name": "x", "data": values})


def test_a_photo_of_its_buckets_size_stays_as_it_is(tmp_path: Path) -> None:
    image = picture(1, (128, 96))
    saved(tmp_path, "a.png", image)
    prepared = prepare(Placed(photo=only(tmp_path), size=(128, 96), area=(0, 0, 128, 96)), masks=True)
    assert np.array_equal(prepared.pixels, np.asarray(image))
    assert prepared.mask is None


def test_a_part_is_cut_out_to_the_pixel(tmp_path: Path) -> None:
    image = picture(1, (200, 150))
    saved(tmp_path, "a.png", image)
    prepared = prepare(Placed(photo=only(tmp_path), size=(64, 32), area=(30, 40, 94, 72)), masks=False)
    assert np.array_equal(prepared.pixels, np.asarray(image)[40:72, 30:94])


def test_scaling_keeps_the_brightness(tmp_path: Path) -> None:
    saved(tmp_path, "a.png", picture(3, (640, 480)))
    photo = only(tmp_path)
    prepared = prepare(Placed(photo=photo, size=(64, 48), area=(0, 0, 640, 480)), masks=False)
    assert prepared.pixels.shape == (48, 64, 3)
    assert np.abs(prepared.pixels.mean() - np.asarray(picture(3, (640, 480))).mean()) < 1.0


def test_transparency_becomes_white_and_a_mask(tmp_path: Path) -> None:
    image = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 32, 64))
    saved(tmp_path, "a.png", image)
    prepared = prepare(Placed(photo=only(tmp_path), size=(64, 64), area=(0, 0, 64, 64)), masks=True)
    assert prepared.mask is not None
    assert prepared.mask[:, :32].min() == 1.0 and prepared.mask[:, 32:].max() == 0.0
    assert tuple(prepared.pixels[0, 63]) == (255, 255, 255)


def test_a_mask_file_counts_before_transparency_and_follows_the_crop(tmp_path: Path) -> None:
    saved(tmp_path, "a.png", picture(1, (128, 64)))
    mask = Image.new("L", (64, 32))
    mask.paste(255, (32, 0, 64, 32))
    saved(tmp_path, "a-masklabel.png", mask)
    prepared = prepare(Placed(photo=only(tmp_path), size=(64, 64), area=(32, 0, 96, 64)), masks=True)
    assert prepared.mask is not None
    assert prepared.mask[:, :30].max() == 0.0 and prepared.mask[:, 34:].min() == 1.0


def test_a_mask_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    saved(tmp_path, "a.png", picture(1, (128, 64)))
    saved(tmp_path, "a-masklabel.png", Image.new("L", (64, 64)))
    with pytest.raises(InvalidRequest, match=r"a-masklabel\.png.*64 x 64.*a\.png.*128 x 64"):
        prepare(Placed(photo=only(tmp_path), size=(64, 64), area=(0, 0, 64, 64)), masks=True)


def test_a_photo_that_went_away_or_changed_is_told_about(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", picture(1, (128, 64)))
    placed = Placed(photo=only(tmp_path), size=(64, 64), area=(0, 0, 64, 64))
    saved(tmp_path, "a.png", picture(1, (100, 64)))
    with pytest.raises(InvalidRequest, match="was 128 x 64 pixels"):
        prepare(placed, masks=False)
    path.write_bytes(b"hello")
    with pytest.raises(UnreadableImage, match=r"a\.png"):
        prepare(placed, masks=False)
    path.unlink()
    with pytest.raises(StorageError, match="drive is there"):
        prepare(placed, masks=False)


def test_the_crops_place_is_told_in_pixels_of_the_scaled_photo(tmp_path: Path) -> None:
    saved(tmp_path, "a.png", picture(1, (400, 200)))
    placed = Placed(photo=only(tmp_path), size=(100, 100), area=(150.0, 0.0, 350.0, 200.0))
    assert placed.crop_top_left == (0, 75)


def test_a_set_is_split_and_every_photo_has_its_place(tmp_path: Path) -> None:
    for i in range(10):
        saved(tmp_path / "own", f"{i}.png", picture(i, ((200, 200), (240, 160))[i % 2]))
    for i in range(10, 13):
        saved(tmp_path / "class", f"{i}.png", picture(i))
    found = gather(config(tmp_path / "own", prior_photos=tmp_path / "class"), unpack_to=tmp_path / "zip")
    assert (len(found.train), len(found.held_out), len(found.prior)) == (9, 1, 3)
    assert all(placed.photo.is_prior for placed in found.prior)
    assert len(found.plan.sizes) == 13
    assert {placed.size for placed in found.train} == {(128, 128), (144, 96)} or len(found.plan.counts()) >= 2
    for placed, size in zip((*found.train, *found.held_out, *found.prior), found.plan.sizes, strict=True):
        assert placed.size == size
        assert prepare(placed, masks=False).pixels.shape == (size[1], size[0], 3)
    assert len(found.contents()) == 13


def test_what_a_run_is_resumed_with_tells_changed_captions_crops_and_masks(tmp_path: Path) -> None:
    for i in range(3):
        saved(tmp_path, f"{i}.png", picture(i), "a hat")
    saved(tmp_path, "2-masklabel.png", Image.new("L", (256, 192)))

    def contents() -> dict[str, str]:
        return gather(config(tmp_path), unpack_to=tmp_path / "zip").contents()

    before = contents()
    assert contents() == before
    (tmp_path / "0.txt").write_text("a cap")
    write_edits(tmp_path, {"1.png": Edit(crop=(0, 0, 100, 100))})
    saved(tmp_path, "2-masklabel.png", Image.new("L", (256, 192), 255))
    after = contents()
    assert all(after[name] != before[name] for name in before)


class OneFace:
    same_person = 0.5

    def read(self, pixels: np.ndarray) -> list[SeenFace]:
        return [SeenFace(box=(10.0, 300.0, 60.0, 360.0), embedding=None)]


def test_crops_follow_the_face_unless_someone_has_cut_the_photo(tmp_path: Path) -> None:
    saved(tmp_path, "a.png", picture(1, (128, 400)))
    saved(tmp_path, "b.png", picture(2, (128, 400)))
    write_edits(tmp_path, {"b.png": Edit(crop=(0, 0, 128, 390))})
    told = config(tmp_path, buckets=False, holdout=0)
    by_name = {p.photo.name: p.area for p in gather(told, unpack_to=tmp_path / "zip", faces=OneFace()).train}
    assert by_name["a.png"][1] <= 300 and by_name["a.png"][3] >= 360
    assert by_name["b.png"] == (0, 131, 128, 259)
    without = gather(told, unpack_to=tmp_path / "zip").train
    assert without[0].area == (0, 136, 128, 264)


def test_class_pictures_alone_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "set", "reg/1_man/a.png", picture(1))
    with pytest.raises(InvalidRequest, match="pictures of the class"):
        gather(config(tmp_path / "set"), unpack_to=tmp_path / "zip")


@given(width=st.integers(8, 200), height=st.integers(8, 200), seed=st.integers(0, 2**64 - 1))
def test_a_hole_is_the_same_each_time_and_never_empty(width: int, height: int, seed: int) -> None:
    hole = random_hole(width, height, seed=seed)
    assert hole.shape == (height, width) and set(np.unique(hole)) <= {0, 255}
    assert hole.any()
    assert np.array_equal(hole, random_hole(width, height, seed=seed))


def test_holes_are_of_all_sizes_and_some_are_everything() -> None:
    shares = np.array([(random_hole(64, 64, seed=seed) > 0).mean() for seed in range(300)])
    assert 0.08 < (shares == 1.0).mean() < 0.25
    assert shares.min() < 0.1 and 0.2 < np.median(shares) < 0.7
