"""The loop: update after update, until the last, a pause, or numbers that are none any more.

Each update's randomness follows from its number and the process's, so that whatever happens between two of them (a
state, a sample, a stop and a start) changes nothing in the next.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import JobEvent, Progress
from webui.training.config import Schedule, TrainingConfig
from webui.training.events import LossReported, Paused
from webui.training.feed import Feed
from webui.training.guard import Pass, Update, explain
from webui.training.optimizers import EMBEDDING, evaluating, make_optimizer, set_rates
from webui.training.ranks import Ranks
from webui.training.rates import rate_factor
from webui.training.remaining import Remaining
from webui.training.seeds import mixed
from webui.training.state import State, StateFile
from webui.training.stepping import Denoising
from webui.training.trained import Trained

Report = Callable[[JobEvent], None]
Check = Callable[[], None]
"""Raises JobInterrupted when the run shall pause."""
OnCandidate = Callable[[int], None]
"""Called on the first process with the updates made so far, the weights being those to use; may be called again for
the same number after a resume."""

NUM_CANDIDATES = 10
NUM_REPORTS = 400
PROGRESS_EVERY_S = 0.25
WITHIN_STEP = 3
"""Tells the seeds of dropouts from those of noise."""


def candidate_steps(schedule: Schedule) -> tuple[int, ...]:
    """After how many updates a candidate is saved and measured; the last update always is one."""
    every = schedule.save_every or ceil(schedule.num_steps / NUM_CANDIDATES)
    return tuple(sorted({*range(every, schedule.num_steps + 1, every), schedule.num_steps}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Updates `start` to start + num_steps - 1, in which `parts` of the network move; None: all."""

    start: int
    num_steps: int
    parts: frozenset[str] | None = None


def phase_of(config: TrainingConfig, step: int) -> Phase:
    """Pivotal tuning learns the word first, then the network with the word as it is then; all else has one phase.

    Source: Roich et al. 2021, arXiv:2106.05744.
    """
    num_steps = config.schedule.num_steps
    if config.network.method != "pivotal":
        return Phase(start=0, num_steps=num_steps)
    first = round(config.network.pivotal_share * num_steps)
    if step < first:
        return Phase(start=0, num_steps=first, parts=frozenset({EMBEDDING}))
    return Phase(start=first, num_steps=num_steps - first, parts=frozenset({"unet", "text_encoder"}))


class Trainer:
    """Moves the weights of `network`. `step` updates were made so far, in `seconds` of work."""

    def __init__(
        self,
        network: Trained,
        denoising: Denoising,
        feed: Feed,
        config: TrainingConfig,
        ranks: Ranks,
        states: StateFile,
        *,
        candidate_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`candidate_s`: seconds that a candidate should take, where that is known before the first."""
        self.step = 0
        self.seconds = 0.0
        self.remaining = Remaining(config.schedule, candidate_steps(config.schedule), candidate_s=candidate_s)
        self._network = network
        self._denoising = denoising
        self._feed = feed
        self._config = config
        self._ranks = ranks
        self._states = states
        self._clock = clock
        self._named = list(network.named_parameters())
        self._parameters = [parameter for _, parameter in self._named]
        self._groups = {name: list(parameters) for name, parameters in network.parameter_groups().items()}
        self._optimizer = make_optimizer(self._groups, config.optimizer, denoising.device)
        self._average = [p.detach().clone() for p in self._parameters] if config.optimizer.ema_decay else []
        half = torch.float16 in (denoising.unet.dtype, denoising.autocast)
        self._scaler = torch.amp.GradScaler(denoising.device.type, enabled=half)
        self._unchecked: Update | None = None
        """On a device that runs ahead, an update is looked at when the next one is on its way."""

    def resume(self) -> bool:
        """Goes to the latest state; False if there is none. Raises InvalidRequest or StorageError."""
        state = self._states.read(self._denoising.device)
        if state is None:
            return False
        self._network.load_state(state.weights)
        self._optimizer.load_state_dict(dict(state.optimizer))
        for (name, _), average in zip(self._named, self._average, strict=False):
            average.copy_(state.average[name])
        if state.scaler:
            self._scaler.load_state_dict(dict(state.scaler))
        self.step, self.seconds = state.step, state.seconds
        self.remaining.resume(state.taken)
        return True

    def train(self, *, report: Report, check: Check, on_candidate: OnCandidate) -> None:
        """To the end of the schedule. Raises JobInterrupted when paused, with the state saved; NotFinite; StorageError.

        Alone, a pause is before the next update; several processes agree on one while they make it.
        """
        schedule = self._config.schedule
        candidates = set(candidate_steps(schedule))
        log = _Log(self, report, schedule.num_steps)
        saved_at = self._clock()
        self._network.train()
        if self.step in candidates:
            self._candidate(on_candidate, again=True)
        while self.step < schedule.num_steps:
            leaving = _interrupted(check)
            if leaving and self._ranks.num == 1:
                self._pause(report)
            started = self._clock()
            loss, norm, leaving = self._update(leaving)
            self.step += 1
            self.seconds += self._clock() - started
            log.add(loss, norm)
            is_candidate = self.step in candidates
            if leaving:
                self._pause(report)
            if is_candidate or self._clock() - saved_at > schedule.state_every_s:
                self.save()
                saved_at = self._clock()
            if is_candidate:
                self._candidate(on_candidate, again=False)
        self._verify()

    def _pause(self, report: Report) -> None:
        self.save()
        if self._ranks.is_first:
            report(Paused(step=self.step, num_steps=self._config.schedule.num_steps))
        raise JobInterrupted

    def _update(self, leaving: bool) -> tuple[Tensor, Tensor, bool]:
        """One update: its loss, its gradient's norm, and whether any process was told to leave."""
        torch.manual_seed(mixed(self._config.schedule.seed, self.step, self._ranks.index, WITHIN_STEP) % 2**63)
        phase = phase_of(self._config, self.step)
        self._activate(phase)
        set_rates(self._optimizer, rate_factor(self._config.optimizer, self.step - phase.start, phase.num_steps))
        self._optimizer.zero_grad(set_to_none=True)
        passes, loss = self._gradients()
        numbers = torch.stack([loss, torch.tensor(float(leaving), device=loss.device)])
        numbers = self._ranks.summed(self._parameters, numbers)
        self._scaler.unscale_(self._optimizer)
        norms, norm = self._clipped()
        update = Update(step=self.step, passes=passes, norms=norms)
        self._look_at(update)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._network.after_step()
        self._move_average()
        return numbers[0], norm, leaving if self._ranks.num == 1 else bool(numbers[1] > 0)

    def _activate(self, phase: Phase) -> None:
        """What stands still in this phase takes no gradients."""
        for name, parameters in self._groups.items():
            moves = phase.parts is None or name in phase.parts
            if parameters and parameters[0].requires_grad != moves:
                for parameter in parameters:
                    parameter.requires_grad_(moves)

    def _gradients(self) -> tuple[list[Pass], Tensor]:
        passes, loss = [], torch.zeros((), device=self._denoising.device)
        for batch in self._feed.batches(self.step):
            for term in self._denoising.terms(batch):
                share = term.sum() / self._feed.photos_per_update
                if share.requires_grad:  # a word learns nothing from a caption without it
                    torch.autograd.backward(self._scaler.scale(share))
                loss += share.detach()
                passes.append(Pass(batch=batch, values=term.detach()))
        return passes, loss

    def _clipped(self) -> tuple[Tensor, Tensor]:
        """Norms of the gradients, before they are scaled down to the largest one that is wanted: each, and of all."""
        zero = torch.zeros((), device=self._denoising.device)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        found = iter(torch._foreach_norm(gradients) if gradients else ())
        norms = torch.stack([zero if p.grad is None else next(found) for p in self._parameters])
        norm = torch.linalg.vector_norm(norms)
        if gradients and (limit := self._config.optimizer.max_gradient_norm):
            torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp_max(1.0))
        return norms, norm

    def _look_at(self, update: Update) -> None:
        if self._denoising.device.type == "cpu":
            self._unchecked = update
            self._verify()
        else:
            self._verify()
            self._unchecked = update

    def _verify(self) -> None:
        """Raises NotFinite. The weights are then those of the last good update, or of the last state."""
        update, self._unchecked = self._unchecked, None
        scaled = self._scaler.is_enabled()
        if update is None or (update.errors_are_finite() if scaled else update.is_finite()):
            return
        problem = explain(update, self._named, half=self._denoising.unet.dtype != torch.float32)
        if update.step == self.step:  # found before it was made: nothing is lost
            if self.step:
                self.save()
        else:
            self.resume()
        raise problem

    def _move_average(self) -> None:
        if self._average:
            decay = min(self._config.optimizer.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)

    def _candidate(self, on_candidate: OnCandidate, *, again: bool) -> None:
        """`again`: some of it may have been done before a resume, so that its time tells nothing of the next."""
        self._verify()
        if self._ranks.is_first:
            started = self._clock()
            with self.weights_to_use():
                on_candidate(self.step)
            if not again:
                self.remaining.candidates.add(self._clock() - started)
        self._ranks.wait()

    @contextmanager
    def weights_to_use(self) -> Iterator[None]:
        """While it is entered the network has the averaged weights, where there are some, and no dropouts."""
        with evaluating(self._optimizer):
            self._network.train(False)
            self._swap_average()
            try:
                yield
            finally:
                self._swap_average()
                self._network.train()

    def _swap_average(self) -> None:
        for parameter, average in zip(self._parameters, self._average, strict=False):
            kept = parameter.detach().clone()
            parameter.data.copy_(average)
            average.copy_(kept)

    def save(self) -> None:
        """Writes the state. Raises StorageError."""
        self._verify()
        if self._ranks.is_first:
            started = self._clock()
            names = (name for name, _ in self._named)
            self._states.write(
                State(
                    step=self.step,
                    seconds=self.seconds,
                    weights=self._network.state(),
                    optimizer=self._optimizer.state_dict(),
                    average=dict(zip(names, self._average, strict=False)),
                    scaler=self._scaler.state_dict() if self._scaler.is_enabled() else {},
                    taken=self.remaining.as_state(),
                )
            )
            self.remaining.states.add(self._clock() - started)

    def rates(self) -> dict[str, float]:
        """The learning rates in effect, by part of the network."""
        return {group["name"]: float(group["lr"] * group.get("d", 1.0)) for group in self._optimizer.param_groups}


def _interrupted(check: Check) -> bool:
    try:
        check()
    except JobInterrupted:
        return True
    return False


class _Log:
    """Reports the mean of some updates at a time, without waiting for the device in between."""

    def __init__(self, trainer: Trainer, report: Report, num_steps: int) -> None:
        self._trainer = trainer
        self._report: Callable[[Any], None] = report if trainer._ranks.is_first else lambda event: None
        self._num_steps = num_steps
        self._every = max(1, num_steps // NUM_REPORTS)
        self._losses: list[Tensor] = []
        self._began = trainer.seconds
        self._told_at = float("-inf")

    def add(self, loss: Tensor, norm: Tensor) -> None:
        step, now = self._trainer.step, self._trainer._clock()
        self._losses.append(loss)
        each = (self._trainer.seconds - self._began) / len(self._losses)
        if now - self._told_at >= PROGRESS_EVERY_S:
            left = self._trainer.remaining.seconds(step, each)
            self._report(Progress(step=step, num_steps=self._num_steps, label="training", seconds_left=left))
            self._told_at = now
        if step % self._every == 0 or step == self._num_steps:
            self._report(
                LossReported(
                    step=step,
                    num_steps=self._num_steps,
                    loss=float(torch.stack(self._losses).mean()),
                    gradient_norm=float(norm),
                    rates=self._trainer.rates(),
                    seconds_per_step=each,
                    seconds_left=self._trainer.remaining.seconds(step, each),
                )
            )
            self._losses.clear()
            self._began = self._trainer.seconds
