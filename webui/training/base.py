"""The checkpoint that is trained on: loaded to stay on the device, in the precision to train in, its rest frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from webui.errors import InvalidRequest
from webui.library.catalog import Library
from webui.pipeline.adapters.targets import ADAPTED_COMPONENTS
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.device import DTYPES, Device
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import TEXT_ENCODERS, Model
from webui.pipeline.sources import open_checkpoint
from webui.pipeline.text_encoding import ClipEncoder
from webui.training.config import Precision, TrainingConfig
from webui.training.frozen import lighten
from webui.training.networks.attaching import attach
from webui.training.networks.embedding import new_embedding
from webui.training.networks.trainable import Trainable
from webui.training.seeds import mixed

FIRST_VALUES = 1
"""Tells the seed of a network's first values from the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computing:
    """`device` with the type that weights have. `autocast`: what is computed in where the weights are trained."""

    device: Device
    autocast: torch.dtype | None = None


def computing(device: Device, precision: Precision, *, whole_model: bool) -> Computing:
    """On a processor float32, which half precisions are slower than; on CUDA bf16 where it has it.

    A whole model is trained in float32, as updates would be lost in the rounding of anything less.
    """
    dtype = _automatic(device.torch_device) if precision == "auto" else DTYPES[precision]
    if not whole_model:
        return Computing(device=replace(device, dtype=dtype))
    autocast = None if dtype == torch.float32 else dtype
    return Computing(device=replace(device, dtype=torch.float32), autocast=autocast)


def _automatic(device: torch.device) -> torch.dtype:
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def load_base(library: Library, name: str, device: Device, *, cache_dir: Path | None = None) -> Model:
    """Raises ModelNotFound, UnsupportedModel, OutOfDeviceMemory, or InvalidRequest for one that cannot be trained."""
    model = PipelineManager(library, device, cache_dir=cache_dir, resident=True).load(name)
    if model.inputs.guidance_dim or model.inputs.num_time_ids == 5:
        kind = "a distilled model" if model.inputs.guidance_dim else "a refiner"
        raise InvalidRequest("base", f"'{name}' is {kind}, which is not trained.", hint="Choose the model it is for.")
    for component in model.components.values():
        component.source.close()  # what was read of the files need not stay in memory
    if model.codec.vae.dtype != torch.float32:  # half precision overflows on some photos, and rounds all of them
        model.codec.vae.to(torch.float32)
    model.codec.vae.requires_grad_(False)
    return model


def sources_of(model: Model) -> Mapping[str, ComponentSource]:
    """What the base is told from others by: the files of what is trained on, not the autoencoder's."""
    return {name: part.source for name, part in model.components.items() if name in ADAPTED_COMPONENTS}


def attached(model: Model, config: TrainingConfig) -> Trainable:
    """What `config` trains, on `model`, with its first values; new words are known to the text encoders."""
    encoders = encoders_of(model)
    data, network = config.data, config.network
    embedding = None
    if network.method in ("embedding", "pivotal"):
        word = network.embedding_start or data.class_word
        embedding = new_embedding(encoders, data.trigger, word, network.num_vectors)
    modules: dict[str, nn.Module] = {
        name: part.module for name, part in model.components.items() if name in ADAPTED_COMPONENTS
    }
    checkpoint = open_checkpoint(model.info) if network.method == "full" else None
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(mixed(config.schedule.seed, FIRST_VALUES) % 2**63)
        trained = attach(modules, network, model.family.adapter_base, embedding=embedding, checkpoint=checkpoint)
    if trained.embeddings is not None:
        model.text_encoder.embeddings = trained.embeddings.names
        for name, encoder in encoders.items():
            encoder.embed = partial(trained.embeddings.insert, name)
    return trained


def make_light(model: Model) -> None:
    """What stands still of it takes less memory and time from now on, at the same numbers. After `attached`."""
    for network in (*(part.module for part in model.components.values()), model.codec.vae):
        lighten(network)


def encoders_of(model: Model) -> dict[str, ClipEncoder]:
    """By component."""
    names = [name for name in TEXT_ENCODERS if name in model.components]
    return dict(zip(names, model.text_encoder.encoders, strict=True))
