"""Which checkpoints there are, read from their folders' small JSON files alone. Imports no torch."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from webui.errors import ModelNotFound, UnsupportedModel
from webui.library.families import PredictionType

METADATA_FILE = "atelier.json"
DEFAULT_NATIVE_SIZE_PX = 512
DEFAULT_GUIDANCE_SCALE = 7.0
DEFAULT_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointInfo:
    """A checkpoint as the list shows it. `problem` says why it can't be used; empty if it can."""

    name: str
    title: str
    path: Path
    family: str = "sd15"
    """The id of a row of `families.FAMILIES`."""
    prediction_type: PredictionType = "epsilon"
    zero_terminal_snr: bool = False
    native_size: int = DEFAULT_NATIVE_SIZE_PX
    guidance_scale: float = DEFAULT_GUIDANCE_SCALE
    num_inference_steps: int = DEFAULT_STEPS
    problem: str = ""
    example_prompts: tuple[str, ...] = ()
    sample_negative_prompt: str = ""
    sample_image: Path | None = None
    sample_caption: str = ""


def list_checkpoints(models_dirs: Iterable[Path]) -> list[CheckpointInfo]:
    """Checkpoints of `models_dir/checkpoints` and of `models_dir/starter`, by name; the first of equal names counts."""
    found: dict[str, CheckpointInfo] = {}
    for models_dir in models_dirs:
        for path in _candidates(models_dir):
            info = describe(path)
            found.setdefault(info.name, info)
    return sorted(found.values(), key=lambda info: (bool(info.problem), info.name.lower()))


def find_checkpoint(name: str, models_dirs: Iterable[Path]) -> CheckpointInfo:
    """The checkpoint called `name`. Raises ModelNotFound with close matches, or UnsupportedModel with the problem."""
    known = {info.name: info for info in list_checkpoints(models_dirs)}
    if name not in known:
        raise ModelNotFound("checkpoint", name, get_close_matches(name, known) or list(known)[:5])
    info = known[name]
    if info.problem:
        raise UnsupportedModel(info.path, info.problem)
    return info


def describe(path: Path) -> CheckpointInfo:
    """What can be said of the checkpoint at `path` without reading its weights. Never raises."""
    name = path.name if path.is_dir() else path.stem
    try:
        metadata = _read_json(path / METADATA_FILE) if (path / METADATA_FILE).is_file() else {}
        return CheckpointInfo(
            name=name,
            title=str(metadata.get("title", name)),
            path=path,
            native_size=_native_size(path, metadata),
            guidance_scale=float(metadata.get("guidance_scale", DEFAULT_GUIDANCE_SCALE)),
            problem=_problem(path),
            example_prompts=tuple(str(prompt) for prompt in metadata.get("example_prompts", ())),
            sample_negative_prompt=str(metadata.get("sample_negative_prompt", "")),
            sample_image=sample if (sample := path / "sample.png").is_file() else None,
            sample_caption=str(metadata.get("sample_caption", "")),
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return CheckpointInfo(name=name, title=name, path=path, problem=f"its description cannot be read ({error})")


def _candidates(models_dir: Path) -> list[Path]:
    folder = models_dir / "checkpoints"
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    checkpoints = [
        entry
        for entry in entries
        if (entry.is_dir() and (entry / "model_index.json").is_file())
        or entry.suffix in (".safetensors", ".ckpt", ".pt")
    ]
    starter = models_dir / "starter"
    return [*checkpoints, starter] if (starter / "model_index.json").is_file() else checkpoints


def _problem(path: Path) -> str:
    if not path.is_dir():
        return "single-file checkpoints are not read yet; convert it to a diffusers folder"
    missing = [part for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler") if not (path / part).is_dir()]
    if missing:
        return f"the folder has no {', '.join(missing)}"
    unet = _read_json(path / "unet" / "config.json")
    if unet.get("_class_name") != "UNet2DConditionModel":
        return f"its network is a {unet.get('_class_name')}, not a UNet2DConditionModel"
    if unet.get("in_channels", 4) != 4:
        return f"its U-Net takes {unet['in_channels']} channels; only 4 are supported yet"
    if unet.get("addition_embed_type"):
        return "SDXL checkpoints are not supported yet"
    return ""


def _native_size(path: Path, metadata: Mapping[str, Any]) -> int:
    if "native_size" in metadata:
        return int(metadata["native_size"])
    config = path / "unet" / "config.json"
    if not config.is_file():
        return DEFAULT_NATIVE_SIZE_PX
    return int(_read_json(config).get("sample_size") or 64) * 8


def _read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value
