"""Adapter files: which modules they change, with which tensors, and what is wrong with them. No weight is read yet."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.library.header import Header
from webui.pipeline.adapters.adapter_types import ADAPTER_TYPES, adapter_type
from webui.pipeline.adapters.deltas import magnitudes_of, problem_of_group
from webui.pipeline.adapters.peft_settings import Settings, read_settings, scale_from_settings
from webui.pipeline.adapters.storage import Contents, StoredTensors, open_contents
from webui.pipeline.adapters.targets import AdapterGroup

SUFFIXES: Mapping[str, str] = {
    **{f"{name}.weight": name for name in ("lora_up", "lora_down", "lora_mid", "a1", "a2", "b1", "b2", "oft_R")},
    **{f"lora_{a}{adapter}.weight": name for a, name in (("A", "lora_down"), ("B", "lora_up"))
       for adapter in ("", ".default", ".default_0")},
    **{f"{spelling}{half}.weight": f"lora_{half}" for spelling in ("lora.", "lora_linear_layer.", "")
       for half in ("up", "down")},
    **{name: name for name in (
        "alpha", "scale", "dora_scale", "rescale", "diff", "diff_b", "w_norm", "b_norm", "weight", "on_input",
        "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "oft_blocks",
        "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")},
    **{f"lora_magnitude_vector{end}": "lora_magnitude_vector"
       for end in ("", ".weight", ".default", ".default.weight")},
}  # fmt: skip
"""What stands after the module in a key -> our name for it. PEFT's A and B are the halves next to input and output."""

LONGEST_SUFFIX = max(suffix.count(".") for suffix in SUFFIXES) + 1

EMBEDDING = re.compile(
    r"bundle_emb\.(?P<name>.+)\.(?:string_to_param\.(?P<param>[^.]+)|(?P<part>clip_l|clip_g|emb_params))$"
)
"""A textual inversion that came along: A1111's names, SDXL's pair, and kohya's."""

SCALED_BY_SETTINGS = ("lora_up", "hada_w1_a", "lokr_w1", "lokr_w1_a")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterFile:
    """`groups` has every sound module, by the part of its keys that names it.

    `embeddings` are textual inversions: name -> "clip_l", "clip_g" or "*" -> (vectors, width), read on access.
    `types` are ids of ADAPTER_TYPES and "dora"; `dtype` is the commonest, in safetensors' words.
    `problems` says what is wrong; `num_modules` counts the damaged modules too.
    """

    name: str
    path: Path
    metadata: Mapping[str, str]
    groups: Mapping[str, AdapterGroup]
    embeddings: Mapping[str, Mapping[str, Tensor]]
    types: tuple[str, ...]
    dtype: str
    num_modules: int
    problems: tuple[str, ...]


def read_adapter(path: Path) -> AdapterFile:
    """What is in an adapter file: .safetensors, or .pt, .ckpt and .bin without running code from them.

    Raises UnsupportedModel if it cannot be read or nothing in it can be applied.
    """
    contents = open_contents(path)
    keys = _sort_keys(contents.header.tensors)
    settings = read_settings(path, contents.header.metadata)
    groups = {prefix: _group(contents, prefix, names, settings) for prefix, names in keys.modules.items()}
    faults = {prefix: problem for prefix, group in groups.items() if (problem := problem_of_group(group))}
    problems = (*_about_unknown(keys.unknown), *(f"'{prefix}': {problem}" for prefix, problem in faults.items()))
    sound = {prefix: group for prefix, group in groups.items() if prefix not in faults}
    if not sound and not keys.embeddings:
        raise UnsupportedModel(path, problems[0] if problems else "there is no adapter in it")
    return AdapterFile(
        name=path.stem,
        path=path,
        metadata=contents.header.metadata,
        groups=sound,
        embeddings={name: StoredTensors(contents, parts) for name, parts in keys.embeddings.items()},
        types=_types(sound),
        dtype=_commonest_dtype(contents.header),
        num_modules=len(groups),
        problems=problems,
    )


@dataclass(frozen=True, slots=True)
class _Keys:
    """A file's keys: prefix -> our name -> key; embedding -> part -> key; and those that are neither."""

    modules: dict[str, dict[str, str]] = field(default_factory=dict)
    embeddings: dict[str, dict[str, str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def _sort_keys(names: Iterable[str]) -> _Keys:
    keys = _Keys()
    for key in names:
        if embedding := EMBEDDING.match(key):
            part = embedding["part"] or "*"
            keys.embeddings.setdefault(embedding["name"], {})["*" if part == "emb_params" else part] = key
        elif split := split_key(key):
            keys.modules.setdefault(split[0], {})[split[1]] = key
        else:
            keys.unknown.append(key)
    return keys


def split_key(key: str) -> tuple[str, str] | None:
    """(the part that names the module, our name of the tensor) of an adapter's key; None if its end is not known."""
    parts = key.split(".")
    for count in range(min(LONGEST_SUFFIX, len(parts) - 1), 0, -1):
        name = SUFFIXES.get(".".join(parts[-count:]))
        if name:
            return ".".join(parts[:-count]), name
    return None


def _group(contents: Contents, prefix: str, keys: Mapping[str, str], settings: Settings) -> AdapterGroup:
    shapes = {name: contents.header.tensors[key].shape for name, key in keys.items()}
    known: dict[str, Tensor] = {}
    if not {"alpha", "scale"} & shapes.keys() and any(name in shapes for name in SCALED_BY_SETTINGS):
        scale = scale_from_settings(settings, prefix)
        if scale is not None:
            known["scale"] = torch.tensor(scale, dtype=torch.float64)
            shapes["scale"] = ()
    return AdapterGroup(prefix=prefix, shapes=shapes, tensors=StoredTensors(contents, keys, known))


def _about_unknown(keys: Sequence[str]) -> list[str]:
    if not keys:
        return []
    return [f"{len(keys)} keys belong to no type of adapter that is known here, such as '{keys[0]}'"]


def _types(groups: Mapping[str, AdapterGroup]) -> tuple[str, ...]:
    found = {row.id for group in groups.values() if (row := adapter_type(group.shapes))}
    dora = ("dora",) if any(magnitudes_of(group) for group in groups.values()) else ()
    return (*(row.id for row in ADAPTER_TYPES if row.id in found), *dora)


def _commonest_dtype(header: Header) -> str:
    counts = Counter(info.dtype for info in header.tensors.values() if info.shape)
    return counts.most_common(1)[0][0] if counts else ""
