"""One pass: a batch of photos in, each one's error out. No optimizer, no files; also what measuring is made of."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from webui.library.families import PredictionType
from webui.pipeline.model import Model
from webui.pipeline.schedules import NoiseLevels
from webui.pipeline.text_encoding import EncodedPrompt
from webui.training import losses
from webui.training.config import Loss
from webui.training.feed import Batch

Encode = Callable[[Sequence[str]], EncodedPrompt]
AsBase = Callable[[], AbstractContextManager[Any]]
"""While it is entered the model answers as if nothing had been trained."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Denoising:
    """A U-Net with what is trained on it, and the rule its errors are counted by."""

    unet: Any
    encode: Encode
    alphas_cumprod: Tensor
    """(num_train_timesteps,) float32 on the U-Net's device."""
    prediction_type: PredictionType
    rule: Loss
    added: bool
    """Whether it is told sizes and pooled text."""
    as_base: AsBase
    prior_weight: float
    layout: torch.memory_format
    autocast: torch.dtype | None = None
    """The type to compute in where the weights themselves are float32 and trained."""

    @property
    def device(self) -> torch.device:
        return self.alphas_cumprod.device

    def terms(self, batch: Batch) -> Iterator[Tensor]:
        """(B,) weighted errors, to be added up. One graph at a time: go backward before the next."""
        noisy, wanted = self._task(batch)
        weights = self._weights(batch)
        yield self._errors(self.predict(noisy, batch, batch.captions), wanted, batch) * weights
        if batch.prior_captions:
            with torch.no_grad(), self.as_base():
                own = self.predict(noisy, batch, batch.prior_captions)
            changed = self.predict(noisy, batch, batch.prior_captions)
            unmasked = replace(batch, masks=None)
            yield self._errors(changed, own, unmasked) * weights * self.prior_weight

    def errors(self, batch: Batch) -> Tensor:
        """(B,) errors on the photos as the rule measures distance, all noise levels and photos alike. No gradients."""
        with torch.no_grad():
            noisy, wanted = self._task(batch)
            return self._errors(self.predict(noisy, batch, batch.captions), wanted, batch)

    def predict(self, noisy: Tensor, batch: Batch, captions: Sequence[str]) -> Tensor:
        """(B, C, h, w) float32: the network's answer to `noisy` at the batch's noise levels, under `captions`."""
        device = self.device
        x = noisy if batch.channels is None else torch.cat([noisy, batch.channels.to(device)], dim=1)
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            text = self.encode(captions)
            added = None
            if self.added:
                assert batch.time_ids is not None
                added = {"text_embeds": text.pooled, "time_ids": batch.time_ids.to(device)}
            answer: Tensor = self.unet(
                x.to(self.unet.dtype, memory_format=self.layout),
                batch.timesteps.to(device),
                encoder_hidden_states=text.context.to(self.unet.dtype),
                added_cond_kwargs=added,
                return_dict=False,
            )[0]
        return answer.float()

    def _task(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is shown, and what the right answer is."""
        device = self.device
        clean, noise, timesteps = batch.latents.to(device), batch.noise.to(device), batch.timesteps.to(device)
        noisy = losses.noised(clean, noise, self.alphas_cumprod, timesteps)
        return noisy, losses.target(self.prediction_type, clean, noise, self.alphas_cumprod, timesteps)

    def _errors(self, predicted: Tensor, wanted: Tensor, batch: Batch) -> Tensor:
        masks = None if batch.masks is None else batch.masks.to(self.device)
        return losses.errors(predicted, wanted, kind=self.rule.kind, huber_c=self.rule.huber_c, weights=masks)

    def _weights(self, batch: Batch) -> Tensor:
        snr = losses.signal_to_noise(self.alphas_cumprod, batch.timesteps.to(self.device))
        of_levels = losses.weights_of_levels(self.rule.weighting, snr, self.prediction_type, gamma=self.rule.gamma)
        return of_levels * batch.weights.to(self.device)


def alphas_of(levels: NoiseLevels, device: torch.device) -> Tensor:
    """(num_train_timesteps,) float32: the share of the signal's power at each timestep."""
    sigmas = torch.from_numpy(levels.sigmas)
    return (1.0 / (1.0 + sigmas**2)).to(device, torch.float32)


def denoising_of(
    model: Model,
    encode: Encode,
    rule: Loss,
    *,
    as_base: AsBase,
    prior_weight: float = 1.0,
    autocast: torch.dtype | None = None,
) -> Denoising:
    """Of a checkpoint as the pipeline loaded it."""
    levels = model.levels
    if rule.zero_terminal_snr and model.prediction_type == "v_prediction":
        levels = levels.with_zero_terminal_snr()
    convolution = model.unet.conv_in.weight
    last = convolution.is_contiguous(memory_format=torch.channels_last) and not convolution.is_contiguous()
    return Denoising(
        unet=model.unet,
        encode=encode,
        alphas_cumprod=alphas_of(levels, convolution.device),
        prediction_type=model.prediction_type,
        rule=rule,
        added=model.inputs.num_time_ids > 0,
        as_base=as_base,
        prior_weight=prior_weight,
        layout=torch.channels_last if last else torch.contiguous_format,
        autocast=autocast,
    )
