"""The optimizers, one row each: what it needs, and how it is made for groups of parameters with rates of their own."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn
from transformers.optimization import Adafactor

from webui.errors import InvalidRequest
from webui.training.config import FINDS_RATE, OPTIMIZER_PACKAGES, OptimizerName
from webui.training.config import Optimizer as Settings

LION_BETAS = (0.9, 0.99)
EMBEDDING = "embedding"

Groups = list[dict[str, Any]]


class Lion(torch.optim.Optimizer):
    """Moves every weight by the same amount, in the direction of a momentum. Its rate is 3 to 10 times below AdamW's.

    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2.
    """

    def __init__(self, groups: Groups, *, lr: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "betas": LION_BETAS})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            momenta = [self._momentum(weight) for weight in weights]
            first, second = group["betas"]
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            directions = torch._foreach_lerp(momenta, gradients, 1 - first)
            torch._foreach_sign_(directions)
            torch._foreach_add_(weights, directions, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - second)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        return momentum


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerRow:
    """`package` is what has to be installed. `on_processor`: its oldest version that runs without CUDA; None: any."""

    make: Callable[[Groups, Settings], torch.optim.Optimizer]
    package: str | None = None
    on_processor: Version | None = None
    state_bytes: int = 8
    """Per trained number."""


def _adamw(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=settings.rate, weight_decay=settings.weight_decay, fused=True)


def _adamw8bit(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    return _of_package("bitsandbytes.optim", "AdamW8bit", groups, lr=settings.rate, weight_decay=settings.weight_decay)


def _prodigy(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    return _of_package(
        "prodigyopt",
        "Prodigy",
        groups,
        lr=settings.rate,
        weight_decay=settings.weight_decay,
        use_bias_correction=True,
        safeguard_warmup=True,
    )


def _schedule_free(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    optimizer = _of_package(
        "schedulefree", "AdamWScheduleFree", groups, lr=settings.rate, weight_decay=settings.weight_decay
    )
    optimizer.train()  # type: ignore[attr-defined]  # it refuses to move anything before that
    return optimizer


def _adafactor(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    """With the rate that is asked for: one relative to the weights would never move factors that start at zero."""
    optimizer: torch.optim.Optimizer = Adafactor(
        groups,
        lr=settings.rate,
        weight_decay=settings.weight_decay,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    return optimizer


def _lion(groups: Groups, settings: Settings) -> torch.optim.Optimizer:
    return Lion(groups, lr=settings.rate, weight_decay=settings.weight_decay)


def _of_package(module: str, name: str, groups: Groups, **settings: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = getattr(import_module(module), name)(groups, **settings)
    return optimizer


OPTIMIZERS: Mapping[OptimizerName, OptimizerRow] = MappingProxyType(
    {
        "adamw": OptimizerRow(make=_adamw),
        "adamw8bit": OptimizerRow(
            make=_adamw8bit, package=OPTIMIZER_PACKAGES["adamw8bit"], on_processor=Version("0.50.0"), state_bytes=2
        ),
        "prodigy": OptimizerRow(make=_prodigy, package=OPTIMIZER_PACKAGES["prodigy"], state_bytes=16),
        "adafactor": OptimizerRow(make=_adafactor, state_bytes=1),
        "lion": OptimizerRow(make=_lion, state_bytes=4),
        "schedule-free adamw": OptimizerRow(make=_schedule_free, package=OPTIMIZER_PACKAGES["schedule-free adamw"]),
    }
)


def optimizer_problem(name: OptimizerName, device: torch.device) -> InvalidRequest | None:
    """Why it cannot run here; None where it can."""
    row = OPTIMIZERS[name]
    if row.package is None:
        return None
    if find_spec(row.package) is None:
        free = ", ".join(other for other, each in OPTIMIZERS.items() if each.package is None)
        return InvalidRequest(
            "optimizer.name",
            f"The optimizer '{name}' needs the package {row.package}, which is not installed.",
            hint=f"Install it with `pip install {row.package}` into this program's .venv, or choose one of: {free}.",
        )
    if row.on_processor is None or device.type == "cuda":
        return None
    if device.type != "cpu":
        return InvalidRequest(
            "optimizer.name",
            f"The optimizer '{name}' runs on CUDA devices and on the processor, not on '{device.type}'.",
            hint="Choose adamw or adafactor.",
        )
    installed = version(row.package)
    if Version(installed) >= row.on_processor:
        return None
    return InvalidRequest(
        "optimizer.name",
        f"The optimizer '{name}' runs on a processor from {row.package} {row.on_processor} on; {installed} is there.",
        hint=f"Update it with `pip install -U {row.package}` in this program's .venv, or choose adamw or adafactor.",
    )


def check_optimizer(name: OptimizerName, device: torch.device) -> None:
    """Raises InvalidRequest if it cannot run here."""
    if problem := optimizer_problem(name, device):
        raise problem


def make_optimizer(
    parameters: Mapping[str, Sequence[nn.Parameter]], settings: Settings, device: torch.device
) -> torch.optim.Optimizer:
    """For `parameters` by part of the network. Each group has its `name`, and under `base_lr` its full rate.

    Raises InvalidRequest if it cannot run here.
    """
    check_optimizer(settings.name, device)
    groups: Groups = []
    for name, members in parameters.items():
        if members:
            rate = rates_of(settings)[name]
            decay = 0.0 if name == EMBEDDING else settings.weight_decay  # decay would pull a word towards silence
            groups.append({"params": list(members), "name": name, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return OPTIMIZERS[settings.name].make(groups, settings)


def rates_of(settings: Settings) -> Mapping[str, float]:
    """Full learning rates by part of the network."""
    text = settings.text_rate if settings.text_rate is not None else settings.rate / 2
    finds = settings.name in FINDS_RATE
    embedding = settings.rate if finds else settings.embedding_rate
    return {"unet": settings.rate, "text_encoder": settings.rate if finds else text, EMBEDDING: embedding}


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


@contextmanager
def _evaluating(optimizer: Any) -> Any:
    """There and back is not the same to the last bit, so what was there is put back."""
    weights = [weight.data for group in optimizer.param_groups for weight in group["params"]]
    before = [weight.clone() for weight in weights]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        for weight, kept in zip(weights, before, strict=True):
            weight.copy_(kept)


@contextmanager
def _as_it_is() -> Any:
    yield


def evaluating(optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
    """While it is entered the weights are those to use: schedule-free optimizers train on others than they give."""
    return _evaluating(optimizer) if hasattr(optimizer, "eval") else _as_it_is()
