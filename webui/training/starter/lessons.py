"""What the few-step adapter learns from: the starter's own ways from noise to a picture, drawn with guidance.

A way is the probability-flow ODE, solved with `NUM_STEPS` steps. Each point of it and the latent at its end make one
lesson: "from here, the picture is this". Half the ways begin at noise; the others at a finished picture with fresh
noise over it, which is where the LCM sampler goes on after its first step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from webui.pipeline.denoiser import to_denoised
from webui.pipeline.samplers import sample_dpmpp_2m
from webui.pipeline.schedules import NoiseLevels, Sigmas, sgm_uniform
from webui.training.starter.captions import caption
from webui.training.starter.compose import Choices, sample_layout
from webui.training.starter.concepts import CONCEPTS
from webui.training.starter.diffusion import Denoiser, PredictionType, alphas_cumprod
from webui.training.starter.evaluate import Exported
from webui.training.starter.export import GUIDANCE_SCALE, SAMPLE_NEGATIVE_PROMPT
from webui.training.starter.judge import clean_layout
from webui.training.starter.latents import save_shard
from webui.training.starter.loop import generator_for
from webui.training.starter.networks import LATENT_FACTOR, NATIVE_SIZE
from webui.training.starter.prompts import object_prompts, pair_prompts
from webui.training.starter.tokenizer import TokenIds, encode
from webui.training.starter.variants import sprite_keys

NUM_STEPS = 12  # a multiple of 4 and of 6: the timesteps of so many LCM steps are among those of a way
LESSONS_PER_SHARD = 32
ANYTHING_EVERY = 8  # lessons about whatever comes, pairs too; the others take the concepts in turn
CONCEPT_STRIDE = 100  # shares no factor with their number: all have their turn, and those of a shard lie apart
RESTART_TIMESTEPS = (100.0, 950.0)
TEXT_SEED, NOISE_SEED = 900_000, 910_000


@dataclass(frozen=True, slots=True)
class Lessons:
    """Points of ways to pictures, those that begin at noise first in each picture's row.

    `latents` (P, 4, h, w), unit variance, are at `timesteps` (P,) of noise level `sigmas` (P,), and lead to row `rows`
    (P,) of `ends` (R, 4, h, w) under the caption `token_ids` (R, 77).
    """

    latents: npt.NDArray[np.float16]
    timesteps: npt.NDArray[np.float32]
    sigmas: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]
    ends: npt.NDArray[np.float16]
    token_ids: TokenIds


def noise_levels() -> NoiseLevels:
    """The starter's noise levels as the samplers want them."""
    return NoiseLevels(np.sqrt(1 / alphas_cumprod().double().numpy() - 1))


def lesson_captions(first: int, count: int, *, seed: int) -> list[str]:
    """Lessons `first` to `first + count`: one concept after the other, and now and then anything, pairs too.

    None is a prompt that the model is measured with.
    """
    measured = {prompt.text for prompt in (*object_prompts(), *pair_prompts())}
    captions = []
    for index in range(first, first + count):
        rng = np.random.default_rng([TEXT_SEED, seed, index])
        while (text := _wording(index, rng)) in measured:
            pass
        captions.append(text)
    return captions


def _wording(index: int, rng: np.random.Generator) -> str:
    if index % ANYTHING_EVERY == 0:
        return caption(clean_layout(rng, Choices.of(sprite_keys())), rng)
    turn = index - index // ANYTHING_EVERY - 1
    name = CONCEPTS[turn * CONCEPT_STRIDE % len(CONCEPTS)].name
    choices = Choices.of(key for key in sprite_keys() if key.concept == name)
    while (layout := sample_layout(rng, choices)).relation or layout.degraded:
        pass
    return caption(layout, rng)


@torch.no_grad()
def guided_way(
    denoiser: Denoiser,
    x: Tensor,
    sigmas: Sigmas,
    token_ids: Tensor,
    negative_ids: Tensor,
    *,
    prediction_type: PredictionType,
    guidance_scale: float,
) -> tuple[Tensor, Tensor]:
    """DPM-Solver++(2M) from `x` (B, C, h, w), which is clean + sigmas[0] * noise, under `token_ids` (B, 77).

    Returns the points (steps, B, C, h, w) of unit variance, each at its sigma, and the end (B, C, h, w).
    """
    levels, points = noise_levels(), []
    context = denoiser.encode_text(torch.cat([negative_ids.expand_as(token_ids), token_ids]))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        scaled = (x / (sigma**2 + 1) ** 0.5).contiguous(memory_format=torch.channels_last)
        points.append(scaled)
        timesteps = torch.full((2 * len(x),), levels.timestep_at(sigma), device=x.device)
        without, prompted = denoiser(torch.cat([scaled, scaled]), timesteps, context).float().chunk(2)
        return to_denoised(without + guidance_scale * (prompted - without), x, sigma, prediction_type)

    end = sample_dpmpp_2m(denoise, x, sigmas, noise=lambda: torch.empty(0), eta=0.0)
    return torch.stack(points), end


def draw_lessons(path: Path, teacher: Exported, index: int, *, seed: int) -> None:
    """Draws shard `index`; a kill at any moment leaves no half of it."""
    device, levels = teacher.vae.device, noise_levels()
    captions = lesson_captions(index * LESSONS_PER_SHARD, LESSONS_PER_SHARD, seed=seed)
    ids = encode(teacher.tokenizer, captions)
    token_ids, negative_ids = (
        torch.from_numpy(rows.astype(np.int64)).to(device)
        for rows in (ids, encode(teacher.tokenizer, [SAMPLE_NEGATIVE_PROMPT]))
    )
    source = generator_for(seed + NOISE_SEED, index, 0, torch.device("cpu"))
    side = NATIVE_SIZE // LATENT_FACTOR
    starts = sgm_uniform(NUM_STEPS, levels), _restart(np.random.default_rng([NOISE_SEED, seed, index]), levels)
    clean = torch.zeros(len(ids), 4, side, side, device=device)
    ways = []
    for sigmas in starts:
        noise = torch.randn(clean.shape, generator=source).to(device)
        points, clean = guided_way(
            teacher.denoiser,
            clean + sigmas[0] * noise,
            sigmas,
            token_ids,
            negative_ids,
            prediction_type=teacher.prediction_type,
            guidance_scale=GUIDANCE_SCALE,
        )
        ways.append((points.half().cpu().numpy(), clean.half().cpu().numpy()))
    _save(path, ways, starts, ids, levels)


def _restart(rng: np.random.Generator, levels: NoiseLevels) -> Sigmas:
    """From a random timestep down, in steps about as long as those of a whole way."""
    start = rng.uniform(*RESTART_TIMESTEPS)
    count = max(2, round(NUM_STEPS * start / levels.last_timestep))
    return (*(levels.sigma_at(float(timestep)) for timestep in np.linspace(start, 0, count + 1)[:-1]), 0.0)


def _save(
    path: Path,
    ways: Sequence[tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]],
    starts: Sequence[Sigmas],
    ids: TokenIds,
    levels: NoiseLevels,
) -> None:
    count = len(ids)
    sigmas = np.concatenate([np.repeat(list(way[:-1]), count) for way in starts])
    rows = [np.tile(np.arange(count) + number * count, len(points)) for number, (points, _) in enumerate(ways)]
    save_shard(
        path,
        latents=np.concatenate([points.reshape(-1, *points.shape[2:]) for points, _ in ways]),
        timesteps=np.array([levels.timestep_at(sigma) for sigma in sigmas], np.float32),
        sigmas=sigmas.astype(np.float32),
        rows=np.concatenate(rows),
        ends=np.concatenate([end for _, end in ways]),
        token_ids=np.tile(ids, (len(ways), 1)),
    )


def lesson_shards(folder: Path, count: int) -> tuple[Path, ...]:
    return tuple(folder / f"{index:03}.npz" for index in range(count))


def load_lessons(paths: Sequence[Path]) -> Lessons:
    """All shards as one."""
    files = [dict(np.load(path)) for path in paths]
    first = np.cumsum([0, *(len(file["ends"]) for file in files)])
    for file, offset in zip(files, first, strict=False):
        file["rows"] = file["rows"] + offset
    return Lessons(*(np.concatenate([file[name] for file in files]) for name in Lessons.__dataclass_fields__))
