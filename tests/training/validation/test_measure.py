"""Means that are not biased by earlier ones, on photos that were not trained on; each number checked apart."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.validation_helpers import Known, denoising_for, photo, photos
from webui.errors import InvalidRequest
from webui.pipeline.manager import PipelineManager
from webui.training.config import Loss
from webui.training.stepping import Denoising
from webui.training.texts import plain
from webui.training.validation.measure import Errors, fixed_batch, levels_to_measure, measure
from webui.training.validation.photos import PhotoSets

LEVELS = levels_to_measure(8, 1000)


def measured(network: Known, numbers: Sequence[int] = (0,)) -> Errors:
    return measure(cast(Denoising, network), photos(numbers), LEVELS, seed=0)


def test_a_mean_has_nothing_of_earlier_measurements_in_it() -> None:
    """Three measurements at 1 and five at 0: a recorder that kept the first ones would say 0.667 for ever."""
    network = Known()
    means = []
    for network.error in [1.0] * 3 + [0.0] * 5:
        means.append(measured(network, range(3)).mean)
    assert means == [1.0] * 3 + [0.0] * 5


def test_photos_that_were_shuffled_apart_are_refused_where_they_overlap() -> None:
    """25 photos, split once for training and once for measuring by two shuffles, as happens without a common seed."""
    everything = photos(range(25))
    trained = random.Random(1).sample(everything, 25)[:20]
    held_out = random.Random(2).sample(everything, 25)[-5:]
    with pytest.raises(InvalidRequest, match=r"'photo \d+\.png', which is kept back.* is also trained on"):
        PhotoSets.of(trained, held_out)
    apart = [one for one in everything if one.sha256 not in {kept.sha256 for kept in held_out}]
    sets = PhotoSets.of(apart, held_out)
    assert (len(sets.trained), len(sets.held_out)) == (20, 5)


def test_the_same_picture_under_two_names_counts_as_one() -> None:
    with pytest.raises(InvalidRequest):
        PhotoSets.of([photo(1), photo(2)], [photo(2)])


def test_without_photos_kept_back_samples_are_compared_with_those_trained_on() -> None:
    sets = PhotoSets.of(photos([3, 1]), [])
    assert {one.name for one in sets.references} == {"photo 1.png", "photo 3.png"}
    assert [one.name for one in PhotoSets.of(photos([1, 2]), photos([4])).references] == ["photo 4.png"]


@given(st.permutations(range(5)))
def test_the_order_of_photos_changes_nothing(order: list[int]) -> None:
    names = [one.name for one in PhotoSets.of(photos(order), []).trained]
    assert names == [one.name for one in PhotoSets.of(photos(range(5)), []).trained]


def test_all_photos_have_the_same_levels_and_noise() -> None:
    network = Known()
    measured(network, [1, 2])
    first, second = network.batches[: len(network.batches) // 2], network.batches[len(network.batches) // 2 :]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.noise, other.noise)
        assert torch.equal(one.timesteps, other.timesteps)
        assert not torch.equal(one.latents, other.latents)
    assert len({float(noise.sum()) for batch in first for noise in batch.noise}) == len(LEVELS)


def test_noise_does_not_hang_on_the_batch_and_seeds_differ() -> None:
    whole = fixed_batch(photo(0), LEVELS, 7).noise
    parts = torch.cat([fixed_batch(photo(0), [timestep], 7).noise for timestep in LEVELS])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, fixed_batch(photo(0), LEVELS, 8).noise)


def test_measuring_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    measured(Known())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("prediction_type", ["tiny", "tiny-v"])
def test_errors_are_those_of_the_formula(manager: PipelineManager, prediction_type: str) -> None:
    """The network is asked directly, and the target written down anew."""
    model = manager.load(prediction_type)
    one = photo(5, size=(64, 128))
    got = measure(denoising_for(model, Loss()), [one], LEVELS, seed=2)
    batch = fixed_batch(one, LEVELS, 2)
    kept = torch.from_numpy(1 / (1 + model.levels.sigmas**2)).float()[batch.timesteps].reshape(-1, 1, 1, 1)
    noisy = kept.sqrt() * batch.latents + (1 - kept).sqrt() * batch.noise
    wanted = batch.noise if prediction_type == "tiny" else kept.sqrt() * batch.noise - (1 - kept).sqrt() * batch.latents
    with torch.no_grad():
        context = model.text_encoder.encode_batch([plain(one.caption)], clip_skip=0).context
        answer = model.unet(noisy, batch.timesteps, encoder_hidden_states=context.expand(8, -1, -1)).sample
    assert got.values[0] == pytest.approx((answer - wanted).square().mean(dim=(1, 2, 3)).numpy(), rel=1e-4)
    assert got.mean == pytest.approx(got.values.mean())


def test_a_mask_leaves_only_its_part_to_be_measured(manager: PipelineManager) -> None:
    model = manager.load("tiny")
    left, everywhere = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    left[:, :, :4] = 1.0
    means = {}
    for name, mask in {"left": left, "right": 1 - left, "everywhere": everywhere, "none": None}.items():
        masked = replace(photo(1), mask=mask)
        means[name] = measure(denoising_for(model), [masked], LEVELS, seed=0).mean
    assert means["everywhere"] == pytest.approx(means["none"], rel=1e-5)
    assert (means["left"] + means["right"]) / 2 == pytest.approx(means["none"], rel=1e-5)
    assert means["left"] != means["right"]


@given(st.integers(1, 64), st.sampled_from([1000, 500, 64]))
def test_levels_lie_in_the_middles_of_equal_ranges(num: int, timesteps: int) -> None:
    levels = levels_to_measure(num, timesteps)
    assert len(set(levels)) == len(levels) == num
    for i, level in enumerate(levels):
        assert int(i * timesteps / num) <= level < (i + 1) * timesteps / num


def test_bands_are_means_of_ranges_of_levels() -> None:
    values = np.array([[1.0, 2.0, 4.0, 8.0], [3.0, 4.0, 6.0, 10.0]])
    errors = Errors(sha256s=("a", "b"), timesteps=(125, 375, 625, 875), values=values)
    assert errors.bands(1000) == {"0-332": 2.0, "333-666": 4.0, "667-999": 9.0}
    assert Errors(sha256s=("a",), timesteps=(500,), values=np.array([[5.0]])).bands(1000) == {"333-666": 5.0}


def test_two_measurements_are_compared_photo_by_photo() -> None:
    """Photos differ much more from each other than either does from one measurement to the next."""
    base = Errors(sha256s=("a", "b", "c"), timesteps=(1, 2), values=np.array([[1.0, 1.0], [5.0, 5.0], [9.0, 9.0]]))
    better = Errors(sha256s=base.sha256s, timesteps=base.timesteps, values=base.values - [[0.1], [0.2], [0.3]])
    mean, spread = better.less(base)
    assert mean == pytest.approx(0.2)
    assert spread == pytest.approx(0.1 / np.sqrt(3))
    with pytest.raises(ValueError, match="different photos"):
        better.less(Errors(sha256s=("a",), timesteps=(1, 2), values=np.ones((1, 2))))


def test_errors_come_back_from_json_as_they_were() -> None:
    errors = measured(Known(0.1), [1, 2])
    again = Errors.from_json(json.loads(json.dumps(errors.as_json())))
    assert again.sha256s == errors.sha256s
    assert again.timesteps == errors.timesteps
    assert np.array_equal(again.values, errors.values)
    with pytest.raises(ValueError, match="levels"):
        Errors.from_json({**json.loads(json.dumps(errors.as_json())), "timesteps": [1]})
