"""A small device that is none: what is "on" it is kept in a ledger."""

from collections.abc import Sequence

import torch
from torch import Tensor

from webui.pipeline.offload import Transfers


class FakeDevice:
    """A device of `capacity` bytes, on the host: what is "on" it is known to `ledger` alone."""

    torch_device = torch.device("cpu")

    def __init__(self, capacity: int, ledger: "Ledger") -> None:
        self._capacity = capacity
        self._ledger = ledger

    def free_bytes(self) -> int:
        return self._capacity - self._ledger.used

    def free_memory(self) -> None:
        """Nothing is cached."""


class Ledger(Transfers):
    """Copies that remember which of them are on the device."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.sizes: dict[int, int] = {}
        self.peak = 0

    @property
    def used(self) -> int:
        return sum(self.sizes.values())

    def holds(self, tensor: Tensor) -> bool:
        return tensor.data_ptr() in self.sizes

    def to_device(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        copies = [tensor if self.holds(tensor) else tensor.clone() for tensor in tensors]
        self.sizes |= {copy.data_ptr(): copy.nbytes for copy in copies}
        self.peak = max(self.peak, self.used)
        return copies

    def to_host(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        copies = [tensor.clone() for tensor in tensors]
        self.dropped(tensors)
        return copies

    def dropped(self, copies: Sequence[Tensor]) -> None:
        for copy in copies:
            self.sizes.pop(copy.data_ptr(), None)
