"""Names of weights in the two layouts: diffusers' networks and the original (LDM, SGM) single files, both ways.

Everything is derived from a component's config, so that a network of any size is covered; only names are handled here,
and a difference in shape is a declared `Transform`. Imports no torch.

Sources: CompVis/latent-diffusion and Stability-AI/generative-models (module names of openaimodel.py, model.py, ema.py),
mlfoundations/open_clip (transformer.py), diffusers' UNet2DConditionModel and AutoencoderKL.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from webui.library.architecture import EMA_PREFIX, TEXT_PREFIXES, UNET_PREFIX, VAE_PREFIX
from webui.library.families import AdapterBase

ComponentName = Literal["unet", "vae", "text_encoder", "text_encoder_2"]
COMPONENT_NAMES: tuple[ComponentName, ...] = ("unet", "vae", "text_encoder", "text_encoder_2")

Transform = Literal["same", "transposed", "conv1x1", "first_third", "second_third", "last_third"]
"""How a network's weight comes from the file's: as it is; (a, b) from (b, a); (out, in) from (out, in, 1, 1); one third
of the rows (q, k and v of attention in one matrix)."""

Config = Mapping[str, Any]
"""A component's config.json as diffusers or transformers write it."""


@dataclass(frozen=True, slots=True)
class WeightName:
    """`name` in the network's own state dict, `original` in a file of the original layout."""

    name: str
    original: str
    transform: Transform = "same"


def original_weights(component: ComponentName, config: Config, base: AdapterBase) -> tuple[WeightName, ...]:
    """Every weight of `component` with its full name in an original file of a family with `adapter_base` `base`.

    Raises KeyError for a text encoder that such files do not have.
    """
    if component == "unet":
        return with_prefix(unet_weights(config), UNET_PREFIX)
    if component == "vae":
        return with_prefix(vae_weights(config), VAE_PREFIX)
    prefix, is_open_clip = TEXT_PREFIXES[base][component]
    return with_prefix(open_clip_weights(config) if is_open_clip else clip_weights(config), prefix)


def with_prefix(weights: Iterable[WeightName], prefix: str) -> tuple[WeightName, ...]:
    """`weights` with `prefix` before their original names."""
    return tuple(replace(weight, original=prefix + weight.original) for weight in weights)


def ema_name(original: str) -> str:
    """The name of a U-Net weight's moving average: flattened, as LDM stores it.

    `original` has its full name, "model.diffusion_model.time_embed.0.weight".
    """
    return EMA_PREFIX + original.removeprefix("model.").replace(".", "")


def modules_by_original(weights: Iterable[WeightName]) -> dict[str, str]:
    """Original module path -> diffusers module path, for the modules with weights of their own in both layouts."""
    names = {
        weight.original.rpartition(".")[0]: weight.name.rpartition(".")[0]
        for weight in weights
        if weight.original.endswith((".weight", ".bias"))
    }
    return {original: name for original, name in names.items() if original}


# U-Net ---------------------------------------------------------------------------------------------------------------

RESNET = (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
          ("norm2", "out_layers.0"), ("conv2", "out_layers.3"))  # fmt: skip
SHORTCUT = ("conv_shortcut", "skip_connection")
TRANSFORMER_MODULES = ("norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")
TRANSFORMER_WITHOUT_BIAS = tuple(f"attn{i}.to_{part}" for i in (1, 2) for part in "qkv")


def unet_weights(config: Config) -> tuple[WeightName, ...]:
    """Every weight of a U-Net with `config`; original names start at "time_embed.", "input_blocks.", ..."""
    return tuple(_unet_weights(config))


def _unet_weights(config: Config) -> Iterator[WeightName]:
    for name, original in _unet_ends(config):
        yield from _both(name, original)
    if config.get("time_cond_proj_dim"):
        yield WeightName("time_embedding.cond_proj.weight", "time_embed.cond_proj.weight")
    yield from _down_blocks(config)
    channels, depths = config["block_out_channels"], _depths(config)
    yield from _resnet("mid_block.resnets.0", "middle_block.0", channels[-1], channels[-1])
    if config.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn":
        yield from _transformer("mid_block.attentions.0", "middle_block.1", depths[-1])
    yield from _resnet("mid_block.resnets.1", "middle_block.2", channels[-1], channels[-1])
    yield from _up_blocks(config)


def _unet_ends(config: Config) -> Iterator[tuple[str, str]]:
    yield from (("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"))
    if config.get("addition_embed_type") == "text_time":
        yield from (("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"))
    yield from (("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"))


def _down_blocks(config: Config) -> Iterator[WeightName]:
    channels, depths, layers = config["block_out_channels"], _depths(config), _layers(config)
    position = 1
    previous = channels[0]
    for i, kind in enumerate(config["down_block_types"]):
        for j in range(layers[i]):
            original = f"input_blocks.{position}"
            yield from _resnet(f"down_blocks.{i}.resnets.{j}", f"{original}.0", previous, channels[i])
            if "CrossAttn" in kind:
                yield from _transformer(f"down_blocks.{i}.attentions.{j}", f"{original}.1", depths[i])
            previous = channels[i]
            position += 1
        if i < len(channels) - 1:
            yield from _both(f"down_blocks.{i}.downsamplers.0.conv", f"input_blocks.{position}.0.op")
            position += 1


def _up_blocks(config: Config) -> Iterator[WeightName]:
    channels, depths, layers = config["block_out_channels"], _depths(config)[::-1], _layers(config)[::-1]
    if reverse := config.get("reverse_transformer_layers_per_block"):
        depths = list(reverse)
    out_channels = list(channels)[::-1]
    position = 0
    previous = out_channels[0]
    for i, kind in enumerate(config["up_block_types"]):
        skipped = out_channels[min(i + 1, len(channels) - 1)]
        has_attention = "CrossAttn" in kind
        for j in range(layers[i] + 1):
            name, original = f"up_blocks.{i}", f"output_blocks.{position}"
            joined = previous + (skipped if j == layers[i] else out_channels[i])
            yield from _resnet(f"{name}.resnets.{j}", f"{original}.0", joined, out_channels[i])
            if has_attention:
                yield from _transformer(f"{name}.attentions.{j}", f"{original}.1", depths[i])
            previous = out_channels[i]
            position += 1
        if i < len(channels) - 1:
            yield from _both(
                f"up_blocks.{i}.upsamplers.0.conv", f"output_blocks.{position - 1}.{1 + has_attention}.conv"
            )


def _resnet(name: str, original: str, in_channels: int, out_channels: int) -> Iterator[WeightName]:
    for ours, theirs in (*RESNET, *((SHORTCUT,) if in_channels != out_channels else ())):
        yield from _both(f"{name}.{ours}", f"{original}.{theirs}")


def _transformer(name: str, original: str, depth: int) -> Iterator[WeightName]:
    for module in ("norm", "proj_in", "proj_out"):
        yield from _both(f"{name}.{module}", f"{original}.{module}")
    for k in range(depth):
        block = f"transformer_blocks.{k}"
        for module in TRANSFORMER_MODULES:
            yield from _both(f"{name}.{block}.{module}", f"{original}.{block}.{module}")
        for module in TRANSFORMER_WITHOUT_BIAS:
            yield WeightName(f"{name}.{block}.{module}.weight", f"{original}.{block}.{module}.weight")


def _depths(config: Config) -> list[int]:
    return _per_block(config.get("transformer_layers_per_block") or 1, config)


def _layers(config: Config) -> list[int]:
    return _per_block(config.get("layers_per_block", 2), config)


def _per_block(value: int | Sequence[int], config: Config) -> list[int]:
    return [value] * len(config["block_out_channels"]) if isinstance(value, int) else list(value)


# Autoencoder ---------------------------------------------------------------------------------------------------------

VAE_RESNET = ("norm1", "conv1", "norm2", "conv2")
VAE_ATTENTION = (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"))


def vae_weights(config: Config) -> tuple[WeightName, ...]:
    """Every weight of an autoencoder with `config`; original names start at "encoder.", "decoder.", "quant_conv."."""
    return tuple(_vae_weights(config))


def _vae_weights(config: Config) -> Iterator[WeightName]:
    channels, layers = list(config["block_out_channels"]), int(config.get("layers_per_block", 1))
    last = len(channels) - 1
    for half in ("encoder", "decoder"):
        for module, original in (("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")):
            yield from _both(f"{half}.{module}", f"{half}.{original}")
        yield from _vae_middle(half, config)
    for i, width in enumerate(channels):
        narrow = channels[max(i - 1, 0)]
        yield from _vae_resnets(f"encoder.down_blocks.{i}.resnets", f"encoder.down.{i}.block", narrow, width, layers)
        wide = channels[min(i + 1, last)]
        up = f"decoder.up_blocks.{last - i}"
        yield from _vae_resnets(f"{up}.resnets", f"decoder.up.{i}.block", wide, width, layers + 1)
        if i < last:
            yield from _both(f"encoder.down_blocks.{i}.downsamplers.0.conv", f"encoder.down.{i}.downsample.conv")
        if i > 0:
            yield from _both(f"{up}.upsamplers.0.conv", f"decoder.up.{i}.upsample.conv")
    for module, option in (("quant_conv", "use_quant_conv"), ("post_quant_conv", "use_post_quant_conv")):
        if config.get(option, True):
            yield from _both(module, module)


def _vae_middle(half: str, config: Config) -> Iterator[WeightName]:
    for j in (0, 1):
        for module in VAE_RESNET:
            yield from _both(f"{half}.mid_block.resnets.{j}.{module}", f"{half}.mid.block_{j + 1}.{module}")
    if not config.get("mid_block_add_attention", True):
        return
    name, original = f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1"
    yield from _both(f"{name}.group_norm", f"{original}.norm")
    for ours, theirs in VAE_ATTENTION:
        yield WeightName(f"{name}.{ours}.weight", f"{original}.{theirs}.weight", "conv1x1")
        yield WeightName(f"{name}.{ours}.bias", f"{original}.{theirs}.bias")


def _vae_resnets(name: str, original: str, in_channels: int, out_channels: int, layers: int) -> Iterator[WeightName]:
    for j in range(layers):
        for module in VAE_RESNET:
            yield from _both(f"{name}.{j}.{module}", f"{original}.{j}.{module}")
        if j == 0 and in_channels != out_channels:
            yield from _both(f"{name}.{j}.conv_shortcut", f"{original}.{j}.nin_shortcut")


# Text encoders -------------------------------------------------------------------------------------------------------

CLIP_LAYER = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
              "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")  # fmt: skip
OPEN_CLIP_LAYER = (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                   ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"))  # fmt: skip
OPEN_CLIP_THIRDS: tuple[tuple[str, Transform], ...] = (
    ("q_proj", "first_third"),
    ("k_proj", "second_third"),
    ("v_proj", "last_third"),
)


def has_projection(config: Config) -> bool:
    """Whether a text encoder is a CLIPTextModelWithProjection, whose module names start at "text_model."."""
    return "CLIPTextModelWithProjection" in (config.get("architectures") or ())


def clip_weights(config: Config) -> tuple[WeightName, ...]:
    """Every weight of a CLIP text model in a file that keeps transformers' names, counted from below "text_model."."""
    return tuple(_clip_weights(config))


def _clip_weights(config: Config) -> Iterator[WeightName]:
    prefix = "text_model." if has_projection(config) else ""
    for embedding in ("token_embedding", "position_embedding"):
        yield WeightName(f"{prefix}embeddings.{embedding}.weight", f"embeddings.{embedding}.weight")
    for n in range(config["num_hidden_layers"]):
        for module in CLIP_LAYER:
            yield from _both(f"{prefix}encoder.layers.{n}.{module}", f"encoder.layers.{n}.{module}")
    yield from _both(f"{prefix}final_layer_norm", "final_layer_norm")


def open_clip_weights(config: Config) -> tuple[WeightName, ...]:
    """Every weight of a CLIP text model in a file with OpenCLIP's names.

    The file may have more layers than `config`: SD 2 leaves out the last of 24, and diffusers counts only 23.
    """
    return tuple(_open_clip_weights(config))


def _open_clip_weights(config: Config) -> Iterator[WeightName]:
    prefix = "text_model." if has_projection(config) else ""
    yield WeightName(f"{prefix}embeddings.token_embedding.weight", "token_embedding.weight")
    yield WeightName(f"{prefix}embeddings.position_embedding.weight", "positional_embedding")
    for n in range(config["num_hidden_layers"]):
        name, original = f"{prefix}encoder.layers.{n}", f"transformer.resblocks.{n}"
        for ours, theirs in OPEN_CLIP_LAYER:
            yield from _both(f"{name}.{ours}", f"{original}.{theirs}")
        for part, third in OPEN_CLIP_THIRDS:
            yield WeightName(f"{name}.self_attn.{part}.weight", f"{original}.attn.in_proj_weight", third)
            yield WeightName(f"{name}.self_attn.{part}.bias", f"{original}.attn.in_proj_bias", third)
    yield from _both(f"{prefix}final_layer_norm", "ln_final")
    if has_projection(config):
        yield WeightName("text_projection.weight", "text_projection", "transposed")


def _both(name: str, original: str) -> Iterator[WeightName]:
    yield WeightName(f"{name}.weight", f"{original}.weight")
    yield WeightName(f"{name}.bias", f"{original}.bias")
