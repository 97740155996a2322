"""Which captioners and maskers there are: told by their files, without opening a network. Broken ones say why.

`models/captioners` has taggers (NAME.onnx with NAME.csv or selected_tags.csv, or a folder with both) and folders in
transformers' layout; `models/maskers` has .onnx files, or folders with one. Extensions may add maskers of their own.
"""

import difflib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from webui.errors import InvalidRequest, UnsupportedModel
from webui.library.header import read_header
from webui.library.onnx_file import Graph, NotReadable, missing_weights, read_graph, signature
from webui.training.assistants.maskers import FAMILIES, NetworkMasker, PixelMasker, family_of, is_masker
from webui.training.assistants.taggers import Tag, Tagger, Thresholds, is_tagger, read_tags
from webui.training.data.subjects import Soft, SubjectMasker

Kind = Literal["captions", "masks"]
"""What an assistant makes."""

CAPTIONERS, MASKERS = "captioners", "maskers"
"""Folders below `models`."""
TAGS_FILE = "selected_tags.csv"
ARCHITECTURES = ("BlipForConditionalGeneration",)
"""Of networks that write sentences."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
TOKENIZERS = ("tokenizer.json", "vocab.txt")
LOOSE_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".ckpt"})

HOW_TO_GET = (
    'Get one on the Models tab: with Options, "Captioner" and SmilingWolf/wd-vit-tagger-v3 (tags) or '
    'Salesforce/blip-image-captioning-base (sentences); with "Masker" the address of a u2net.onnx, '
    "isnet-general-use.onnx or BiRefNet. Or put their files into models/captioners/NAME and models/maskers/NAME. "
    "The READMEs there name more, with their licences."
)


class Captioner(Protocol):
    def caption(self, image: Image.Image) -> str:
        """What is said of `image`, which is upright and in sRGB; "" for nothing."""
        ...


class Masker(Protocol):
    def mask(self, image: Image.Image) -> Soft:
        """How much each pixel of `image` belongs to the subject, in its size."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistant:
    """`id` names it among those of its kind. `problem`, part of a sentence, is empty for a usable one."""

    id: str
    name: str
    kind: Kind
    about: str = ""
    problem: str = ""
    path: Path | None = None
    graph: Graph | None = None
    tags: tuple[Tag, ...] = ()
    pixels: SubjectMasker | None = None

    @property
    def makes(self) -> Literal["tags", "sentences", "masks"]:
        """What a user gets; thresholds and tags to leave out mean something to "tags" alone."""
        if self.kind == "masks":
            return "masks"
        return "tags" if self.graph is not None else "sentences"


class Assistants:
    """Those below each of `models_dirs`, the first of equal names, and the maskers of extensions."""

    def __init__(self, models_dirs: Sequence[Path], added: Callable[[], Sequence[SubjectMasker]] = tuple) -> None:
        self._models_dirs = tuple(models_dirs)
        self._added = added

    def all(self, kind: Kind) -> tuple[Assistant, ...]:
        """By name; those of extensions first, as they are always there."""
        if kind == "captions":
            return self._found(CAPTIONERS, _captioner)
        own = [Assistant(id=one.id, name=one.label, kind="masks", pixels=one) for one in self._added()]
        return (*own, *self._found(MASKERS, _masker))

    def find(self, kind: Kind, id: str) -> Assistant:
        """In any case, also by its name. Raises InvalidRequest if there is none, or it cannot be used."""
        there = self.all(kind)
        wanted = id.casefold()
        found = next((one for one in there if wanted in {one.id.casefold(), one.name.casefold()}), None)
        if found is None:
            usable = [one.id for one in there if not one.problem]
            close = difflib.get_close_matches(id, usable, cutoff=0.0) if usable else []
            what = "captioner" if kind == "captions" else "masker"
            hint = f"There is: {', '.join(close)}." if close else HOW_TO_GET
            raise InvalidRequest("assistant", f"There is no {what} named '{id}'.", hint=hint)
        if found.problem:
            raise InvalidRequest("assistant", f"'{found.name}' cannot be used: {found.problem}.", hint=HOW_TO_GET)
        return found

    def _found(self, room: str, look: Callable[[Path, str], Assistant]) -> tuple[Assistant, ...]:
        entries: dict[str, Assistant] = {}
        for models in self._models_dirs:
            for path in _models_in(models / room):
                name = path.name if path.is_dir() else path.stem
                if name not in entries:
                    entries[name] = look(path, name)
        return tuple(entries[name] for name in sorted(entries, key=str.casefold))


def open_captioner(assistant: Assistant, thresholds: Thresholds, without: Collection[str]) -> Captioner:
    """Raises UnsupportedModel. torch is imported for one that writes sentences."""
    assert assistant.path is not None
    if assistant.graph is not None:
        return Tagger(assistant.path, assistant.graph.inputs[0], assistant.tags, thresholds, without)
    from webui.training.assistants.sentences import SentenceWriter  # noqa: PLC0415

    return SentenceWriter(assistant.path)


def open_masker(assistant: Assistant) -> Masker:
    """Raises UnsupportedModel."""
    if assistant.pixels is not None:
        return PixelMasker(assistant.pixels.mask)
    assert assistant.path is not None and assistant.graph is not None
    family = family_of(_told_by(assistant.path, assistant.name), assistant.graph)
    assert family is not None
    return NetworkMasker(assistant.path, assistant.graph, family)


def _models_in(room: Path) -> Iterator[Path]:
    """Folders, .onnx files, and files that lack their folder."""
    if not room.is_dir():
        return
    for path in sorted(room.iterdir()):
        suffix = path.suffix.lower()
        if path.name[0] != "." and (path.is_dir() or suffix == ".onnx" or suffix in LOOSE_SUFFIXES):
            yield path


def _captioner(path: Path, name: str) -> Assistant:
    try:
        if path.is_dir() and (path / "config.json").is_file() and not _onnx_in(path):
            return Assistant(id=name, name=name, kind="captions", about=_checked_folder(path), path=path)
        file = _onnx_of(path, f"model.onnx with {TAGS_FILE}, nor the config.json of a network that writes sentences")
        graph = _read(file)
        if not is_tagger(graph):
            raise ValueError(f"{signature(graph)}, which is no tagger that is known here (Nx448x448x3 to NxTAGS)")
        tags = _tags_of(file, graph)
        about = f"{len(tags):,} tags"
        return Assistant(id=name, name=name, kind="captions", about=about, path=file, graph=graph, tags=tags)
    except ValueError as error:
        return Assistant(id=name, name=name, kind="captions", problem=str(error), path=path)


def _masker(path: Path, name: str) -> Assistant:
    try:
        file = _onnx_of(path, ".onnx file")
        graph = _read(file)
        if not is_masker(graph):
            raise ValueError(f"{signature(graph)}, which is no masker (1x3xHxW to 1x1xHxW)")
        family = family_of(_told_by(file, name), graph)
        if family is None:
            words = ", ".join(one.words[0] for one in FAMILIES)
            raise ValueError(f"which network it is cannot be told; put one of these into its name: {words}")
        return Assistant(id=name, name=name, kind="masks", about=family.name, path=file, graph=graph)
    except ValueError as error:
        return Assistant(id=name, name=name, kind="masks", problem=str(error), path=path)


def _told_by(file: Path, name: str) -> str:
    return f"{name}/{file.stem}"


def _onnx_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".onnx" and path.is_file())


def _onnx_of(path: Path, expected: str) -> Path:
    """Of a folder its only .onnx file, or model.onnx. Raises ValueError."""
    if path.suffix.lower() in LOOSE_SUFFIXES and path.is_file():
        raise ValueError("it is a file of weights alone; put it into a folder with all that it came with")
    if path.is_file():
        return path
    files = _onnx_in(path)
    if not files:
        raise ValueError(
            f"there is neither a {expected} in it" if "nor" in expected else f"there is no {expected} in it"
        )
    chosen = next((file for file in files if file.name.lower() == "model.onnx"), files[0])
    if len(files) > 1 and chosen.name.lower() != "model.onnx":
        raise ValueError(f"it has {len(files)} .onnx files; leave one in it")
    return chosen


def _read(file: Path) -> Graph:
    """Raises ValueError."""
    graph = read_graph(file)
    if problem := missing_weights(file, graph):
        raise NotReadable(problem)
    return graph


def _tags_of(file: Path, graph: Graph) -> tuple[Tag, ...]:
    """Of the list beside `file`. Raises ValueError."""
    places = [file.with_suffix(".csv"), file.with_name(TAGS_FILE)]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise ValueError(f"its list of tags is missing: '{places[0].name}' or '{TAGS_FILE}' beside it")
    tags = read_tags(place)
    wanted = (graph.outputs[0].shape or (None, None))[1]
    if not tags or wanted not in {None, len(tags)}:
        raise ValueError(f"'{place.name}' has {len(tags):,} tags, and the network gives {wanted or 'some'}")
    return tags


def _checked_folder(folder: Path) -> str:
    """The architecture of a folder in transformers' layout. Raises ValueError."""
    try:
        config: Any = json.loads((folder / "config.json").read_text("utf-8"))
        architecture = str(config["architectures"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError("its config.json cannot be read, or names no architecture") from error
    if architecture not in ARCHITECTURES:
        raise ValueError(f"it is a {architecture[:80]}; {', '.join(ARCHITECTURES)} can be used")
    for names, what in ((PROCESSORS, "how pictures go in"), (TOKENIZERS, "its words")):
        if not any((folder / name).is_file() for name in names):
            raise ValueError(f"{names[0]} is missing, which says {what}")
    _check_weights(folder)
    return architecture


def _check_weights(folder: Path) -> None:
    """Raises ValueError."""
    whole = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    index = folder / f"{WEIGHTS[0]}.index.json"
    files = [whole] if whole is not None else []
    if not files and index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            files = [folder / Path(str(name)).name for name in names]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"its {index.name} cannot be read") from error
    if not files:
        raise ValueError(f"its weights are missing: {WEIGHTS[0]}")
    for file in files:
        if not file.is_file():
            raise ValueError(f"a part of its weights is missing: {file.name}")
        if file.suffix == ".safetensors":
            try:
                read_header(file)
            except UnsupportedModel as error:
                raise ValueError(f"{file.name}: {error.reason}") from error
