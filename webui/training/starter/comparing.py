"""Recipes beside each other: one small task, learned from random weights with one thing changed at a time.

The task is 16 things at 128 x 128 px with an exported model's autoencoder and words. What comes of it is measured on
prompts of its own, by the judge among those things, and by the error of the clean latent, which says the same of
every prediction type.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from webui.training.starter.concepts import CONCEPTS
from webui.training.starter.diffusion import Denoiser, Recipe, alphas_cumprod, noise_and_target, train_denoiser
from webui.training.starter.distilling import clean_latent
from webui.training.starter.evaluate import Exported, obeyed, write_sheet
from webui.training.starter.judge import Judge
from webui.training.starter.latents import LatentSet, Shard
from webui.training.starter.loop import Plan
from webui.training.starter.prompts import COMPARED_TURNS, compared_prompts
from webui.training.starter.ranks import Ranks
from webui.training.starter.tokenizer import encode

SIZE_PX = 128
NUM_CONCEPTS = 16
SHARDS = tuple(Shard(9000 + index, SIZE_PX, SIZE_PX) for index in range(4))
HELD_OUT = Shard(9900, SIZE_PX, SIZE_PX)
NUM_HELD_OUT = 256
TIMESTEPS = (100, 300, 500, 700, 900)
CONCEPTS_SEED, NOISE_SEED = 90_000, 91_000
GUIDANCE_SCALE = 3.0
BATCH_SIZE = 32
AVERAGED_SHARE = 0.06  # of the steps, by the averaged weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A recipe with its learning rate; `seed` decides the first weights and the order of the pictures."""

    recipe: Recipe = field(default_factory=lambda: Recipe(batch_size=BATCH_SIZE))
    learning_rate: float = 1.2e-3
    seed: int = 1


CANDIDATES: Mapping[str, Candidate] = {
    "as it ships": Candidate(),
    "epsilon": Candidate(recipe=Recipe(batch_size=BATCH_SIZE, prediction_type="epsilon")),
    "min-snr": Candidate(recipe=Recipe(batch_size=BATCH_SIZE, weighting="min-snr")),
    "adamw": Candidate(recipe=Recipe(batch_size=BATCH_SIZE, optimizer="adamw")),
    "another seed": Candidate(seed=2),
    "half the rate": Candidate(learning_rate=6e-4),
    "twice the rate": Candidate(learning_rate=2.4e-3),
    "three times the batch": Candidate(recipe=Recipe(batch_size=3 * BATCH_SIZE)),
    "adamw, half the rate": Candidate(recipe=Recipe(batch_size=BATCH_SIZE, optimizer="adamw"), learning_rate=6e-4),
    "epsilon, another seed": Candidate(recipe=Recipe(batch_size=BATCH_SIZE, prediction_type="epsilon"), seed=2),
}


def compared_concepts() -> tuple[str, ...]:
    """The things of the task: none with skin tones, so that each has two pictures."""
    things = [concept.name for concept in CONCEPTS if not concept.is_person]
    order = np.random.default_rng(CONCEPTS_SEED).permutation(len(things))
    return tuple(things[row] for row in order[:NUM_CONCEPTS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What every candidate learns from and is measured with, with the autoencoder and the words of `starter`."""

    pool: LatentSet
    held_out: LatentSet
    starter: Exported
    judge: Judge
    concepts: tuple[str, ...] = field(default_factory=compared_concepts)


def plan_of(candidate: Candidate, num_samples: int) -> Plan:
    """`num_samples` pictures in all, whatever the batch."""
    steps = max(1, num_samples // candidate.recipe.batch_size)
    return Plan(
        num_steps=steps,
        learning_rate=candidate.learning_rate,
        warmup_steps=max(1, steps // 20),
        cooldown_steps=max(1, round(0.3 * steps)),
        ema_decay=max(0.0, 1 - 1 / max(1.0, AVERAGED_SHARE * steps)),
        log_every=50,
    )


def run_candidate(
    denoiser: Denoiser, candidate: Candidate, task: Task, *, num_samples: int, ranks: Ranks, folder: Path, name: str
) -> dict[str, Any]:
    """Train `denoiser` and measure it; leaves its state and a contact sheet in `folder`, and its figures as JSON."""
    empty_ids = encode(task.starter.tokenizer, [""])[0]
    plan, began = plan_of(candidate, num_samples), time.process_time()
    averaged = train_denoiser(
        denoiser,
        {(SIZE_PX, SIZE_PX): task.pool},
        empty_ids,
        plan,
        candidate.recipe,
        seed=candidate.seed,
        ranks=ranks,
        checkpoint=folder / f"{name}.pt",
        on_checkpoint=lambda *_: None,
    )
    assert isinstance(averaged, Denoiser)
    processor_s = time.process_time() - began
    drawing = replace(task.starter, denoiser=averaged.eval(), prediction_type=candidate.recipe.prediction_type)
    prompts = compared_prompts(task.concepts)
    pictures = drawing.draw(
        [prompt.text for prompt in prompts],
        [prompt.seed for prompt in prompts],
        guidance_scale=GUIDANCE_SCALE,
        size_px=SIZE_PX,
    )
    write_sheet(pictures, folder / f"{name}.png", columns=COMPARED_TURNS)
    figures = {
        **obeyed(task.judge, prompts, pictures, task.concepts),
        "error of the clean latent": held_out_errors(averaged, task, candidate.recipe, ranks.device),
        "processor seconds per step": processor_s / plan.num_steps,
        "candidate": asdict(candidate),
        "samples": plan.num_steps * candidate.recipe.batch_size,
    }
    (folder / f"{name}.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return figures


@torch.no_grad()
def held_out_errors(denoiser: nn.Module, task: Task, recipe: Recipe, device: torch.device) -> dict[int, float]:
    """By timestep: root mean square of what the clean latent is missed by, on unseen pictures and fixed noise."""
    assert isinstance(denoiser, Denoiser)
    clean = torch.from_numpy(task.held_out.latents[:NUM_HELD_OUT]).to(device).float()
    token_ids = torch.from_numpy(task.held_out.token_ids[:NUM_HELD_OUT, 0].astype(np.int64)).to(device)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(NOISE_SEED)).to(device)
    signal, context = alphas_cumprod().to(device), denoiser.encode_text(token_ids)
    errors = {}
    for t in TIMESTEPS:
        timesteps = torch.full((len(clean),), t, device=device)
        level = signal[timesteps]
        noisy, _ = noise_and_target(clean, noise, level, recipe.prediction_type)
        predicted = denoiser(noisy, timesteps, context)
        found = clean_latent(noisy, predicted, ((1 - level) / level).sqrt(), recipe.prediction_type)
        errors[t] = float((found - clean).square().mean().sqrt())
    return errors
