"""Adapters that come and go during a run (`start=`, `stop=`), or that count inside the inpainting mask alone.

A step outside an adapter's range, and a place outside its mask, is as if its tag were not there: the prompt is encoded
without its part in the text encoder as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from webui.prompt.tags import LoraTag

Denoise = Callable[[Tensor, float], Tensor]

Active = tuple[int, ...]
"""Places of the tags that count, in prompt order."""


@dataclass(frozen=True, slots=True)
class Phase:
    """From step `start` (0-based) on, `outside` are applied; inside the mask `inside` are, if that is not the same."""

    start: int
    outside: Active
    inside: Active

    @property
    def actives(self) -> tuple[Active, ...]:
        return (self.outside,) if self.inside == self.outside else (self.outside, self.inside)


def plan_phases(tags: Sequence[LoraTag], num_steps: int, *, has_mask: bool) -> tuple[Phase, ...]:
    """At least one phase, also for no steps. Without a mask, what is limited to it is applied everywhere."""
    ranges = [tag.steps(num_steps) for tag in tags]

    def active(step: int) -> tuple[Active, Active]:
        inside = tuple(place for place, steps in enumerate(ranges) if step in steps)
        outside = tuple(place for place in inside if tags[place].area == "picture" or not has_mask)
        return outside, inside

    steps = range(max(num_steps, 1))
    return tuple(Phase(next(run), *actives) for actives, run in groupby(steps, key=active))


class PhasedDenoise:
    """`denoise(x, sigma)` for a sampler over all phases of one run."""

    def __init__(
        self,
        phases: Sequence[Phase],
        guesses: Mapping[Active, Denoise],
        switch: Callable[[Active], None],
        *,
        calls_per_step: int,
        mask: Tensor | None,
    ) -> None:
        """`guesses` has the model's guess with each set of adapters, valid after `switch` to it.

        `calls_per_step` is the sampler's; a step keeps its adapters for all its calls. `mask` (h, w) is 1 inside.
        """
        self._phases = phases
        self._guesses = guesses
        self._switch = switch
        self._calls_per_step = calls_per_step
        self._mask = mask
        self._calls = 0
        self._current: Active | None = None

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        step = self._calls // self._calls_per_step
        self._calls += 1
        phase = next(phase for phase in reversed(self._phases) if phase.start <= step)
        # Beginning with the adapters that are there already halves the switches.
        order = sorted(phase.actives, key=lambda active: active != self._current)
        found = {active: self._guess(active, x, sigma) for active in order}
        outside, inside = found[phase.outside], found[phase.inside]
        if self._mask is None or outside is inside:
            return outside
        return outside + (inside - outside) * self._mask

    def _guess(self, active: Active, x: Tensor, sigma: float) -> Tensor:
        if active != self._current:
            self._switch(active)
            self._current = active
        return self._guesses[active](x, sigma)
