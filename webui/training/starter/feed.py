"""What each step learns from, made ahead of time by other processes where the device is faster than the composing."""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader, Dataset

Batch = TypeVar("Batch")
AHEAD = 4  # batches that each process keeps ready


class Feed(Generic[Batch]):
    """`feed(step)` is `make(step)`; with `num_workers` processes the steps after it, up to `last`, are made meanwhile.

    `make` then runs in forked processes, so it must not touch a device, and steps must be asked for in order. Arrays go
    through a pipe, 8-bit pixels best; tensors would need shared memory, of which a container may have little.
    """

    def __init__(self, make: Callable[[int], Batch], *, last: int, num_workers: int) -> None:
        self._make = make
        self._last = last
        self._num_workers = num_workers
        self._ready: Iterator[tuple[int, Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        if not self._num_workers:
            return self._make(step)
        if self._ready is None:
            self._ready = self._workers(step)
        made_for, batch = next(self._ready)
        if made_for != step:
            raise ValueError(f"Step {step} was asked for, but {made_for} comes next.")
        return batch

    def _workers(self, first: int) -> Iterator[tuple[int, Batch]]:
        loader: DataLoader[tuple[int, Batch]] = DataLoader(
            _Steps(self._make, first, self._last),
            batch_size=None,
            num_workers=self._num_workers,
            prefetch_factor=AHEAD,
            collate_fn=_unchanged,
            multiprocessing_context="fork",
        )
        return iter(loader)


def _unchanged(step: Any) -> Any:
    return step


class _Steps(Dataset[tuple[int, Batch]]):
    def __init__(self, make: Callable[[int], Batch], first: int, last: int) -> None:
        self._make = make
        self._first = first
        self._last = last

    def __len__(self) -> int:
        return self._last - self._first

    def __getitem__(self, index: int) -> tuple[int, Batch]:
        if index >= len(self):
            raise IndexError(index)
        return self._first + index, self._make(self._first + index)
