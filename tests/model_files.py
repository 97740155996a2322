"""Model files as users have them: the real names, in the real structure, of every family, small or at full size.

Small files hold random weights of a few megabytes and run. Full-size ones are sparse: their header is the real one and
their data takes no room on the disk, which is all that identification looks at. The shapes are written down from the
networks' definitions (Rombach et al. 2022, Podell et al. 2023), apart from the program's own tables; the folders are
made from the same weights through diffusers' converter, so a folder and a file of equal arguments hold the same model.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.models import write_tokenizer
from webui.library.catalog import CheckpointInfo
from webui.library.identify import identify
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.loading import checked_network, filled

Shapes = dict[str, tuple[int, ...]]

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
          "I32": torch.int32}  # fmt: skip
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4}
VOCABULARY = 49408
SCHEDULE_BUFFERS = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSizes:
    """A text encoder in a file: `style` "clip" has transformers' names, "open_clip" OpenCLIP's."""

    style: str
    prefix: str
    width: int
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """`depths`: transformer layers per level, 0 for none. `adm`: width of the size-and-pooled-text vector."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]
    middle_depth: int
    context: int
    linear: bool
    text: tuple[TextSizes, ...]
    adm: int | None = None
    in_channels: int = 4
    layers_per_block: int = 2
    vae: tuple[int, ...] = (128, 256, 512, 512)
    vae_layers: int = 2


_SD1_TEXT = TextSizes(style="clip", prefix="cond_stage_model.transformer.", width=768, layers=12)
_SD2_TEXT = TextSizes(style="open_clip", prefix="cond_stage_model.model.", width=1024, layers=24)
_XL_TEXT_1 = TextSizes(style="clip", prefix="conditioner.embedders.0.transformer.", width=768, layers=12)
_XL_TEXT_2 = TextSizes(style="open_clip", prefix="conditioner.embedders.1.model.", width=1280, layers=32)
_REFINER_TEXT = TextSizes(style="open_clip", prefix="conditioner.embedders.0.model.", width=1280, layers=32)

_FULL = {
    "sd1": Sizes(channels=(320, 640, 1280, 1280), depths=(1, 1, 1, 0), middle_depth=1, context=768, linear=False,
                 text=(_SD1_TEXT,)),
    "sd2": Sizes(channels=(320, 640, 1280, 1280), depths=(1, 1, 1, 0), middle_depth=1, context=1024, linear=True,
                 text=(_SD2_TEXT,)),
    "sdxl": Sizes(channels=(320, 640, 1280), depths=(0, 2, 10), middle_depth=10, context=2048, linear=True, adm=2816,
                  text=(_XL_TEXT_1, _XL_TEXT_2)),
    "sdxl-refiner": Sizes(channels=(384, 768, 1536, 1536), depths=(0, 4, 4, 0), middle_depth=4, context=1280,
                          linear=True, adm=2560, text=(_REFINER_TEXT,)),
}  # fmt: skip
_SMALL_VAE = (32, 64, 96, 96)
_SMALL = {
    "sd1": replace(_FULL["sd1"], channels=(32, 64, 96, 96), context=32, vae=_SMALL_VAE,
                   text=(replace(_SD1_TEXT, width=32, layers=2),)),
    "sd2": replace(_FULL["sd2"], channels=(32, 64, 96, 96), context=32, vae=_SMALL_VAE,
                   text=(replace(_SD2_TEXT, width=32, layers=3),)),
    "sdxl": replace(_FULL["sdxl"], channels=(32, 64, 128), depths=(0, 1, 2), middle_depth=2, context=48, adm=32 + 1536,
                    vae=_SMALL_VAE, text=(replace(_XL_TEXT_1, width=16, layers=2),
                                          replace(_XL_TEXT_2, width=32, layers=3))),
    "sdxl-refiner": replace(_FULL["sdxl-refiner"], channels=(32, 64, 128, 128), depths=(0, 1, 1, 0), middle_depth=1,
                            context=32, adm=32 + 1280, vae=_SMALL_VAE,
                            text=(replace(_REFINER_TEXT, width=32, layers=3),)),
}  # fmt: skip
_FAMILIES = {
    "sd15": ("sd1", 4), "sd15-inpaint": ("sd1", 9), "sd15-ip2p": ("sd1", 8),
    "sd20": ("sd2", 4), "sd20-v": ("sd2", 4), "sd20-inpaint": ("sd2", 9),
    "sdxl": ("sdxl", 4), "sdxl-inpaint": ("sdxl", 9), "sdxl-ip2p": ("sdxl", 8), "sdxl-refiner": ("sdxl-refiner", 4),
}  # fmt: skip
FAMILY_IDS = tuple(_FAMILIES)
ARCHITECTURES = {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2-512", "sdxl": "stable-diffusion-xl-v1-base",
                 "sdxl-refiner": "stable-diffusion-xl-v1-refiner"}  # fmt: skip


def sizes_of(family: str, *, small: bool = True) -> Sizes:
    """The sizes of a row of the table of families; `small` ones have the same number of levels and blocks."""
    base, in_channels = _FAMILIES[family]
    return replace((_SMALL if small else _FULL)[base], in_channels=in_channels)


def info_of(path: Path, family: str = "sd15", **more: Any) -> CheckpointInfo:
    """What the library's list says of a checkpoint at `path`; small ones do not tell their family."""
    facts = identify(path)
    said = {"prediction_type": facts.prediction_type, "zero_terminal_snr": facts.zero_terminal_snr, **more}
    return CheckpointInfo(name=path.stem, title=path.stem, path=path, family=family, **said)


def load_network(source: ComponentSource, dtype: torch.dtype) -> nn.Module:
    """The network of `source`, as the manager makes it."""
    return filled(checked_network(source), source, dtype)


def write_original_layout(
    path: Path,
    family: str = "sd15",
    *,
    dtype: str = "F16",
    small: bool = True,
    seed: int = 0,
    ema: str = "none",
    vae: bool = True,
    text_encoder: bool = True,
    buffers: bool = False,
    v_pred: bool = False,
    ztsnr: bool = False,
    lcm: bool = False,
    metadata: Mapping[str, str] | None = None,
    sizes: Sizes | None = None,
) -> Path:
    """A single file with the names of the families' own training code.

    `ema`: "none"; "both" adds the averaged U-Net (`model_ema.`, names without dots); "only" has that one alone.
    `buffers` adds the noise schedule's, as full training checkpoints have. `v_pred`, `ztsnr` add the marker tensors of
    v-prediction models; `lcm` adds the guidance embedding of distilled ones.
    """
    sizes = sizes or sizes_of(family, small=small)
    unet = unet_shapes(sizes, lcm=lcm)
    shapes = {} if ema == "only" else {f"model.diffusion_model.{name}": shape for name, shape in unet.items()}
    if ema != "none":
        shapes |= {ema_name(name): shape for name, shape in unet.items()} | {"model_ema.decay": ()}
        shapes |= {"model_ema.num_updates": ()}
    if vae:
        shapes |= {f"first_stage_model.{name}": shape for name, shape in vae_shapes(sizes).items()}
    if text_encoder:
        shapes |= text_shapes(sizes)
    if buffers:
        shapes |= dict.fromkeys(SCHEDULE_BUFFERS, (1000,))
    shapes |= {name: (0,) for name, wanted in (("v_pred", v_pred), ("ztsnr", ztsnr)) if wanted}
    if small:
        save_small(path, shapes, dtype=dtype, seed=seed, metadata=metadata)
    else:
        write_sparse(path, shapes, dtype=dtype, metadata=metadata)
    return path


def ema_name(name: str) -> str:
    """The averaged copy of U-Net tensor `name`, as the training code writes it."""
    return "model_ema." + f"diffusion_model.{name}".replace(".", "")


def dtype_of(name: str, dtype: str) -> str:
    """Positions and counters are integers, schedules and markers float32, whatever the weights are."""
    if name.endswith("position_ids"):
        return "I64"
    if name == "model_ema.num_updates":
        return "I32"
    return "F32" if name in SCHEDULE_BUFFERS or name in ("model_ema.decay", "v_pred", "ztsnr") else dtype


def write_sparse(
    path: Path, shapes: Mapping[str, tuple[int, ...]], *, dtype: str = "F16", metadata: Mapping[str, str] | None = None
) -> Path:
    """A safetensors file whose header is whole and whose data is a hole: it reads as zeros and takes no disk."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, shape in shapes.items():
        kind = dtype_of(name, dtype)
        end = offset + math.prod(shape) * BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    return path


def save_small(
    path: Path, shapes: Mapping[str, tuple[int, ...]], *, dtype: str, seed: int, metadata: Mapping[str, str] | None
) -> Path:
    """Random weights of these shapes; those of one name, shape and seed are equal in every file."""
    tensors = random_tensors(shapes, dtype=dtype, seed=seed)
    save_file(tensors, path, metadata=dict(metadata) if metadata else None)
    return path


def random_tensors(
    shapes: Mapping[str, tuple[int, ...]], *, dtype: str = "F32", seed: int = 0, device: str = "cpu"
) -> dict[str, Tensor]:
    """Weights that keep the numbers of a network in range: matrices by their fan-in, norms near 1, biases small.

    Drawn on `device`: another one draws others.
    """
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device(device):
        return {
            name: _values(name, shape, generator).to(DTYPES[dtype_of(name, dtype)]) for name, shape in shapes.items()
        }


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).reshape(shape)
    if name in ("model_ema.decay", "model_ema.num_updates", "v_pred", "ztsnr"):
        return torch.full(shape, 0.9999 if name == "model_ema.decay" else 1.0)
    values = torch.randn(shape, generator=generator)
    if name in SCHEDULE_BUFFERS:
        return torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2 if name == "betas" else values.abs()
    if len(shape) < 2:
        is_scale = name.endswith(("weight", "logit_scale"))
        return 1 + 0.1 * values if is_scale else 0.02 * values
    if "embedding" in name:
        return 0.1 * values
    return values / math.sqrt(math.prod(shape[1:]))


def unet_shapes(sizes: Sizes, *, lcm: bool = False) -> Shapes:
    """The U-Net in the training code's names, without prefix."""
    base = sizes.channels[0]
    embedding = 4 * base
    shapes: Shapes = {}
    shapes |= _linear("time_embed.0", base, embedding) | _linear("time_embed.2", embedding, embedding)
    if lcm:
        shapes["time_embed.cond_proj.weight"] = (base, 256)
    if sizes.adm is not None:
        shapes |= _linear("label_emb.0.0", sizes.adm, embedding) | _linear("label_emb.0.2", embedding, embedding)
    shapes |= _conv("input_blocks.0.0", sizes.in_channels, base, 3)
    skips, width, block = [base], base, 1
    for level, channels in enumerate(sizes.channels):
        for _ in range(sizes.layers_per_block):
            shapes |= _residual(f"input_blocks.{block}.0", width, channels, embedding)
            shapes |= _transformer(f"input_blocks.{block}.1", channels, sizes.depths[level], sizes)
            width, block = channels, block + 1
            skips.append(width)
        if level < len(sizes.channels) - 1:
            shapes |= _conv(f"input_blocks.{block}.0.op", width, width, 3)
            block += 1
            skips.append(width)
    shapes |= _residual("middle_block.0", width, width, embedding)
    shapes |= _transformer("middle_block.1", width, sizes.middle_depth, sizes)
    shapes |= _residual("middle_block.2", width, width, embedding)
    block = 0
    for level, channels in reversed(list(enumerate(sizes.channels))):
        for layer in range(sizes.layers_per_block + 1):
            name = f"output_blocks.{block}"
            shapes |= _residual(f"{name}.0", width + skips.pop(), channels, embedding)
            shapes |= _transformer(f"{name}.1", channels, sizes.depths[level], sizes)
            width, block = channels, block + 1
            if level > 0 and layer == sizes.layers_per_block:
                shapes |= _conv(f"{name}.{2 if sizes.depths[level] else 1}.conv", width, width, 3)
    return shapes | _norm("out.0", width) | _conv("out.2", width, 4, 3)


def _residual(name: str, width_in: int, width_out: int, embedding: int) -> Shapes:
    shapes = _norm(f"{name}.in_layers.0", width_in) | _conv(f"{name}.in_layers.2", width_in, width_out, 3)
    shapes |= _linear(f"{name}.emb_layers.1", embedding, width_out)
    shapes |= _norm(f"{name}.out_layers.0", width_out) | _conv(f"{name}.out_layers.3", width_out, width_out, 3)
    return shapes if width_in == width_out else shapes | _conv(f"{name}.skip_connection", width_in, width_out, 1)


def _transformer(name: str, width: int, depth: int, sizes: Sizes) -> Shapes:
    if depth == 0:
        return {}
    projection = _linear if sizes.linear else _conv
    shapes = _norm(f"{name}.norm", width) | projection(f"{name}.proj_in", width, width)
    for layer in range(depth):
        block = f"{name}.transformer_blocks.{layer}"
        for attention, context in (("attn1", width), ("attn2", sizes.context)):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, context)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, context)
            shapes |= _linear(f"{block}.{attention}.to_out.0", width, width)
        shapes |= _linear(f"{block}.ff.net.0.proj", width, 8 * width) | _linear(f"{block}.ff.net.2", 4 * width, width)
        shapes |= _norm(f"{block}.norm1", width) | _norm(f"{block}.norm2", width) | _norm(f"{block}.norm3", width)
    return shapes | projection(f"{name}.proj_out", width, width)


def vae_shapes(sizes: Sizes) -> Shapes:
    """The autoencoder in the training code's names, without prefix."""
    widths, layers = sizes.vae, sizes.vae_layers
    shapes: Shapes = _conv("encoder.conv_in", 3, widths[0], 3)
    width = widths[0]
    for level, channels in enumerate(widths):
        for layer in range(layers):
            shapes |= _vae_residual(f"encoder.down.{level}.block.{layer}", width, channels)
            width = channels
        if level < len(widths) - 1:
            shapes |= _conv(f"encoder.down.{level}.downsample.conv", width, width, 3)
    shapes |= (
        _vae_middle("encoder.mid", width) | _norm("encoder.norm_out", width) | _conv("encoder.conv_out", width, 8, 3)
    )
    shapes |= _conv("decoder.conv_in", 4, width, 3) | _vae_middle("decoder.mid", width)
    for level, channels in reversed(list(enumerate(widths))):
        for layer in range(layers + 1):
            shapes |= _vae_residual(f"decoder.up.{level}.block.{layer}", width, channels)
            width = channels
        if level > 0:
            shapes |= _conv(f"decoder.up.{level}.upsample.conv", width, width, 3)
    shapes |= _norm("decoder.norm_out", width) | _conv("decoder.conv_out", width, 3, 3)
    return shapes | _conv("quant_conv", 8, 8) | _conv("post_quant_conv", 4, 4)


def _vae_residual(name: str, width_in: int, width_out: int) -> Shapes:
    shapes = _norm(f"{name}.norm1", width_in) | _conv(f"{name}.conv1", width_in, width_out, 3)
    shapes |= _norm(f"{name}.norm2", width_out) | _conv(f"{name}.conv2", width_out, width_out, 3)
    return shapes if width_in == width_out else shapes | _conv(f"{name}.nin_shortcut", width_in, width_out)


def _vae_middle(name: str, width: int) -> Shapes:
    shapes = _vae_residual(f"{name}.block_1", width, width) | _norm(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"{name}.attn_1.{part}", width, width)
    return shapes | _vae_residual(f"{name}.block_2", width, width)


def text_shapes(sizes: Sizes) -> Shapes:
    """The text encoders with their prefixes."""
    shapes: Shapes = {}
    for text in sizes.text:
        shapes |= dict(_clip(text) if text.style == "clip" else _open_clip(text))
    return shapes


def _clip(text: TextSizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    prefix, width = f"{text.prefix}text_model.", text.width
    yield f"{prefix}embeddings.position_ids", (1, 77)
    yield f"{prefix}embeddings.position_embedding.weight", (77, width)
    yield f"{prefix}embeddings.token_embedding.weight", (VOCABULARY, width)
    for layer in range(text.layers):
        name = f"{prefix}encoder.layers.{layer}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from _linear(f"{name}.self_attn.{part}", width, width).items()
        yield from _norm(f"{name}.layer_norm1", width).items()
        yield from _linear(f"{name}.mlp.fc1", width, 4 * width).items()
        yield from _linear(f"{name}.mlp.fc2", 4 * width, width).items()
        yield from _norm(f"{name}.layer_norm2", width).items()
    yield from _norm(f"{prefix}final_layer_norm", width).items()


def _open_clip(text: TextSizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    prefix, width = text.prefix, text.width
    yield f"{prefix}logit_scale", ()
    yield f"{prefix}positional_embedding", (77, width)
    yield f"{prefix}text_projection", (width, width)
    yield f"{prefix}token_embedding.weight", (VOCABULARY, width)
    for layer in range(text.layers):
        name = f"{prefix}transformer.resblocks.{layer}"
        yield f"{name}.attn.in_proj_weight", (3 * width, width)
        yield f"{name}.attn.in_proj_bias", (3 * width,)
        yield from _linear(f"{name}.attn.out_proj", width, width).items()
        yield from _norm(f"{name}.ln_1", width).items()
        yield from _norm(f"{name}.ln_2", width).items()
        yield from _linear(f"{name}.mlp.c_fc", width, 4 * width).items()
        yield from _linear(f"{name}.mlp.c_proj", 4 * width, width).items()
    yield from _norm(f"{prefix}ln_final", width).items()


def _linear(name: str, width_in: int, width_out: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _conv(name: str, width_in: int, width_out: int, kernel: int = 1) -> Shapes:
    return {f"{name}.weight": (width_out, width_in, kernel, kernel), f"{name}.bias": (width_out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def write_folder(
    path: Path,
    family: str = "sd15",
    *,
    dtype: str = "F16",
    small: bool = True,
    seed: int = 0,
    prediction_type: str = "epsilon",
    sizes: Sizes | None = None,
) -> Path:
    """A diffusers folder of the same weights as `write_original_layout` with the same arguments.

    Tokenizers are tiny (no vocabulary of 49,408 words); at full size the folder has sparse weight files.
    """
    sizes = sizes or sizes_of(family, small=small)
    path.mkdir(parents=True, exist_ok=True)
    configs = component_configs(sizes)
    weights = "diffusion_pytorch_model.safetensors"
    for name, config in configs.items():
        (path / name).mkdir(exist_ok=True)
        (path / name / "config.json").write_text(json.dumps(config, indent=2))
        file = path / name / ("model.safetensors" if name.startswith("text") else weights)
        if small:
            save_file(diffusers_tensors(sizes, name, dtype=dtype, seed=seed), file, metadata={"format": "pt"})
        else:
            write_sparse(file, diffusers_shapes(sizes, name), dtype=dtype, metadata={"format": "pt"})
    for name in [name.replace("text_encoder", "tokenizer") for name in configs if name.startswith("text")]:
        write_tokenizer(path / name)
    (path / "scheduler").mkdir(exist_ok=True)
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler_config(prediction_type)))
    (path / "model_index.json").write_text(json.dumps(_model_index(family, configs)))
    return path


def write_diffusers_file(
    path: Path,
    family: str = "sd15",
    *,
    components: tuple[str, ...] = ("unet", "vae", "text_encoder", "text_encoder_2"),
    bare: bool = False,
    dtype: str = "F16",
    small: bool = True,
    seed: int = 0,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """One file with diffusers' names: "unet.conv_in.weight", ...; `bare` leaves the first part out (one component)."""
    sizes = sizes_of(family, small=small)
    wanted = [name for name in component_configs(sizes) if name in components]
    if small:
        tensors = {
            key if bare else f"{name}.{key}": value
            for name in wanted
            for key, value in diffusers_tensors(sizes, name, dtype=dtype, seed=seed).items()
        }
        save_file(tensors, path, metadata=dict(metadata) if metadata else None)
    else:
        shapes = {
            key if bare else f"{name}.{key}": shape
            for name in wanted
            for key, shape in diffusers_shapes(sizes, name).items()
        }
        write_sparse(path, shapes, dtype=dtype, metadata=metadata)
    return path


def original_tensors(sizes: Sizes, *, dtype: str = "F16", seed: int = 0) -> dict[str, Tensor]:
    """The tensors of a small file of the original layout, as `write_original_layout` writes them."""
    return dict(_original_tensors(sizes, dtype, seed))


@cache
def _original_tensors(sizes: Sizes, dtype: str, seed: int) -> Mapping[str, Tensor]:
    shapes = {f"model.diffusion_model.{name}": shape for name, shape in unet_shapes(sizes).items()}
    shapes |= {f"first_stage_model.{name}": shape for name, shape in vae_shapes(sizes).items()} | text_shapes(sizes)
    return random_tensors(shapes, dtype=dtype, seed=seed)


def diffusers_tensors(sizes: Sizes, component: str, *, dtype: str = "F16", seed: int = 0) -> dict[str, Tensor]:
    """One component's weights under diffusers' and transformers' names, through diffusers' own converter."""
    original = original_tensors(sizes, dtype=dtype, seed=seed)
    config = component_configs(sizes)[component]
    if component == "unet":
        converted = single_file_utils.convert_ldm_unet_checkpoint(original, config)
    elif component == "vae":
        converted = single_file_utils.convert_ldm_vae_checkpoint(original, config)
    else:
        converted = _converted_text(sizes, component, original)
    return {name: tensor.contiguous() for name, tensor in converted.items()}


def _converted_text(sizes: Sizes, component: str, original: dict[str, Tensor]) -> dict[str, Tensor]:
    text = _text_sizes(sizes)[component]
    own = {name: tensor for name, tensor in original.items() if name.startswith(text.prefix)}
    if text.style == "clip":
        converted = single_file_utils.convert_ldm_clip_checkpoint(own)
        return {name.removeprefix("text_model."): tensor for name, tensor in converted.items() if "_ids" not in name}
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=text.width))
    converted = single_file_utils.convert_open_clip_checkpoint(model, own, prefix=text.prefix)
    if component == "text_encoder" and sizes.adm is None:  # SD 2 leaves out the last layer and the projection
        last = f"text_model.encoder.layers.{text.layers - 1}."
        converted = {name: tensor for name, tensor in converted.items() if not name.startswith((last, "text_proj"))}
        return {name.removeprefix("text_model."): tensor for name, tensor in converted.items()}
    return converted


@cache
def diffusers_shapes(sizes: Sizes, component: str) -> Mapping[str, tuple[int, ...]]:
    """Names and shapes of one component as diffusers and transformers define it."""
    config = {name: value for name, value in component_configs(sizes)[component].items() if not name.startswith("_")}
    with torch.device("meta"):
        if component == "unet":
            model = UNet2DConditionModel(**config)
        elif component == "vae":
            model = AutoencoderKL(**config)
        else:
            with_projection = component == "text_encoder_2"
            model = (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(CLIPTextConfig(**config))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _text_sizes(sizes: Sizes) -> dict[str, TextSizes]:
    """The refiner's only text encoder is the second of its pipeline."""
    if sizes.adm is not None and len(sizes.text) == 1:
        return {"text_encoder_2": sizes.text[0]}
    return dict(zip(("text_encoder", "text_encoder_2"), sizes.text, strict=False))


def component_configs(sizes: Sizes) -> dict[str, dict[str, Any]]:
    """The components' configs as diffusers' folders have them, for any sizes."""
    configs = {"unet": _unet_config(sizes), "vae": _vae_config(sizes)}
    return configs | {name: _text_config(sizes, name, text) for name, text in _text_sizes(sizes).items()}


def _unet_config(sizes: Sizes) -> dict[str, Any]:
    attends = [depth > 0 for depth in sizes.depths]
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": {None: 64, 2816: 128, 2560: 128}.get(sizes.adm, 16),
        "in_channels": sizes.in_channels,
        "block_out_channels": list(sizes.channels),
        "layers_per_block": sizes.layers_per_block,
        "down_block_types": ["CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        "cross_attention_dim": sizes.context,
        "attention_head_dim": [max(1, width // 64) for width in sizes.channels] if sizes.linear else 8,
        "use_linear_projection": sizes.linear,
    }
    if sizes.adm is not None:
        uneven = len({sizes.middle_depth, *sizes.depths} - {0}) > 1
        depths = [*(depth or 1 for depth in sizes.depths[:-1]), sizes.middle_depth]
        config["transformer_layers_per_block"] = depths if uneven else sizes.middle_depth
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
        config["projection_class_embeddings_input_dim"] = sizes.adm
    return config


def _vae_config(sizes: Sizes) -> dict[str, Any]:
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": list(sizes.vae),
        "down_block_types": ["DownEncoderBlock2D"] * len(sizes.vae),
        "up_block_types": ["UpDecoderBlock2D"] * len(sizes.vae),
        "latent_channels": 4,
        "layers_per_block": sizes.vae_layers,
        "scaling_factor": 0.18215 if sizes.adm is None else 0.13025,
    }


def _text_config(sizes: Sizes, component: str, text: TextSizes) -> dict[str, Any]:
    """SD 2's encoder is stored whole and run without its last layer; CLIP heads are 64 wide."""
    skipped = 1 if text.style == "open_clip" and sizes.adm is None else 0
    with_projection = sizes.adm is not None and text.style == "open_clip"
    return {
        "architectures": ["CLIPTextModelWithProjection" if with_projection else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": VOCABULARY,
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_hidden_layers": text.layers - skipped,
        "num_attention_heads": max(1, text.width // 64),
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu" if text.style == "clip" else "gelu",
        "projection_dim": text.width if with_projection else {"clip": 768, "open_clip": 512}[text.style],
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 0 if text.style == "open_clip" else 49407,
    }


def scheduler_config(prediction_type: str) -> dict[str, Any]:
    return {
        "_class_name": "DDIMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": prediction_type,
    }


PIPELINES = {
    "sd15": "StableDiffusionPipeline", "sd15-inpaint": "StableDiffusionInpaintPipeline",
    "sd15-ip2p": "StableDiffusionInstructPix2PixPipeline", "sd20": "StableDiffusionPipeline",
    "sd20-v": "StableDiffusionPipeline", "sd20-inpaint": "StableDiffusionInpaintPipeline",
    "sdxl": "StableDiffusionXLPipeline", "sdxl-inpaint": "StableDiffusionXLInpaintPipeline",
    "sdxl-ip2p": "StableDiffusionXLInstructPix2PixPipeline", "sdxl-refiner": "StableDiffusionXLImg2ImgPipeline",
}  # fmt: skip


def _model_index(family: str, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    index: dict[str, Any] = {"_class_name": PIPELINES[family], "_diffusers_version": "0.42.0"}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    if family == "sdxl-refiner":
        index |= {"text_encoder": [None, None], "tokenizer": [None, None], "requires_aesthetics_score": True}
    for name, config in configs.items():
        if name.startswith("text"):
            index[name] = ["transformers", config["architectures"][0]]
            index[name.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    if not family.startswith("sdxl"):
        index |= {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}
        index["requires_safety_checker"] = False
    return index
