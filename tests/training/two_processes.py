"""A run in two processes, for the test: `python two_processes.py MODELS_DIR OUT PORT`. Imports once, then forks."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.training import loop_helpers  # noqa: F401  (imported before the fork, for both)
    from tests.training.forked import in_two_processes

    sys.exit(in_two_processes(lambda rank: train(rank, Path(sys.argv[1]), Path(sys.argv[2])), port=sys.argv[3]))


def train(rank: int, models: Path, out: Path) -> None:
    import torch

    from tests.training.loop_helpers import a_run, config
    from webui.library.catalog import Library
    from webui.pipeline.device import Device
    from webui.pipeline.manager import PipelineManager
    from webui.training.ranks import this_rank

    ranks = this_rank(cpu=True)
    device = Device(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False)
    model = PipelineManager(Library([models], out / f"cache-{rank}"), device).load("tiny")
    settings = config(schedule={"num_steps": 4, "batch_size": 1}, optimizer={"rate": 1e-3, "warmup": 0.0})
    with a_run(model, out, settings, ranks=ranks, dropout=0.0) as run:
        run.trainer.train(report=lambda event: None, check=lambda: None, on_candidate=lambda step: None)
        torch.save(run.weights(), out / f"weights-{rank}.pt")


if __name__ == "__main__":
    main()
