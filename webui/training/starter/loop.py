"""The training loop both networks share: averaged gradients, an averaged copy of the weights, exact resuming.

All randomness of a step comes from (seed, step, rank), so a run that is stopped and resumed gives the same bits.
"""

import copy
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Self

import torch
from torch import Tensor, nn

from webui.training.starter.muon import Muon
from webui.training.starter.ranks import Ranks, average_gradients


@dataclass(frozen=True, slots=True)
class Clock:
    """The end of a run by time: `length_s` in all, the last `cooldown_s` of it with a falling learning rate."""

    ends_at: float  # time.monotonic()
    length_s: float
    cooldown_s: float

    def left_s(self) -> float:
        """Seconds to the end, of this process's clock."""
        return self.ends_at - time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast. `cooldown_steps`: the learning rate falls linearly to zero over the last ones.

    With a `clock` the run ends when that does, cooled down, or after `num_steps` if they are over sooner.
    """

    num_steps: int
    learning_rate: float
    warmup_steps: int
    cooldown_steps: int
    ema_decay: float
    max_gradient_norm: float = 1.0
    checkpoint_every_s: float = 240.0
    log_every: int = 10
    clock: Clock | None = None

    def is_among_last(self, share: float, step: int) -> bool:
        """Whether `step`, made now, belongs to the last `share` of the run."""
        by_steps = step >= round(self.num_steps * (1 - share))
        return by_steps or (self.clock is not None and self.clock.left_s() <= share * self.clock.length_s)


def learning_rate_at(step: int, plan: Plan, left_s: float = math.inf) -> float:
    """Warm-up, plateau, linear cool-down: the length can be changed while the run is on its plateau."""
    rise = (step + 1) / max(1, plan.warmup_steps)
    fall = (plan.num_steps - step) / max(1, plan.cooldown_steps)
    if plan.clock:
        fall = min(fall, left_s / max(1e-9, plan.clock.cooldown_s))
    return plan.learning_rate * max(0.0, min(1.0, rise, fall))


def generator_for(seed: int, step: int, rank: int, device: torch.device) -> torch.Generator:
    """The source of all noise of one step on one rank."""
    return torch.Generator(device=device).manual_seed((seed * 1_000_003 + step) * 64 + rank)


def train(
    model: nn.Module,
    optimizer: Muon,
    loss_of: Callable[[int], Tensor],
    plan: Plan,
    *,
    ranks: Ranks,
    checkpoint: Path,
    on_checkpoint: Callable[[nn.Module, int], None],
) -> nn.Module:
    """Train `model` in place to the end of `plan`, from `checkpoint` if it exists; returns the averaged weights.

    `on_checkpoint(averaged, step)` runs on the first rank after each save. A SIGTERM saves and leaves the process.
    """
    averaged = copy.deepcopy(model).requires_grad_(False)
    first_step = _resume(model, averaged, optimizer, checkpoint, ranks.device)
    with _StopFlag() as stop:
        saved_at, window = time.monotonic(), _Window(first_step)
        done, left_s = first_step, _left_s(plan, ranks)
        while done < plan.num_steps and left_s > 0:
            step = done
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, plan, left_s)
            model.zero_grad(set_to_none=True)
            loss = loss_of(step)
            loss.backward()  # type: ignore[no-untyped-call]
            leaving = average_gradients(model, ranks, stop=stop.is_set)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_gradient_norm)
            optimizer.step()
            _update_average(averaged, model, min(plan.ema_decay, (1 + step) / (10 + step)))
            done, left_s = step + 1, _left_s(plan, ranks)
            window.add(loss.detach())
            if ranks.is_first and done % plan.log_every == 0:
                window.report(done, plan.num_steps)
            due = time.monotonic() - saved_at > plan.checkpoint_every_s
            if ranks.is_first and (due or leaving or done == plan.num_steps or left_s <= 0):
                _save(model, averaged, optimizer, done, checkpoint)
                on_checkpoint(averaged, done)
                saved_at = time.monotonic()
            if leaving:
                raise SystemExit(143)
    return averaged


def _left_s(plan: Plan, ranks: Ranks) -> float:
    """Seconds to the end of the run, the same number on every rank."""
    if plan.clock is None:
        return math.inf
    left = torch.tensor(plan.clock.left_s(), dtype=torch.float64, device=ranks.device)
    ranks.average(left)
    return float(left)


class _StopFlag:
    """Set by SIGTERM or SIGINT while it is entered; read once per step."""

    def __init__(self) -> None:
        self.is_set = False

    def __enter__(self) -> Self:
        self._previous = {signum: signal.signal(signum, self._set) for signum in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _set(self, signum: int, frame: FrameType | None) -> None:
        self.is_set = True


class _Window:
    """Mean loss and speed since the last report."""

    def __init__(self, step: int) -> None:
        self._losses: list[Tensor] = []
        self._since = time.monotonic()

    def add(self, loss: Tensor) -> None:
        self._losses.append(loss)

    def report(self, step: int, num_steps: int) -> None:
        loss = float(torch.stack(self._losses).mean())  # waits for a GPU, hence not at every step
        seconds = (time.monotonic() - self._since) / len(self._losses)
        clock = time.strftime("%H:%M:%S")
        print(f"{clock} step {step}/{num_steps} loss {loss:.5f} {seconds:.3f} s/step", flush=True)
        self._losses.clear()
        self._since = time.monotonic()


def _update_average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)


def _save(model: nn.Module, averaged: nn.Module, optimizer: Muon, step: int, path: Path) -> None:
    """Write beside and rename, so that a kill at any moment leaves the previous state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(model: nn.Module, averaged: nn.Module, optimizer: Muon, path: Path, device: torch.device) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
