"""What the loop needs of the thing that is trained."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn


class Trained(Protocol):
    """Weights that move, on a model whose others stand still. `webui.training.networks` has them."""

    def parameter_groups(self) -> Mapping[Any, Sequence[nn.Parameter]]:
        """By part of the model: "unet", "text_encoder", "embedding"; those that are there, always in one order."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def train(self, mode: bool = True) -> Any:
        """Dropouts work only while training, and draw from torch's global generator only."""
        ...

    def scaled(self, weight: float) -> AbstractContextManager[Any]:
        """The model with this much of what was learnt; 0 is the base, bit for bit. Without gradients."""
        ...

    def after_step(self) -> int:
        """Keeps limits that were asked for; how many layers were over theirs."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Views of the weights by name."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...
