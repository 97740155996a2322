"""Runs a tool request: finds the models it names, writes the new one, and says where it is."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import webui
from webui.errors import InvalidRequest
from webui.library.cards import metadata_of
from webui.library.families import FAMILIES, AdapterBase
from webui.library.identify import identify
from webui.library.tool_models import ToolModels
from webui.library.tool_requests import (
    Bake,
    Convert,
    Extract,
    LoraPrecision,
    Merge,
    MergeLoras,
    Resize,
    ToolRequest,
    WeightedLora,
)
from webui.pipeline.adapters.reading import AdapterFile, read_adapter
from webui.pipeline.adapters.writing import write_adapter
from webui.pipeline.sources import open_checkpoint, open_vae
from webui.pipeline.tools import loras
from webui.pipeline.tools.baking import WeightedAdapter, bake
from webui.pipeline.tools.checkpoints import PRECISIONS, CheckpointParts, Part, parts_of, write_checkpoint
from webui.pipeline.tools.low_rank import RankChoice
from webui.pipeline.tools.merging import MergeRecipe, merge

Report = Callable[[int, int], None]
"""(done, in all), in bytes or layers; (0, 0) before that. May raise to stop."""

READ_BYTES = 2**24
DESCRIBES = ("sd_merge_", "modelspec.", "ss_", "atelier.baked")
"""Keys of metadata that speak of the model, whatever its layout."""
WRITTEN_ANEW = frozenset({"modelspec.hash_sha256", "modelspec.prediction_type"})


def run_tool(request: ToolRequest, models: ToolModels, *, report: Report = lambda done, total: None) -> Path:
    """Does what `request` says and returns the new file or folder.

    Raises ModelNotFound, UnsupportedModel, AdapterMismatch, InvalidRequest or StorageError; then nothing is left.
    """
    return _TOOLS[type(request)](request, models, report)


def _convert(request: Convert, models: ToolModels, report: Report) -> Path:
    source = models.checkpoint(request.source)
    destination = models.destination(request)
    parts = _with_vae(parts_of(open_checkpoint(source)), request.vae, models, family=source.family)
    metadata = description_of(source.path)
    write_checkpoint(
        parts, destination, layout=request.to, precision=request.precision, metadata=metadata, report=report
    )
    return destination


def _merge(request: Merge, models: ToolModels, report: Report) -> Path:
    names = [name for name in (request.a, request.b, request.c) if name]
    destination = models.destination(request)
    parts = [_open(name, models) for name in names]
    recipe = MergeRecipe(
        method="add_difference" if request.c else "weighted_sum",
        multiplier=request.multiplier,
        blocks=request.blocks,
    )
    merged = merge(parts[0], parts[1], parts[2] if request.c else None, recipe)
    merged = _with_vae(merged, request.vae, models, family=models.checkpoint(request.a).family)
    metadata = merge_metadata(request, recipe, [_source_of(name, models, report) for name in names])
    write_checkpoint(
        merged, destination, layout=request.to, precision=request.precision, metadata=metadata, report=report
    )
    return destination


def _bake(request: Bake, models: ToolModels, report: Report) -> Path:
    destination = models.destination(request)
    adapters = [_open_weighted(lora, models) for lora in request.loras]
    parts = bake(_open(request.checkpoint, models), adapters)
    tags = [f"<lora:{lora.name}:{_text_encoder_weight(lora):g}:{lora.unet_weight:g}>" for lora in request.loras]
    metadata = {"atelier.baked": json.dumps({"checkpoint": request.checkpoint, "loras": tags})}
    write_checkpoint(
        parts, destination, layout=request.to, precision=request.precision, metadata=metadata, report=report
    )
    return destination


def _extract(request: Extract, models: ToolModels, report: Report) -> Path:
    destination = models.destination(request)
    base, tuned = _open(request.base, models), _open(request.tuned, models)
    modules = loras.extract(
        base,
        tuned,
        _ranks(request.rank, request.conv_rank),
        min_difference=request.min_difference,
        progress=report,
    )
    naming = loras.AdapterNaming.of_checkpoint(base)
    about = {"ss_training_comment": f"extracted from {request.tuned} minus {request.base}"}
    return _write_lora(destination, modules, naming, request.precision, about)


def _resize(request: Resize, models: ToolModels, report: Report) -> Path:
    destination = models.destination(request)
    file = read_adapter(models.adapter(request.lora))
    naming = loras.AdapterNaming.of_base(_base_of([file]))
    ranks = _ranks(request.rank, request.conv_rank or request.rank, request)
    modules = loras.resize(file, naming, ranks, progress=report)
    kept = {key: value for key, value in file.metadata.items() if key.startswith(("ss_", "modelspec."))}
    about = {**kept, "ss_training_comment": f"{kept.get('ss_training_comment', '')} resized from {file.name}".strip()}
    return _write_lora(destination, modules, naming, request.precision, about)


def _merge_loras(request: MergeLoras, models: ToolModels, report: Report) -> Path:
    destination = models.destination(request)
    adapters = [_open_weighted(lora, models) for lora in request.loras]
    naming = loras.AdapterNaming.of_base(_base_of([adapter.file for adapter in adapters]))
    ranks = None if request.rank is None else _ranks(request.rank, request.conv_rank or request.rank)
    modules = loras.merge(adapters, naming, ranks, progress=report)
    recipe = ", ".join(f"{lora.name} x {lora.unet_weight:g}" for lora in request.loras)
    return _write_lora(
        destination, modules, naming, request.precision, {"ss_training_comment": f"merged from {recipe}"}
    )


_TOOLS: Mapping[type[ToolRequest], Callable[[Any, ToolModels, Report], Path]] = MappingProxyType(
    {Convert: _convert, Merge: _merge, Bake: _bake, Extract: _extract, Resize: _resize, MergeLoras: _merge_loras}
)


# What the names mean -------------------------------------------------------------------------------------------------


def _open(name: str, models: ToolModels) -> CheckpointParts:
    return parts_of(open_checkpoint(models.checkpoint(name)))


def _open_weighted(lora: WeightedLora, models: ToolModels) -> WeightedAdapter:
    return WeightedAdapter(
        file=read_adapter(models.adapter(lora.name)),
        unet_weight=lora.unet_weight,
        text_encoder_weight=_text_encoder_weight(lora),
    )


def _with_vae(parts: CheckpointParts, name: str, models: ToolModels, *, family: str) -> CheckpointParts:
    if not name:
        return parts
    source = open_vae(models.vae(name), family)
    return replace(parts, components={**parts.components, "vae": Part(source)})


def _base_of(files: Sequence[AdapterFile]) -> AdapterBase:
    """The base that all files were made for. Raises InvalidRequest if they differ or do not tell."""
    bases = {file.name: identify(file.path).adapter_base for file in files}
    if len(set(bases.values())) > 1:
        said = ", ".join(f"'{name}' for {base or 'an unknown one'}" for name, base in bases.items())
        raise InvalidRequest("loras", f"They were made for different families: {said}.")
    found = next((row.adapter_base for row in FAMILIES.values() if row.adapter_base in bases.values()), None)
    if found is None:
        raise InvalidRequest("lora", f"'{files[0].name}' does not tell for which family it was made.")
    return found


def _text_encoder_weight(lora: WeightedLora) -> float:
    return lora.unet_weight if lora.text_encoder_weight is None else lora.text_encoder_weight


def _ranks(rank: int, conv_rank: int | None, rule: Resize | None = None) -> loras.Ranks:
    method, threshold = (rule.method, rule.threshold) if rule is not None else (None, 0.0)
    conv = None if conv_rank is None else RankChoice(rank=conv_rank, method=method, threshold=threshold)
    return loras.Ranks(linear=RankChoice(rank=rank, method=method, threshold=threshold), conv=conv)


# Metadata ------------------------------------------------------------------------------------------------------------

BASE_VERSIONS: Mapping[AdapterBase, tuple[str, str]] = MappingProxyType(
    {
        "sd1": ("sd_v1", "stable-diffusion-v1/lora"),
        "sd2": ("sd_v2", "stable-diffusion-v2-512/lora"),
        "sdxl": ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
        "sdxl-refiner": ("sdxl_refiner_v1-0", "stable-diffusion-xl-v1-refiner/lora"),
    }
)
"""kohya's and ModelSpec's words for what a LoRA was made for."""


def _write_lora(
    path: Path,
    modules: loras.Modules,
    naming: loras.AdapterNaming,
    precision: LoraPrecision,
    about: Mapping[str, str],
) -> Path:
    dtype = PRECISIONS[precision]
    if dtype is None:
        raise ValueError("A LoRA that is computed has no precision to keep.")
    write_adapter(path, modules, naming.kohya, dtype=dtype, metadata={**about, **lora_metadata(modules, naming.base)})
    return path


def lora_metadata(modules: loras.Modules, base: AdapterBase) -> dict[str, str]:
    """What programs read of a LoRA: base, rank and alpha; "Dynamic" where they differ from layer to layer."""
    ranks = {int(group["lora_down"].shape[0]) for group in modules.values()}
    rank = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    said = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "ss_v2": str(base == "sd2"),
    }
    if base in BASE_VERSIONS:
        version, architecture = BASE_VERSIONS[base]
        said |= {"ss_base_model_version": version, "modelspec.architecture": architecture}
    return said


def description_of(checkpoint: Path) -> dict[str, str]:
    """What a file, or the U-Net of a folder, says of the model; but not of its own bytes, nor what is written anew."""
    path = checkpoint / "unet" / "diffusion_pytorch_model.safetensors" if checkpoint.is_dir() else checkpoint
    said = metadata_of(path) if path.is_file() else {}
    return {key: value for key, value in said.items() if key.startswith(DESCRIBES) and key not in WRITTEN_ANEW}


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSource:
    """One of the checkpoints that went into a merge; `sha256` of a file, "" for a folder."""

    name: str
    sha256: str


def merge_metadata(request: Merge, recipe: MergeRecipe, sources: Sequence[MergeSource]) -> dict[str, str]:
    """How the model was made, in the keys that the field's mergers write: `sd_merge_recipe`, `sd_merge_models`."""
    hashes = [source.sha256 for source in sources] + [""]
    written = {
        "type": "atelier",
        "version": webui.__version__,
        "primary_model_hash": hashes[0],
        "secondary_model_hash": hashes[1],
        "tertiary_model_hash": hashes[2] or None,
        "interp_method": "Add difference" if recipe.method == "add_difference" else "Weighted sum",
        "multiplier": recipe.multiplier,
        "blocks": dict(recipe.blocks),
        "save_as_half": request.precision == "fp16",
        "custom_name": Path(request.destination).stem,
        "bake_in_vae": request.vae or "None",
    }
    models = {source.sha256 or source.name: {"name": source.name} for source in sources}
    return {"sd_merge_recipe": json.dumps(written), "sd_merge_models": json.dumps(models)}


def _source_of(name: str, models: ToolModels, report: Report) -> MergeSource:
    path = models.checkpoint(name).path
    if path.is_dir():
        return MergeSource(name=path.name, sha256="")
    return MergeSource(name=path.name, sha256=models.library.sha256_of(path) or _sha256(path, report))


def _sha256(path: Path, report: Report) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            report(0, 0)
            digest.update(chunk)
    return digest.hexdigest()
