"""How far a job is: what its pictures ask of the model, counted and timed."""

import time
from collections.abc import Callable, Sequence

from webui.generation.events import Note
from webui.jobs.events import JobEvent, Progress

Report = Callable[[JobEvent], None]


def told_once(report: Report) -> Report:
    """`report` without notes that were told already: several pictures, and what repaints them, have the same to say."""
    told: set[str] = set()

    def forward(event: JobEvent) -> None:
        if isinstance(event, Note):
            if event.message in told:
                return
            told.add(event.message)
        report(event)

    return forward


class ProgressReport:
    """Counts model calls over the whole job and estimates the time left from those of this run."""

    def __init__(self, num_images: int, report: Report) -> None:
        self._num_images = num_images
        self._calls_per_image = 0
        self._calls = 0
        self._calls_here = 0
        self._report = report
        self._started_at = 0.0

    @property
    def _num_calls(self) -> int:
        return self._num_images * self._calls_per_image

    def plans(self, calls_per_image: int) -> None:
        """Each picture will take that many calls; nothing is known before."""
        self._calls_per_image = calls_per_image
        self._started_at = time.monotonic()

    def starts(self, *, done: int) -> None:
        self._calls = done * self._calls_per_image
        self._report(self.event("Denoising"))

    def step(self) -> None:
        self._calls += 1
        self._calls_here += 1
        self._report(self.event("Denoising"))

    def finishes(self, indices: Sequence[int]) -> None:
        self._calls = (indices[-1] + 1) * self._calls_per_image

    def event(self, label: str) -> Progress:
        left = None
        if self._calls_here:
            per_call = (time.monotonic() - self._started_at) / self._calls_here
            left = max(self._num_calls - self._calls, 0) * per_call
        return Progress(
            step=min(self._calls, self._num_calls), num_steps=self._num_calls, label=label, seconds_left=left
        )
