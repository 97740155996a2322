"""The model itself is what is trained: DreamBooth's fine-tuning. Ruiz et al. 2022, arXiv:2208.12242.

The base stays at hand in the checkpoint's files, so there is no second copy in memory except while something is
measured or sampled at another weight than 1.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from webui.errors import InvalidRequest, UnsupportedModel
from webui.library.tool_requests import CheckpointLayout, Precision
from webui.pipeline.adapters.embeddings import EmbeddingTable
from webui.pipeline.adapters.targets import ADAPTED_COMPONENTS
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.layouts import ComponentName
from webui.pipeline.sources import CheckpointSource
from webui.pipeline.tools.checkpoints import Derive, parts_of, write_checkpoint
from webui.pipeline.tools.checkpoints import Part as WrittenPart
from webui.training.networks.freezing import Frozen
from webui.training.networks.trainable import Part, Tensors, copied_into, grouped, refuse_layers

PRECISIONS: Mapping[torch.dtype, Precision] = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


class FullNetwork:
    """All weights of the U-Net, and of the text encoders if they are wanted. See `Trainable`."""

    embeddings: EmbeddingTable | None = None

    def __init__(self, modules: Mapping[str, nn.Module], checkpoint: CheckpointSource, *, text_encoder: bool) -> None:
        """`modules` hold what `checkpoint` says, in float32. Raises InvalidRequest if they have another type."""
        wanted = [name for name in ADAPTED_COMPONENTS if name in modules and (name == "unet" or text_encoder)]
        for name in wanted:
            if (dtype := next(modules[name].parameters()).dtype) != torch.float32:
                raise InvalidRequest(
                    "resources.precision",
                    f"The whole model is trained in float32, and the {name.replace('_', ' ')} is {dtype}.",
                    hint="Set the precision to fp32.",
                )
        self._frozen = Frozen(modules.values())
        self._checkpoint = checkpoint
        self._modules: dict[str, nn.Module] = {name: modules[name] for name in wanted}
        self._sources: dict[str, ComponentSource] = {name: _source(checkpoint, name) for name in wanted}
        for module in self._modules.values():
            module.requires_grad_(True)

    @property
    def num_layers(self) -> int:
        return sum(hasattr(part, "weight") for module in self._modules.values() for part in module.modules())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for component, module in self._modules.items():
            for name, parameter in module.named_parameters():
                yield f"{component}.{name}", parameter

    def parameter_groups(self) -> Mapping[Part, list[nn.Parameter]]:
        return grouped(self.named_parameters())

    def train(self, mode: bool = True) -> None:
        """There are no dropouts."""

    def eval(self) -> None:
        """There are no dropouts."""

    @contextmanager
    def scaled(self, weight: float) -> Iterator[None]:
        with torch.no_grad():
            if weight == 1:
                yield
                return
            trained = [(parameter, parameter.data) for _, parameter in self.named_parameters()]
            try:
                for name, parameter in self.named_parameters():
                    base = self._base_of(name, parameter)
                    parameter.data = base if weight == 0 else base.lerp_(parameter.data, weight)
                yield
            finally:
                for parameter, values in trained:
                    parameter.data = values

    def after_step(self) -> int:
        return 0

    def vectors(self, component: str) -> nn.Parameter:
        raise KeyError(component)

    def tensors(self) -> Tensors:
        return {}

    def load_tensors(self, tensors: Tensors) -> None:
        refuse_layers(tensors)

    def state(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        copied_into(dict(self.named_parameters()), state)

    def write(self, folder: Path, name: str, *, dtype: torch.dtype, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """A whole checkpoint: one file in the original layout, or a folder where its vocabulary is not CLIP's, which a
        file cannot carry."""
        parts = parts_of(self._checkpoint)
        trained: dict[ComponentName, WrittenPart] = {
            component: WrittenPart(part.source, self._trained(component)) if component in self._modules else part
            for component, part in parts.components.items()
        }
        layout: CheckpointLayout = "diffusers" if parts.tokenizers else "single-file"
        path = folder / (name if parts.tokenizers else f"{name}.safetensors")
        write_checkpoint(
            replace(parts, components=trained), path, layout=layout, precision=PRECISIONS[dtype], metadata=metadata
        )
        return (path,)

    def detach(self) -> None:
        """As it was before: the base's weights come from the files again."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(self._base_of(name, parameter))
        for module in self._modules.values():
            module.requires_grad_(False)
        self._frozen.thaw()

    def _base_of(self, name: str, parameter: Tensor) -> Tensor:
        component, _, own = name.partition(".")
        pristine = self._sources[component].tensor(own)
        return torch.empty_like(parameter).copy_(pristine.reshape(parameter.shape))

    def _trained(self, component: str) -> Derive:
        parameters = dict(self._modules[component].named_parameters())

        def derive(name: str, tensor: Tensor) -> Tensor:
            # Buffers, such as positions, stay the file's.
            return parameters[name].detach().reshape(tensor.shape) if name in parameters else tensor

        return derive


def _source(checkpoint: CheckpointSource, component: str) -> ComponentSource:
    source = checkpoint.component(component)
    if source is None:
        raise UnsupportedModel(checkpoint.info.path, f"it has no {component.replace('_', ' ')}")
    return source
