"""Several processes: what `accelerate launch` starts, on the processor."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from tests.training.loop_helpers import a_run, config
from webui.pipeline.manager import PipelineManager

SCRIPT = Path(__file__).with_name("two_processes.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_processes_are_one_with_twice_the_batch(
    tiny_models_dir: Path, tmp_path: Path, manager: PipelineManager
) -> None:
    command = [sys.executable, str(SCRIPT), str(tiny_models_dir), str(tmp_path), str(free_port())]
    ended = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in range(2))
    assert torch.equal(first, second), "both processes have the same weights"
    settings = config(schedule={"num_steps": 4, "batch_size": 2}, optimizer={"rate": 1e-3, "warmup": 0.0})
    with a_run(manager.load("tiny"), tmp_path / "one", settings, dropout=0.0) as run:
        run.trainer.train(report=lambda event: None, check=lambda: None, on_candidate=lambda step: None)
        alone = run.weights()
    assert float((first - alone).abs().max()) <= 1e-5
    assert float(alone.abs().max()) > 1e-3
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["state.pt"], "one process writes"
