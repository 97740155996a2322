"""The loop on a tiny random checkpoint: what it learns, and that stopping it anywhere changes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.loop_helpers import Numbers, a_run, config
from webui.errors import StorageError
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import JobEvent
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.training import optimizers
from webui.training.config import FINDS_RATE, OptimizerName
from webui.training.events import LossReported, Paused
from webui.training.guard import NotFinite
from webui.training.loop import candidate_steps, phase_of
from webui.training.optimizers import OPTIMIZERS, optimizer_problem


@pytest.fixture
def model(manager: PipelineManager) -> Model:
    return manager.load("tiny")


def nothing(*_: object) -> None:
    """Nobody listens, and nothing interrupts."""


def stop_at(number: int) -> Callable[[], None]:
    """A `check` that interrupts when it is asked for the `number`-th time."""
    asked = [0]

    def check() -> None:
        asked[0] += 1
        if asked[0] == number:
            raise JobInterrupted

    return check


def trained(model: Model, folder: Path, **sections: object) -> torch.Tensor:
    settings = config(**sections)  # type: ignore[arg-type]
    with a_run(model, folder, settings) as run:
        run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
        return run.weights()


def test_the_loss_falls_on_photos_that_it_sees_again_and_again(model: Model, tmp_path: Path) -> None:
    settings = config(schedule={"num_steps": 20}, optimizer={"rate": 5e-3, "warmup": 0.0, "schedule": "constant"})
    with a_run(model, tmp_path, settings, dropout=0.0) as run:
        same = run.feed.batch(1)
        before = run.denoising.errors(same)
        run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
        assert float(run.denoising.errors(same)) < float(before)
        with run.network.scaled(0.0):
            assert torch.equal(run.denoising.errors(same), before), "the base itself has not moved"


@pytest.mark.parametrize("stop", (1, 3, 4, 6))
def test_a_run_that_was_paused_anywhere_ends_with_the_same_bits(model: Model, tmp_path: Path, stop: int) -> None:
    sections = {"schedule": {"accumulation": 2}, "optimizer": {"ema_decay": 0.9}}
    straight = trained(model, tmp_path / "straight", **sections)
    settings = config(**sections)  # type: ignore[arg-type]
    events: list[JobEvent] = []
    with a_run(model, tmp_path / "paused", settings) as run, pytest.raises(JobInterrupted):
        run.trainer.train(report=events.append, check=stop_at(stop), on_candidate=nothing)
    assert events[-1] == Paused(step=stop - 1, num_steps=6)
    with a_run(model, tmp_path / "paused", settings) as run:
        assert run.trainer.resume()
        assert run.trainer.step == stop - 1
        run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
        assert torch.equal(run.weights(), straight)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if optimizer_problem(name, torch.device("cpu")) is None])
def test_every_optimizer_learns_and_resumes_to_the_bit(model: Model, tmp_path: Path, name: OptimizerName) -> None:
    finds_rate = name in FINDS_RATE
    optimizer = {"name": name, "rate": 1.0 if finds_rate else 1e-3, "warmup": 0.0}
    straight = trained(model, tmp_path / "straight", optimizer=optimizer)
    assert float(straight.abs().max()) > (1e-6 if finds_rate else 1e-4)
    with a_run(model, tmp_path / "paused", config(optimizer=optimizer)) as run, pytest.raises(JobInterrupted):
        run.trainer.train(report=nothing, check=stop_at(4), on_candidate=nothing)
    with a_run(model, tmp_path / "paused", config(optimizer=optimizer)) as run:
        run.trainer.resume()
        run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
        assert torch.equal(run.weights(), straight)


@pytest.mark.parametrize(
    ("device", "installed", "problem"),
    [
        ("cpu", "0.50.0", None),
        ("cpu", "0.49.2", "from bitsandbytes 0.50.0 on; 0.49.2 is there"),
        ("cuda", "0.43.0", None),
        ("mps", "0.50.2", "not on 'mps'"),
    ],
)
def test_8_bit_adamw_runs_where_its_package_does(
    device: str, installed: str, problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "find_spec", lambda name: object())
    monkeypatch.setattr(optimizers, "version", lambda name: installed)
    found = optimizer_problem("adamw8bit", torch.device(device))
    assert (found is None) == (problem is None)
    assert found is None or (problem is not None and problem in found.message)


def test_what_happens_at_a_candidate_changes_nothing(model: Model, tmp_path: Path) -> None:
    straight = trained(model, tmp_path / "one", optimizer={"ema_decay": 0.9})

    def disturb(step: int) -> None:
        torch.manual_seed(step)
        torch.randn(100)

    with a_run(model, tmp_path / "two", config(optimizer={"ema_decay": 0.9})) as run:
        run.trainer.train(report=nothing, check=nothing, on_candidate=disturb)
        assert torch.equal(run.weights(), straight)


def test_a_candidate_that_was_interrupted_comes_again(model: Model, tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupted(step: int) -> None:
        seen.append(step)
        raise JobInterrupted

    with a_run(model, tmp_path, config()) as run, pytest.raises(JobInterrupted):
        run.trainer.train(report=nothing, check=nothing, on_candidate=interrupted)
    with a_run(model, tmp_path, config()) as run:
        run.trainer.resume()
        run.trainer.train(report=nothing, check=nothing, on_candidate=seen.append)
    assert seen == [3, 3, 6]


def test_candidates_have_the_averaged_weights(model: Model, tmp_path: Path) -> None:
    with a_run(model, tmp_path, config(optimizer={"ema_decay": 0.9, "rate": 1e-2})) as run:
        at_candidates: list[torch.Tensor] = []
        run.trainer.train(report=nothing, check=nothing, on_candidate=lambda step: at_candidates.append(run.weights()))
        assert float(at_candidates[-1].norm()) < float(run.weights().norm()), "an average from zero lags behind"


def test_a_longer_run_goes_on_where_the_shorter_one_ended(model: Model, tmp_path: Path) -> None:
    constant = {"schedule": "constant", "warmup": 0.0}
    straight = trained(model, tmp_path / "long", schedule={"num_steps": 8}, optimizer=constant)
    trained(model, tmp_path / "short", schedule={"num_steps": 4}, optimizer=constant)
    with a_run(model, tmp_path / "short", config(schedule={"num_steps": 8}, optimizer=constant)) as run:
        run.trainer.resume()
        assert run.trainer.step == 4
        run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
        assert torch.equal(run.weights(), straight)


def test_accumulated_batches_are_one_large_batch(model: Model, tmp_path: Path) -> None:
    """Photos of one size, since batches never mix sizes."""
    source = Numbers()
    source.groups = lambda: Numbers.groups(source)[:1]  # type: ignore[method-assign]
    ends = []
    for batch_size, accumulation in ((4, 1), (2, 2), (1, 4)):
        settings = config(schedule={"num_steps": 3, "batch_size": batch_size, "accumulation": accumulation})
        with a_run(model, tmp_path / str(batch_size), settings, source=source, dropout=0.0) as run:
            run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
            ends.append(run.weights())
    for end in ends[1:]:
        assert float((end - ends[0]).abs().max()) <= 1e-5
    assert float(ends[0].abs().max()) > 1e-4


def test_holding_on_to_the_base_keeps_what_else_it_knows(model: Model, tmp_path: Path) -> None:
    drifts = []
    for prior in (False, True):
        settings = config(
            schedule={"num_steps": 8}, optimizer={"rate": 1e-2, "schedule": "constant"}, loss={"weighting": "none"}
        )
        with a_run(model, tmp_path / str(prior), settings, source=Numbers(prior=prior), dropout=0.0) as run:
            batch = run.feed.batch(0)
            with torch.no_grad():
                before = run.denoising.predict(batch.latents, batch, ["a thing"])
            run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
            with torch.no_grad():
                after = run.denoising.predict(batch.latents, batch, ["a thing"])
            drifts.append(float((after - before).norm()))
    assert drifts[1] < 0.8 * drifts[0]


def test_a_photo_that_is_no_number_stops_the_run_by_name(model: Model, tmp_path: Path) -> None:
    with a_run(model, tmp_path, config(), source=Numbers(broken=2)) as run:
        with pytest.raises(NotFinite, match="the encoded photo 'photo 2'") as caught:
            run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
        assert bool(torch.isfinite(run.weights()).all()), "the weights are those before the bad update"
        state = run.states.read(torch.device("cpu"))
        assert (state.step if state else 0) == caught.value.step, "nothing that was good is lost"


def test_a_weight_that_is_no_number_stops_the_run_by_name(model: Model, tmp_path: Path) -> None:
    def spoil(step: int) -> None:
        name, change = list(run.network.named_parameters())[3]
        change.data[0, 0] = float("inf")
        spoilt.append(name)

    spoilt: list[str] = []
    with a_run(model, tmp_path, config()) as run:
        with pytest.raises(NotFinite) as caught:
            run.trainer.train(report=nothing, check=nothing, on_candidate=spoil)
        assert caught.value.where == f"the weight {spoilt[0]}"
        assert "step 4" in str(caught.value)


def test_a_learning_rate_of_ten_ends_in_a_sentence_or_in_numbers(model: Model, tmp_path: Path) -> None:
    settings = config(optimizer={"rate": 10.0, "warmup": 0.0}, schedule={"num_steps": 10})
    with a_run(model, tmp_path, settings) as run:
        try:
            run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
        except NotFinite as problem:
            assert "learning rate" in str(problem)
        assert bool(torch.isfinite(run.weights()).all())


def test_a_full_disk_stops_the_run_and_leaves_the_state_before(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.save

    def full(content: dict[str, object], file: object) -> None:
        if content["step"] == 6:
            raise OSError(28, "No space left on device")
        real(content, file)  # type: ignore[arg-type]

    monkeypatch.setattr(torch, "save", full)
    with a_run(model, tmp_path, config()) as run:
        with pytest.raises(StorageError, match="No space left on device"):
            run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)
        state = run.states.read(torch.device("cpu"))
        assert state is not None
        assert state.step == 3
        assert [path.name for path in run.states.path.parent.iterdir()] == ["state.pt"]


def test_the_loss_is_told_with_rates_and_the_time_left(model: Model, tmp_path: Path) -> None:
    events: list[JobEvent] = []
    with a_run(model, tmp_path, config(optimizer={"rate": 1e-3})) as run:
        run.trainer.train(report=events.append, check=nothing, on_candidate=nothing)
    told = [event for event in events if isinstance(event, LossReported)]
    assert [event.step for event in told] == [1, 2, 3, 4, 5, 6]
    assert [event.seconds_left is None for event in told] == [True] * 3 + [False] * 3, "the first candidate is at 3"
    assert told[0].rates["unet"] == pytest.approx(1e-3)
    assert all(event.loss > 0 and event.gradient_norm > 0 for event in told)


def test_masked_photos_learn_from_what_the_mask_shows(model: Model, tmp_path: Path) -> None:
    with a_run(model, tmp_path, config(), source=Numbers(masks=True)) as run:
        batch = run.feed.batch(0)
        predicted = run.denoising.predict(batch.latents, batch, batch.captions)
        assert batch.masks is not None
        assert batch.masks.shape == (1, 1, *predicted.shape[2:])
        run.trainer.train(report=nothing, check=nothing, on_candidate=nothing)


def test_candidates_are_evenly_spread_and_end_with_the_last_step() -> None:
    assert candidate_steps(config(schedule={"num_steps": 100, "save_every": 0}).schedule) == tuple(range(10, 101, 10))
    assert candidate_steps(config(schedule={"num_steps": 7, "save_every": 3}).schedule) == (3, 6, 7)
    assert candidate_steps(config(schedule={"num_steps": 3, "save_every": 0}).schedule) == (1, 2, 3)


def test_pivotal_tuning_learns_the_word_first() -> None:
    settings = config(
        network={"method": "pivotal", "pivotal_share": 0.25}, schedule={"num_steps": 100}, data={"trigger": "zrk"}
    )
    assert [phase_of(settings, step).parts for step in (0, 24)] == [frozenset({"embedding"})] * 2
    assert phase_of(settings, 25).start == 25
    assert phase_of(settings, 99).num_steps == 75
    assert "unet" in (phase_of(settings, 25).parts or ())
