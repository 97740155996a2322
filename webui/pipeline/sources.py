"""Checkpoints as sources of weights: what lies where, under the names of our networks. Nothing is read but headers.

Covers diffusers folders (single, sharded and fp16 weight files), single files of the original layout and single files
with diffusers' names, as .safetensors or old pickles.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from webui.errors import UnsupportedModel, WebUIError
from webui.library.architecture import TEXT_PREFIXES, UNET_PREFIX, VAE_PREFIX, component_configs
from webui.library.catalog import CheckpointInfo
from webui.library.entries import CLIP_VOCABULARY, own_tokenizer
from webui.library.families import FAMILIES, AdapterBase
from webui.pipeline.component_source import ComponentSource, Origin
from webui.pipeline.layouts import (
    COMPONENT_NAMES,
    ComponentName,
    Config,
    WeightName,
    clip_weights,
    ema_name,
    has_projection,
    open_clip_weights,
    unet_weights,
    vae_weights,
    with_prefix,
)
from webui.pipeline.weight_files import WeightFile, open_weights


class CheckpointSource:
    """What a checkpoint's files hold. `component` is None where there is no such part."""

    def __init__(
        self,
        info: CheckpointInfo,
        components: Mapping[str, ComponentSource],
        tokenizers: Mapping[str, Path],
        scheduler_config: Config,
    ) -> None:
        self.info = info
        self.scheduler_config = scheduler_config
        self._components = components
        self._tokenizers = tokenizers

    def names(self) -> Sequence[str]:
        return tuple(self._components)

    def component(self, name: str) -> ComponentSource | None:
        return self._components.get(name)

    def tokenizer(self, name: str = "tokenizer") -> Path:
        """The folder with the vocabulary: the checkpoint's own, else CLIP's, which ships with us."""
        return self._tokenizers.get(name, CLIP_VOCABULARY)


def open_checkpoint(info: CheckpointInfo) -> CheckpointSource:
    """Raises UnsupportedModel if the files are damaged or hold something else than `info` says."""
    return _open_folder(info) if info.path.is_dir() else _open_file(info)


def open_vae(path: Path, family: str) -> ComponentSource:
    """An autoencoder of its own: a file in either layout, a whole checkpoint of which it is a part, or a folder.

    Raises UnsupportedModel if there is none in it.
    """
    if path.is_dir():
        return _folder_component("vae", path if (path / "config.json").is_file() else path / "vae")
    file = open_weights(path)
    source = _file_component("vae", file, _configs(file, family), family)
    if source is None:
        raise UnsupportedModel(path, "it holds no autoencoder (VAE)")
    return source


def open_tiny_decoder(path: Path) -> ComponentSource:
    """TAESD as its maker publishes it: one file with diffusers' names and sizes. Raises UnsupportedModel."""
    file = open_weights(path)
    if "decoder.layers.0.weight" not in file.header.tensors:
        raise UnsupportedModel(path, "it is no TAESD with diffusers' names")
    return ComponentSource("tiny_decoder", path, {}, _diffusers_origins("tiny_decoder", {}, file, ""))


TOKENIZERS: tuple[Literal["tokenizer", "tokenizer_2"], ...] = ("tokenizer", "tokenizer_2")
FOLDER_COMPONENTS = (*COMPONENT_NAMES, "tiny_decoder")


def _open_folder(info: CheckpointInfo) -> CheckpointSource:
    folders = [info.path / name for name in FOLDER_COMPONENTS if (info.path / name).is_dir()]
    components = {folder.name: _folder_component(folder.name, folder) for folder in folders}
    found = {name: own_tokenizer(info, name) for name in TOKENIZERS}
    tokenizers = {str(name): folder for name, folder in found.items() if folder is not None}
    scheduler = _scheduler(read_config(info.path / "scheduler"), info)
    return CheckpointSource(info, components, tokenizers, scheduler)


def _open_file(info: CheckpointInfo) -> CheckpointSource:
    file = open_weights(info.path)
    configs = _configs(file, info.family)
    found = {name: _file_component(name, file, configs, info.family) for name in COMPONENT_NAMES}
    components = {str(name): source for name, source in found.items() if source is not None}
    return CheckpointSource(info, components, {}, _scheduler(configs["scheduler"], info))


def _scheduler(config: Config, info: CheckpointInfo) -> dict[str, Any]:
    """`config` with what `info` knows: marker tensors in a file, and the user's word against a folder's own."""
    scheduler = {**config, "prediction_type": info.prediction_type}
    return scheduler | {"rescale_betas_zero_snr": True} if info.zero_terminal_snr else scheduler


def _configs(file: WeightFile, family: str) -> Mapping[str, dict[str, Any]]:
    try:
        return component_configs(file.header, family)
    except UnsupportedModel:
        raise
    except WebUIError as error:
        raise UnsupportedModel(file.path, str(error)) from error


# Single files --------------------------------------------------------------------------------------------------------

UNUSED = ("logit_scale", "text_projection", "attn_mask", "loss.", "model_ema.", "transformer.resblocks.")
"""Starts of names that original files carry beside a network's weights: layers it runs without, and training's."""

BUFFER = "position_ids"
"""transformers before 4.31 stored it."""

EMA_UNET_PREFIX = "model_ema.diffusion_model"
FIRST_WEIGHT: Mapping[str, str] = MappingProxyType(
    {
        "unet": "time_embedding.linear_1.weight",
        "vae": "encoder.conv_in.weight",
        "text_encoder": "embeddings.token_embedding.weight",
        "text_encoder_2": "text_model.embeddings.token_embedding.weight",
    }
)
"""By which weight a component with diffusers' names is known to be there."""


def _file_component(
    name: ComponentName, file: WeightFile, configs: Mapping[str, Config], family: str
) -> ComponentSource | None:
    """The component in `file`, by the first of the known ways of naming it that is there; None if none is.

    The averaged U-Net is taken only where there is no other: what users see elsewhere is made with the other.
    """
    config = configs.get(name)
    if config is None:
        return None
    for prefix, weights in _original_namings(name, config, FAMILIES[family].adapter_base):
        if weights[0].original in file.header.tensors:
            return ComponentSource(name, file.path, config, _original_origins(file, prefix, weights))
    for prefix in (f"{name}.", ""):
        origins = _diffusers_origins(name, config, file, prefix)
        if FIRST_WEIGHT[name] in origins:
            return ComponentSource(name, file.path, config, origins)
    return None


def _original_namings(
    name: ComponentName, config: Config, base: AdapterBase
) -> Iterator[tuple[str, Sequence[WeightName]]]:
    """(prefix, weights with their full names in the file), the usual naming first."""
    if name == "unet":
        weights = unet_weights(config)
        yield from ((prefix, with_prefix(weights, prefix)) for prefix in (UNET_PREFIX, ""))
        full = with_prefix(weights, UNET_PREFIX)
        yield EMA_UNET_PREFIX, [replace(weight, original=ema_name(weight.original)) for weight in full]
    elif name == "vae":
        yield from ((prefix, with_prefix(vae_weights(config), prefix)) for prefix in (VAE_PREFIX, ""))
    else:
        prefix, is_open_clip = TEXT_PREFIXES[base].get(name, ("", False))
        weights = open_clip_weights(config) if is_open_clip else clip_weights(config)
        # files from before transformers' CLIP had a "text_model" leave that word out
        yield from ((start, with_prefix(weights, start)) for start in (prefix, prefix.removesuffix("text_model.")))


def _original_origins(file: WeightFile, prefix: str, weights: Sequence[WeightName]) -> dict[str, Origin]:
    """What is under `prefix` and unknown keeps its own name, so that whoever builds the network can refuse it."""
    tensors = file.header.tensors
    known = {weight.original for weight in weights}
    origins = {w.name: Origin(file, w.original, w.transform) for w in weights if w.original in tensors}
    for key in tensors:
        rest = key.removeprefix(prefix)
        if key.startswith(prefix) and key not in known and not rest.startswith(UNUSED) and not rest.endswith(BUFFER):
            origins[rest] = Origin(file, key)
    return origins


def _diffusers_origins(name: str, config: Config, file: WeightFile, prefix: str) -> dict[str, Origin]:
    rename = _current_name(name, config)
    return {
        rename(key.removeprefix(prefix)): Origin(file, key)
        for key in file.header.tensors
        if key.startswith(prefix) and not key.endswith(BUFFER)
    }


# Folders -------------------------------------------------------------------------------------------------------------

WEIGHT_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
WEIGHT_ENDINGS = (".safetensors", ".safetensors.index.json", ".fp16.safetensors", ".safetensors.index.fp16.json",
                  ".bin", ".fp16.bin")  # fmt: skip
"""In order of preference: whole before half precision, safetensors before pickles."""


def read_config(folder: Path) -> dict[str, Any]:
    """A component's config. Raises UnsupportedModel if there is none."""
    name = "scheduler_config.json" if folder.name == "scheduler" else "config.json"
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnsupportedModel(folder.parent, f"{folder.name}/{name} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise UnsupportedModel(folder.parent, f"{folder.name}/{name} is not a JSON object")
    return value


def _folder_component(name: str, folder: Path) -> ComponentSource:
    config = read_config(folder)
    origins: dict[str, Origin] = {}
    for path in _weight_paths(folder):
        try:
            file = open_weights(path)
        except UnsupportedModel as error:
            raise UnsupportedModel(
                folder.parent, f"{folder.name}/{path.name}: {error.reason}", hint=error.hint
            ) from error
        origins |= _diffusers_origins(name, config, file, "")
    return ComponentSource(name, folder.parent, config, origins)


def _weight_paths(folder: Path) -> list[Path]:
    for stem in WEIGHT_STEMS:
        for ending in WEIGHT_ENDINGS:
            path = folder / f"{stem}{ending}"
            if path.is_file():
                return _shards(path) if ending.endswith(".json") else [path]
    raise UnsupportedModel(folder.parent, f"{folder.name} has no .safetensors weights")


def _shards(index: Path) -> list[Path]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModel(index, f"it does not say where the weights are ({error})") from error
    if any(Path(name).name != name for name in names):
        raise UnsupportedModel(index, "it names files outside its folder")
    return [index.parent / name for name in names]


def _current_name(name: str, config: Config) -> Callable[[str], str]:
    """How names that older libraries wrote are called in today's networks."""
    if name == "vae":
        return _current_attention_name
    if not name.startswith("text_encoder"):
        return str
    return _prefixed_text_name if has_projection(config) else _flat_text_name


def _current_attention_name(key: str) -> str:
    """Autoencoders saved before diffusers 0.15 have other names in their mid attention."""
    if ".attentions." not in key:
        return key
    for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
        key = key.replace(f".{old}.", f".{new}.")
    return key


def _flat_text_name(key: str) -> str:
    """transformers 5.6 took the word out of CLIPTextModel."""
    return key.removeprefix("text_model.")


def _prefixed_text_name(key: str) -> str:
    return key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}"
