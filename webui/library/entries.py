"""One model as the lists show it, made of what its file, its header and the files beside it say."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json

from webui.errors import UnsupportedModel
from webui.images.carried_data import read_carried_data
from webui.library.facts import ModelFacts
from webui.library.families import FAMILIES, PredictionType
from webui.library.folder_facts import OWN_FILE, guidance_scale_of, native_size_of
from webui.library.header import Header, TensorInfo, read_header
from webui.library.identify import identify, is_old_format
from webui.library.index import Known
from webui.library.old_files import NotReadNow, read_old_header
from webui.library.scan import PICTURES, ROOMS, FoundFile, RoomKind, Stamp
from webui.library.sidecars import Sidecar

logger = logging.getLogger(__name__)

DEFAULT_NATIVE_SIZE_PX = 512
DEFAULT_GUIDANCE_SCALE = 7.0
DEFAULT_STEPS = 20
ID_BYTES = 9
NOTHING_BESIDE = Sidecar()
CLIP_VOCABULARY = Path(__file__).parent / "clip"
"""What all families' text encoders were trained with; it ships with us."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model of any kind, as its file and its header describe it. `problem` is empty if it can be used.

    `name` is the shortest name that finds it; `location` is its path below its folder, with "/", without the suffix.
    `alias` is the name its maker gave it, or "". `id` names the file without telling where it lies.
    """

    id: str
    name: str
    path: Path
    kind: RoomKind
    facts: ModelFacts
    location: str
    size_bytes: int
    mtime_ns: int
    alias: str = ""
    problem: str = ""
    has_thumbnail: bool = False
    """A preview lies in its own metadata."""
    num_vectors: int = 0
    """Tokens that an embedding stands for."""
    preview: Path | None = None
    preview_mtime_ns: int = 0
    notes: Sidecar = NOTHING_BESIDE

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.path, self.size_bytes, self.mtime_ns)


def tokenizer_folder(info: CheckpointInfo) -> Path:
    """With the checkpoint's own vocabulary if it brings one."""
    return own_tokenizer(info, "tokenizer") or CLIP_VOCABULARY


def own_tokenizer(info: CheckpointInfo, name: Literal["tokenizer", "tokenizer_2"]) -> Path | None:
    """The folder with the checkpoint's own vocabulary. Merges are enough: without ids they have CLIP's."""
    own = info.path / name
    return own if (own / "merges.txt").is_file() else None


def look_into(path: Path) -> Known:
    """What the file or checkpoint folder at `path` holds. Never raises: `facts.problems` say what is wrong."""
    try:
        return _known(path)
    # Every list and every generation looks into whatever lies in the folders, so that one file that nobody has thought
    # of may not end them. What is foreseen is told by its own words further down.
    except Exception as error:
        logger.exception("Nothing could be learnt from %s", path)
        reason = (str(error).splitlines() or [""])[0][:200]
        return Known(facts=ModelFacts(problems=(f"it cannot be understood ({reason or type(error).__name__})",)))


def _known(path: Path) -> Known:
    if path.is_dir():
        return Known(facts=identify(path))
    try:
        header = _header(path)
    except NotReadNow as error:
        return Known(facts=ModelFacts(problems=(error.reason,)), lasting=False)
    except UnsupportedModel:
        return Known(facts=identify(path))
    facts = identify(path, header=header)
    return Known(
        facts=facts,
        alias=header.metadata.get("ss_output_name", "").strip(),
        has_thumbnail=header.metadata.get("modelspec.thumbnail", "").startswith("data:image/"),
        num_vectors=_num_vectors(header) if facts.kind == "embedding" else 0,
    )


def _header(path: Path) -> Header:
    """Of safetensors, torch's old files, and pictures that carry an embedding."""
    if path.suffix.lower() in PICTURES:
        arrays = _arrays(read_carried_data(path))
        return Header(tensors={name: TensorInfo("F32", shape) for name, shape in arrays}, metadata={}, data_start=0)
    return read_old_header(path) if is_old_format(path) else read_header(path)


def _arrays(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _arrays(value, f"{prefix}{name}.")
        elif hasattr(value, "shape"):
            yield f"{prefix}{name}", tuple(value.shape)


def _num_vectors(header: Header) -> int:
    shapes = [info.shape for info in header.tensors.values() if len(info.shape) in (1, 2)]
    return max((shape[0] if len(shape) == 2 else 1 for shape in shapes), default=0)


def model_file(kind: RoomKind, file: FoundFile, known: Known, name: str, notes: Sidecar) -> ModelFile:
    return ModelFile(
        id=hashlib.blake2b(os.fsencode(file.path), digest_size=ID_BYTES).hexdigest(),
        name=name,
        path=file.path,
        kind=kind,
        facts=known.facts,
        location=file.name,
        size_bytes=file.size_bytes,
        mtime_ns=file.mtime_ns,
        alias=known.alias,
        problem=_problem(kind, known.facts),
        has_thumbnail=known.has_thumbnail,
        num_vectors=known.num_vectors,
        preview=file.preview,
        preview_mtime_ns=file.preview_mtime_ns,
        notes=notes,
    )


def _problem(kind: RoomKind, facts: ModelFacts) -> str:
    if facts.problems:
        return "; ".join(facts.problems)
    if facts.kind == kind:
        return ""
    other = next((room for name, room in ROOMS.items() if name == facts.kind), None)
    if other is not None:
        return f"it is a model of another kind ({other.word}); its place is models/{other.folder}"
    return f"it is no {ROOMS[kind].word}"


def checkpoint_info(file: ModelFile) -> CheckpointInfo:
    """What the file says of itself, and a folder's own `atelier.json` on top."""
    facts, family = file.facts, FAMILIES.get(file.facts.family)
    info = CheckpointInfo(
        name=file.name,
        title=file.name,
        path=file.path,
        family=facts.family,
        prediction_type=file.notes.prediction_type or facts.prediction_type,
        zero_terminal_snr=facts.zero_terminal_snr,
        native_size=facts.native_size or (family.native_size if family else DEFAULT_NATIVE_SIZE_PX),
        guidance_scale=facts.guidance_scale or (family.default_guidance_scale if family else DEFAULT_GUIDANCE_SCALE),
        num_inference_steps=facts.num_inference_steps or DEFAULT_STEPS,
        problem=file.problem,
    )
    about = file.path / OWN_FILE
    try:
        return replace(info, **_described(file.path, _read_json(about), info)) if about.is_file() else info
    except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
        return replace(info, problem=f"its description cannot be read ({error})")


def _described(folder: Path, about: Mapping[str, Any], info: CheckpointInfo) -> dict[str, Any]:
    sample = folder / "sample.png"
    return {
        "title": str(about.get("title", info.title)),
        "native_size": native_size_of(about, info.native_size),
        "guidance_scale": guidance_scale_of(about, info.guidance_scale),
        "example_prompts": tuple(str(prompt) for prompt in about.get("example_prompts", ())),
        "sample_negative_prompt": str(about.get("sample_negative_prompt", "")),
        "sample_image": sample if sample.is_file() else None,
        "sample_caption": str(about.get("sample_caption", "")),
    }


def _read_json(path: Path) -> dict[str, Any]:
    value = from_json(path.read_bytes())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value
