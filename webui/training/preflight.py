"""Before the run: one real step, to know what it takes; and where it does not fit, what saves memory, rung by rung."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from webui.errors import OutOfDeviceMemory
from webui.pipeline.device import Device, is_out_of_memory
from webui.training.config import TrainingConfig
from webui.training.events import Estimated
from webui.training.feed import Batch
from webui.training.loop import candidate_steps
from webui.training.memory import DoesNotFit, KeptForBackward, peak_memory, used_bytes
from webui.training.optimizers import OPTIMIZERS, optimizer_problem
from webui.training.stepping import Denoising

USABLE = 0.9
"""Share of the free memory that a plan may take: pictures are drawn beside it, and estimates err."""
QUICK_S = 5.0
"""A step that is quicker is made twice, as the first one pays for more than itself."""
GRADIENT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a run with these settings is made of, for one step."""

    denoising: Denoising
    batch: Batch
    """The largest that comes up."""
    parameters: Sequence[torch.nn.Parameter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    peak_bytes: int
    seconds_per_pass: float


@dataclass(frozen=True, slots=True)
class Rung:
    """`apply` gives the settings one rung down, or None where it was taken already or is not to be had."""

    told: str
    apply: Callable[[TrainingConfig, Device], TrainingConfig | None]


def _checkpointing(config: TrainingConfig, device: Device) -> TrainingConfig | None:
    if config.resources.gradient_checkpointing:
        return None
    resources = config.resources.model_copy(update={"gradient_checkpointing": True})
    return config.model_copy(update={"resources": resources})


def _smaller_batch(config: TrainingConfig, device: Device) -> TrainingConfig | None:
    """Half the photos at once, twice as often: the same update."""
    schedule = config.schedule
    if schedule.batch_size % 2:
        return None
    update = {"batch_size": schedule.batch_size // 2, "accumulation": schedule.accumulation * 2}
    return config.model_copy(update={"schedule": schedule.model_copy(update=update)})


def _eight_bit(config: TrainingConfig, device: Device) -> TrainingConfig | None:
    if config.optimizer.name != "adamw" or optimizer_problem("adamw8bit", device.torch_device):
        return None
    return config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"name": "adamw8bit"})})


LADDER: tuple[Rung, ...] = (
    Rung("gradient checkpointing: a quarter slower", _checkpointing),
    Rung("half the batch, accumulated twice as often: the same updates", _smaller_batch),
    Rung("AdamW with 8 bits", _eight_bit),
)
"""In the order in which they cost least."""


def plan(
    config: TrainingConfig, device: Device, trial: Callable[[TrainingConfig], Trial]
) -> tuple[TrainingConfig, Estimated]:
    """`config` with as many rungs of the ladder as it takes to fit, and what a step then needs.

    Raises OutOfDeviceMemory if no rung is enough, or none is to be taken.
    """
    changes: list[str] = []
    while True:
        free = device.free_bytes()
        before = used_bytes(device.torch_device)
        measured = _attempt(trial(config), config, device, free)
        if measured is not None:
            return config, Estimated(
                peak_bytes=measured.peak_bytes,
                free_bytes=before + free,
                seconds_per_step=measured.seconds_per_pass * config.schedule.accumulation,
                num_steps=config.schedule.num_steps,
                changes=tuple(changes),
                num_candidates=len(candidate_steps(config.schedule)),
            )
        config, told = _next_rung(config, device, free)
        changes.append(told)


def _next_rung(config: TrainingConfig, device: Device, free: int) -> tuple[TrainingConfig, str]:
    for rung in LADDER if config.resources.ladder else ():
        lower = rung.apply(config, device)
        if lower is not None:
            return lower, rung.told
    hint = "Use a smaller data.resolution or network.rank, network.text_encoder = false, or close other programs."
    if not config.resources.ladder:
        hint = f"Set resources.ladder or resources.gradient_checkpointing, or a smaller batch. {hint}"
    size = f"{config.data.resolution} px, batch {config.schedule.batch_size}, rank {config.network.rank}"
    raise OutOfDeviceMemory(
        f"A training step ({size}) does not fit into the {free / 2**30:.1f} GiB that are free.", hint=hint
    )


def _attempt(trial: Trial, config: TrainingConfig, device: Device, free: int) -> Measured | None:
    """None where it does not fit."""
    trained = sum(parameter.numel() for parameter in trial.parameters)
    later = trained * (
        OPTIMIZERS[config.optimizer.name].state_bytes + GRADIENT_BYTES * (config.optimizer.ema_decay > 0)
    )
    limit = free * USABLE - later - trained * GRADIENT_BYTES
    try:
        measured = measure(trial, device.torch_device, limit)
    except DoesNotFit:
        return None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        for parameter in trial.parameters:
            parameter.grad = None
        device.free_memory()
    return Measured(peak_bytes=measured.peak_bytes + later, seconds_per_pass=measured.seconds_per_pass)


def measure(trial: Trial, device: torch.device, limit_bytes: float) -> Measured:
    """One pass there and back, as in the run. Raises DoesNotFit, or a library's error where memory ran out."""
    with peak_memory(device) as peak:
        seconds = _timed(trial, device, limit_bytes)
        highest = peak()
    if seconds < QUICK_S:
        seconds = min(seconds, _timed(trial, device, limit_bytes))
    return Measured(peak_bytes=highest, seconds_per_pass=seconds)


def _timed(trial: Trial, device: torch.device, limit_bytes: float) -> float:
    start = time.perf_counter()
    terms = trial.denoising.terms(trial.batch)
    while True:
        with KeptForBackward(limit_bytes):
            term = next(terms, None)
        if term is None:
            break
        if term.requires_grad:  # a word learns nothing from a caption without it
            torch.autograd.backward(term.sum())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
