from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.data.pictures import picture, saved
from webui.pipeline.conditioning import PictureChannels, UNetInputs
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.training.caching import TensorCache
from webui.training.config import TrainingConfig
from webui.training.data.training_set import TrainingSet, gather
from webui.training.encoded import NUM_HOLES, EncodedPhotos, encoded_set
from webui.training.feed import Feed
from webui.training.ranks import Ranks


@pytest.fixture(scope="module")
def model(manager: PipelineManager) -> Model:
    return manager.load("tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos in two shapes, the first with a mask over its left half; two class pictures."""
    for i in range(6):
        saved(tmp_path / "own", f"{i}.png", picture(i, ((64, 64), (96, 48))[i % 2]), f"a hat, tag {i}, red, big")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    saved(tmp_path / "own", "0-masklabel.png", mask)
    for i in range(2):
        saved(tmp_path / "class", f"{i}.png", picture(20 + i, (64, 64)), "ohwx, a hat")
    return tmp_path


def config(folder: Path, **data: object) -> TrainingConfig:
    values = {
        "photos": folder / "own", "trigger": "ohwx", "class_word": "hat", "resolution": 64, "bucket_step": 16,
        "holdout": 1, "caption_dropout": 0.0, **data,
    }  # fmt: skip
    schedule = {"num_steps": 4, "batch_size": 2}
    return TrainingConfig.model_validate({"name": "x", "subject": "object", "data": values, "schedule": schedule})


def found(told: TrainingConfig, folder: Path) -> TrainingSet:
    return gather(told, unpack_to=folder / "zip")


def encoded(told: TrainingConfig, folder: Path, model: Model) -> tuple[EncodedPhotos, EncodedPhotos]:
    return encoded_set(found(told, folder), told, model, TensorCache("memory", folder / "cache"))


def photos_for(
    told: TrainingConfig, folder: Path, model: Model, channels: PictureChannels, num_ids: int = 0
) -> EncodedPhotos:
    photos, inputs = found(told, folder), UNetInputs(picture_channels=channels, num_time_ids=num_ids, guidance_dim=0)
    cache = TensorCache("memory", folder / "cache")
    return EncodedPhotos((*photos.train, *photos.held_out), told, model.codec, cache, inputs)


def by_name(photos: EncodedPhotos, name: str) -> int:
    return next(i for i in range(len(photos)) if photos.name(i) == name)


def test_latents_are_those_of_the_codec_and_mirrored_ones_those_of_the_mirrored_photo(
    folder: Path, model: Model
) -> None:
    trained, _ = encoded(config(folder), folder, model)
    for item in range(len(trained)):
        image = trained.image(item)
        with torch.no_grad():
            expected = model.codec.encode(image)[0]
            mirrored = model.codec.encode(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[0]
        assert torch.equal(trained.latent(item, flipped=False), expected)
        assert torch.equal(trained.latent(item, flipped=True), mirrored)
        assert not torch.equal(expected, mirrored)


def test_a_batch_of_the_loop_is_made_of_them(folder: Path, model: Model) -> None:
    told = config(folder, prior_photos=folder / "class", masks=True, flip=True)
    trained, _ = encoded(told, folder, model)
    feed = Feed(trained, told, Ranks(index=0, num=1), num_timesteps=1000)
    for step in range(8):
        for batch in feed.batches(step):
            assert batch.latents.shape[0] == 2
            assert batch.masks is None or batch.masks.shape[-2:] == batch.latents.shape[-2:]


def test_class_pictures_come_as_often_as_the_subjects_and_under_the_class(folder: Path, model: Model) -> None:
    told = config(folder, prior_photos=folder / "class", repeats=3, prior_weight=0.5)
    trained, held_out = encoded(told, folder, model)
    groups = trained.groups()
    prior = [g for g in groups if any(trained.weight(item) == 0.5 for item in g.items)]
    own = [g for g in groups if g not in prior]
    assert sum(g.weight for g in own) == pytest.approx(15) == pytest.approx(sum(g.weight for g in prior))
    assert sorted(item for g in own for item in g.items) == sorted([*range(5)] * 3)
    assert all(len({trained.placed(item).size for item in g.items}) == 1 for g in groups)
    assert {trained.plain_caption(item) for g in prior for item in g.items} == {"a hat"}
    assert len(held_out) == 1 and len(trained.measured()) == 5


def test_captions_have_the_trigger_and_lose_tags_by_sample_only(folder: Path, model: Model) -> None:
    trained, _ = encoded(config(folder, tag_dropout=0.5, prior_prediction=True), folder, model)
    item = by_name(trained, "2.png") if any(trained.name(i) == "2.png" for i in range(5)) else 0
    number = trained.name(item)[0]
    assert trained.plain_caption(item) == f"a ohwx hat, tag {number}, red, big"
    assert trained.prior_caption(item) == f"a hat, tag {number}, red, big"
    assert len({trained.caption(item, sample=sample) for sample in range(40)}) == 8
    assert trained.caption(item, sample=7) == trained.caption(item, sample=7)


def test_a_mask_says_how_much_each_latent_counts(folder: Path, model: Model) -> None:
    photos = photos_for(config(folder, masks=True, unmasked_weight=0.2), folder, model, "")
    masked = by_name(photos, "0.png")
    mask, flipped = photos.mask(masked, flipped=False), photos.mask(masked, flipped=True)
    assert mask is not None and flipped is not None
    assert mask.shape == (1, 8, 8)
    assert torch.allclose(mask[0, :, :4], torch.ones(8, 4)) and torch.allclose(mask[0, :, 4:], torch.full((8, 4), 0.2))
    assert torch.equal(flipped, mask.flip(-1))
    assert photos.mask(by_name(photos, "1.png"), flipped=False) is None
    assert photos_for(config(folder), folder, model, "").mask(masked, flipped=False) is None


def test_sizes_and_crops_are_told_as_sdxl_was_trained(folder: Path, model: Model) -> None:
    saved(folder / "own", "large.png", picture(9, (300, 200)))
    photos = photos_for(config(folder, buckets=False), folder, model, "", num_ids=6)
    ids = photos.time_ids(by_name(photos, "large.png"))
    assert ids is not None and ids.tolist() == [200, 300, 0, 16, 64, 64]
    assert photos_for(config(folder), folder, model, "").time_ids(0) is None


def test_networks_that_repaint_see_random_holes_and_the_photos_own_mask(folder: Path, model: Model) -> None:
    photos = photos_for(config(folder), folder, model, "inpaint")
    masked, plain = by_name(photos, "0.png"), by_name(photos, "2.png")
    holes: dict[int, set[bytes]] = {masked: set(), plain: set()}
    for item, seen in holes.items():
        for sample in range(60):
            channels = photos.channels(item, sample=sample, flipped=False)
            assert channels is not None and channels.shape == (5, 8, 8)
            assert torch.equal(channels, photos.channels(item, sample=sample, flipped=False))
            seen.add(np.asarray(channels[0]).tobytes())
    given = np.zeros((8, 8), np.float32)
    given[:, :4] = 1.0
    assert given.tobytes() in holes[masked] and given.tobytes() not in holes[plain]
    assert 2 < len(holes[plain]) <= NUM_HOLES


def test_networks_that_edit_are_shown_nothing(folder: Path, model: Model) -> None:
    photos = photos_for(config(folder), folder, model, "edit")
    channels = photos.channels(0, sample=0, flipped=False)
    assert channels is not None and channels.shape == photos.latent(0, flipped=False).shape and not channels.any()
    assert photos_for(config(folder), folder, model, "").channels(0, sample=0, flipped=False) is None


def test_everything_can_be_encoded_beforehand_and_then_no_photo_is_opened(folder: Path, model: Model) -> None:
    trained, _ = encoded(config(folder, flip=True, masks=False), folder, model)
    steps: list[tuple[int, int]] = []
    trained.encode_all(report=lambda done, total: steps.append((done, total)), check=lambda: None)
    assert steps == [(i, 5) for i in range(1, 6)]
    for path in (folder / "own").glob("*.png"):
        path.unlink()
    for item in range(5):
        assert trained.latent(item, flipped=True).shape == trained.latent(item, flipped=False).shape


def test_what_is_measured_is_the_photo_as_it_is_trained_on(folder: Path, model: Model) -> None:
    _, held_out = encoded(config(folder), folder, model)
    (photo,) = held_out.measured()
    assert photo.caption == held_out.plain_caption(0) and "ohwx" in photo.caption
    assert photo.image.size == held_out.placed(0).size
    assert torch.equal(photo.latent, held_out.latent(0, flipped=False))
