"""Component configs of a single-file checkpoint: its own if it carries them, else read off the shapes of its weights.

What shapes can't tell (activations, noise schedule, scaling of latents) comes from the family's facts in `configs/`.
Names are looked up, never searched, so that a header of thousands of names costs a few hundred lookups.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from webui.errors import WebUIError
from webui.library.families import FAMILIES
from webui.library.header import Header

CONFIG_KEY = "atelier.config"
"""Where our own single files carry their configs: metadata, JSON of {component: config}."""

Component = Literal["unet", "vae", "text_encoder", "text_encoder_2", "scheduler"]
Config = Mapping[str, Any]
ShapeOf = Callable[[str], tuple[int, ...] | None]
"""The shape of a component's weight by its name inside the component; None if there is no such weight."""

HEAD_WIDTH = 64
"""Channels per attention head wherever the number of heads is not fixed: SD 2, SDXL, CLIP."""
UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
EMA_PREFIX = "model_ema."
TEXT_PREFIXES: Mapping[str, Mapping[str, tuple[str, bool]]] = MappingProxyType(
    {
        "sd1": {"text_encoder": ("cond_stage_model.transformer.text_model.", False)},
        "sd-custom": {"text_encoder": ("cond_stage_model.transformer.text_model.", False)},
        "sd2": {"text_encoder": ("cond_stage_model.model.", True)},
        "sdxl": {
            "text_encoder": ("conditioner.embedders.0.transformer.text_model.", False),
            "text_encoder_2": ("conditioner.embedders.1.model.", True),
        },
        "sdxl-refiner": {"text_encoder_2": ("conditioner.embedders.0.model.", True)},
    }
)
"""By `Family.adapter_base`: where each text encoder lies in an original file, and whether it has OpenCLIP's names."""


def component_config(family: str, component: Component) -> dict[str, Any]:
    """The config of a component of an ordinary model of `family`. Raises KeyError if it has no such component."""
    row = FAMILIES[family]
    config = dict(_facts(row.configs, component))
    if component == "unet":
        config |= {"in_channels": row.in_channels, "sample_size": row.native_size // 8}
    if component == "scheduler":
        config["prediction_type"] = row.prediction_type
    return config


def family_components(family: str) -> tuple[str, ...]:
    """Which weight-bearing components a whole checkpoint of `family` has."""
    return ("unet", "vae", *TEXT_PREFIXES[FAMILIES[family].adapter_base])


def component_configs(header: Header, family: str) -> dict[str, dict[str, Any]]:
    """Configs of the components that the file holds, in the words of diffusers and transformers; always "scheduler".

    Reads original and diffusers names, a whole checkpoint or one component alone. A config in the file's metadata wins.
    Raises WebUIError if the shapes fit no network that we can build.
    """
    own = _own_configs(header)
    configs = {"scheduler": own.get("scheduler") or component_config(family, "scheduler")}
    for component, read in _READERS.items():
        if component in own:
            configs[component] = own[component]
        elif component in family_components(family):
            config = read(header, family)
            if config is not None:
                configs[component] = config
    return configs


@dataclass(frozen=True, slots=True)
class UnetStructure:
    """`levels`: (channels, residual blocks, transformer layers or 0) from full resolution down."""

    levels: tuple[tuple[int, int, int], ...]
    middle_depth: int
    in_channels: int
    out_channels: int
    context_width: int
    linear: bool
    pooled_width: int | None
    guidance_width: int | None
    """Width of the guidance embedding of distilled networks (LCM); None without one."""


def unet_structure(header: Header) -> UnetStructure | None:
    """What the shapes say of the file's U-Net; None if it has none. Raises WebUIError if its blocks are uneven."""
    tensors = header.tensors
    for prefix in (UNET_PREFIX, ""):
        if f"{prefix}input_blocks.0.0.weight" in tensors:
            return _structure(_under(header, prefix), _ORIGINAL)
    if f"{EMA_PREFIX}diffusion_modelinput_blocks00weight" in tensors:
        return _structure(_averaged(header), _ORIGINAL)
    for prefix in ("unet.", ""):
        if f"{prefix}time_embedding.linear_1.weight" in tensors:
            return _structure(_under(header, prefix), _DIFFUSERS)
    return None


def _own_configs(header: Header) -> dict[str, dict[str, Any]]:
    try:
        configs = json.loads(header.metadata.get(CONFIG_KEY, "{}"))
        return {str(name): dict(config) for name, config in configs.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise WebUIError(f"The file's own configs ({CONFIG_KEY}) cannot be read: {error}") from error


@cache
def _facts(folder: str, component: str) -> Config:
    path = Path(__file__).parent / "configs" / folder / f"{component}.json"
    if not path.is_file():
        raise KeyError(component)
    return MappingProxyType(json.loads(path.read_text(encoding="utf-8")))


def _under(header: Header, prefix: str) -> ShapeOf:
    tensors = header.tensors

    def shape_of(name: str) -> tuple[int, ...] | None:
        info = tensors.get(prefix + name)
        return None if info is None else info.shape

    return shape_of


def _averaged(header: Header) -> ShapeOf:
    """EMA names are the U-Net's without dots."""
    tensors = header.tensors

    def shape_of(name: str) -> tuple[int, ...] | None:
        info = tensors.get(f"{EMA_PREFIX}diffusion_model{name.replace('.', '')}")
        return None if info is None else info.shape

    return shape_of


# U-Net ---------------------------------------------------------------------------------------------------------------

Block = tuple[int, str]
"""Channels, and the name that its transformer has if there is one."""


def _unet_config(header: Header, family: str) -> dict[str, Any] | None:
    found = unet_structure(header)
    if found is None:
        return None
    config = component_config(family, "unet")
    channels = [width for width, _, _ in found.levels]
    attends = [depth > 0 for _, _, depth in found.levels]
    config |= {
        "in_channels": found.in_channels,
        "out_channels": found.out_channels,
        "block_out_channels": channels,
        "layers_per_block": _one_or_list([layers for _, layers, _ in found.levels]),
        "down_block_types": ["CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        "cross_attention_dim": found.context_width,
        "use_linear_projection": found.linear,
    }
    depths = _depths(found)
    if depths != config.get("transformer_layers_per_block", 1):
        config["transformer_layers_per_block"] = depths
    if found.linear:
        config["attention_head_dim"] = [max(1, width // HEAD_WIDTH) for width in channels]
    if found.pooled_width is not None:
        config["projection_class_embeddings_input_dim"] = found.pooled_width
    if found.guidance_width is not None:
        config["time_cond_proj_dim"] = found.guidance_width
    return config


def _depths(found: UnetStructure) -> int | list[int]:
    """diffusers takes the middle's depth from the last level, whether that has transformers or not."""
    depths = [depth for _, _, depth in found.levels]
    if {depth for depth in depths if depth} == {found.middle_depth}:
        return found.middle_depth
    return [depth or 1 for depth in depths[:-1]] + [found.middle_depth]


def _one_or_list(values: Sequence[int]) -> int | list[int]:
    return values[0] if len(set(values)) == 1 else list(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Naming:
    """What a layout calls a U-Net's parts. `down` gives the blocks of each level, `num_up` counts the way up's."""

    conv_in: str
    conv_out: str
    middle: str
    pooled: str
    guidance: str
    down: Callable[[ShapeOf], list[list[Block]]]
    num_up: Callable[[ShapeOf], int]


def _structure(shape_of: ShapeOf, names: _Naming) -> UnetStructure:
    levels = [[(width, _num_layers(shape_of, name)) for width, name in level] for level in names.down(shape_of)]
    middle_depth = _num_layers(shape_of, names.middle)
    num_up = sum(len(level) + 1 for level in levels)
    if (
        not levels
        or not middle_depth
        or names.num_up(shape_of) != num_up
        or any(len(set(level)) != 1 for level in levels)
    ):
        raise WebUIError("The blocks of its U-Net are uneven: parts are missing, or it is a pruned network.")
    if levels[-1][0][1] not in (0, middle_depth):
        raise WebUIError("The middle of its U-Net has another depth than its last level.")
    first, last, projection = (
        shape_of(names.conv_in),
        shape_of(names.conv_out),
        shape_of(f"{names.middle}.proj_in.weight"),
    )
    context = shape_of(f"{names.middle}.transformer_blocks.0.attn2.to_k.weight")
    if not first or not last or not projection or not context or len(first) != 4 or len(context) != 2:
        raise WebUIError("Its U-Net lacks its first, middle or last layer.")
    pooled, guidance = shape_of(names.pooled), shape_of(names.guidance)
    return UnetStructure(
        levels=tuple((level[0][0], len(level), level[0][1]) for level in levels),
        middle_depth=middle_depth,
        in_channels=first[1],
        out_channels=last[0],
        context_width=context[1],
        linear=len(projection) == 2,
        pooled_width=pooled[-1] if pooled else None,
        guidance_width=guidance[-1] if guidance else None,
    )


def _original_blocks(shape_of: ShapeOf) -> list[list[Block]]:
    levels: list[list[Block]] = [[]]
    number = 1
    while True:
        block = f"input_blocks.{number}"
        if conv := shape_of(f"{block}.0.out_layers.3.weight"):
            levels[-1].append((conv[0], f"{block}.1"))
        elif shape_of(f"{block}.0.op.weight"):
            levels.append([])
        else:
            return levels if levels[-1] else []
        number += 1


def _diffusers_blocks(shape_of: ShapeOf) -> list[list[Block]]:
    levels: list[list[Block]] = []
    while True:
        block = f"down_blocks.{len(levels)}"
        level: list[Block] = []
        while conv := shape_of(f"{block}.resnets.{len(level)}.conv2.weight"):
            level.append((conv[0], f"{block}.attentions.{len(level)}"))
        if not level:
            return levels
        levels.append(level)


def _num_diffusers_up(shape_of: ShapeOf) -> int:
    num_blocks = _count(shape_of, "up_blocks.{}.resnets.0.conv2.weight")
    return sum(_count(shape_of, f"up_blocks.{block}.resnets.{{}}.conv2.weight") for block in range(num_blocks))


_ORIGINAL = _Naming(
    conv_in="input_blocks.0.0.weight",
    conv_out="out.2.weight",
    middle="middle_block.1",
    pooled="label_emb.0.0.weight",
    guidance="time_embed.cond_proj.weight",
    down=_original_blocks,
    num_up=lambda shape_of: _count(shape_of, "output_blocks.{}.0.out_layers.3.weight"),
)
_DIFFUSERS = _Naming(
    conv_in="conv_in.weight",
    conv_out="conv_out.weight",
    middle="mid_block.attentions.0",
    pooled="add_embedding.linear_1.weight",
    guidance="time_embedding.cond_proj.weight",
    down=_diffusers_blocks,
    num_up=_num_diffusers_up,
)


def _num_layers(shape_of: ShapeOf, transformer: str) -> int:
    return _count(shape_of, f"{transformer}.transformer_blocks.{{}}.norm1.weight")


def _count(shape_of: ShapeOf, pattern: str) -> int:
    number = 0
    while shape_of(pattern.format(number)) is not None:
        number += 1
    return number


# Autoencoder ---------------------------------------------------------------------------------------------------------


def _vae_config(header: Header, family: str) -> dict[str, Any] | None:
    for prefix in (VAE_PREFIX, "vae.", ""):
        shape_of = _under(header, prefix)
        if shape_of("decoder.conv_in.weight"):
            break
    else:
        return None
    for pattern in ("encoder.down.{}.block.0.conv2.weight", "encoder.down_blocks.{}.resnets.0.conv2.weight"):
        if shape_of(pattern.format(0)):
            break
    else:
        raise WebUIError("Its autoencoder has no encoder.")
    widths = [(shape_of(pattern.format(level)) or (0,))[0] for level in range(_count(shape_of, pattern))]
    layers = _count(shape_of, pattern.format(0).replace("0.conv2", "{}.conv2"))
    return component_config(family, "vae") | {
        "block_out_channels": widths,
        "layers_per_block": layers,
        "latent_channels": (shape_of("decoder.conv_in.weight") or (0, 4))[1],
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
    }


# Text encoders -------------------------------------------------------------------------------------------------------


def _text_reader(component: Component) -> Callable[[Header, str], dict[str, Any] | None]:
    def read(header: Header, family: str) -> dict[str, Any] | None:
        facts = component_config(family, component)
        prefix, is_open_clip = TEXT_PREFIXES[FAMILIES[family].adapter_base][component]
        shape_of = _under(header, prefix)
        if is_open_clip and shape_of("token_embedding.weight"):
            return facts | _open_clip_sizes(shape_of, facts)
        for start in (prefix, prefix.removesuffix("text_model."), f"{component}.text_model.", f"{component}."):
            shape_of = _under(header, start)
            if shape_of("embeddings.token_embedding.weight"):
                projection = _under(header, f"{component}.")("text_projection.weight")
                return facts | _clip_sizes(shape_of) | ({"projection_dim": projection[0]} if projection else {})
        return None

    return read


def _clip_sizes(shape_of: ShapeOf) -> dict[str, Any]:
    vocabulary, width = shape_of("embeddings.token_embedding.weight") or (0, 0)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": (shape_of("encoder.layers.0.mlp.fc1.weight") or (4 * width,))[0],
        "num_hidden_layers": _count(shape_of, "encoder.layers.{}.layer_norm1.weight"),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": (shape_of("embeddings.position_embedding.weight") or (77,))[0],
    }


def _open_clip_sizes(shape_of: ShapeOf, facts: Config) -> dict[str, Any]:
    """SD 2 stores all layers and runs without the last; a file made from a diffusers folder lacks that one already."""
    vocabulary, width = shape_of("token_embedding.weight") or (0, 0)
    stored = _count(shape_of, "transformer.resblocks.{}.ln_1.weight")
    with_projection = "CLIPTextModelWithProjection" in facts["architectures"]
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": (shape_of("transformer.resblocks.0.mlp.c_fc.weight") or (4 * width,))[0],
        "num_hidden_layers": stored if with_projection or stored == facts["num_hidden_layers"] else stored - 1,
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "max_position_embeddings": (shape_of("positional_embedding") or (77,))[0],
    }
    projection = shape_of("text_projection")
    return sizes | {"projection_dim": projection[1]} if with_projection and projection else sizes


_READERS: Mapping[str, Callable[[Header, str], dict[str, Any] | None]] = MappingProxyType(
    {
        "unet": _unet_config,
        "vae": _vae_config,
        "text_encoder": _text_reader("text_encoder"),
        "text_encoder_2": _text_reader("text_encoder_2"),
    }
)
