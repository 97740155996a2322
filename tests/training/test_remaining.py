"""The time that a run still takes, by a clock that goes only when the test has it go."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.training.loop_helpers import Run, a_run, config
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import JobEvent, Progress
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.training.events import LossReported
from webui.training.remaining import Remaining
from webui.training.state import State

UPDATE_S, CANDIDATE_S, STATE_S = 2.0, 30.0, 0.5


@pytest.fixture
def model(manager: PipelineManager) -> Model:
    return manager.load("tiny")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def timed(model: Model, folder: Path, clock: Clock, **more: Any) -> Iterator[Run]:
    """A run of 6 updates with candidates after 3 and 6, where each thing takes the seconds above."""
    schedule = {"num_steps": 6, "save_every": 3, **more.pop("schedule", {})}
    with a_run(model, folder, config(schedule=schedule), clock=clock, **more) as run:
        write, states = run.states.write, run.states

        def after_step() -> int:
            clock.now += UPDATE_S
            return 0

        def writing(state: State) -> None:
            clock.now += STATE_S
            write(state)

        run.network.after_step = after_step  # type: ignore[method-assign]
        states.write = writing  # type: ignore[method-assign]
        run.trainer.resume()
        yield run


def left_of(run: Run, clock: Clock, *, check: Callable[[], None] = lambda: None, took: float = CANDIDATE_S) -> Any:
    """What is told after each update; up to an interrupt."""
    events: list[JobEvent] = []

    def candidate(step: int) -> None:
        clock.now += took

    with suppress(JobInterrupted):
        run.trainer.train(report=events.append, check=check, on_candidate=candidate)
    losses = {event.step: event.seconds_left for event in events if isinstance(event, LossReported)}
    for event in events:
        assert not isinstance(event, Progress) or event.seconds_left == losses[event.step]
    return losses


def stop_before(run: Run, step: int) -> Callable[[], None]:
    def check() -> None:
        if run.trainer.step == step:
            raise JobInterrupted

    return check


def test_time_left_counts_what_is_to_come_between_the_updates(model: Model, tmp_path: Path) -> None:
    clock = Clock()
    with timed(model, tmp_path, clock) as run:
        left = left_of(run, clock)
    assert [left[step] for step in (1, 2, 3)] == [None] * 3, "nothing is known of a candidate, and nothing made up"
    rest = CANDIDATE_S + STATE_S
    assert [left[step] for step in (4, 5, 6)] == [2 * UPDATE_S + rest, UPDATE_S + rest, rest]


def test_an_estimate_stands_in_until_the_first_candidate_was_measured(model: Model, tmp_path: Path) -> None:
    clock = Clock()
    with timed(model, tmp_path, clock, candidate_s=20.0) as run:
        left = left_of(run, clock)
    assert [left[step] for step in (1, 2, 3)] == [5 * UPDATE_S + 40, 4 * UPDATE_S + 40, 3 * UPDATE_S + 40]
    assert left[4] == 2 * UPDATE_S + CANDIDATE_S + STATE_S


def test_while_a_run_stands_still_no_time_passes(model: Model, tmp_path: Path) -> None:
    clock = Clock()
    with timed(model, tmp_path, clock) as run:
        left = left_of(run, clock, check=stop_before(run, 4))
    assert left[4] == 2 * UPDATE_S + CANDIDATE_S + STATE_S
    clock.now += 1e6
    with timed(model, tmp_path, clock) as run:
        left = left_of(run, clock)
    assert left == {5: UPDATE_S + CANDIDATE_S + STATE_S, 6: CANDIDATE_S + STATE_S}, "what was measured is remembered"


def test_a_candidate_that_a_pause_cut_in_two_tells_nothing_of_the_next(model: Model, tmp_path: Path) -> None:
    clock = Clock()
    with timed(model, tmp_path, clock, candidate_s=20.0) as run:

        def interrupted(step: int) -> None:
            clock.now += 29.0
            raise JobInterrupted

        with pytest.raises(JobInterrupted):
            run.trainer.train(report=lambda event: None, check=lambda: None, on_candidate=interrupted)
    with timed(model, tmp_path, clock) as run:
        left = left_of(run, clock, took=1.0)
    assert left[4] == 2 * UPDATE_S + 20.0, "neither 29 s nor 1 s"


def test_candidates_that_are_measured_otherwise_after_a_resume_take_what_is_estimated_of_them(
    model: Model, tmp_path: Path
) -> None:
    clock = Clock()
    with timed(model, tmp_path, clock) as run:
        left_of(run, clock, check=stop_before(run, 4))
    with timed(model, tmp_path, clock, candidate_s=7.0) as run:
        left = left_of(run, clock)
    assert left[5] == UPDATE_S + 7.0 + STATE_S


def test_states_between_candidates_count_once_one_was_written(model: Model, tmp_path: Path) -> None:
    clock = Clock()
    with timed(model, tmp_path, clock, candidate_s=10.0, schedule={"state_every_s": 2.5, "save_every": 6}) as run:
        left = left_of(run, clock)
    assert left[1] == 5 * UPDATE_S + 10
    assert left[3] == 3 * UPDATE_S + 10 + (1 + int(3 * UPDATE_S / 2.5)) * STATE_S


def test_the_last_steps_are_told_with_what_follows_them() -> None:
    schedule = config(schedule={"num_steps": 10, "save_every": 4}).schedule
    remaining = Remaining(schedule, (4, 8, 10), candidate_s=None)
    remaining.candidates.add(5.0)
    remaining.candidates.add(7.0)
    assert [remaining.seconds(step, 1.0) for step in (4, 5, 8, 10)] == [24.0, 17.0, 14.0, 6.0]
