"""What a model file is, from its header alone: its kind, its family, and what is wrong with it. Never raises.

A kind is a row: a function that says what the file is, or None. The first that answers counts.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from webui.errors import UnsupportedModel
from webui.library import hints
from webui.library.adapter_facts import adapter_facts, trigger_words
from webui.library.checkpoint_facts import single_file_facts
from webui.library.facts import Kind, Layout, ModelFacts
from webui.library.families import BASE_OF_WIDTH
from webui.library.folder_facts import folder_facts
from webui.library.header import Header, TensorInfo, read_header
from webui.library.old_files import PICKLE_SUFFIXES, read_old_header
from webui.library.strangers import stranger

__all__ = ["Kind", "Layout", "ModelFacts", "identify", "is_old_format"]

Tensors = Mapping[str, TensorInfo]

BASE_OF_EMBEDDING: Mapping[int, str] = {width: base for width, base in BASE_OF_WIDTH.items() if base != "sdxl"}
"""By the width of its vectors; SDXL's come in pairs."""
HYPERNETWORK = re.compile(r"\d+\.\d+\.")
UPSCALER_KEYS = (
    "conv_first.weight", "model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "body.0.rdb1.conv1.weight",
    "RRDB_trunk.0.RDB1.conv1.weight", "layers.0.residual_group.blocks.0.norm1.weight", "block_1.c1_r.sk.weight",
    "body.0.weight", "feats.0.weight", "patch_embed.norm.weight",
)  # fmt: skip
"""First layers of ESRGAN (old and new names), SRVGG, SwinIR, HAT, DAT, SPAN."""
UPSCALER_PREFIXES = ("", "params_ema.", "params.", "module.")
TINY_KEYS = (("1.weight", "3.conv.0.weight"), ("0.weight", "1.conv.0.weight"),
             ("decoder.layers.0.weight", "decoder.layers.2.conv.0.weight"), ("encoder.layers.0.weight",),
             ("taesd_decoder.1.weight",))  # fmt: skip
"""Decoder and encoder of TAESD in their maker's names, both in diffusers', and inside other files."""
TEXT_ENCODER_KEYS = (
    "text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight", "token_embedding.weight",
    "transformer.text_model.embeddings.token_embedding.weight", "cond_stage_model.model.token_embedding.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
)  # fmt: skip


def identify(path: Path, header: Header | None = None) -> ModelFacts:
    """What the file or diffusers folder at `path` is. `header`: what was already read of it."""
    try:
        if header is None and path.is_dir() and path.suffix != ".safetensors":
            return folder_facts(path)
        if header is None:
            header = read_old_header(path) if is_old_format(path) else read_header(path)
        return _identify(path, header)
    except UnsupportedModel as error:
        return ModelFacts(problems=(f"{error.reason}. {error.hint}".strip().rstrip("."),))


def is_old_format(path: Path) -> bool:
    """Whether the file is one of torch's own (.ckpt, .pt, .bin, .pth), by name and first bytes."""
    if path.suffix.lower() not in PICKLE_SUFFIXES:
        return False
    try:
        with path.open("rb") as file:
            return file.read(2).startswith((b"PK", b"\x80"))
    except OSError:
        return False


def _identify(path: Path, header: Header) -> ModelFacts:
    if not header.tensors:
        return ModelFacts(problems=("it holds no weights",))
    facts = next((facts for row in _ROWS if (facts := row(header, path.stem))), None)
    if facts is None:
        first = next(iter(header.tensors))
        names = f"{len(header.tensors):,} weights, such as '{first[:80]}'"
        facts = ModelFacts(problems=(f"its {names}, belong to no kind of model that is known here",))
    return replace(
        facts,
        dtype=_commonest_dtype(header.tensors),
        num_keys=len(header.tensors),
        num_parameters=sum(math.prod(info.shape) for info in header.tensors.values()),
        title=facts.title or hints.title_of(header.metadata),
    )


def _stranger(header: Header, name: str) -> ModelFacts | None:
    row = stranger(header.tensors)
    if row is None:
        return None
    return ModelFacts(kind=row.kind, problems=(f"it is {row.label}, which this program does not run",))


def _adapter(header: Header, name: str) -> ModelFacts | None:
    return adapter_facts(header)


def _embedding(header: Header, name: str) -> ModelFacts | None:
    tensors = header.tensors
    vectors = {key: info.shape for key, info in tensors.items() if 1 <= len(info.shape) <= 2}
    if set(vectors) == {"clip_l", "clip_g"}:
        base = "sdxl"
    elif len(tensors) <= 4 and len(wanted := [key for key in vectors if _is_embedding(key, tensors)]) == 1:
        width = vectors[wanted[0]][-1]
        base = BASE_OF_EMBEDDING.get(width, "")
    else:
        return None
    return ModelFacts(kind="embedding", adapter_base=base, trigger_words=trigger_words(header.metadata))


def _is_embedding(key: str, tensors: Tensors) -> bool:
    """The names that trainers give, or a token of any name all by itself."""
    if key in ("emb_params", "clip_l", "clip_g") or key.startswith("string_to_param."):
        return True
    return len(tensors) == 1 and "." not in key and tensors[key].shape[-1] in BASE_OF_EMBEDDING


def _hypernetwork(header: Header, name: str) -> ModelFacts | None:
    matrices = [key for key in header.tensors if HYPERNETWORK.match(key)]
    if len(matrices) < 2 or len(matrices) < len(header.tensors) - 4 or "3.conv.0.weight" in header.tensors:
        return None
    widths = {int(key.partition(".")[0]) for key in matrices}
    base = "sd2" if 1024 in widths else "sd1" if 768 in widths else ""
    return ModelFacts(kind="hypernetwork", adapter_base=base)


def _tiny_decoder(header: Header, name: str) -> ModelFacts | None:
    if not any(all(key in header.tensors for key in keys) for keys in TINY_KEYS):
        return None
    first = next(
        (header.tensors[key] for key in ("1.weight", "decoder.layers.0.weight") if key in header.tensors), None
    )
    if first is not None and len(first.shape) == 4 and first.shape[1] != 4:
        problem = f"it decodes latents of {first.shape[1]} channels, as newer families have; 4 are needed"
        return ModelFacts(kind="tiny_decoder", problems=(problem,))
    if first is None and "taesd_decoder.1.weight" not in header.tensors:
        return ModelFacts(kind="tiny_decoder", problems=("it is an encoder alone; the decoder is needed",))
    return ModelFacts(kind="tiny_decoder")


def _vae(header: Header, name: str) -> ModelFacts | None:
    for prefix in ("", "first_stage_model.", "vae."):
        decoder = header.tensors.get(f"{prefix}decoder.conv_in.weight")
        if decoder is not None and len(decoder.shape) in (4, 5):
            break
    else:
        return None
    is_original = f"{prefix}decoder.mid.block_1.norm1.weight" in header.tensors
    return ModelFacts(
        kind="vae",
        layout="original" if is_original else "diffusers",
        has_vae=True,
        problems=_vae_problems(header, prefix),
    )


def _vae_problems(header: Header, prefix: str) -> tuple[str, ...]:
    shape = header.tensors[f"{prefix}decoder.conv_in.weight"].shape
    if len(shape) == 5:
        return ("it is an autoencoder for video",)
    if shape[1] != 4:
        return (f"it decodes latents of {shape[1]} channels, as newer families have; 4 are needed",)
    if f"{prefix}encoder.conv_in.weight" not in header.tensors:
        return ("it has no encoder",)
    return ()


def _text_encoder(header: Header, name: str) -> ModelFacts | None:
    if not any(key in header.tensors for key in TEXT_ENCODER_KEYS):
        return None
    return ModelFacts(kind="text_encoder", has_text_encoder=True)


def _upscaler(header: Header, name: str) -> ModelFacts | None:
    for prefix in UPSCALER_PREFIXES:
        for key in UPSCALER_KEYS:
            info = header.tensors.get(prefix + key)
            if info is not None and len(info.shape) in (1, 4):
                return ModelFacts(kind="upscaler")
    return None


def _commonest_dtype(tensors: Tensors) -> str:
    """By number of matrices: single numbers and positions have types of their own."""
    counts = Counter(info.dtype for info in tensors.values() if len(info.shape) > 1)
    if not counts:
        counts = Counter(info.dtype for info in tensors.values())
    return counts.most_common(1)[0][0] if counts else ""


Row = Callable[[Header, str], ModelFacts | None]
_ROWS: tuple[Row, ...] = (_stranger, single_file_facts, _adapter, _embedding, _tiny_decoder, _hypernetwork, _vae,
                          _text_encoder, _upscaler)  # fmt: skip
