"""Which samples are drawn, and that they are what the same model draws for a request."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Generate
from webui.generation.request import GenerationRequest, Sampling
from webui.pipeline.manager import PipelineManager
from webui.training.base import attached
from webui.training.config import TrainingConfig
from webui.training.validation.samples import Sampler, plan_shots, sample_size


def config(*, subject: str = "object", trigger: str = "zorb", word: str = "cat", **validation: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(
        {
            "name": "test",
            "base": "tiny",
            "subject": subject,
            "data": {"photos": "photos", "trigger": trigger, "class_word": word, "resolution": 64},
            "validation": validation,
            "schedule": {"seed": 100},
        }
    )


def test_prompts_are_filled_in_and_the_base_is_asked_without_the_trigger() -> None:
    shots = plan_shots(config(prompts=["{trigger} {class}, hat", "photo of zorb, zorbs", "{class} and a zorb."]))
    assert [(shot.prompt, shot.plainly) for shot in shots[:3]] == [
        ("zorb cat, hat", "cat, hat"),
        ("photo of zorb, zorbs", "photo of cat, zorbs"),
        ("cat and a zorb.", "cat and a."),
    ]


@pytest.mark.parametrize("subject", ["person", "object", "style"])
def test_without_prompts_there_are_usual_ones_that_all_differ(subject: str) -> None:
    shots = plan_shots(config(subject=subject))
    assert len({shot.prompt for shot in shots}) == len({shot.plainly for shot in shots}) == len(shots) >= 4
    assert all("zorb" in shot.prompt and "zorb" not in shot.plainly for shot in shots)
    assert not any("{" in shot.prompt for shot in shots)


def test_few_prompts_are_drawn_several_times_and_no_seed_twice() -> None:
    shots = plan_shots(config(prompts=["a", "b", "c"]))
    assert [shot.prompt for shot in shots] == ["a", "b", "c", "a", "b", "c"]
    assert [shot.seed for shot in shots] == list(range(100, 106))


def test_a_trigger_with_signs_in_it_is_taken_literally() -> None:
    (shot, *_) = plan_shots(config(trigger="(z+", prompts=["a (z+ cat"]))
    assert shot.plainly == "a cat"


@pytest.mark.parametrize(("resolution", "side"), [(64, 64), (88, 64), (104, 128), (512, 512), (1000, 1024)])
def test_samples_have_a_size_that_every_network_takes(resolution: int, side: int) -> None:
    settings = config()
    data = settings.data.model_copy(update={"resolution": resolution})
    assert sample_size(settings.model_copy(update={"data": data})) == (side, side)


def test_a_sample_is_the_picture_that_a_request_makes(
    manager: PipelineManager, generate: Generate, tmp_path: Path
) -> None:
    settings = config(num_inference_steps=3, guidance_scale=4.0, negative_prompt="red", prompts=["a (red:1.3) thing"])
    model = manager.load("tiny")
    network = attached(model, settings)
    try:
        sampler = Sampler(model, network, settings)
        (shot, *_) = plan_shots(settings)
        sample = sampler.picture(sampler.latent(shot, 1.0))
    finally:
        network.detach()
    sampling = Sampling(sampler="DPM++ 2M", schedule="Karras", num_inference_steps=3, guidance_scale=4.0)
    request = GenerationRequest(
        checkpoint="tiny", prompt=shot.prompt, negative_prompt="red", width=64, height=64, seed=100, sampling=sampling
    )
    (made,) = generate(request)
    with Image.open(made.path) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(sample))


def test_samples_follow_live_weights_and_weight_zero_is_the_base(manager: PipelineManager) -> None:
    settings = config(num_inference_steps=1, prompts=["zorb cat"])
    model = manager.load("tiny")
    network = attached(model, settings)
    try:
        sampler = Sampler(model, network, settings)
        (shot, *_) = plan_shots(settings)
        before = sampler.latent(shot, 1.0)
        with torch.no_grad():
            for _, parameter in network.named_parameters():
                parameter.add_(0.1)
        assert not torch.equal(sampler.latent(shot, 1.0), before)
        assert torch.equal(sampler.latent(shot, 0.0), before)
    finally:
        network.detach()
