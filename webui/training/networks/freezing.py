"""Networks whose own weights need no gradients, and how they were before."""

from collections.abc import Iterable

from torch import nn


class Frozen:
    """Freezes `modules` until `thaw`."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        self._needed = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in parameters:
            parameter.requires_grad_(False)

    def thaw(self) -> None:
        for parameter in self._needed:
            parameter.requires_grad_(True)
