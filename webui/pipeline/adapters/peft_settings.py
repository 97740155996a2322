"""Rank and alpha of files in PEFT's and diffusers' formats, which keep them beside the tensors and not among them.

diffusers writes them to the metadata under `lora_adapter_metadata`, PEFT into `adapter_config.json` next to the file.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from webui.errors import UnsupportedModel

METADATA_KEY = "lora_adapter_metadata"
CONFIG_NAME = "adapter_config.json"
PEFT_FILE_STEM = "adapter_model"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentSettings:
    """`rank_pattern` and `alpha_pattern`: regular expression of module names -> value for those."""

    rank: float
    alpha: float
    is_rank_stabilised: bool
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]

    def scale(self, module: str) -> float:
        """alpha / rank of a module, or alpha / sqrt(rank)."""
        rank = _of_module(self.rank_pattern, module, self.rank)
        alpha = _of_module(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilised else rank)


Settings = Mapping[str, ComponentSettings]
"""By the part of a key that comes before the module: "unet.", "text_encoder_2.", "base_model.model."."""


def read_settings(path: Path, metadata: Mapping[str, str]) -> Settings:
    """Empty for a file of another kind. Raises UnsupportedModel if they are there and damaged."""
    try:
        if METADATA_KEY in metadata:
            components = _by_component(json.loads(metadata[METADATA_KEY]))
            return {prefix: _parse(values) for prefix, values in components.items() if values.get("r")}
        config = path.with_name(CONFIG_NAME)
        if path.stem == PEFT_FILE_STEM and config.is_file():
            values = json.loads(config.read_text("utf-8"))
            if not values.get("use_cayley_neumann", True) or values.get("num_cayley_neumann_terms", 5) != 5:
                raise UnsupportedModel(path, "its rotations are not the five-term series that is known here")
            return {"base_model.model.": _parse(values)} if values.get("r") else {}
    except (OSError, ValueError, TypeError, AttributeError, re.error) as error:
        raise UnsupportedModel(path, f"its settings of rank and alpha are damaged ({error})") from error
    return {}


def scale_from_settings(settings: Settings, prefix: str) -> float | None:
    """alpha / rank of the module that `prefix` names, rank-stabilised if so trained; None if nothing says so."""
    for start, values in settings.items():
        if prefix.startswith(start):
            return values.scale(prefix.removeprefix(start))
    return None


def _by_component(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{"unet.r": 4} -> {"unet.": {"r": 4}}."""
    settings: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        component, _, name = key.partition(".")
        settings.setdefault(f"{component}.", {})[name] = value
    return settings


def _parse(values: Mapping[str, Any]) -> ComponentSettings:
    """Raises ValueError and TypeError for values of other types. LoHa's and LoKr's alpha has another name in PEFT."""
    rank = float(values["r"])
    alpha = values.get("lora_alpha", values.get("alpha"))
    patterns = [
        {str(re.compile(key).pattern): float(value) for key, value in (values.get(name) or {}).items()}
        for name in ("rank_pattern", "alpha_pattern")
    ]
    if rank <= 0 or any(value <= 0 for value in patterns[0].values()):
        raise ValueError(f"the rank is {rank:g}")
    return ComponentSettings(
        rank=rank,
        alpha=rank if alpha is None else float(alpha),
        is_rank_stabilised=bool(values.get("use_rslora")),
        rank_pattern=patterns[0],
        alpha_pattern=patterns[1],
    )


def _of_module(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first pattern that ends at the module's name, as PEFT reads them."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)
