"""The decoder's last stage: against a small critic of patches, so that edges come out sharp instead of averaged.

The encoder stands still, so the latents do too: this can run before, after or beside the U-Net's training.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from webui.training.starter.feed import Feed
from webui.training.starter.loop import Plan, train
from webui.training.starter.muon import muon_for
from webui.training.starter.ranks import Ranks
from webui.training.starter.vae import Crops, reconstruction_loss, to_tensor

CROP_SIZE = 64
CRITIC_WEIGHT = 0.02
FEATURE_WEIGHT = 0.5
CRITIC_CHANNELS = (32, 64, 96)


class Critic(nn.Module):
    """(B, 3, H, W) to the features of each layer, the last being one number per patch: how real it looks."""

    def __init__(self, channels: tuple[int, ...] = CRITIC_CHANNELS) -> None:
        super().__init__()
        widths = (3, *channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.conv_out = nn.Conv2d(channels[-1], 1, 3, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images]
        for layer in self.layers:
            features.append(functional.leaky_relu(layer(features[-1]), 0.2))
        return [*features[1:], self.conv_out(features[-1])]


class Sharpening(nn.Module):
    """The decoder and its critic, trained in one step: each loss reaches only the weights it is meant for."""

    def __init__(self, vae: AutoencoderKL, critic: Critic) -> None:
        super().__init__()
        self.decoder = vae.decoder
        self.post_quant_conv = vae.post_quant_conv
        self.critic = critic

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents (B, 4, h, w) to images in [-1, 1]."""
        images: Tensor = self.decoder(self.post_quant_conv(latents))
        return images

    def loss(self, latents: Tensor, target: Tensor) -> Tensor:
        """Reconstruction, the critic's features and its verdict for the decoder; hinge loss for the critic."""
        output = self.decode(latents).float()
        frozen = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        *features, verdict = functional_call(self.critic, frozen, (output,))
        *real_features, _ = (layer.detach() for layer in functional_call(self.critic, frozen, (target,)))
        pairs = zip(features, real_features, strict=True)
        likeness = sum(functional.l1_loss(one, other) / other.abs().mean().clamp(min=1e-3) for one, other in pairs)
        decoder_loss: Tensor = reconstruction_loss(output, target) + CRITIC_WEIGHT * (
            FEATURE_WEIGHT * likeness - verdict.mean()
        )
        *_, of_fake = self.critic(output.detach())
        *_, of_real = self.critic(target)
        critic_loss: Tensor = functional.relu(1 + of_fake).mean() + functional.relu(1 - of_real).mean()
        return decoder_loss + critic_loss


def train_sharpening(
    vae: AutoencoderKL,
    crops: Crops,
    plan: Plan,
    *,
    num_crops: int,
    ranks: Ranks,
    checkpoint: Path,
    on_checkpoint: Callable[[nn.Module, int], None],
) -> Sharpening:
    """Train the decoder of `vae` to the end of `plan` with `num_crops` a step over all ranks; the averaged weights."""
    encoder = vae.to(ranks.device, memory_format=torch.channels_last).requires_grad_(False)
    sharpening = Sharpening(vae, Critic()).requires_grad_(True)
    feed = Feed(
        lambda step: crops.batch(step, ranks.index, max(1, num_crops // ranks.count), CROP_SIZE),
        last=plan.num_steps,
        num_workers=ranks.num_workers,
    )

    def loss_of(step: int) -> Tensor:
        pixels = to_tensor(feed(step), ranks.device)
        with torch.no_grad(), ranks.autocast():
            latents = encoder.encode(pixels).latent_dist.mean
        with ranks.autocast():
            return sharpening.loss(latents, pixels)

    sharpening.to(ranks.device)
    optimizer = muon_for(
        sharpening, learning_rate=plan.learning_rate, plain=("conv_in", "conv_out", "quant_conv"), ranks=ranks
    )
    averaged = train(
        sharpening, optimizer, loss_of, plan, ranks=ranks, checkpoint=checkpoint, on_checkpoint=on_checkpoint
    )
    assert isinstance(averaged, Sharpening)
    return averaged


def with_sharpened_decoder(vae: AutoencoderKL, state: dict[str, Tensor]) -> AutoencoderKL:
    """`vae` itself, its decoder taken from a state of `Sharpening`."""
    parts = {name: weight for name, weight in state.items() if not name.startswith("critic.")}
    vae.load_state_dict(vae.state_dict() | parts)
    return vae
