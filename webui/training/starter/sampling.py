"""A plain DDIM sampler on the training networks, to look at pictures while they train."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from webui.training.starter.backgrounds import Pixels
from webui.training.starter.diffusion import Denoiser, PredictionType, scheduler
from webui.training.starter.latents import Affine
from webui.training.starter.networks import LATENT_FACTOR
from webui.training.starter.vae import to_pixels


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    vae: AutoencoderKL,
    affine: Affine,
    token_ids: Tensor,
    empty_ids: Tensor,
    seeds: list[int],
    *,
    prediction_type: PredictionType,
    size_px: int,
    num_inference_steps: int = 20,
    guidance_scale: float = 5.0,
) -> Pixels:
    """One picture per row of `token_ids` (B, 77), from its seed: uint8 (B, size_px, size_px, 3).

    Both networks are on one device; the noise is the CPU's, the same everywhere.
    """
    device = vae.device
    steps = scheduler(prediction_type)
    steps.set_timesteps(num_inference_steps)
    context = denoiser.encode_text(torch.cat([empty_ids.expand(len(token_ids), -1), token_ids]).to(device))
    side = size_px // LATENT_FACTOR
    noise = [torch.randn(4, side, side, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    latents = torch.stack(noise).to(device)
    for timestep in steps.timesteps:
        doubled = torch.cat([latents, latents])
        unconditional, conditional = denoiser(doubled, timestep.expand(len(doubled)).to(device), context).chunk(2)
        guided = unconditional + guidance_scale * (conditional - unconditional)
        latents = steps.step(guided, timestep, latents).prev_sample
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in (affine.mean, affine.deviation))
    return to_pixels(vae.decode(latents * deviation + mean).sample)
