"""The starter's training as two processes, for the test: `python starter_processes.py OUT PORT`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.training import test_starter_training  # noqa: F401  (imported before the fork, for both)
    from tests.training.forked import in_two_processes
    from webui.training.starter.ranks import is_one_of_several

    assert not is_one_of_several()
    sys.exit(in_two_processes(lambda rank: train(rank, Path(sys.argv[1])), port=sys.argv[2]))


def train(rank: int, out: Path) -> None:
    import torch

    from tests.training.test_starter_training import train_tiny_denoiser
    from webui.training.starter.ranks import is_one_of_several, join

    assert is_one_of_several()
    ranks = join()
    assert (ranks.index, ranks.count) == (rank, 2)
    state = out / "state" / "state.pt"
    train_tiny_denoiser(state, ranks=ranks)
    ranks.wait()
    averaged = train_tiny_denoiser(state, ranks=ranks)  # from the saved end: nothing is left to train
    torch.save(averaged.state_dict(), out / f"weights-{rank}.pt")


if __name__ == "__main__":
    main()
