"""Several processes that train one model by averaging their gradients.

On a CPU two such processes are markedly faster than one with two threads, so this program starts itself twice; on GPUs,
or on several machines, `accelerate launch` starts it. The environment below keeps glibc from giving memory back and
taking it again at every step, which costs half the time.
"""

import datetime
import os
import signal
import socket
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_MMAP_MAX_": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
    "OMP_NUM_THREADS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
}
PATIENCE = datetime.timedelta(days=7)  # a paused process must not end the run


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among `count`; `device` is where it computes."""

    index: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.index == 0

    @property
    def num_workers(self) -> int:
        """Processes that prepare batches: all the cores beside a GPU, none where the cores do the training."""
        return max(1, (os.cpu_count() or 2) // self.count - 1) if self.device.type == "cuda" else 0

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 where it is faster: on a GPU. On a CPU, 32-bit training took two thirds of the time."""
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def average(self, tensor: Tensor) -> None:
        """Replace `tensor` by its mean over all processes."""
        if self.count > 1:
            dist.all_reduce(tensor)
            tensor.div_(self.count)

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one exchange."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, piece in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(piece.view(tensor.shape))


def place(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`; to a GPU from pinned memory, so that nobody waits for the work that is queued there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def launch(arguments: list[str], *, num_processes: int, pid_file: Path) -> int:
    """Run this program once per rank with `arguments` and wait; returns the first non-zero exit status, or 0.

    The ranks find each other as those of `accelerate launch` do, on this machine alone. SIGTERM and SIGINT are passed
    on, so each rank can finish its step and save.
    """
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "webui.training.starter", *arguments, "--worker"],
            env={**os.environ, **WORKER_ENVIRONMENT, **(_place(index, num_processes, meeting))},
        )
        for index in range(num_processes)
    ]
    pid_file.write_text("\n".join(str(pid) for pid in (os.getpid(), *(child.pid for child in children))) + "\n")

    def pass_on(signum: int, _: FrameType | None) -> None:
        for child in children:
            child.send_signal(signum)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, pass_on)
    return _wait(children)


def _place(index: int, count: int, meeting: dict[str, str]) -> dict[str, str]:
    """What tells a process that it is one of several, in torchrun's variables."""
    if count == 1:
        return {}
    place = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return {**meeting, **{name: str(value) for name, value in place.items()}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(children: list[subprocess.Popen[bytes]]) -> int:
    """A rank that fails takes the others with it: they would wait for its gradients for ever."""
    status = 0
    pending = list(children)
    while pending:
        for child in list(pending):
            try:
                status = child.wait(timeout=0.5) or status
            except subprocess.TimeoutExpired:
                continue
            pending.remove(child)
            if status:
                for other in pending:
                    other.terminate()
    return status


def is_one_of_several() -> bool:
    """Whether `accelerate launch`, torchrun or `launch` started this process beside others."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def join() -> Ranks:
    """Meet the other processes, if there are any; each of them has a GPU, or a share of the cores."""
    on_gpu = torch.cuda.is_available()
    state = PartialState(cpu=not on_gpu, timeout=PATIENCE)
    count = int(state.num_processes)
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    # accelerate numbers a CPU as well, and torch.load knows no "cpu:0".
    return Ranks(int(state.process_index), count, state.device if on_gpu else torch.device("cpu"))


def average_gradients(module: nn.Module, ranks: Ranks, *, stop: bool) -> bool:
    """Average all gradients over the ranks; returns whether any rank asked to stop, the same answer everywhere."""
    if ranks.count == 1:
        return stop
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), gradients[0].new_tensor([float(stop)])])
    ranks.average(flat)
    pieces = torch.split(flat[:-1], [gradient.numel() for gradient in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view(gradient.shape))
    return bool(flat[-1] > 0)
