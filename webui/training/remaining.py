"""How long a run still takes: its updates and what comes between them, by what both took so far.

Seconds are of work: those in which a run stands still are nobody's. Nothing is made up: what was neither measured nor
estimated from something that was is not told. Imports no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from webui.training.config import Schedule


@dataclass(slots=True)
class Took:
    """Something that was done `number` times, in `seconds` in all."""

    number: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.number += 1
        self.seconds += seconds

    @property
    def each(self) -> float | None:
        """The mean; None where it was never done."""
        return self.seconds / self.number if self.number else None


class Remaining:
    """`candidates` is what saving and measuring one took, `states` what writing one took."""

    def __init__(self, schedule: Schedule, stops: Sequence[int], *, candidate_s: float | None) -> None:
        """`stops`: after how many updates there is a candidate, in order. `candidate_s`: what one should take, told
        until the first was measured; None where nothing is known of it."""
        self.candidates = Took()
        self.states = Took()
        self._schedule = schedule
        self._stops = tuple(stops)
        self._candidate_s = candidate_s

    def seconds(self, step: int, seconds_per_step: float) -> float | None:
        """After `step` updates, where the candidate of that step, if there is one, is still to come.

        None while candidates are to come of which nothing is known. States count from the first that was written; what
        is done once after the last candidate, the result's file, does not count.
        """
        to_come = [stop for stop in self._stops if stop >= step]
        left = seconds_per_step * (self._schedule.num_steps - step)
        if to_come:
            each = self._candidate_s if self.candidates.each is None else self.candidates.each
            if each is None:
                return None
            left += each * len(to_come)
        return left + (self.states.each or 0.0) * self._num_states(step, seconds_per_step, to_come)

    def _num_states(self, step: int, seconds_per_step: float, to_come: Sequence[int]) -> int:
        """One before each candidate, and one every so many seconds of the updates between them."""
        stretches = (after - before for before, after in pairwise((step, *to_come)))
        between = (int(seconds_per_step * num_steps / self._schedule.state_every_s) for num_steps in stretches)
        return len(to_come) + sum(between)

    def as_state(self) -> dict[str, Any]:
        """What `resume` takes."""
        return {
            "candidates": (self.candidates.number, self.candidates.seconds),
            "states": (self.states.number, self.states.seconds),
            "candidate_s": self._candidate_s,
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on with what was measured before a pause; empty: nothing was.

        Where an estimate was given, the base was measured anew: candidates are measured otherwise than before, and
        what those took counts no more.
        """
        if not state:
            return
        self.states = Took(*state["states"])
        if self._candidate_s is None:
            self.candidates, self._candidate_s = Took(*state["candidates"]), state["candidate_s"]
