"""What a step takes, and the ladder that is climbed down where it is too much."""

import mmap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import CPU
from tests.training.loop_helpers import Run, a_run, config
from webui.errors import InvalidRequest, OutOfDeviceMemory
from webui.pipeline.device import Device
from webui.pipeline.manager import PipelineManager
from webui.training import preflight
from webui.training.config import TrainingConfig
from webui.training.memory import DoesNotFit, KeptForBackward, peak_memory
from webui.training.preflight import LADDER, Trial, plan


def trials(run: Run, seen: list[TrainingConfig]) -> Callable[[TrainingConfig], Trial]:
    def trial(settings: TrainingConfig) -> Trial:
        seen.append(settings)
        return Trial(
            denoising=run.denoising, batch=run.feed.largest(), parameters=run.network.parameter_groups()["unet"]
        )

    return trial


def test_a_step_is_measured_and_leaves_nothing_behind(manager: PipelineManager, tmp_path: Path) -> None:
    settings = config(schedule={"accumulation": 4})
    with a_run(manager.load("tiny"), tmp_path, settings) as run:
        before = run.weights()
        chosen, estimate = plan(settings, CPU, trials(run, []))
        assert chosen == settings
        assert estimate.changes == ()
        assert 0 < estimate.peak_bytes < estimate.free_bytes
        assert estimate.seconds_per_step > 0
        assert (estimate.num_candidates, estimate.seconds_per_candidate) == (2, None), "the base is not measured yet"
        assert torch.equal(run.weights(), before)
        assert all(parameter.grad is None for _, parameter in run.network.named_parameters())


def test_the_largest_size_is_what_is_measured(manager: PipelineManager, tmp_path: Path) -> None:
    settings = config(schedule={"batch_size": 3})
    with a_run(manager.load("tiny"), tmp_path, settings) as run:
        assert run.feed.largest().latents.shape == (3, 4, 8, 16)


def test_what_does_not_fit_climbs_down_the_ladder(
    manager: PipelineManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, seen = config(schedule={"batch_size": 4}), list[TrainingConfig]()
    real = preflight.measure

    def measure(trial: Trial, device: torch.device, limit_bytes: float) -> preflight.Measured:
        if len(seen) == 1:
            raise DoesNotFit
        if len(seen) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(trial, device, limit_bytes)

    monkeypatch.setattr(preflight, "measure", measure)
    with a_run(manager.load("tiny"), tmp_path, settings) as run:
        chosen, estimate = plan(settings, CPU, trials(run, seen))
    assert chosen.resources.gradient_checkpointing
    assert (chosen.schedule.batch_size, chosen.schedule.accumulation) == (2, 2)
    assert estimate.changes == (LADDER[0].told, LADDER[1].told)


@pytest.mark.parametrize("runs", [True, False])
def test_the_last_rung_is_8_bit_adamw_where_it_runs(
    manager: PipelineManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    settings, seen = config(schedule={"batch_size": 1}), list[TrainingConfig]()
    real = preflight.measure

    def measure(trial: Trial, device: torch.device, limit_bytes: float) -> preflight.Measured:
        if len(seen) <= 2:
            raise DoesNotFit
        return real(trial, device, limit_bytes)

    monkeypatch.setattr(preflight, "measure", measure)
    problem = None if runs else InvalidRequest("optimizer.name", "It does not run here.")
    monkeypatch.setattr(preflight, "optimizer_problem", lambda name, device: problem)
    with a_run(manager.load("tiny"), tmp_path, settings) as run:
        if not runs:
            with pytest.raises(OutOfDeviceMemory):
                plan(settings, CPU, trials(run, seen))
            return
        chosen, estimate = plan(settings, CPU, trials(run, seen))
    assert chosen.optimizer.name == "adamw8bit"
    assert estimate.changes == (LADDER[0].told, LADDER[2].told)


def test_without_a_ladder_what_does_not_fit_is_refused(manager: PipelineManager, tmp_path: Path) -> None:
    class Full(Device):
        def free_bytes(self) -> int:
            return 20_000

    full = Full(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False)
    settings = config(resources={"ladder": False})
    with a_run(manager.load("tiny"), tmp_path, settings) as run:
        with pytest.raises(OutOfDeviceMemory, match="64 px, batch 1, rank 16"):
            plan(settings, full, trials(run, []))
        with pytest.raises(OutOfDeviceMemory):
            plan(config(schedule={"batch_size": 4}), full, trials(run, []))


def test_an_error_that_is_not_about_memory_is_not_hidden(
    manager: PipelineManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> preflight.Measured:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(preflight, "measure", broken)
    with a_run(manager.load("tiny"), tmp_path, config()) as run, pytest.raises(RuntimeError, match="shapes"):
        plan(config(), CPU, trials(run, []))


def test_what_is_kept_for_the_way_back_is_counted_once() -> None:
    x = torch.randn(1000, requires_grad=True)
    with KeptForBackward(1e9) as kept:
        y = x * 2
        z = (y.exp() + y.exp()).sin()
    torch.autograd.backward(z.sum())
    assert kept.num_bytes == 3 * 4000, "both exponentials and what the sine is of"
    with pytest.raises(DoesNotFit), KeptForBackward(3000):
        (x * 2).exp().sin()


def test_the_peak_of_memory_is_seen_even_when_it_has_passed() -> None:
    with peak_memory(torch.device("cpu")) as peak:
        low = peak()
        with mmap.mmap(-1, 160_000_000) as large:  # a tensor might get memory that others have left behind
            large[::4096] = b"1" * len(range(0, len(large), 4096))
        assert peak() - low > 100_000_000
