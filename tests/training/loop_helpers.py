"""A run in memory: a tiny checkpoint, photos that are numbers, and a few of the U-Net's own weights to train."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from webui.pipeline.model import Model
from webui.training.caching import TensorCache
from webui.training.config import TrainingConfig
from webui.training.feed import Feed
from webui.training.loop import Trainer
from webui.training.order import Group
from webui.training.ranks import Ranks
from webui.training.state import Identity, StateFile
from webui.training.stepping import Denoising, denoising_of
from webui.training.texts import Captions

PHOTOS = {f"photo {i}": f"{i:064x}" for i in range(6)}


def config(**sections: Mapping[str, Any]) -> TrainingConfig:
    """A short run; each section's values on top."""
    schedule = {"num_steps": 6, "save_every": 3, **sections.pop("schedule", {})}
    data = {"photos": "photos", "resolution": 64, **sections.pop("data", {})}
    return TrainingConfig.model_validate({"name": "test", "schedule": schedule, "data": data, **sections})


@dataclass
class Numbers:
    """`Source` of random latents in two sizes. `broken` has no numbers in it."""

    prior: bool = False
    masks: bool = False
    broken: int | None = None
    latents: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(5)
        shapes = [(4, 8, 8)] * 4 + [(4, 8, 16)] * 2
        self.latents = [torch.randn(shape, generator=generator) for shape in shapes]
        if self.broken is not None:
            self.latents[self.broken][0, 0, 0] = float("nan")

    def groups(self) -> Sequence[Group]:
        return [Group((0, 1, 2, 3), 4.0), Group((4, 5), 2.0)]

    def name(self, item: int) -> str:
        return f"photo {item}"

    def latent(self, item: int, *, flipped: bool) -> Tensor:
        return self.latents[item].flip(-1) if flipped else self.latents[item]

    def mask(self, item: int, *, flipped: bool) -> Tensor | None:
        if not self.masks:
            return None
        mask = torch.zeros(1, *self.latents[item].shape[1:])
        mask[:, :4] = 1.0
        return mask

    def caption(self, item: int, *, sample: int) -> str:
        return "" if sample % 7 == 0 else f"a red thing {item}"

    def prior_caption(self, item: int) -> str | None:
        return "a thing" if self.prior else None

    def time_ids(self, item: int) -> Tensor | None:
        return None

    def channels(self, item: int, *, sample: int, flipped: bool) -> Tensor | None:
        return None

    def weight(self, item: int) -> float:
        return 1.0


class Changes:
    """Changes of some weights of the U-Net, with a dropout that draws from the global generator."""

    def __init__(self, model: Model, dropout: float = 0.1) -> None:
        self._modules: dict[str, nn.Linear] = {
            f"unet.{name}": module
            for name, module in model.unet.named_modules()
            if name.endswith(("attn2.to_q", "attn1.to_v")) and isinstance(module, nn.Linear)
        }
        self._dropout = dropout
        self._weight = 1.0
        self._training = False
        self._changes = {name: nn.Parameter(torch.zeros(module.weight.shape)) for name, module in self._modules.items()}
        for name, module in self._modules.items():
            module.forward = self._forward(name, module)  # type: ignore[method-assign]

    def _forward(self, name: str, module: nn.Linear) -> Any:
        def forward(x: Tensor) -> Tensor:
            base = nn.functional.linear(x, module.weight, module.bias)
            if self._weight == 0:
                return base
            x = nn.functional.dropout(x, self._dropout, training=self._training)
            return base + nn.functional.linear(x, self._changes[name])

        return forward

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        return {"unet": list(self._changes.values())}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(self._changes.items())

    def train(self, mode: bool = True) -> None:
        self._training = mode

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        self._weight = weight
        yield
        self._weight = 1.0

    def after_step(self) -> int:
        return 0

    def state(self) -> dict[str, Tensor]:
        return {name: change.detach() for name, change in self._changes.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, change in self._changes.items():
            change.data.copy_(state[name])

    def detach(self) -> None:
        for module in self._modules.values():
            del module.forward


@dataclass
class Run:
    trainer: Trainer
    network: Changes
    denoising: Denoising
    feed: Feed
    states: StateFile

    def weights(self) -> Tensor:
        return torch.cat([change.flatten() for change in self.network.state().values()])


@contextmanager
def a_run(
    model: Model,
    folder: Path,
    settings: TrainingConfig,
    *,
    source: Numbers | None = None,
    ranks: Ranks | None = None,
    identity: Identity | None = None,
    dropout: float = 0.1,
    candidate_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Run]:
    """A trainer on `model`, which is as it was afterwards."""
    network, ranks = Changes(model, dropout), ranks or Ranks()
    captions = Captions(model.text_encoder, TensorCache("memory", Path()), clip_skip=0, live=False)
    denoising = denoising_of(model, captions, settings.loss, as_base=lambda: network.scaled(0.0))
    feed = Feed(source or Numbers(), settings, ranks, num_timesteps=1000)
    states = StateFile(folder / "state", identity or identity_for(settings))
    try:
        trainer = Trainer(network, denoising, feed, settings, ranks, states, candidate_s=candidate_s, clock=clock)
        yield Run(trainer, network, denoising, feed, states)
    finally:
        network.detach()


def identity_for(settings: TrainingConfig, **changes: Any) -> Identity:
    from webui.training.state import identity_of

    values = {
        "base": "tiny",
        "base_digest": "1234",
        "photos": PHOTOS,
        "settings": identity_of(settings, {}, {}).settings,
    }
    return Identity(**{**values, **changes})
