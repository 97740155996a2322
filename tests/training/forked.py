"""Two processes of one program, as `accelerate launch` starts them, but forked: what is imported before, both have."""

import os
from collections.abc import Callable


def in_two_processes(work: Callable[[int], None], *, port: str) -> int:
    """`work(rank)` in each, with the variables that say which of two it is; the exit status of both."""
    import torch

    torch.set_num_threads(1)
    child = os.fork()
    rank = 0 if child else 1
    try:
        one = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        os.environ.update(one, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        work(rank)
    except BaseException:
        if child:
            raise
        import traceback

        traceback.print_exc()
        os._exit(1)
    if not child:
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
