"""The few-step adapter: the ways that it learns from, what it learns of them, and its file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from tests.training.networks.parts import SmallModel, largest_difference, randomise
from tests.training.starter_helpers import tiny_denoiser
from tests.training.test_starter_training import ALONE, PLAN, TINY, Interrupted
from webui.library.catalog import Library
from webui.pipeline.adapters.reading import read_adapter
from webui.pipeline.sources import open_checkpoint
from webui.training.networks.adapter import AdapterNetwork
from webui.training.starter.concepts import CONCEPTS
from webui.training.starter.diffusion import alphas_cumprod, noise_and_target, scheduler
from webui.training.starter.distilling import (
    BASE,
    NETWORK,
    choose_points,
    clean_latent,
    distill,
    pseudo_huber,
    write_few_steps,
)
from webui.training.starter.evaluate import Exported
from webui.training.starter.lessons import (
    ANYTHING_EVERY,
    LESSONS_PER_SHARD,
    NUM_STEPS,
    Lessons,
    draw_lessons,
    guided_way,
    lesson_captions,
    lesson_shards,
    load_lessons,
    noise_levels,
)
from webui.training.starter.networks import build_vae
from webui.training.starter.prompts import object_prompts, pair_prompts
from webui.training.starter.tokenizer import load_tokenizer

FAST = replace(PLAN, learning_rate=4e-2)
MAX_BYTES = 1_500_000


def _tiny(folder: Path) -> Exported:
    """Random networks with the starter's vocabulary."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(folder / "tokenizer")
    return Exported(
        denoiser=tiny_denoiser(TINY, tokenizer).eval(),
        vae=build_vae(TINY),
        tokenizer=tokenizer,
        prediction_type="v_prediction",
    )


@pytest.fixture(scope="module")
def lessons(starter_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    folder = tmp_path_factory.mktemp("lessons")
    (path,) = lesson_shards(folder, 1)
    draw_lessons(path, _tiny(starter_dir), 0, seed=1)
    return load_lessons([path])


def test_lessons_have_all_concepts_and_no_prompt_that_is_measured_with() -> None:
    captions = lesson_captions(0, len(CONCEPTS) * ANYTHING_EVERY // (ANYTHING_EVERY - 1) + 1, seed=1)
    missing = [
        concept.name for concept in CONCEPTS if not any(word in text for word in concept.words for text in captions)
    ]
    assert not missing
    assert not {prompt.text for prompt in (*object_prompts(), *pair_prompts())} & set(captions)
    assert lesson_captions(40, 9, seed=1) == captions[40:49]


def test_a_way_is_that_of_diffusers_solver_with_guidance(starter_dir: Path) -> None:
    tiny, scale = _tiny(starter_dir), 3.0
    timesteps = list(range(999, 0, -111))
    levels = noise_levels()
    sigmas = (*(levels.sigma_at(timestep) for timestep in timesteps), 0.0)
    noise = torch.randn(2, 4, 8, 8)
    token_ids, negative_ids = torch.tensor([[5] * 77, [9] * 77]), torch.tensor([[3] * 77])
    points, end = guided_way(
        tiny.denoiser,
        noise * (1 + sigmas[0] ** 2) ** 0.5,
        sigmas,
        token_ids,
        negative_ids,
        prediction_type="v_prediction",
        guidance_scale=scale,
    )
    solver = DPMSolverMultistepScheduler.from_config(
        scheduler("v_prediction").config, final_sigmas_type="zero", solver_order=2
    )
    solver.set_timesteps(timesteps=timesteps)
    latents = noise
    with torch.no_grad():
        contexts = tiny.denoiser.encode_text(negative_ids), tiny.denoiser.encode_text(token_ids)
        for step, timestep in enumerate(solver.timesteps):
            assert torch.allclose(points[step], latents, atol=1e-3)
            without, prompted = (
                tiny.denoiser(latents, timestep, context.expand(2, -1, -1).contiguous()) for context in contexts
            )
            latents = solver.step(without + scale * (prompted - without), timestep, latents).prev_sample
    assert torch.allclose(end, latents, atol=1e-3)


def test_half_the_ways_begin_at_noise_and_the_others_at_the_finished_picture(lessons: Lessons) -> None:
    assert len(lessons.ends) == 2 * LESSONS_PER_SHARD
    assert np.bincount(lessons.rows)[:LESSONS_PER_SHARD].tolist() == [NUM_STEPS] * LESSONS_PER_SHARD
    beginnings = choose_points(lessons, 8, np.random.default_rng(0))[:2]
    assert (lessons.timesteps[beginnings] == 999).all()
    restart = int(np.flatnonzero(lessons.rows == LESSONS_PER_SHARD)[0])  # the first one's picture, noised again
    noise = lessons.latents[restart] * np.sqrt(1 + lessons.sigmas[restart] ** 2) - lessons.ends[0]
    assert np.std(noise) == pytest.approx(lessons.sigmas[restart], rel=0.05)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_the_clean_latent_is_read_from_a_right_prediction(prediction_type: str) -> None:
    clean, noise = torch.randn(2, 3, 4, 8, 8)
    signal = alphas_cumprod()[[10, 500, 999]]
    noisy, target = noise_and_target(clean, noise, signal, prediction_type)  # type: ignore[arg-type]
    found = clean_latent(noisy, target, ((1 - signal) / signal).sqrt(), prediction_type)  # type: ignore[arg-type]
    assert torch.allclose(found, clean, atol=1e-3)


def _distill(
    starter: Exported, lessons: Lessons, checkpoint: Path, *, num_steps: int, interrupt_at: int = 0
) -> AdapterNetwork:
    def saved(_: AdapterNetwork, step: int) -> None:
        if step == interrupt_at:
            raise Interrupted

    plan = replace(FAST, num_steps=num_steps, cooldown_steps=num_steps // 2)
    return distill(
        starter, lessons, plan, batch_size=8, seed=3, ranks=ALONE, checkpoint=checkpoint, on_checkpoint=saved
    )


@torch.no_grad()
def _error(starter: Exported, lessons: Lessons) -> float:
    points = np.arange(0, len(lessons.latents), 20)
    rows = lessons.rows[points]
    noisy, timesteps, sigmas, ends = (
        torch.from_numpy(values).float()
        for values in (lessons.latents[points], lessons.timesteps[points], lessons.sigmas[points], lessons.ends[rows])
    )
    context = starter.denoiser.encode_text(torch.from_numpy(lessons.token_ids[rows].astype(np.int64)))
    prediction = starter.denoiser(noisy, timesteps, context)
    return float(pseudo_huber(clean_latent(noisy, prediction, sigmas, starter.prediction_type), ends))


def test_one_look_comes_closer_to_the_end_of_the_way(starter_dir: Path, lessons: Lessons, tmp_path: Path) -> None:
    starter = _tiny(starter_dir)
    before = _error(starter, lessons)
    adapter = _distill(starter, lessons, tmp_path / "distill.pt", num_steps=12)
    assert _error(starter, lessons) < 0.9 * before
    adapter.detach()
    assert _error(starter, lessons) == pytest.approx(before, rel=1e-5)  # the starter itself has learnt nothing


def test_a_resumed_run_gives_the_same_bits(starter_dir: Path, lessons: Lessons, tmp_path: Path) -> None:
    straight = _distill(_tiny(starter_dir), lessons, tmp_path / "straight.pt", num_steps=3).state()
    with pytest.raises(Interrupted):
        _distill(_tiny(starter_dir), lessons, tmp_path / "resumed.pt", num_steps=3, interrupt_at=1)
    resumed = _distill(_tiny(starter_dir), lessons, tmp_path / "resumed.pt", num_steps=3).state()
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


def test_the_file_does_in_the_program_what_the_live_adapter_does(starter_dir: Path, tmp_path: Path) -> None:
    library = Library([starter_dir.parent], tmp_path / "cache")
    model = SmallModel.of(open_checkpoint(library.find_checkpoint("starter")))
    base = model.answers()
    adapter = AdapterNetwork(model.modules, NETWORK, BASE)
    randomise(adapter, spread=0.02)
    adapter.load_state({name: value.half().float() for name, value in adapter.state().items()})
    with torch.no_grad():
        live = model.answers()
    path = write_few_steps(tmp_path, adapter, step=5, base_name="starter")
    adapter.detach()
    assert path.stat().st_size < MAX_BYTES
    assert read_adapter(path).problems == ()
    assert largest_difference(model.with_file(path), live, base) < 1e-4
