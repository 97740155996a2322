"""What an adapter file is: its types, rank, the base it was made for, and the words that call for it."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from webui.library import hints
from webui.library.facts import ModelFacts
from webui.library.families import BASE_OF_ARCHITECTURE, BASE_OF_WIDTH
from webui.library.header import Header, TensorInfo

TYPE_OF_TENSOR: Mapping[str, str] = {
    "lora_down": "lora", "lora_A": "lora", "lora_mid": "lora-tucker",
    "hada_w1_a": "loha", "hada_t1": "loha-tucker",
    "lokr_w1": "lokr", "lokr_w1_a": "lokr", "lokr_w2": "lokr", "lokr_w2_a": "lokr", "lokr_t2": "lokr-tucker",
    "on_input": "ia3", "oft_blocks": "oft", "oft_R": "oft-input", "a1": "glora", "diff": "full", "w_norm": "norm",
    "diff_b": "bias", "b_norm": "bias", "dora_scale": "dora", "lora_magnitude_vector": "dora",
}  # fmt: skip
"""The tensor of a module that gives its type away -> the type."""
TYPE_ORDER = ("lora", "lora-tucker", "loha", "loha-tucker", "lokr", "lokr-tucker", "ia3", "oft", "boft", "oft-input",
              "glora", "full", "norm", "bias", "dora")  # fmt: skip
TUCKER = (("lora", ("lora_down", "lora_A"), "lora_mid"), ("loha", ("hada_w1_a",), "hada_t1"),
          ("lokr", ("lokr_w2", "lokr_w2_a"), "lokr_t2"))  # fmt: skip
"""Type, a tensor that each of its modules has, and the one that makes it a Tucker decomposition."""
RANK_TENSORS = frozenset({"lora_down", "lora_A", "hada_w1_b", "lokr_w1_b", "lokr_w2_b", "a2"})
"""Tensors whose first axis is the rank."""
INPUT_TENSORS = frozenset({"lora_down", "lora_A", "hada_w1_b", "diff", "a2"})
"""Tensors whose second axis is the width of the layer's input."""
ENDINGS = frozenset({"weight", "default", "default_0"})

BASE_OF_VERSION = (("sdxl", "sdxl"), ("sd_v1", "sd1"), ("sd_v2", "sd2"), ("sd_1", "sd1"), ("sd_2", "sd2"))
"""By the beginning of ss_base_model_version."""
OTHER_BASES = (
    (re.compile(r"single_transformer_blocks|double_blocks|single_blocks"), "Flux or a relative of it"),
    (re.compile(r"joint_blocks"), "Stable Diffusion 3"),
    (re.compile(r"^(transformer|diffusion_model|lora_unet|lora_transformer)[._](transformer_)?(blocks|layers)[._]"),
     "a newer family"),
)  # fmt: skip
"""Modules that no U-Net has."""
JUNK_FOLDERS = frozenset({"img", "imgs", "image", "images", "data", "dataset", "train", "training", "lora", "crop",
                          "cropped", "raw", "input", "final", "test", "new", "folder"})  # fmt: skip
BLOCK_OF_UNET = re.compile(r"(down|up)_blocks|mid_block|(input|middle|output)_block")
REPEATS = re.compile(r"^\d+[_-]")
MAX_TRIGGER_WORDS = 8
MAX_COUNT = 2**63
IN_NEARLY_ALL = 0.9


def adapter_facts(header: Header) -> ModelFacts | None:
    """None if the file is no adapter."""
    tensors = header.tensors
    tails = {name: tail for name in tensors if (tail := _tail(name)) in _KNOWN_TAILS}
    types = _types(tails, tensors)
    if not types:
        return None
    ranks = Counter(
        tensors[name].shape[0] for name, tail in tails.items() if tail in RANK_TENSORS and tensors[name].shape
    )
    stranger = _other_base(tensors)
    return ModelFacts(
        kind="adapter",
        adapter_base="" if stranger else _base(tails, header),
        adapter_types=types,
        rank=ranks.most_common(1)[0][0] if ranks else None,
        alpha=_number(header.metadata.get("ss_network_alpha")),
        trigger_words=trigger_words(header.metadata),
        title=hints.title_of(header.metadata),
        problems=(f"it is an adapter for {stranger}, which this program does not run",) if stranger else (),
    )


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """What calls for the subject: as its maker says, else the tags of nearly all its pictures, else its folders' names.

    At most 8; they are as likely to come from a folder called "10_ohwx man" as from captions.
    """
    said = [part.strip() for part in metadata.get("modelspec.trigger_phrase", "").split(",")]
    if any(said):
        return tuple(dict.fromkeys(part for part in said if part))[:MAX_TRIGGER_WORDS]
    folders = _json(metadata.get("ss_dataset_dirs"))
    counts = {folder: _count(entry) for folder, entry in folders.items()}
    words = _common_tags(_json(metadata.get("ss_tag_frequency")), counts)
    if not words:
        names = [REPEATS.sub("", folder).replace("_", " ").strip() for folder in folders]
        words = [name for name in names if name and name.lower() not in JUNK_FOLDERS and not name.isdigit()]
    return tuple(dict.fromkeys(words))[:MAX_TRIGGER_WORDS]


def _common_tags(frequency: Mapping[str, Any], counts: Mapping[str, int]) -> list[str]:
    found: list[str] = []
    for folder, tags in frequency.items():
        if not isinstance(tags, dict):
            continue
        numbers = {str(tag).strip(): _count({"img_count": number}) for tag, number in tags.items()}
        num_images = counts.get(folder) or max(numbers.values(), default=0)
        common = [tag for tag, number in numbers.items() if tag and number >= max(1, IN_NEARLY_ALL * num_images)]
        found += sorted(common, key=lambda tag: -numbers[tag])
    return found


def _count(entry: Any) -> int:
    number = entry.get("img_count") if isinstance(entry, dict) else None
    return number if isinstance(number, int) and 0 < number < MAX_COUNT else 0


def _json(text: str | None) -> dict[str, Any]:
    """Metadata that is no JSON object says nothing; it is a note, not a part of the model."""
    try:
        value = from_json(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and abs(value) < 1e9 else None


def _tail(name: str) -> str:
    """The name of the tensor in its module: "lora_down" of "lora_unet_x.lora_down.weight"."""
    parts = name.rsplit(".", 3)
    while len(parts) > 1 and parts[-1] in ENDINGS:
        parts.pop()
    if parts[-1] in ("down", "up"):  # diffusers before PEFT: "to_q_lora.down.weight", "to_q.lora.down.weight"
        return f"lora_{parts[-1]}" if "lora" in name else ""
    return parts[-1]


_KNOWN_TAILS = frozenset({*TYPE_OF_TENSOR, *RANK_TENSORS, *INPUT_TENSORS})


def _types(tails: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    found = {TYPE_OF_TENSOR[tail] for tail in set(tails.values()) if tail in TYPE_OF_TENSOR}
    if "oft" in found and any(len(tensors[name].shape) == 4 for name, tail in tails.items() if tail == "oft_blocks"):
        found = found - {"oft"} | {"boft"}
    counts = Counter(tails.values())
    for kind, plain, middle in TUCKER:
        if counts[middle] and counts[middle] == sum(counts[tensor] for tensor in plain):
            found -= {kind}  # every module of it has a middle
    if found - {"bias", "dora"}:
        found -= {"bias"}  # a part of the others
    return tuple(kind for kind in TYPE_ORDER if kind in found)


def _base(tails: Mapping[str, str], header: Header) -> str:
    """Shapes are proof: what the text attention of a U-Net reads; a width of no known family is one of its own.

    Names of the second text encoder come next, then metadata.
    """
    tensors = header.tensors
    for name, tail in tails.items():
        if tail in INPUT_TENSORS and "attn2" in name and ("to_k" in name or "to_v" in name):
            shape = tensors[name].shape
            other = "sd-custom" if BLOCK_OF_UNET.search(name) else ""
            return BASE_OF_WIDTH.get(shape[1], other) if len(shape) > 1 else ""
    if any(name.startswith(("lora_te2_", "text_encoder_2.", "lora_te1_")) for name in tensors):
        return "sdxl"
    for name, tail in tails.items():
        if tail in ("lora_down", "lora_A") and name.endswith("weight") and "self_attn" in name:
            return {768: "sd1", 1024: "sd2"}.get(tensors[name].shape[-1], "")
    return _said_base(header.metadata)


def _said_base(metadata: Mapping[str, str]) -> str:
    architecture, version = metadata.get("modelspec.architecture", ""), metadata.get("ss_base_model_version", "")
    for text, table in ((architecture, BASE_OF_ARCHITECTURE), (version, BASE_OF_VERSION)):
        for start, base in table:
            if text.startswith(start):
                return base
    return {"true": "sd2", "false": "sd1"}.get(metadata.get("ss_v2", "").lower(), "")


def _other_base(tensors: Mapping[str, TensorInfo]) -> str:
    """A file is for one network, so that one of its U-Net's (or transformer's) names tells."""
    first = next((name for name in tensors if not name.startswith(("lora_te", "text_encoder"))), "")
    return next((label for pattern, label in OTHER_BASES if pattern.search(first)), "")
