"""Where models run, in which precision and memory layout: measured on this machine, not guessed from its flags."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from webui.errors import InvalidRequest, OutOfDeviceMemory

BF16_MUST_WIN_BY = 1.3
"""bf16 has to be this much faster than fp32 on a processor to be worth its rounding."""

OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "_status_alloc_failed",
    "unable to find an engine to execute this computation",
)
"""Of the processor and of CUDA; cuBLAS' and cuDNN's own; and what a convolution says for whose workspace there was no
room with any of cuDNN's methods."""

CONTAINER = Path("/sys/fs/cgroup")

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """`images_at_once`: whether a batch goes through the network together. On a processor that gains nothing, and one
    at a time keeps each picture bit-identical to the one made alone."""

    torch_device: torch.device
    dtype: torch.dtype
    images_at_once: bool

    @property
    def is_cpu(self) -> bool:
        return self.torch_device.type == "cpu"

    @property
    def moves_networks(self) -> bool:
        """Whether networks come to the device and go from it; where it shares the host's memory that gains nothing."""
        return self.torch_device.type == "cuda"

    def free_bytes(self) -> int:
        """Memory that can be had now without pushing anything out."""
        match self.torch_device.type:
            case "cuda":
                cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
                return int(torch.cuda.mem_get_info()[0]) + cached
            case "mps":
                return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        return min(int(psutil.virtual_memory().available), container_free_bytes(CONTAINER))

    def free_memory(self) -> None:
        """Gives cached blocks back to the device."""
        if self.torch_device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.torch_device.type == "mps":
            torch.mps.empty_cache()


def container_free_bytes(folder: Path) -> int:
    """What a container's limit leaves, cached files aside; `folder` is its control group (version 2). Without a limit,
    more than any machine has."""
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
        details = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return sys.maxsize
    return int(limit) - used + int(details["inactive_file"]) if limit.isdigit() else sys.maxsize


def choose_device(device: str, dtype: str) -> Device:
    """`device` "auto" prefers cuda, then mps; `dtype` "auto" is fp16 there, and on a processor what a probe finds.

    Raises InvalidRequest if the named device is not there.
    """
    name = device if device != "auto" else _best_available()
    if name == "cuda" and not torch.cuda.is_available():
        raise InvalidRequest("device", "No CUDA device is available.", hint="Use --device cpu, or check the driver.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise InvalidRequest("device", "No Apple GPU is available.", hint="Use --device cpu.")
    chosen = DTYPES[dtype] if dtype != "auto" else _best_dtype(name)
    return Device(torch_device=torch.device(name), dtype=chosen, images_at_once=name != "cpu")


def _best_dtype(device: str) -> torch.dtype:
    return probe_cpu_dtype() if device == "cpu" else torch.float16


def _best_available() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def probe_cpu_dtype() -> torch.dtype:
    """float32, or bfloat16 where a matrix product is clearly faster in it (processors with matrix units)."""
    a = torch.randn(768, 768)
    half = a.to(torch.bfloat16)
    fp32_s, bf16_s = fastest_of([lambda: a @ a, lambda: half @ half], repeats=5)
    return torch.bfloat16 if fp32_s > bf16_s * BF16_MUST_WIN_BY else torch.float32


def probe_memory_format(
    block: nn.Module, run: Callable[[nn.Module, torch.memory_format], Tensor]
) -> torch.memory_format:
    """The layout in which `run(block, layout)` is faster; `block` is left in that layout."""
    formats = (torch.contiguous_format, torch.channels_last)
    seconds = []
    for memory_format in formats:
        block.to(memory_format=memory_format)  # type: ignore[call-overload]
        seconds.append(fastest_of([lambda layout=memory_format: run(block, layout)], repeats=3)[0])  # type: ignore[misc]
    best = formats[0] if seconds[0] <= seconds[1] else formats[1]
    block.to(memory_format=best)  # type: ignore[call-overload]
    return best


def fastest_of(runs: list[Callable[[], Tensor]], *, repeats: int) -> list[float]:
    """Seconds of each run's fastest repeat, the runs taken in turn after one warm-up each."""
    for run in runs:
        run()
    best = [float("inf")] * len(runs)
    for _ in range(repeats):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library error means that the device is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY_WORDS)


@contextmanager
def translated_memory_errors(device: Device, *, what: str, hint: str) -> Iterator[None]:
    """Turns a library's out-of-memory error into OutOfDeviceMemory, with the device's caches freed."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        device.free_memory()
        raise OutOfDeviceMemory(f"The device ran out of memory while {what}.", hint=hint) from error
