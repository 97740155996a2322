"""Writes a checkpoint in either layout from components that give their tensors one by one."""

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from webui.errors import InvalidRequest, UnsupportedModel
from webui.library.architecture import CONFIG_KEY
from webui.library.disk_space import require_space
from webui.library.entries import CLIP_VOCABULARY
from webui.library.families import FAMILIES, AdapterBase, PredictionType
from webui.library.header import TensorInfo
from webui.library.scan import DIFFUSERS_INDEX
from webui.library.tool_models import refuse_existing
from webui.library.tool_requests import CheckpointLayout, Precision
from webui.pipeline.component_source import ComponentSource, to_original
from webui.pipeline.dtypes import DTYPES
from webui.pipeline.layouts import COMPONENT_NAMES, ComponentName, WeightName, has_projection, original_weights
from webui.pipeline.sources import CheckpointSource
from webui.pipeline.tools.streaming import FREE_SOME, PlannedTensor, Report, translated, write_streaming
from webui.prompt.tokenizer import END, START, ClipTokenizer

TOKENIZED: tuple[ComponentName, ...] = ("text_encoder", "text_encoder_2")
PRECISIONS: Mapping[Precision, torch.dtype | None] = {
    "keep": None, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
}  # fmt: skip


Derive = Callable[[str, Tensor], Tensor]
"""(name, the source's tensor) -> the tensor to write, of the same shape in any precision."""


def unchanged(name: str, tensor: Tensor) -> Tensor:
    """The tensor as it is."""
    return tensor


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A component to write: what `derive` makes of each of the source's tensors."""

    source: ComponentSource
    derive: Derive = unchanged

    def tensor(self, name: str) -> Tensor:
        return self.derive(name, self.source.tensor(name))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckpointParts:
    """A whole checkpoint that is not in memory. `tokenizers` are folders by component, for those with a vocabulary of
    their own; `adapter_base` as in `Family`; `scheduler` is the scheduler's config."""

    adapter_base: AdapterBase
    components: Mapping[ComponentName, Part]
    scheduler: Mapping[str, Any]
    tokenizers: Mapping[ComponentName, Path]


def parts_of(source: CheckpointSource) -> CheckpointParts:
    """An opened checkpoint as it is. Raises UnsupportedModel if it lacks a U-Net."""
    components: dict[ComponentName, Part] = {}
    for name in COMPONENT_NAMES:
        component = source.component(name)
        if component is not None:
            components[name] = Part(component)
    if "unet" not in components:
        raise UnsupportedModel(source.info.path, "it has no U-Net")
    return CheckpointParts(
        adapter_base=FAMILIES[source.info.family].adapter_base,
        components=components,
        scheduler=source.scheduler_config,
        tokenizers={name: folder for name in COMPONENT_NAMES if (folder := _own_tokenizer(source, name)) is not None},
    )


def _own_tokenizer(source: CheckpointSource, component: ComponentName) -> Path | None:
    """The folder of a vocabulary that is not CLIP's; None for CLIP's own."""
    if component not in TOKENIZED or source.component(component) is None:
        return None
    folder = source.tokenizer(component.replace("text_encoder", "tokenizer"))
    if folder == CLIP_VOCABULARY or ClipTokenizer(folder).vocabulary() == _clip_vocabulary():
        return None
    return folder


@functools.cache
def _clip_vocabulary() -> Mapping[str, int]:
    """CLIP's own, which takes a tenth of a second to read."""
    return ClipTokenizer(CLIP_VOCABULARY).vocabulary()


def write_checkpoint(
    parts: CheckpointParts,
    destination: Path,
    *,
    layout: CheckpointLayout,
    precision: Precision,
    metadata: Mapping[str, str],
    report: Report = lambda done, total: None,
) -> None:
    """Writes `parts` to `destination`: a new .safetensors file, or a new folder.

    `metadata` goes into the single file, or into the U-Net's file of a folder. Raises InvalidRequest for a name without
    ".safetensors", StorageError, or UnsupportedModel for what a single file cannot hold.
    """
    writer = _WRITERS[layout]
    writer(parts, destination, PRECISIONS[precision], metadata, report)


def _write_single_file(
    parts: CheckpointParts, destination: Path, dtype: torch.dtype | None, metadata: Mapping[str, str], report: Report
) -> None:
    if destination.suffix.lower() != ".safetensors":
        raise InvalidRequest(
            "destination", f"'{destination.name}' does not end in .safetensors.", hint="Name the file so."
        )
    for component, folder in parts.tokenizers.items():
        raise UnsupportedModel(
            folder.parent,
            f"its {component.replace('_', ' ')} has a vocabulary of its own, which a single file cannot carry",
            hint="Convert it to a diffusers folder.",
        )
    configs: dict[str, dict[str, Any]] = {
        component: dict(part.source.config) for component, part in parts.components.items()
    }
    configs["scheduler"] = dict(parts.scheduler)
    planned = [
        tensor
        for component, part in parts.components.items()
        for tensor in original_tensors(component, part, parts.adapter_base, dtype)
    ]
    planned += [
        PlannedTensor(name=name, shape=(0,), dtype=torch.float32, make=functools.partial(torch.empty, 0))
        for name in _markers(parts)
    ]
    said = {"format": "pt", "modelspec.prediction_type": _MODELSPEC_WORDS[parts.scheduler["prediction_type"]]}
    write_streaming(destination, planned, {**said, **metadata, CONFIG_KEY: json.dumps(configs)}, report=report)


_MODELSPEC_WORDS: Mapping[PredictionType, str] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}
"""How ModelSpec calls what a network predicts: SD 1.x and 2.x files have no markers by which it could be told."""


def _markers(parts: CheckpointParts) -> Iterator[str]:
    """Empty tensors by which programs tell v-prediction SDXL files, which have the names of all others."""
    if parts.adapter_base.startswith("sdxl"):
        if parts.scheduler.get("prediction_type") == "v_prediction":
            yield "v_pred"
        if parts.scheduler.get("rescale_betas_zero_snr"):
            yield "ztsnr"


def original_tensors(
    component: ComponentName, part: Part, base: AdapterBase, dtype: torch.dtype | None
) -> Iterator[PlannedTensor]:
    """`part` under the names, and in the shapes, of the original layout."""
    by_original: dict[str, list[WeightName]] = {}
    for weight in original_weights(component, part.source.config, base):
        by_original.setdefault(weight.original, []).append(weight)
    for original, weights in by_original.items():
        info = part.source.info(weights[0].name)
        yield PlannedTensor(
            name=original,
            shape=_original_shape(weights, info.shape),
            dtype=_dtype_for(info, dtype),
            make=functools.partial(_original_tensor, part, weights),
        )


def _original_tensor(part: Part, weights: Sequence[WeightName]) -> Tensor:
    return to_original({weight.transform: part.tensor(weight.name) for weight in weights})


def _original_shape(weights: Sequence[WeightName], shape: tuple[int, ...]) -> tuple[int, ...]:
    match weights[0].transform:
        case "transposed":
            return shape[::-1]
        case "conv1x1":
            return (*shape, 1, 1)
        case "same":
            return shape
        case _:
            return (3 * shape[0], *shape[1:])


def _dtype_for(info: TensorInfo, dtype: torch.dtype | None) -> torch.dtype:
    stored = DTYPES[info.dtype]
    return dtype if dtype is not None and stored.is_floating_point else stored


def _write_folder(
    parts: CheckpointParts, destination: Path, dtype: torch.dtype | None, metadata: Mapping[str, str], report: Report
) -> None:
    refuse_existing(destination)
    unfinished = destination.with_name(f".{destination.name}.part")  # a name that lists of models leave out
    plans = {component: _folder_tensors(part, dtype) for component, part in parts.components.items()}
    total = sum(tensor.size_bytes for plan in plans.values() for tensor in plan)
    done = 0
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        require_space(unfinished.parent, total, what=destination.name, hint=FREE_SOME)
        for component, plan in plans.items():
            _write_json(unfinished / component / "config.json", parts.components[component].source.config)
            name = "model.safetensors" if component.startswith("text") else "diffusion_pytorch_model.safetensors"
            its_metadata = {"format": "pt", **(metadata if component == "unet" else {})}
            write_streaming(unfinished / component / name, plan, its_metadata, report=_shifted(report, done, total))
            done += sum(tensor.size_bytes for tensor in plan)
        _write_tokenizers(parts, unfinished)
        _write_json(unfinished / "scheduler" / "scheduler_config.json", parts.scheduler)
        _write_json(unfinished / DIFFUSERS_INDEX, model_index(parts))
        unfinished.replace(destination)
    except OSError as error:
        raise translated(destination, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _shifted(report: Report, start: int, total: int) -> Report:
    return lambda done, _: report(start + done, total)


_WRITERS: Mapping[
    CheckpointLayout, Callable[[CheckpointParts, Path, torch.dtype | None, Mapping[str, str], Report], None]
] = {
    "diffusers": _write_folder,
    "single-file": _write_single_file,
}


def _folder_tensors(part: Part, dtype: torch.dtype | None) -> list[PlannedTensor]:
    infos = {name: part.source.info(name) for name in part.source.names()}
    return [
        PlannedTensor(
            name=name, shape=info.shape, dtype=_dtype_for(info, dtype), make=functools.partial(part.tensor, name)
        )
        for name, info in infos.items()
    ]


def _write_tokenizers(parts: CheckpointParts, folder: Path) -> None:
    """Copies the checkpoint's own vocabularies. CLIP's own comes with the program, but other programs look for it."""
    for component in parts.components:
        if not component.startswith("text"):
            continue
        target = folder / component.replace("text_encoder", "tokenizer")
        if component in parts.tokenizers:
            shutil.copytree(parts.tokenizers[component], target)
        else:
            _write_clip_tokenizer(target, pad_token=_PAD_TOKENS.get((parts.adapter_base, component), END))


_PAD_TOKENS: Mapping[tuple[str, ComponentName], str] = {
    ("sd2", "text_encoder"): "!", ("sdxl", "text_encoder_2"): "!", ("sdxl-refiner", "text_encoder_2"): "!",
}  # fmt: skip
"""OpenCLIP fills up with token 0, the exclamation mark; CLIP with its end token."""


def _write_clip_tokenizer(folder: Path, *, pad_token: str) -> None:
    folder.mkdir(parents=True)
    shutil.copyfile(CLIP_VOCABULARY / "merges.txt", folder / "merges.txt")
    (folder / "vocab.json").write_text(json.dumps(_clip_vocabulary()), encoding="utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "bos_token": START,
              "eos_token": END, "unk_token": END, "pad_token": pad_token}  # fmt: skip
    _write_json(folder / "tokenizer_config.json", config)


def model_index(parts: CheckpointParts) -> dict[str, Any]:
    """model_index.json as diffusers' pipelines read it."""
    classes: dict[str, Any] = {
        "_class_name": _pipeline_class(parts),
        "_diffusers_version": "0.42.0",
        "scheduler": ["diffusers", str(parts.scheduler.get("_class_name", "EulerDiscreteScheduler"))],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    for component in COMPONENT_NAMES[2:]:
        if component in parts.components:
            projected = has_projection(parts.components[component].source.config)
            name = "CLIPTextModelWithProjection" if projected else "CLIPTextModel"
            classes[component] = ["transformers", name]
            classes[component.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
        elif parts.adapter_base.startswith("sdxl"):
            classes[component] = classes[component.replace("text_encoder", "tokenizer")] = [None, None]
    if not parts.adapter_base.startswith("sdxl"):
        classes |= {"feature_extractor": [None, None], "safety_checker": [None, None],
                    "requires_safety_checker": False}  # fmt: skip
    return classes


def _pipeline_class(parts: CheckpointParts) -> str:
    if parts.adapter_base == "sdxl-refiner":
        return "StableDiffusionXLImg2ImgPipeline"
    channels = int(parts.components["unet"].source.config.get("in_channels", 4))
    return _PIPELINES[parts.adapter_base.startswith("sdxl"), channels if channels in (8, 9) else 4]


_PIPELINES: Mapping[tuple[bool, int], str] = {
    (False, 4): "StableDiffusionPipeline", (False, 9): "StableDiffusionInpaintPipeline",
    (False, 8): "StableDiffusionInstructPix2PixPipeline",
    (True, 4): "StableDiffusionXLPipeline", (True, 9): "StableDiffusionXLInpaintPipeline",
    (True, 8): "StableDiffusionXLInstructPix2PixPipeline",
}  # fmt: skip


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
