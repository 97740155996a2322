"""How far a tool is, as events."""

import time
from collections.abc import Callable

from webui.jobs.events import JobEvent, Progress
from webui.library.tool_requests import ToolRequest

REPORT_PAUSE_S = 0.25
UNIT_BYTES = 1_000_000


class ToolReport:
    """What a tool calls with (done, in all): bytes of a new checkpoint, layers of a new LoRA; (0, 0) before that.

    Reports at most 4 times a second. `check` is asked every time, and stops the tool by raising.
    """

    def __init__(
        self,
        request: ToolRequest,
        report: Callable[[JobEvent], None],
        *,
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts_bytes = request.makes == "checkpoint"
        self._report = report
        self._check = check
        self._clock = clock
        self._started_at: float | None = None
        self._next_at = clock()

    def __call__(self, done: int, total: int) -> None:
        self._check()
        now = self._clock()
        is_first = bool(total) and self._started_at is None
        if is_first:
            self._started_at = now
        if now < self._next_at and not is_first and not 0 < total == done:
            return
        self._next_at = now + REPORT_PAUSE_S
        elapsed_s = 0.0 if self._started_at is None else now - self._started_at
        self._report(self._progress(done, total, elapsed_s * (total - done) / done if done and elapsed_s else None))

    def _progress(self, done: int, total: int, seconds_left: float | None) -> Progress:
        """`label` is what the numbers count: "MB written", "layers"."""
        if not total:
            return Progress(step=0, num_steps=0, label="Reading")
        unit, label = (UNIT_BYTES, "MB written") if self._counts_bytes else (1, "layers")
        return Progress(step=done // unit, num_steps=-(-total // unit), label=label, seconds_left=seconds_left)
