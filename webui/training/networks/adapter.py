"""An adapter on a live model: small factors beside frozen layers."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from webui.errors import AdapterMismatch
from webui.library.families import AdapterBase
from webui.pipeline.adapters.embeddings import EmbeddingTable
from webui.pipeline.adapters.writing import KohyaNames, write_adapter
from webui.training.config import Network
from webui.training.networks.freezing import Frozen
from webui.training.networks.methods import make_layers
from webui.training.networks.trainable import Part, Tensors, copied_into, grouped


class AdapterNetwork:
    """LoRA and its kin. See `Trainable`."""

    embeddings: EmbeddingTable | None = None

    def __init__(self, modules: Mapping[str, nn.Module], network: Network, base: AdapterBase) -> None:
        """`modules` by component name, on the device that they are to stay on."""
        self._frozen = Frozen(modules.values())
        self._layers = make_layers(modules, network)
        self._names = KohyaNames(base, modules["unet"].config)  # type: ignore[arg-type]
        self._max_norm = network.max_norm
        for layer in self._layers.values():
            layer.attach()

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for target, layer in self._layers.items():
            for name, factor in layer.factors.items():
                yield f"{target.component}.{target.path}.{name}", factor

    def parameter_groups(self) -> Mapping[Part, list[nn.Parameter]]:
        return grouped(self.named_parameters())

    def train(self, mode: bool = True) -> None:
        for layer in self._layers.values():
            layer.training = mode

    def eval(self) -> None:
        self.train(False)

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        with ExitStack() as stack, torch.no_grad():
            for layer in self._layers.values():
                stack.enter_context(layer.scaled(weight))
            yield

    def after_step(self) -> int:
        if not self._max_norm:
            return 0
        return sum(layer.limit_norm(self._max_norm) for layer in self._layers.values())

    def vectors(self, component: str) -> nn.Parameter:
        raise KeyError(component)

    def tensors(self) -> Tensors:
        return {target: layer.tensors() for target, layer in self._layers.items()}

    def load_tensors(self, tensors: Tensors) -> None:
        if different := sorted(tensors.keys() ^ self._layers.keys()):
            known = "not trained here" if different[0] in tensors else "missing"
            raise AdapterMismatch(
                f"The adapter is for {len(tensors)} layers and this training for {self.num_layers}:"
                f" {different[0].path} of the {different[0].component.replace('_', ' ')} is {known}.",
                hint="Continue with the method and the layers that it was trained with.",
            )
        for target, layer in self._layers.items():
            layer.load(tensors[target], target.path)

    def state(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        copied_into(dict(self.named_parameters()), state)

    def write(
        self,
        folder: Path,
        name: str,
        *,
        dtype: torch.dtype,
        metadata: Mapping[str, str],
        bundled: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> tuple[Path, ...]:
        """`bundled` are textual inversions by name that go into the same file."""
        path = folder / f"{name}.safetensors"
        write_adapter(path, self.tensors(), self._names, dtype=dtype, metadata=metadata, embeddings=bundled or {})
        return (path,)

    def detach(self) -> None:
        for layer in self._layers.values():
            layer.detach()
        self._frozen.thaw()
