import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.starter_helpers import synthetic_sprites
from tests.training.test_two_processes import free_port
from webui.training.starter.diffusion import NATIVE, Denoiser, Recipe, train_denoiser
from webui.training.starter.latents import LatentSet
from webui.training.starter.loop import Clock, Plan, learning_rate_at
from webui.training.starter.muon import Muon, orthogonalize
from webui.training.starter.networks import Sizes, build_text_encoder, build_unet, build_vae
from webui.training.starter.ranks import Ranks, is_one_of_several, join
from webui.training.starter.vae import Crops, load_photos, train_vae

TINY = Sizes(vae_channels=(8, 8, 8, 8), unet_channels=(8, 16, 16), text_width=16, text_layers=2, text_heads=2)
ALONE = Ranks(0, 1, torch.device("cpu"))
PLAN = Plan(num_steps=2, learning_rate=1e-3, warmup_steps=1, cooldown_steps=1, ema_decay=0.9, checkpoint_every_s=0.0)

SCRIPT = Path(__file__).with_name("starter_processes.py")
RECIPE = Recipe(batch_size=4, prediction_type="epsilon")


class Interrupted(Exception):
    """Stands for the end of the process right after a save."""


def _ignore(_: nn.Module, step: int) -> None:
    assert step > 0


def _interrupt(_: nn.Module, step: int) -> None:
    if step == 1:
        raise Interrupted


def train_tiny_denoiser(
    checkpoint: Path,
    *,
    interrupt: bool = False,
    recipe: Recipe = RECIPE,
    plan: Plan = PLAN,
    pool: Mapping[tuple[int, int], LatentSet] | None = None,
    ranks: Ranks = ALONE,
) -> nn.Module:
    torch.manual_seed(0)
    text_encoder = build_text_encoder(TINY, vocab_size=52, bos_token_id=50, eos_token_id=51)
    return train_denoiser(
        Denoiser(build_unet(TINY), text_encoder),
        pool or {NATIVE: _noise_for_latents(8, 16, 16)},
        np.full(77, 51, np.int16),
        plan,
        recipe,
        seed=3,
        ranks=ranks,
        checkpoint=checkpoint,
        on_checkpoint=_interrupt if interrupt else _ignore,
    )


def _noise_for_latents(count: int, height: int, width: int) -> LatentSet:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((count, 4, height, width)).astype(np.float16)
    return LatentSet(latents, rng.integers(0, 50, (count, 4, 77)).astype(np.int16))


def _train_vae(checkpoint: Path, *, interrupt: bool = False) -> None:
    torch.manual_seed(0)
    crops = Crops(synthetic_sprites(), [], load_photos(("astronaut",)), seed=1)
    report = _interrupt if interrupt else _ignore
    train_vae(build_vae(TINY), crops, PLAN, num_crops=4, ranks=ALONE, checkpoint=checkpoint, on_checkpoint=report)


def _tensors(value: object, prefix: str = "") -> Mapping[str, Tensor]:
    """All tensors of a nested state by their path."""
    if isinstance(value, Tensor):
        return {prefix: value}
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _tensors(item, f"{prefix}/{key}").items()}
    return {}


@pytest.mark.parametrize("train", [_train_vae, train_tiny_denoiser])
def test_an_interrupted_run_resumes_to_the_same_bits(train: object, tmp_path: Path) -> None:
    assert callable(train)
    train(tmp_path / "straight.pt")
    with pytest.raises(Interrupted):
        train(tmp_path / "resumed.pt", interrupt=True)
    assert torch.load(tmp_path / "resumed.pt", weights_only=True)["step"] == 1
    train(tmp_path / "resumed.pt")
    straight, resumed = (_tensors(torch.load(tmp_path / f"{name}.pt")) for name in ("straight", "resumed"))
    assert straight.keys() == resumed.keys()
    assert len(straight) > 100
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_finished_run_does_not_train_on(tmp_path: Path) -> None:
    train_tiny_denoiser(tmp_path / "state.pt")
    before = (tmp_path / "state.pt").read_bytes()
    train_tiny_denoiser(tmp_path / "state.pt")
    assert (tmp_path / "state.pt").read_bytes() == before


def test_the_learning_rate_rises_stays_and_falls() -> None:
    plan = Plan(num_steps=100, learning_rate=1.0, warmup_steps=10, cooldown_steps=20, ema_decay=0.9)
    rates = [learning_rate_at(step, plan) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:80] == [1.0] * 70
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)


def test_with_a_clock_the_learning_rate_falls_with_the_time_that_is_left() -> None:
    plan = replace(PLAN, num_steps=1000, learning_rate=1.0, clock=Clock(ends_at=0.0, length_s=100.0, cooldown_s=20.0))
    assert [learning_rate_at(500, plan, left_s) for left_s in (60.0, 20.0, 5.0, -1.0)] == [1.0, 1.0, 0.25, 0.0]
    assert learning_rate_at(999, replace(plan, cooldown_steps=4), 60.0) == 0.25


def test_a_run_ends_saved_when_its_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter((30.0, 20.0, 10.0, 0.0))
    monkeypatch.setattr(Clock, "left_s", lambda _: next(left))
    clock = Clock(ends_at=0.0, length_s=30.0, cooldown_s=20.0)
    train_tiny_denoiser(
        tmp_path / "state.pt", plan=replace(PLAN, num_steps=1000, clock=clock, checkpoint_every_s=999.0)
    )
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3


@pytest.mark.parametrize(("left_s", "is_last"), [(21.0, False), (20.0, True)])
def test_the_last_of_a_run_is_the_last_of_its_time_too(
    left_s: float, is_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "left_s", lambda _: left_s)
    plan = replace(PLAN, num_steps=1000, clock=Clock(ends_at=0.0, length_s=100.0, cooldown_s=20.0))
    assert plan.is_among_last(0.2, 5) == is_last
    assert plan.is_among_last(0.2, 800)


def test_orthogonalizing_brings_singular_values_near_one() -> None:
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.4
    assert orthogonalize(matrix.T).shape == (60, 24)


def test_orthogonalizing_a_stack_is_orthogonalizing_each_matrix() -> None:
    stack = torch.randn(3, 24, 16, generator=torch.Generator().manual_seed(0))
    for matrix, together in zip(stack, orthogonalize(stack), strict=True):
        assert torch.allclose(orthogonalize(matrix), together, atol=1e-5)


def test_two_ranks_share_the_work_of_one() -> None:
    """Each computes its own matrices; the sum of what they have is the whole."""

    def updates(index: int, count: int) -> list[Tensor]:
        torch.manual_seed(0)
        parameters = [nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (6, 2, 2), (3, 5))]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        ranks = Ranks(index, count, torch.device("cpu"))
        optimizer = Muon(parameters, [], learning_rate=1.0, ranks=ranks)
        return optimizer._orthogonal_updates(parameters, 0.9)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ranks, "add_up", lambda self, tensors: None)
        halves = [updates(0, 2), updates(1, 2)]
    for whole, first, second in zip(updates(0, 1), *halves, strict=True):
        assert torch.allclose(whole, first + second, atol=1e-6)


def test_larger_pictures_come_in_smaller_batches_and_most_are_of_the_usual_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    usual = Denoiser.forward

    def forward(self: Denoiser, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        seen.append(tuple(noisy.shape))
        return usual(self, noisy, timesteps, context)

    monkeypatch.setattr(Denoiser, "forward", forward)
    pool = {(256, 128): _noise_for_latents(2, 16, 32), (128, 128): _noise_for_latents(8, 16, 16)}
    train_tiny_denoiser(tmp_path / "state.pt", pool=pool, plan=replace(PLAN, num_steps=40, checkpoint_every_s=99.0))
    assert set(seen) == {(4, 4, 16, 16), (2, 4, 16, 32)}
    assert seen.count((4, 4, 16, 16)) > 25


def test_processes_that_accelerate_starts_train_one_model(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), str(tmp_path), str(free_port())]
    ended = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items()), "both have the same weights"
    alone = train_tiny_denoiser(tmp_path / "alone.pt").state_dict()
    assert any(not torch.equal(tensor, first[name]) for name, tensor in alone.items()), "they saw other pictures"
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["state.pt"], "one process writes"


def test_what_runs_by_itself_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not is_one_of_several()
    threads = torch.get_num_threads()
    try:
        ranks = join()
    finally:
        torch.set_num_threads(threads)
    assert (ranks.index, ranks.count) == (0, 1)
