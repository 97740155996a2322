"""The few-step adapter: a LoCon that takes the starter from any point of a guided way to its end in one look.

So the sampler LCM needs four to eight steps instead of twenty, and none of them a second look without the prompt: the
guidance is learnt. Only the U-Net is adapted. Source of the idea: Luo et al. 2023, arXiv:2310.04378 and 2311.05556;
here the ends of the ways are drawn beforehand, so nothing is bootstrapped.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from webui.library.families import AdapterBase
from webui.training.config import Network
from webui.training.networks.adapter import AdapterNetwork
from webui.training.starter.diffusion import PredictionType
from webui.training.starter.evaluate import Exported
from webui.training.starter.lessons import Lessons
from webui.training.starter.loop import Plan, train
from webui.training.starter.muon import muon_for
from webui.training.starter.networks import NATIVE_SIZE
from webui.training.starter.ranks import Ranks
from webui.training.validation.output import WEIGHT

NETWORK = Network(method="locon", layers="all", rank=10, alpha=10.0, conv_rank=8, conv_alpha=8.0, text_encoder=False)
BASE: AdapterBase = "sd-custom"
FILE_NAME = "few-steps"
TITLE = "Atelier starter, few steps"
USAGE = "Weight 1, sampler LCM, 4 to 8 steps, CFG scale 1"
BEGINNINGS_SHARE = 0.25
"""Of each batch; the look at pure noise decides what the picture will be, and is the hardest."""
HUBER = 0.05
"""Errors below count by their square, so that those of points near the end don't drown the others."""


class Factors(nn.Module):
    """The parameters of an adapter and nothing of the network that it is on, so that they can be copied."""

    def __init__(self, network: AdapterNetwork) -> None:
        super().__init__()
        self.names = tuple(name for name, _ in network.named_parameters())
        self.values = nn.ParameterList(parameter for _, parameter in network.named_parameters())

    def state(self) -> dict[str, Tensor]:
        """As `AdapterNetwork.load_state` wants it."""
        return {name: value.detach() for name, value in zip(self.names, self.values, strict=True)}


def clean_latent(noisy: Tensor, prediction: Tensor, sigmas: Tensor, prediction_type: PredictionType) -> Tensor:
    """What a prediction for `noisy` (B, C, h, w) of unit variance says of the clean latent; `sigmas` (B,)."""
    signal = (1 + sigmas.square()).rsqrt()[:, None, None, None]
    noise = signal * sigmas[:, None, None, None]
    if prediction_type == "epsilon":
        return (noisy - noise * prediction) / signal
    return signal * noisy - noise * prediction


def pseudo_huber(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean over all elements. Source: Song and Dhariwal 2023, arXiv:2310.14189, eq. 8."""
    return ((found - wanted).square() + HUBER**2).sqrt().mean() - HUBER


def choose_points(lessons: Lessons, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """(count,) indices of points, a quarter of them beginnings."""
    beginnings = np.flatnonzero(lessons.timesteps == lessons.timesteps.max())
    first = round(count * BEGINNINGS_SHARE)
    return np.concatenate([rng.choice(beginnings, first), rng.integers(len(lessons.latents), size=count - first)])


def distill(
    starter: Exported,
    lessons: Lessons,
    plan: Plan,
    *,
    batch_size: int,
    seed: int,
    ranks: Ranks,
    checkpoint: Path,
    on_checkpoint: Callable[[AdapterNetwork, int], None],
) -> AdapterNetwork:
    """Trains an adapter on `starter` to the end of `plan`; returns it, on the U-Net, with its averaged weights.

    `batch_size` is over all ranks. `on_checkpoint` is given the same at each save.
    """
    unet, text_encoder = starter.denoiser.unet, starter.denoiser.text_encoder
    starter.denoiser.to(ranks.device)
    unet.to(memory_format=torch.channels_last)
    torch.manual_seed(seed)
    adapter = AdapterNetwork({"unet": unet, "text_encoder": text_encoder}, NETWORK, BASE)
    factors = Factors(adapter)
    count = batch_size // ranks.count

    def loss_of(step: int) -> Tensor:
        points = choose_points(lessons, count, np.random.default_rng([seed, step, ranks.index]))
        rows = lessons.rows[points]
        noisy, timesteps, sigmas, ends = (
            torch.from_numpy(values).to(ranks.device).float()
            for values in (
                lessons.latents[points],
                lessons.timesteps[points],
                lessons.sigmas[points],
                lessons.ends[rows],
            )
        )
        token_ids = torch.from_numpy(lessons.token_ids[rows].astype(np.int64)).to(ranks.device)
        with ranks.autocast():
            with torch.no_grad():
                context = starter.denoiser.encode_text(token_ids)
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            prediction = starter.denoiser(noisy, timesteps, context).float()
        return pseudo_huber(clean_latent(noisy, prediction, sigmas, starter.prediction_type), ends)

    def saved(averaged: nn.Module, step: int) -> None:
        assert isinstance(averaged, Factors)
        current = {name: value.clone() for name, value in factors.state().items()}
        adapter.load_state(averaged.state())
        on_checkpoint(adapter, step)
        adapter.load_state(current)

    optimizer = muon_for(factors, learning_rate=plan.learning_rate, plain=(), ranks=ranks)
    averaged = train(factors, optimizer, loss_of, plan, ranks=ranks, checkpoint=checkpoint, on_checkpoint=saved)
    assert isinstance(averaged, Factors)
    adapter.load_state(averaged.state())
    return adapter


def write_few_steps(folder: Path, adapter: AdapterNetwork, *, step: int, base_name: str) -> Path:
    """Writes the adapter of the model `base_name` in half precision, under the names and with the words of kohya."""
    metadata = _metadata(step, base_name=base_name)
    (path,) = adapter.write(folder, FILE_NAME, dtype=torch.float16, metadata=metadata)
    return path


def _metadata(step: int, *, base_name: str) -> Mapping[str, str]:
    """A model of its own size has no name among kohya's and ModelSpec's; the shapes tell what the file fits."""
    arguments = {"algo": "locon", "conv_dim": NETWORK.conv_rank, "conv_alpha": NETWORK.conv_alpha}
    return {
        "ss_output_name": FILE_NAME,
        "ss_sd_model_name": base_name,
        "ss_network_module": "lycoris.kohya",
        "ss_network_dim": str(NETWORK.rank),
        "ss_network_alpha": f"{NETWORK.alpha:g}",
        "ss_network_args": json.dumps(arguments),
        "ss_steps": str(step),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "diffusers",
        "modelspec.title": TITLE,
        "modelspec.resolution": f"{NATIVE_SIZE}x{NATIVE_SIZE}",
        "modelspec.usage_hint": USAGE,
        WEIGHT: "1",
    }
