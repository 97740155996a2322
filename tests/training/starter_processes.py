"""The starter's training as two processes, for the test: `python starter_processes.py OUT PORT`."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    sys.path.insert(0, str(ROOT))
    import torch

    from tests.training import test_starter_training  # noqa: F401  (imported before the fork, for both)

    torch.set_num_threads(1)
    child = os.fork()
    try:
        train(0 if child else 1, Path(sys.argv[1]), port=sys.argv[2])
    except BaseException:
        if child:
            raise
        import traceback

        traceback.print_exc()
        os._exit(1)
    if not child:
        os._exit(0)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def train(rank: int, out: Path, *, port: str) -> None:
    import torch

    from tests.training.test_starter_training import train_tiny_denoiser
    from webui.training.starter.ranks import is_one_of_several, join

    assert not is_one_of_several()
    one = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(one, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert is_one_of_several()
    ranks = join()
    assert (ranks.index, ranks.count) == (rank, 2)
    averaged = train_tiny_denoiser(out / "state" / f"{rank}.pt", ranks=ranks)
    torch.save(averaged.state_dict(), out / f"weights-{rank}.pt")


if __name__ == "__main__":
    main()
