"""Batches: which photos, with which noise, at which noise levels, under which captions; all of it from a number.

What is random about a sample hangs on its number in the run alone, so a run in two processes, or with its batches
split for accumulation, sees what one process with one large batch would see.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from webui.training.config import TrainingConfig
from webui.training.noise import noise_of, timestep_of
from webui.training.order import Draw, Group, Order
from webui.training.ranks import Ranks


class Source(Protocol):
    """The encoded photos, by their number from 0. A `sample` number is for what differs each time a photo is shown."""

    def groups(self) -> Sequence[Group]:
        """Photos that can be in one batch, and how often they come."""
        ...

    def name(self, item: int) -> str:
        """What to call the photo in a message."""
        ...

    def latent(self, item: int, *, flipped: bool) -> Tensor:
        """(C, h, w) float32, on the scale that the U-Net works on."""
        ...

    def mask(self, item: int, *, flipped: bool) -> Tensor | None:
        """(1, h, w) float32 of the latent's size: the share of each place in the loss; None where all count."""
        ...

    def caption(self, item: int, *, sample: int) -> str: ...

    def prior_caption(self, item: int) -> str | None:
        """The caption under which the base's own prediction is held on to; None where it is not asked for."""
        ...

    def time_ids(self, item: int) -> Tensor | None:
        """(6,) original size, crop and target size, for families that are told."""
        ...

    def channels(self, item: int, *, sample: int, flipped: bool) -> Tensor | None:
        """(1 + C, h, w): mask and masked latent, for inpainting networks."""
        ...

    def weight(self, item: int) -> float:
        """How much its error counts: 1, or less or more for a picture of the class."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """B photos that go through the network together. Tensors are on the processor; `samples` are their numbers."""

    names: tuple[str, ...]
    samples: tuple[int, ...]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    captions: tuple[str, ...]
    prior_captions: tuple[str, ...]
    weights: Tensor
    masks: Tensor | None = None
    time_ids: Tensor | None = None
    channels: Tensor | None = None


class Feed:
    """The batches of each update for one of several processes."""

    def __init__(self, source: Source, config: TrainingConfig, ranks: Ranks, *, num_timesteps: int) -> None:
        self._source = source
        self._config = config
        self._ranks = ranks
        self._num_timesteps = num_timesteps
        schedule = config.schedule
        self.photos_per_update = schedule.batch_size * schedule.accumulation * ranks.num
        self._order = Order(source.groups(), batch_size=schedule.batch_size * ranks.num, seed=schedule.seed)

    def batches(self, step: int) -> Iterator[Batch]:
        """What this process computes for update `step`, one after the other."""
        accumulation = self._config.schedule.accumulation
        for number in range(step * accumulation, (step + 1) * accumulation):
            yield self.batch(number)

    def batch(self, number: int) -> Batch:
        """This process's part of the batch `number` of the run."""
        own, size = self._config.schedule.batch_size, self._config.schedule.batch_size * self._ranks.num
        start = self._ranks.index * own
        draws = self._order.batch(number)[start : start + own]
        return self._batch(draws, range(number * size + start, number * size + start + own))

    def largest(self) -> Batch:
        """A full batch of the largest size that comes up, to know what a step takes."""
        items = [group.items[0] for group in self._source.groups()]
        largest = max(items, key=lambda item: self._source.latent(item, flipped=False).numel())
        own = self._config.schedule.batch_size
        return self._batch([Draw(largest, 0)] * own, range(own))

    def _batch(self, draws: Sequence[Draw], samples: Sequence[int]) -> Batch:
        source, pairs = self._source, list(zip(draws, samples, strict=True))
        flips = [self._config.data.flip and (draw.turn + draw.item) % 2 == 1 for draw in draws]
        latents = [source.latent(draw.item, flipped=flip) for draw, flip in zip(draws, flips, strict=True)]
        masks = [source.mask(draw.item, flipped=flip) for draw, flip in zip(draws, flips, strict=True)]
        channels = [
            source.channels(draw.item, sample=sample, flipped=flip)
            for (draw, sample), flip in zip(pairs, flips, strict=True)
        ]
        priors = [source.prior_caption(draw.item) for draw in draws]
        return Batch(
            names=tuple(source.name(draw.item) for draw in draws),
            samples=tuple(samples),
            latents=torch.stack(latents),
            noise=torch.stack([self._noise(sample, latents[0]) for sample in samples]),
            timesteps=torch.tensor([self._timestep(sample) for sample in samples]),
            captions=tuple(source.caption(draw.item, sample=sample) for draw, sample in pairs),
            prior_captions=tuple(caption for caption in priors if caption is not None),
            weights=torch.tensor([source.weight(draw.item) for draw in draws]),
            masks=_masks(masks, latents[0]),
            time_ids=_stacked([source.time_ids(draw.item) for draw in draws]),
            channels=_stacked(channels),
        )

    def _noise(self, sample: int, like: Tensor) -> Tensor:
        loss = self._config.loss
        channels, height, width = like.shape
        return noise_of(
            self._config.schedule.seed,
            sample,
            (channels, height, width),
            offset=loss.noise_offset,
            iterations=loss.multires_iterations,
            discount=loss.multires_discount,
        )

    def _timestep(self, sample: int) -> int:
        return timestep_of(self._config.schedule.seed, sample, self._num_timesteps)


def _masks(masks: Sequence[Tensor | None], like: Tensor) -> Tensor | None:
    """Where a photo of a batch has a mask, the others count everywhere."""
    if all(mask is None for mask in masks):
        return None
    everywhere = torch.ones(1, *like.shape[1:])
    return torch.stack([everywhere if mask is None else mask for mask in masks])


def _stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None
