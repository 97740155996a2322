"""Settings to start from: a subject, a size, the kind of model. Every number is plain to see in the config they make.

Imports no torch. A preset is three layers of values, one over the other: of the kind of model, the subject, the size.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from webui.errors import InvalidRequest
from webui.library.families import AdapterBase
from webui.training.config import Method, Subject, TrainingConfig
from webui.training.sample_prompts import SAMPLE_PROMPTS

Size = Literal["small", "normal", "large"]
Values = Mapping[str, Mapping[str, Any]]

SUBJECTS: Mapping[Subject, Values] = MappingProxyType(
    {
        "person": {
            "data": {"caption": "photo of {trigger} {class}", "class_word": "person", "caption_dropout": 0.05},
            "network": {"layers": "attention", "text_encoder": True},
            "validation": {"prompts": SAMPLE_PROMPTS["person"]},
        },
        "object": {
            "data": {"caption": "photo of {trigger} {class}", "class_word": "thing", "flip": True},
            "network": {"layers": "attention", "text_encoder": True},
            "validation": {"prompts": SAMPLE_PROMPTS["object"]},
        },
        "style": {
            "data": {"caption": "{trigger} {class}", "class_word": "style", "flip": True, "caption_dropout": 0.1},
            "network": {"layers": "attention and mlp", "text_encoder": False},
            "validation": {"prompts": SAMPLE_PROMPTS["style"]},
        },
    }
)
"""Faces are not symmetric, so people are not mirrored. A style is in the brush, not in a word: its text stays."""

SIZES: Mapping[Size, Values] = MappingProxyType(
    {
        "small": {"network": {"rank": 8, "alpha": 8.0}, "schedule": {"num_steps": 800}},
        "normal": {"network": {"rank": 16, "alpha": 16.0}, "schedule": {"num_steps": 1500}},
        "large": {"network": {"rank": 32, "alpha": 32.0}, "schedule": {"num_steps": 3000}},
    }
)

STARTER_SIZES: Mapping[Size, Values] = MappingProxyType(
    {
        "small": {"network": {"rank": 8, "alpha": 8.0}, "schedule": {"num_steps": 150, "save_every": 30}},
        "normal": {"network": {"rank": 16, "alpha": 16.0}, "schedule": {"num_steps": 300, "save_every": 60}},
        "large": {"network": {"rank": 32, "alpha": 32.0}, "schedule": {"num_steps": 600, "save_every": 120}},
    }
)

_SD: Values = {
    "optimizer": {"rate": 1e-4, "text_rate": 5e-5},
    "schedule": {"batch_size": 2},
}
_OWN_SIZE: Values = {
    "network": {"layers": "attention and mlp"},
    "optimizer": {"rate": 4e-3, "text_rate": 2e-3},
    "schedule": {"batch_size": 4},
    "validation": {"num_inference_steps": 12, "num_timesteps": 8, "guidance_scale": 3.0, "weights": (0.7, 1.0)},
}
"""A small network learns at forty times the rate of a large one, and attention alone is too little of it. Its steps are
so quick that drawing samples takes longest: five candidates at two weights."""

BASES: Mapping[AdapterBase, Values] = MappingProxyType(
    {
        "sd1": _SD,
        "sd2": _SD,
        "sdxl": {
            "network": {"text_encoder": False},
            "optimizer": {"rate": 1e-4, "text_rate": 5e-6},
            "schedule": {"batch_size": 1},
            "resources": {"gradient_checkpointing": True},
        },
        "sd-custom": _OWN_SIZE,
    }
)
"""By what a base's adapters fit. "sd-custom" is the starter, and whatever else has a size of its own."""

METHODS: Mapping[Method, Values] = MappingProxyType(
    {
        "full": {
            "optimizer": {"rate": 2e-6, "text_rate": 1e-6, "weight_decay": 0.01},
            "data": {"prior_prediction": True},
        },
        "embedding": {
            "network": {"text_encoder": False},
            "optimizer": {"embedding_rate": 5e-3, "schedule": "constant"},
        },
        "ia3": {"optimizer": {"rate": 5e-3, "text_rate": 5e-3}},
        "loha": {"network": {"rank": 8, "alpha": 4.0}},
        "oft": {"optimizer": {"rate": 1e-3, "text_rate": 5e-4}},
    }
)
"""What some methods need otherwise."""

STARTER_METHODS: Mapping[Method, Values] = MappingProxyType(
    {
        "full": {"optimizer": {"rate": 2e-4, "text_rate": 1e-4}, "data": {"prior_prediction": True}},
        "embedding": {
            "network": {"text_encoder": False},
            "optimizer": {"embedding_rate": 2e-2, "schedule": "constant"},
        },
        "ia3": {"optimizer": {"rate": 3e-2, "text_rate": 3e-2}},
        "loha": {"network": {"rank": 8, "alpha": 8.0}, "optimizer": {"rate": 3e-3, "text_rate": 1.5e-3}},
        "lokr": {"optimizer": {"rate": 3e-2, "text_rate": 1.5e-2}},
        "oft": {"optimizer": {"rate": 5e-3, "text_rate": 2.5e-3}},
    }
)

PRESETS: tuple[str, ...] = tuple(f"{subject}-{size}" for subject in SUBJECTS for size in SIZES)


def bucket_step_of(adapter_base: AdapterBase, native_size: int) -> int:
    """64, which all trainers take; of models with a size of their own an eighth of it (24 for 192), since coarser steps
    cut much off small pictures."""
    return max(8, native_size // 64 * 8) if adapter_base == "sd-custom" else 64


def preset_config(
    preset: str,
    *,
    name: str,
    photos: Path,
    base: str,
    adapter_base: AdapterBase,
    native_size: int,
    method: Method = "lora",
    trigger: str = "",
    class_word: str = "",
) -> TrainingConfig:
    """The whole configuration of `preset`, such as "person-small", for the checkpoint `base`.

    Raises InvalidRequest for a preset or a kind of base that there is not.
    """
    if preset not in PRESETS:
        raise InvalidRequest("preset", f"There is no preset '{preset}'.", hint=f"Use one of: {', '.join(PRESETS)}.")
    if adapter_base not in BASES:
        raise InvalidRequest("base", f"'{base}' is a refiner, which is not trained.", hint="Choose its main model.")
    subject, _, size = preset.partition("-")
    own_size = adapter_base == "sd-custom"
    layers: list[Values] = [
        SUBJECTS[subject],  # type: ignore[index]
        (STARTER_SIZES if own_size else SIZES)[size],  # type: ignore[index]
        BASES[adapter_base],
        (STARTER_METHODS if own_size else METHODS).get(method, {}),
        {"data": {"photos": photos, "trigger": trigger, "resolution": native_size}, "network": {"method": method}},
        {"data": {"bucket_step": bucket_step_of(adapter_base, native_size)}},
        {"data": {"class_word": class_word}} if class_word else {},
    ]
    sections: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, values in layer.items():
            sections.setdefault(section, {}).update(values)
    return TrainingConfig.model_validate({"name": name, "base": base, "subject": subject, **sections})
