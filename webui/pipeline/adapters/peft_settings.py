"""Rank and alpha of files in PEFT's and diffusers' formats, which keep them beside the tensors and not among them.

diffusers writes them to the metadata under `lora_adapter_metadata`, PEFT into `adapter_config.json` next to the file.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from webui.errors import UnsupportedModel

METADATA_KEY = "lora_adapter_metadata"
CONFIG_NAME = "adapter_config.json"
PEFT_FILE_STEM = "adapter_model"

Settings = Mapping[str, Mapping[str, Any]]
"""By the part of a key that comes before the module: "unet.", "text_encoder_2.", "base_model.model."."""


def read_settings(path: Path, metadata: Mapping[str, str]) -> Settings:
    """Empty for a file of another kind. Raises UnsupportedModel if they are there and damaged."""
    try:
        if METADATA_KEY in metadata:
            return _by_component(json.loads(metadata[METADATA_KEY]))
        config = path.with_name(CONFIG_NAME)
        if path.stem == PEFT_FILE_STEM and config.is_file():
            return {"base_model.model.": dict(json.loads(config.read_text("utf-8")))}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UnsupportedModel(path, f"its settings of rank and alpha are damaged ({error})") from error
    return {}


def scale_from_settings(settings: Settings, prefix: str) -> float | None:
    """alpha / rank of the module that `prefix` names, rank-stabilised if so trained; None if nothing says so."""
    for start, values in settings.items():
        if prefix.startswith(start) and values.get("r"):
            module = prefix.removeprefix(start)
            rank = float(_of_module(values.get("rank_pattern"), module) or values["r"])
            default = values.get("lora_alpha", values.get("alpha", rank))
            alpha = _of_module(values.get("alpha_pattern"), module)
            return float(default if alpha is None else alpha) / (math.sqrt(rank) if values.get("use_rslora") else rank)
    return None


def _by_component(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{"unet.r": 4} -> {"unet.": {"r": 4}}."""
    settings: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        component, _, name = key.partition(".")
        settings.setdefault(f"{component}.", {})[name] = value
    return settings


def _of_module(pattern: Mapping[str, Any] | None, module: str) -> Any:
    """The value of the first pattern that ends at the module's name, as PEFT reads them; None if none does."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return None
