"""Which face models the user has, each told by the shapes of what goes in and comes out. Opens no session."""

import ast
import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from webui.hooks import WebUIError

from .onnx_file import BrokenModel, Graph, NotReadable, Port, missing_weights, read_graph, signature, written

Role = Literal[
    "detector", "embedder", "landmarks", "gender_age", "swapper", "restorer", "objects", "safety", "yunet", "sface"
]

ROOM = "face"
"""The folder below `models`."""
MAX_DEPTH = 4
"""Folders below ROOM that are looked into."""
SWAPPER_SIZES_PX = frozenset({128, 256, 512})
RESTORER_SIZES_PX = frozenset({256, 512, 1024})
SCRFD_OUTPUTS: Mapping[int, int] = MappingProxyType({6: 3, 9: 3, 10: 5, 15: 5})
"""Number of outputs and the number of strides that this means: scores and boxes, with or without five points."""
EMBEDDING_SIZE = 512
NUM_SAFETY_LABELS = 18
"""Of nudenet's detectors; no other known one has as many."""
SAFETY_WORD = "EXPOSED"
MAX_TOLD = 3
"""So many unusable files are named where none can be used."""
PREFERRED_EMBEDDER = "w600k"
"""inswapper was trained with this one. Which of several ArcFace networks it was, no shape tells."""

ROLE_WORDS: Mapping[Role, str] = MappingProxyType(
    {
        "detector": "face detector (SCRFD)",
        "embedder": "ArcFace network",
        "landmarks": "landmark network",
        "gender_age": "gender and age network",
        "swapper": "face swapper",
        "restorer": "face restorer",
        "objects": "detector for the detailer (YOLO)",
        "safety": "safety detector",
        "yunet": "YuNet face detector",
        "sface": "SFace network",
    }
)
EXAMPLES: Mapping[Role, str] = MappingProxyType(
    {
        "detector": "InsightFace's det_10g.onnx",
        "embedder": "InsightFace's w600k_r50.onnx",
        "landmarks": "InsightFace's 2d106det.onnx",
        "gender_age": "InsightFace's genderage.onnx",
        "swapper": "inswapper_128.onnx",
        "restorer": "GFPGANv1.4.onnx or codeformer.onnx",
        "objects": "a YOLOv8 face or hand detector as .onnx",
        "safety": "nudenet's 320n.onnx",
        "yunet": "face_detection_yunet_2023mar.onnx",
        "sface": "face_recognition_sface_2021dec.onnx",
    }
)


class MissingModel(WebUIError):
    """No usable model of this role, or none of this name."""

    def __init__(
        self,
        role: Role,
        name: str,
        *,
        problem: str = "",
        close_matches: Sequence[str] = (),
        unknown: Sequence["FaceModel"] = (),
    ) -> None:
        """`unknown`: files that lie there and cannot be read, or are no kind of model that is known."""
        word = ROLE_WORDS[role]
        if problem:
            message, hint = f"The {word} '{name}' cannot be used: {problem}.", "Choose another one, or fetch it anew."
        elif name:
            message = f"There is no {word} named '{name}' under models/{ROOM}."
            hint = f"There is: {', '.join(close_matches)}." if close_matches else _where(role)
        else:
            message, hint = f"There is no {word} under models/{ROOM}.", _where(role)
        if unknown and not problem and not close_matches:
            told = "; ".join(f"{one.name}: {one.problem}" for one in unknown[:MAX_TOLD])
            hint = f"{hint} Not used of what lies there: {told}."
        super().__init__(message, hint=hint)
        self.role = role
        self.name = name


def _where(role: Role) -> str:
    return f"Put one there, such as {EXAMPLES[role]}."


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceModel:
    """One file. `role` is None if it is nothing known; `problem`, part of a sentence, is empty for a usable one."""

    path: Path
    name: str
    """Path below `models/face` without its ending, such as "buffalo_l/w600k_r50"."""
    size_bytes: int
    modified_ns: int
    role: Role | None = None
    size_px: int | None = None
    """Side of the square picture it takes; None: any."""
    has_weight: bool = False
    """A restorer that takes how true to stay to what it is given."""
    labels: tuple[str, ...] = ()
    """What a detector finds, by number, as its maker wrote it; empty where the file doesn't say."""
    licence: str = ""
    """As the file states it; few do."""
    problem: str = ""
    graph: Graph | None = None


@dataclass(frozen=True, slots=True)
class FaceModels:
    """All files under `models/face` by name, the unusable ones too."""

    entries: tuple[FaceModel, ...] = ()

    def of(self, role: Role) -> tuple[FaceModel, ...]:
        """The usable ones of a role, the one to take by default first."""
        found = [entry for entry in self.entries if entry.role == role and not entry.problem]
        return tuple(sorted(found, key=lambda entry: PREFERRED_EMBEDDER not in entry.name.lower()))

    def find(self, role: Role, name: str = "") -> FaceModel:
        """`name` as listed, also without its folder or in other case; "" takes the first. Raises MissingModel."""
        usable = self.of(role)
        if not name and usable:
            return usable[0]
        wanted = name.lower().removesuffix(".onnx")
        for entry in (*usable, *self.entries):
            if name and entry.role in {role, None} and wanted in {entry.name.lower(), entry.path.stem.lower()}:
                if entry.problem:
                    raise MissingModel(role, entry.name, problem=entry.problem)
                return entry
        if not name and (broken := [entry for entry in self.entries if entry.role == role and entry.problem]):
            raise MissingModel(role, broken[0].name, problem=broken[0].problem)
        names = [entry.name for entry in usable]
        matches = difflib.get_close_matches(name, names, cutoff=0.0)
        raise MissingModel(role, name, close_matches=matches, unknown=[e for e in self.entries if e.role is None])


def find_models(models_dirs: Sequence[Path], known: FaceModels | None = None) -> FaceModels:
    """The `.onnx` files in `face` below each of `models_dirs`, the first of equal names. Never raises.

    What was usable in `known` and has not changed since is not read again.
    """
    seen = {entry.path: entry for entry in known.entries if not entry.problem} if known else {}
    entries: dict[str, FaceModel] = {}
    for models in models_dirs:
        room = models / ROOM
        for path in sorted(_onnx_files(room)):
            name = path.relative_to(room).with_suffix("").as_posix()
            if name not in entries:
                entries[name] = seen[path] if path in seen and _same(path, seen[path]) else identify(path, name)
    return FaceModels(tuple(entries[name] for name in sorted(entries, key=str.lower)))


def _same(path: Path, entry: FaceModel) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (entry.size_bytes, entry.modified_ns)


def identify(path: Path, name: str) -> FaceModel:
    """What a file is, or its problem."""
    try:
        stat = path.stat()
    except OSError as error:
        return FaceModel(path=path, name=name, size_bytes=0, modified_ns=0, problem=f"it cannot be read ({error})")
    size, modified = stat.st_size, stat.st_mtime_ns
    try:
        graph = read_graph(path)
    except NotReadable as error:
        return FaceModel(path=path, name=name, size_bytes=size, modified_ns=modified, problem=str(error))
    seen = recognise(graph)
    return FaceModel(
        path=path,
        name=name,
        size_bytes=size,
        modified_ns=modified,
        role=seen.role,
        size_px=seen.size_px,
        has_weight=seen.has_weight,
        labels=seen.labels,
        licence=graph.notes.get("license", "")[:200],
        problem=missing_weights(path, graph) or seen.problem,
        graph=graph,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a graph's shapes say."""

    role: Role | None
    size_px: int | None = None
    has_weight: bool = False
    labels: tuple[str, ...] = ()
    problem: str = ""


def recognise(graph: Graph) -> Seen:
    for look in LOOKS:
        if seen := look(graph):
            return seen
    return Seen(role=None, problem=f"{signature(graph)}, which is no kind of face model known here")


def _onnx_files(room: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for folder, folders, names in os.walk(room, followlinks=True):
        depth = len(Path(folder).relative_to(room).parts)
        real = os.path.realpath(folder)
        if real in seen or depth >= MAX_DEPTH:
            folders.clear()
        seen.add(real)
        yield from (Path(folder) / name for name in names if name.lower().endswith(".onnx") and name[0] != ".")


def _picture(port: Port) -> bool:
    """(batch, 3, height, width)."""
    return port.shape is not None and len(port.shape) == 4 and port.shape[0] in {None, 1} and port.shape[1] == 3


def _side(port: Port) -> int | None:
    """Of a square picture with fixed size."""
    height, width = port.shape[2:] if port.shape else (None, None)
    return height if height == width else None


def _row(port: Port) -> int | None:
    """The length of a (batch, length) output."""
    return port.shape[1] if port.shape is not None and len(port.shape) == 2 and port.shape[0] in {None, 1} else None


def _only_picture(graph: Graph, side: int | None = None) -> bool:
    if len(graph.inputs) != 1 or not _picture(graph.inputs[0]):
        return False
    return side is None or _side(graph.inputs[0]) == side


def _look_detector(graph: Graph) -> Seen | None:
    columns = [port.shape[-1] if port.shape and len(port.shape) in {2, 3} else 0 for port in graph.outputs]
    strides = SCRFD_OUTPUTS.get(len(columns), 0)
    if not _only_picture(graph) or not strides:
        return None
    if not all(found in {None, wanted} for found, wanted in zip(columns, scrfd_columns(len(columns)), strict=True)):
        return None
    return Seen(role="detector", size_px=_side(graph.inputs[0]))


def scrfd_columns(num_outputs: int) -> list[int]:
    """Numbers per anchor of each output: scores, then boxes, then points, stride by stride."""
    strides = SCRFD_OUTPUTS[num_outputs]
    return [columns for columns in (1, 4, 10)[: num_outputs // strides] for _ in range(strides)]


def _look_row(role: Role, side: int, lengths: frozenset[int]) -> Callable[[Graph], Seen | None]:
    def look(graph: Graph) -> Seen | None:
        one_row = len(graph.outputs) == 1 and _row(graph.outputs[0]) in lengths
        return Seen(role=role, size_px=side) if one_row and _only_picture(graph, side) else None

    return look


def _look_embedder(graph: Graph) -> Seen | None:
    if len(graph.outputs) != 1 or _row(graph.outputs[0]) != EMBEDDING_SIZE or not _only_picture(graph):
        return None
    side = _side(graph.inputs[0])
    if side is None or side < 112 or side % 16:
        return None
    return Seen(role="embedder", size_px=side)


def _look_swapper(graph: Graph) -> Seen | None:
    if len(graph.inputs) != 2:
        return None
    pictures = [port for port in graph.inputs if _picture(port)]
    rows = [port for port in graph.inputs if _row(port) == EMBEDDING_SIZE]
    if len(pictures) != 1 or len(rows) != 1:
        return None
    side = _side(pictures[0])
    if side not in SWAPPER_SIZES_PX:
        sizes = ", ".join(str(size) for size in sorted(SWAPPER_SIZES_PX))
        return Seen(role="swapper", problem=f"it swaps faces of {written(pictures[0].shape)}; sizes {sizes} are known")
    problem = ""
    if not any(_picture(port) and _side(port) == side for port in graph.outputs):
        problem = f"it gives no picture of {side}x{side}"
    elif graph.last_stored is None or graph.last_stored.shape != (EMBEDDING_SIZE, EMBEDDING_SIZE):
        problem = "it lacks the 512x512 map at its end by which inswapper and its kin read a face"
    return Seen(role="swapper", size_px=side, problem=problem)


def is_weight(port: Port) -> bool:
    """One number, with or without an axis."""
    return port.shape is not None and len(port.shape) <= 1 and all(size in {None, 1} for size in port.shape)


def _look_restorer(graph: Graph) -> Seen | None:
    pictures = [port for port in graph.inputs if _picture(port)]
    weights = [port for port in graph.inputs if is_weight(port)]
    if len(pictures) != 1 or len(weights) > 1 or len(pictures) + len(weights) != len(graph.inputs):
        return None
    side = _side(pictures[0])
    if side not in RESTORER_SIZES_PX or not any(_picture(port) and _side(port) == side for port in graph.outputs):
        return None
    return Seen(role="restorer", size_px=side, has_weight=bool(weights))


def _look_objects(graph: Graph) -> Seen | None:
    tables = [port.shape for port in graph.outputs if port.shape is not None and len(port.shape) == 3]
    if not _only_picture(graph) or len(tables) != 1 or len(graph.outputs) > 2:
        return None
    _, columns, rows = tables[0]
    size = _side(graph.inputs[0]) or _noted_size(graph)
    labels = labels_of(graph)
    if rows is not None and columns is not None and rows < columns and rows != 6:
        what = "it gives one row per box as YOLOv5 does; only YOLOv8 and later are understood"
        return Seen(role="objects", size_px=size, labels=labels, problem=what)
    if rows != 6 and (columns is None or columns < 5):
        return None
    exposed = any(SAFETY_WORD in label for label in labels)
    is_safety = exposed or (not labels and columns == 4 + NUM_SAFETY_LABELS)
    return Seen(role="safety" if is_safety else "objects", size_px=size, labels=labels)


def _noted_size(graph: Graph) -> int | None:
    """The size that the maker of a detector for any size trained it with."""
    try:
        height, width = ast.literal_eval(graph.notes.get("imgsz", ""))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    fits = type(height) is int and height == width and 32 <= height <= 2048 and height % 32 == 0
    return height if fits else None


def labels_of(graph: Graph) -> tuple[str, ...]:
    """From the note "names", such as "{0: 'face'}"."""
    try:
        names = ast.literal_eval(graph.notes.get("names", ""))
        return tuple(str(names[number])[:60] for number in range(len(names)))
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return ()


def _look_yunet(graph: Graph) -> Seen | None:
    columns = sorted(port.shape[-1] or 0 for port in graph.outputs if port.shape and len(port.shape) == 3)
    if not _only_picture(graph) or columns != sorted([1, 1, 4, 10] * 3):
        return None
    return Seen(role="yunet", size_px=_side(graph.inputs[0]))


LOOKS: tuple[Callable[[Graph], Seen | None], ...] = (
    _look_yunet,
    _look_detector,
    _look_row("landmarks", 192, frozenset({212, 3309})),
    _look_row("gender_age", 96, frozenset({3})),
    _look_row("sface", 112, frozenset({128})),
    _look_embedder,
    _look_swapper,
    _look_restorer,
    _look_objects,
)

__all__ = ["ROLE_WORDS", "BrokenModel", "FaceModel", "FaceModels", "MissingModel", "Role", "find_models", "identify"]
