"""What networks are told beside the latent, and how several predictions become one."""

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline
from diffusers.schedulers.scheduling_euler_discrete import rescale_zero_terminal_snr
from torch import Tensor

from tests.conftest import CPU
from tests.pipeline.test_samplers import LEVELS
from webui.pipeline.conditioning import (
    Condition,
    Guidance,
    UNetInputs,
    build_guidance,
    guidance_embedding,
    stack,
    time_ids,
)
from webui.pipeline.denoiser import Denoiser
from webui.pipeline.schedules import LAST_ALPHA_CUMPROD
from webui.pipeline.text_encoding import EncodedPrompt

PROMPT = EncodedPrompt(context=torch.full((1, 77, 4), 3.0), pooled=torch.full((1, 6), 3.0))
NEGATIVE = EncodedPrompt(context=torch.full((1, 154, 4), 1.0), pooled=torch.full((1, 6), 1.0))
SDXL = {"in_channels": 4, "addition_embed_type": "text_time", "addition_time_embed_dim": 8}


def inputs_of(**config: object) -> UNetInputs:
    return UNetInputs.of({"in_channels": 4} | config, latent_channels=4, pooled_width=6)


def guidance_of(inputs: UNetInputs, *, scale: float = 7.0, image_scale: float | None = None) -> Guidance:
    channels = torch.ones(1, 4, 8, 8) if inputs.picture_channels else None
    return build_guidance(
        inputs, PROMPT, NEGATIVE, size=(64, 96), scale=scale, image_scale=image_scale, channels=channels
    )


def test_a_network_says_by_its_config_what_it_takes() -> None:
    assert inputs_of() == UNetInputs(picture_channels="", num_time_ids=0, guidance_dim=0)
    assert inputs_of(in_channels=9).picture_channels == "inpaint"
    assert inputs_of(in_channels=8).picture_channels == "edit"
    assert inputs_of(**SDXL, projection_class_embeddings_input_dim=6 + 6 * 8).num_time_ids == 6
    assert inputs_of(**SDXL, projection_class_embeddings_input_dim=6 + 5 * 8).num_time_ids == 5
    assert inputs_of(time_cond_proj_dim=32).guidance_dim == 32
    with pytest.raises(ValueError, match="13 channels"):
        inputs_of(in_channels=13)


def test_sizes_are_told_height_first() -> None:
    assert time_ids(6, (1024, 768), 6.0).tolist() == [[768, 1024, 0, 0, 768, 1024]]
    assert time_ids(5, (1024, 768), 2.5).tolist() == [[768, 1024, 0, 0, 2.5]]


def test_the_refiner_is_told_a_good_and_a_bad_score() -> None:
    uncond, cond = guidance_of(inputs_of(**SDXL, projection_class_embeddings_input_dim=6 + 5 * 8)).conditions
    assert cond.time_ids is not None
    assert uncond.time_ids is not None
    assert (cond.time_ids[0, -1].item(), uncond.time_ids[0, -1].item()) == (6.0, 2.5)


@pytest.mark.parametrize("scale", [1.0, 2.5, 8.5])
def test_the_guidance_embedding_is_that_of_the_published_models(scale: float) -> None:
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding(
        None, torch.tensor([scale - 1.0]), embedding_dim=256
    )
    assert torch.allclose(guidance_embedding(scale, 256), theirs, atol=1e-5)


def test_a_distilled_network_is_asked_once() -> None:
    guidance = guidance_of(inputs_of(time_cond_proj_dim=32))
    assert len(guidance.conditions) == 1
    assert guidance.conditions[0].timestep_cond is not None


class Network:
    """Answers 1 for the negative prompt, 3 for the prompt, and 10 more where it sees a picture."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, x: Tensor, timestep: float, condition: Condition) -> Tensor:
        self.asked.append(len(x))
        answer = condition.context.mean(dim=(1, 2))
        if condition.channels is not None:
            answer = answer + 10 * condition.channels.mean(dim=(1, 2, 3))
        return answer[:, None, None, None].expand_as(x)


@pytest.mark.parametrize(
    ("scale", "image_scale", "calls"), [(7.0, 1.5, 6), (7.0, 1.0, 4), (1.0, 1.0, 2), (1.0, 1.5, 6), (0.0, 0.0, 6)]
)
def test_an_edited_picture_is_guided_by_picture_and_prompt(scale: float, image_scale: float, calls: int) -> None:
    network = Network()
    guidance = guidance_of(inputs_of(in_channels=8), scale=scale, image_scale=image_scale)
    denoise = Denoiser(network, CPU, LEVELS, "sample", guidance)
    nothing, picture, both = 1.0, 11.0, 13.0
    expected = nothing + image_scale * (picture - nothing) + scale * (both - picture)
    assert torch.allclose(denoise(torch.zeros(2, 4, 8, 8), 1.0), torch.tensor(expected))
    assert sum(network.asked) == calls


def test_without_a_picture_an_editing_network_is_guided_by_the_prompt_alone() -> None:
    assert len(guidance_of(inputs_of(in_channels=8)).conditions) == 2


def test_rows_of_stacked_conditions_keep_their_order() -> None:
    first, second = (
        Condition(context=torch.full((1, 77, 2), float(n)), pooled=torch.full((1, 3), float(n))) for n in (1, 2)
    )
    both = stack([first.rows(2), second.rows(2)])
    assert both.context[:, 0, 0].tolist() == [1, 1, 2, 2]
    assert both.part(1, 3).pooled is not None
    assert both.part(1, 3).context[:, 0, 0].tolist() == [1, 2]


def test_zero_terminal_snr_follows_the_paper() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas), dim=0).numpy()
    ours = 1 / (1 + LEVELS.with_zero_terminal_snr().sigmas ** 2)
    assert np.allclose(ours[:-1], theirs[:-1], rtol=1e-9)
    assert ours[-1] == pytest.approx(LAST_ALPHA_CUMPROD)
    assert LEVELS.with_zero_terminal_snr().sigma_min == pytest.approx(LEVELS.sigma_min)
