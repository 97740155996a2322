"""Recipes beside each other: what differs between them is what is said, and what they are measured with is fair."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.starter_helpers import tiny_denoiser
from tests.training.test_starter_training import ALONE, TINY
from webui.training.starter.comparing import (
    CANDIDATES,
    SIZE_PX,
    Candidate,
    Task,
    compared_concepts,
    held_out_errors,
    plan_of,
    run_candidate,
)
from webui.training.starter.concepts import CONCEPT_BY_NAME
from webui.training.starter.diffusion import (
    PREDICTION_TYPES,
    Denoiser,
    PredictionType,
    Recipe,
    alphas_cumprod,
    noise_and_target,
)
from webui.training.starter.evaluate import Exported
from webui.training.starter.judge import CONCEPT_NAMES, Judge, judge_pictures
from webui.training.starter.latents import LatentSet
from webui.training.starter.networks import LATENT_FACTOR, build_vae
from webui.training.starter.prompts import compared_prompts, object_prompts, pair_prompts
from webui.training.starter.tokenizer import load_tokenizer

SIDE = SIZE_PX // LATENT_FACTOR
NUM_LATENTS = 8


@pytest.fixture
def task(starter_dir: Path) -> Task:
    """Noise instead of pictures, a small autoencoder and a judge that knows nothing."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = load_tokenizer(starter_dir / "tokenizer")

    def latents() -> LatentSet:
        values = rng.standard_normal((NUM_LATENTS, 4, SIDE, SIDE)).astype(np.float16)
        return LatentSet(values, rng.integers(0, 50, (NUM_LATENTS, 4, 77)).astype(np.int16))

    return Task(
        pool=latents(),
        held_out=latents(),
        starter=Exported(
            denoiser=tiny_denoiser(TINY, tokenizer),
            vae=build_vae(TINY),
            tokenizer=tokenizer,
            prediction_type="v_prediction",
        ),
        judge=Judge((16, 32, 32)),
        concepts=compared_concepts()[:2],
    )


class Knowing(Denoiser):
    """Says what is right of `task`'s held-out pictures; `miss` is added to what it says of the clean latent."""

    def __init__(self, task: Task, prediction_type: PredictionType, miss: float = 0.0) -> None:
        super().__init__(*tiny_denoiser(TINY, task.starter.tokenizer).children())
        self.clean = torch.from_numpy(task.held_out.latents).float()
        self.prediction_type, self.miss = prediction_type, miss

    def forward(self, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        signal = alphas_cumprod()[timesteps]
        alpha, sigma = (share.sqrt()[:, None, None, None] for share in (signal, 1 - signal))
        clean = self.clean + self.miss
        return noise_and_target(clean, (noisy - alpha * clean) / sigma, signal, self.prediction_type)[1]


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("miss", [0.0, 0.25])
def test_the_error_is_that_of_the_clean_latent_whatever_is_predicted(
    task: Task, prediction_type: PredictionType, miss: float
) -> None:
    recipe = Recipe(batch_size=4, prediction_type=prediction_type)
    errors = held_out_errors(Knowing(task, prediction_type, miss), task, recipe, torch.device("cpu"))
    for timestep, error in errors.items():
        assert error == pytest.approx(miss, abs=2e-3), timestep


def test_every_candidate_learns_from_as_many_pictures() -> None:
    for candidate in CANDIDATES.values():
        plan = plan_of(candidate, 9600)
        assert plan.num_steps * candidate.recipe.batch_size == 9600
        assert plan.learning_rate == candidate.learning_rate
        assert 0 < plan.warmup_steps < plan.num_steps - plan.cooldown_steps


def test_candidates_differ_from_the_first() -> None:
    first, *others = CANDIDATES.values()
    assert first == Candidate()
    assert first not in others
    assert len({repr(candidate) for candidate in others}) == len(others)


def test_what_is_compared_with_is_no_measured_prompt() -> None:
    concepts = compared_concepts()
    prompts = compared_prompts(concepts)
    assert len(set(concepts)) == len(concepts)
    assert not any(CONCEPT_BY_NAME[name].is_person for name in concepts)
    for prompt in prompts:
        assert prompt.concepts[0] in prompt.text
        assert f"{prompt.colour} background" in prompt.text
    measured = (*object_prompts(), *pair_prompts())
    assert not {prompt.text for prompt in prompts} & {prompt.text for prompt in measured}
    assert not {prompt.seed for prompt in prompts} & {prompt.seed for prompt in measured}


def test_a_judge_asked_among_few_names_one_of_them() -> None:
    torch.manual_seed(0)
    judge, names = Judge((16, 32, 32)), CONCEPT_NAMES[5:8]
    with torch.no_grad():
        judge.concept_out.bias[[0, 6]] += torch.tensor([90.0, 50.0])
    pictures = np.zeros((2, 64, 64, 3), np.uint8)
    assert {seen.concept for seen in judge_pictures(judge, pictures)} == {CONCEPT_NAMES[0]}
    assert {seen.concept for seen in judge_pictures(judge, pictures, among=names)} == {CONCEPT_NAMES[6]}


def test_a_candidate_is_trained_measured_and_written_down(task: Task, tmp_path: Path) -> None:
    figures = {}
    for name in ("as it ships", "epsilon", "min-snr", "adamw"):
        candidate = replace(CANDIDATES[name], recipe=replace(CANDIDATES[name].recipe, batch_size=4))
        torch.manual_seed(candidate.seed)
        figures[name] = run_candidate(
            tiny_denoiser(TINY, task.starter.tokenizer),
            candidate,
            task,
            num_samples=8,
            ranks=ALONE,
            folder=tmp_path,
            name=name,
        )
        told = json.loads((tmp_path / f"{name}.json").read_text())
        assert told["object"] == figures[name]["object"]
        assert told["samples"] == 8
        assert (tmp_path / f"{name}.png").exists()
    states = {name: torch.load(tmp_path / f"{name}.pt", weights_only=True)["model"] for name in figures}
    layer = "unet.mid_block.resnets.0.conv1.weight"
    for name in ("epsilon", "min-snr", "adamw"):
        assert not torch.equal(states["as it ships"][layer], states[name][layer]), name
    errors = figures["as it ships"]["error of the clean latent"]
    assert min(errors.values()) > 0
