"""What a diffusers folder is, from its small JSON files and the headers of its weights."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from webui.errors import UnsupportedModel
from webui.library.architecture import TEXT_PREFIXES
from webui.library.checkpoint_facts import Hints, Unet, with_family
from webui.library.facts import ModelFacts
from webui.library.families import FAMILIES, AdapterBase
from webui.library.header import TensorInfo, read_header
from webui.library.hints import PREDICTION_TYPES
from webui.library.scan import DIFFUSERS_INDEX

OWN_FILE = "atelier.json"
"""What our own folders say of themselves: "title", "native_size", "guidance_scale"."""
LATENT_SCALE = 8
MAX_NATIVE_SIZE = 8192
MAX_GUIDANCE_SCALE = 100.0
WEIGHT_SUFFIXES = (".safetensors", ".bin")


def folder_facts(path: Path) -> ModelFacts:
    """Facts of the diffusers folder at `path`. Never raises; `problems` says what is missing or cannot be read."""
    if not (path / DIFFUSERS_INDEX).is_file():
        return ModelFacts(problems=(f"it is a folder without {DIFFUSERS_INDEX}: no diffusers model",))
    try:
        return _facts(path)
    except UnsupportedModel as error:
        return ModelFacts(kind="checkpoint", layout="folder", problems=(error.reason,))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        return ModelFacts(kind="checkpoint", layout="folder", problems=(f"its description cannot be read ({error})",))


def _facts(path: Path) -> ModelFacts:
    index, own = _json(path / DIFFUSERS_INDEX), _json(path / OWN_FILE)
    if "unet" not in index:
        return ModelFacts(problems=(f"it is a {index.get('_class_name', 'model')}, which this program does not run",))
    config, scheduler = _json(path / "unet" / "config.json"), _json(path / "scheduler" / "scheduler_config.json")
    facts = ModelFacts(kind="checkpoint", layout="folder", title=str(own.get("title", "")))
    if not config:
        return replace(facts, problems=("the folder has no unet/config.json",))
    if config.get("_class_name") != "UNet2DConditionModel":
        return replace(facts, problems=(f"its network is a {config.get('_class_name')}, not a UNet2DConditionModel",))
    predicted = str(scheduler.get("prediction_type", "epsilon"))
    if predicted not in PREDICTION_TYPES:
        return replace(facts, problems=(f"its prediction type '{predicted}' is unknown",))
    has_text = {name: (path / name / "config.json").is_file() for name in ("text_encoder", "text_encoder_2")}
    facts = with_family(facts, _unet_of(config), _hints(path, index, scheduler, has_text))
    facts = replace(
        facts,
        has_vae=(path / "vae" / "config.json").is_file(),
        has_text_encoder=any(has_text.values()),
        native_size=_native_size(config, own) or facts.native_size,
        guidance_scale=guidance_scale_of(own, facts.guidance_scale or 0) or None,
    )
    return _with_weights(facts, path)


def _hints(path: Path, index: Mapping[str, Any], scheduler: Mapping[str, Any], has_text: Mapping[str, bool]) -> Hints:
    text_base: AdapterBase | None = None
    if has_text["text_encoder_2"]:
        text_base = "sdxl" if has_text["text_encoder"] else "sdxl-refiner"
    return Hints(
        name=f"{path.name} {index.get('_name_or_path') or ''}",
        metadata={},
        text_base=text_base,
        prediction_type=PREDICTION_TYPES[str(scheduler.get("prediction_type", "epsilon"))],
        zero_terminal_snr=bool(scheduler.get("rescale_betas_zero_snr")),
    )


def _unet_of(config: Mapping[str, Any]) -> Unet:
    width = config.get("cross_attention_dim", 1280)
    pooled = config.get("projection_class_embeddings_input_dim")
    takes_pooled = config.get("addition_embed_type") == "text_time" or config.get("class_embed_type") == "projection"
    return Unet(
        in_channels=int(config.get("in_channels", 4)),
        context_width=int(width[0] if isinstance(width, list) else width),
        num_levels=len(config.get("block_out_channels", ())),
        linear=bool(config.get("use_linear_projection")),
        pooled_width=int(pooled) if takes_pooled and pooled else None,
        has_guidance=bool(config.get("time_cond_proj_dim")),
    )


def _native_size(config: Mapping[str, Any], own: Mapping[str, Any]) -> int | None:
    if "native_size" in own:
        return native_size_of(own, 0)
    size = config.get("sample_size")
    return size * LATENT_SCALE if isinstance(size, int) and 0 < size * LATENT_SCALE <= MAX_NATIVE_SIZE else None


def native_size_of(own: Mapping[str, Any], default: int) -> int:
    """Pixels. Raises ValueError, TypeError or OverflowError for what is no size of a picture."""
    size = int(own.get("native_size", default))
    if not 0 < size <= MAX_NATIVE_SIZE:
        raise ValueError(f"native_size is not 1 to {MAX_NATIVE_SIZE}")
    return size


def guidance_scale_of(own: Mapping[str, Any], default: float) -> float:
    """Raises ValueError, TypeError or OverflowError for what is no CFG scale."""
    scale = float(own.get("guidance_scale", default))
    if not 0 <= scale <= MAX_GUIDANCE_SCALE:
        raise ValueError(f"guidance_scale is not 0 to {MAX_GUIDANCE_SCALE:g}")
    return scale


def _with_weights(facts: ModelFacts, path: Path) -> ModelFacts:
    """Counts the weights, and says which parts are missing or damaged."""
    if facts.problems:
        return facts
    parts = ("unet", "vae", *TEXT_PREFIXES[FAMILIES[facts.family].adapter_base])
    missing = [part for part in parts if not weight_files(path / part)]
    missing += [part for part in ("scheduler",) if not (path / part / "scheduler_config.json").is_file()]
    files = [file for part in parts for file in weight_files(path / part) if file.suffix == ".safetensors"]
    tensors = [info for file in files for info in _tensors(file)]
    dtypes = Counter(info.dtype for info in tensors if len(info.shape) > 1)
    return replace(
        facts,
        dtype=dtypes.most_common(1)[0][0] if dtypes else "",
        num_keys=len(tensors),
        num_parameters=sum(math.prod(info.shape) for info in tensors),
        problems=(f"the folder has no {', '.join(missing)}",) if missing else (),
    )


def _tensors(file: Path) -> Iterable[TensorInfo]:
    try:
        return read_header(file).tensors.values()
    except UnsupportedModel as error:
        raise UnsupportedModel(file, f"{file.parent.name}/{file.name}: {error.reason}", hint=error.hint) from error


def weight_files(folder: Path) -> list[Path]:
    """A component's weight files: several if it is sharded, the plain ones where there are variants."""
    for suffix in WEIGHT_SUFFIXES:
        found = sorted(folder.glob(f"*{suffix}"))
        plain = [file for file in found if ".fp16" not in file.name and ".non_ema" not in file.name]
        if plain or found:
            return plain or found
    return []


def _json(path: Path) -> dict[str, Any]:
    """{} if there is no such file. Raises ValueError for what is no JSON object."""
    if not path.is_file():
        return {}
    value = from_json(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value
