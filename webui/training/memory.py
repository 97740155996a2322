"""How much memory something took at its highest, on a GPU or in this process."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
SAMPLE_S = 0.02


class DoesNotFit(Exception):
    """What a pass keeps for its way back is more than there is; raised before the machine runs out."""


def used_bytes(device: torch.device) -> int:
    """Memory in use now: of the device, or by this process."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Gives a function that says, during and after it, the most bytes that were in use at once since it was entered."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: int(torch.cuda.max_memory_allocated(device))
    elif sys.platform.startswith("linux") and _reset_high_water():
        yield _high_water
    else:
        with _sampled() as highest:
            yield highest


def _reset_high_water() -> bool:
    try:
        CLEAR.write_text("5")
        return _high_water() > 0
    except OSError:
        return False


def _high_water() -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024


@contextmanager
def _sampled() -> Iterator[Callable[[], int]]:
    """Where the system keeps no record, a thread looks."""
    process, stop, highest = psutil.Process(), threading.Event(), [0]

    def look() -> None:
        while not stop.wait(SAMPLE_S):
            highest[0] = max(highest[0], int(process.memory_info().rss))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: highest[0]
    finally:
        stop.set()
        thread.join()


class KeptForBackward:
    """Counts what autograd keeps while it is entered; more than `limit_bytes` raises DoesNotFit.

    On a processor too much memory ends the process without a word, so it has to be known before.
    """

    def __init__(self, limit_bytes: float) -> None:
        self.num_bytes = 0
        self._limit = limit_bytes
        self._seen: set[int] = set()
        self._hooks: Any = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def __enter__(self) -> "KeptForBackward":
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not tensor.is_leaf and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.num_bytes += storage.nbytes()
            if self.num_bytes > self._limit:
                raise DoesNotFit
        return tensor
