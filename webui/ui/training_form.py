"""The settings of a training as the page draws them, read from the configuration itself: what is there is shown."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from webui.library.entries import CheckpointInfo
from webui.library.families import FAMILIES
from webui.training.config import OPTIMIZER_PACKAGES, Method, TrainingConfig
from webui.training.presets import PRESETS, bucket_step_of

REFINER = "Refiners are not trained: choose the main model."

METHODS: Mapping[Method, tuple[str, str]] = MappingProxyType(
    {
        "lora": ("LoRA", "The usual choice: a small file that every program reads."),
        "locon": ("LoCon", "LoRA on convolutions too: more detail, a larger file."),
        "dora": ("DoRA", "LoRA that learns strength and direction apart: often closer, slower."),
        "loha": ("LoHa", "Products of two LoRAs: much from a small file."),
        "lokr": ("LoKr", "Kronecker products: the smallest file."),
        "ia3": ("IA³", "Only stretches what is there: tiny, for styles."),
        "oft": ("OFT", "Only turns what is there: keeps what the model knew."),
        "full": ("Whole model (DreamBooth)", "Trains every weight: closest, a whole checkpoint comes out."),
        "embedding": ("Word (textual inversion)", "Learns a word and leaves the model alone."),
        "pivotal": ("Word, then LoRA", "Learns a word first, then a LoRA that goes with it."),
    }
)

SIZE_LABELS: Mapping[str, str] = MappingProxyType({"small": "quick", "normal": "usual", "large": "thorough"})

SECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "": "Run",
        "data": "Photos",
        "network": "What is trained",
        "optimizer": "How it learns",
        "loss": "Loss and noise",
        "schedule": "Length",
        "validation": "Measuring and samples",
        "resources": "Machine",
    }
)

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "data.class_word": "Class",
        "data.trigger": "Trigger word",
        "data.flip": "Mirror",
        "data.holdout": "Photos kept back",
        "data.num_prior_images": "Class pictures",
        "data.prior_photos": "Set of class pictures",
        "data.prior_prediction": "Hold on to the base's predictions",
        "network.lokr_factor": "LoKr factor",
        "network.oft_block": "OFT block",
        "network.conv_rank": "Rank of convolutions",
        "network.conv_alpha": "Alpha of convolutions",
        "network.num_vectors": "Vectors of the word",
        "network.embedding_start": "Word starts from",
        "network.pivotal_share": "Share of steps for the word",
        "optimizer.name": "Optimizer",
        "optimizer.rate": "Learning rate",
        "optimizer.text_rate": "Learning rate of the text encoder",
        "optimizer.embedding_rate": "Learning rate of the word",
        "optimizer.schedule": "Schedule of the rate",
        "optimizer.num_restarts": "Restarts",
        "optimizer.warmup": "Warm-up",
        "optimizer.ema_decay": "EMA decay",
        "optimizer.max_gradient_norm": "Largest gradient norm",
        "loss.huber_c": "Huber threshold",
        "loss.gamma": "Gamma of min-SNR",
        "loss.multires_iterations": "Multi-resolution noise",
        "loss.multires_discount": "Multi-resolution discount",
        "loss.zero_terminal_snr": "Zero terminal SNR",
        "schedule.num_steps": "Steps",
        "schedule.state_every_s": "Seconds between states",
        "schedule.save_every": "Steps between candidates",
        "validation.num_timesteps": "Noise levels",
        "validation.num_train_photos": "Trained photos measured",
        "validation.prompts": "Sample prompts",
        "validation.num_inference_steps": "Sampling steps",
        "validation.guidance_scale": "CFG scale",
        "validation.weights": "Weights that are tried",
        "validation.samples": "Draw samples",
        "resources.ladder": "Save memory where needed",
    }
)
"""Of others the label is the name in words."""

SIMPLE = frozenset(
    {
        "name",
        "base",
        "subject",
        "data.trigger",
        "data.class_word",
        "data.caption",
        "data.resolution",
        "data.flip",
        "network.method",
        "network.rank",
        "network.alpha",
        "network.text_encoder",
        "optimizer.name",
        "optimizer.rate",
        "schedule.num_steps",
        "schedule.batch_size",
        "validation.prompts",
        "validation.samples",
    }
)
"""What most people look at; the rest is `advanced`."""

KINDS: Mapping[str, str] = MappingProxyType(
    {"integer": "int", "number": "number", "boolean": "bool", "string": "text", "array": "list"}
)


def form(checkpoints: Sequence[CheckpointInfo]) -> dict[str, Any]:
    return {
        "presets": [{"id": name, "label": _preset_label(name)} for name in PRESETS],
        "methods": [{"id": name, "label": label, "about": about} for name, (label, about) in METHODS.items()],
        "bases": [_base(info) for info in checkpoints],
        "sections": sections(),
    }


def sections() -> list[dict[str, Any]]:
    """Every setting there is, by section."""
    schema = TrainingConfig.model_json_schema()
    found: dict[str, list[dict[str, Any]]] = {"": []}
    for name, part in schema["properties"].items():
        target = _target(part)
        if target is None:
            found[""].append(_field(name, part))
        else:
            fields = schema["$defs"][target]["properties"]
            found[name] = [_field(f"{name}.{key}", each) for key, each in fields.items()]
    return [{"name": name, "label": SECTIONS.get(name, name), "fields": fields} for name, fields in found.items()]


def missing_packages() -> list[str]:
    """Optimizers that need a package which is not installed."""
    return [name for name, package in OPTIMIZER_PACKAGES.items() if find_spec(package) is None]


def label_of(name: str) -> str:
    """What people call a setting, by its dotted name."""
    words = name.rpartition(".")[2].removeprefix("num_").replace("_", " ")
    return LABELS.get(name, words[:1].upper() + words[1:])


def _preset_label(name: str) -> str:
    subject, _, size = name.partition("-")
    return f"{subject.capitalize()}, {SIZE_LABELS[size]}"


def _base(info: CheckpointInfo) -> dict[str, Any]:
    family = FAMILIES.get(info.family)  # of files that nobody can read there is none
    problem = info.problem or (REFINER if family is None or family.adapter_base == "sdxl-refiner" else "")
    return {
        "name": info.name,
        "title": info.title,
        "family": "" if family is None else family.label,
        "native_size": info.native_size,
        "bucket_step": 0 if family is None or problem else bucket_step_of(family.adapter_base, info.native_size),
        "problem": problem,
    }


def _target(schema: Mapping[str, Any]) -> str | None:
    """The name of the model that a field holds; None for a plain value."""
    reference = schema.get("$ref") or next((each["$ref"] for each in schema.get("allOf", ()) if "$ref" in each), None)
    return None if reference is None else str(reference).rpartition("/")[2]


def _field(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    variants = [each for each in schema.get("anyOf", (schema,)) if each.get("type") != "null"]
    optional = any(each.get("type") == "null" for each in schema.get("anyOf", ()))
    value = {**variants[0], **{key: each for key, each in schema.items() if key != "anyOf"}}
    whole = value.get("type") == "integer"
    low, high = value.get("minimum"), value.get("maximum")
    return {
        "name": name,
        "label": label_of(name),
        "kind": "choice" if "enum" in value else KINDS[value["type"]],
        "min": low,
        "max": high,
        "above": value.get("exclusiveMinimum"),
        "below": value.get("exclusiveMaximum"),
        "step": value.get("multipleOf", 1 if whole else None),
        "choices": value.get("enum", []),
        "items": KINDS[value["items"]["type"]] if value.get("type") == "array" else "",
        "pattern": value.get("pattern", ""),
        "about": value.get("description", ""),
        "default": value.get("default"),
        "optional": optional,
        "advanced": name not in SIMPLE,
    }
