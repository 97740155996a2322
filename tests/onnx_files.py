"""Small ONNX files with the signatures of real face models and random weights, so that every backend can be run.

The networks are one or two layers whose result is easily computed by other means; only their ports are the real ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]
Weights = Mapping[str, NDArray[Any]]

OPSET, IR_VERSION = 17, 8


def port(name: str, dims: Dims, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(dims))


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Weights | None = None,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """`weights` are stored in their order."""
    stored = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "face", list(inputs), list(outputs), stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    for key, value in (notes or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def randoms(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def write_scrfd(
    path: Path,
    *,
    points: bool = True,
    side: int | None = None,
    batched: bool = False,
    num_anchors: int = 2,
    seed: int = 1,
) -> Path:
    """det_10g: scores, boxes and five points for strides 8, 16 and 32. Bright places score high.

    `batched`: with an axis for the batch, as newer exports have. `num_anchors` of real ones is 2.
    """
    random = randoms(seed)
    nodes, outputs = [], []
    weights: dict[str, NDArray[Any]] = {}
    for columns, kind in ((1, "score"), (4, "box"), (10, "point"))[: 3 if points else 2]:
        weights[f"{kind}_shape"] = np.array([*([1] if batched else []), -1, columns], np.int64)
        for stride in (8, 16, 32):
            name = f"{kind}{stride}"
            spread = {"score": 2.5, "box": 0.3, "point": 0.8}[kind]
            weights[f"{name}_w"] = random.normal(0, spread, (num_anchors * columns, 3, 1, 1)).astype(np.float32)
            bias = {"score": -2.0, "box": 2.5, "point": 0.0}[kind]
            weights[f"{name}_b"] = (random.normal(0, 0.3, num_anchors * columns) + bias).astype(np.float32)
            pooled = f"pooled{stride}"
            if kind == "score":
                nodes.append(
                    helper.make_node("AveragePool", ["x.1"], [pooled], kernel_shape=[stride] * 2, strides=[stride] * 2)
                )
            nodes.append(helper.make_node("Conv", [pooled, f"{name}_w", f"{name}_b"], [f"{name}_c"]))
            nodes.append(helper.make_node("Transpose", [f"{name}_c"], [f"{name}_t"], perm=[0, 2, 3, 1]))
            raw = f"{name}_r" if kind == "score" else name
            nodes.append(helper.make_node("Reshape", [f"{name}_t", f"{kind}_shape"], [raw]))
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [raw], [name]))
            rows = None if side is None else num_anchors * (side // stride) ** 2
            outputs.append(port(name, [*([1] if batched else []), rows, columns]))
    return write(path, nodes, [port("x.1", [1, 3, side, side])], outputs, weights)


def write_row(path: Path, *, side: int, length: int, normalises: bool = False, seed: int = 2) -> Path:
    """A picture to `length` numbers: w600k_r50, genderage, 2d106det, 1k3d68 or SFace, by their sizes.

    `normalises`: takes bytes, as networks from MXNet do.
    """
    random = randoms(seed)
    cell = side // 4
    weights = {
        "w": (random.normal(0, 1, (48, length)) / 7).astype(np.float32),
        "b": random.normal(0, 0.05, length).astype(np.float32),
    }
    nodes = []
    start = "data"
    if normalises:
        weights |= {"mean": np.array(127.5, np.float32), "scale": np.array(1 / 128, np.float32)}
        nodes += [
            helper.make_node("Sub", ["data", "mean"], ["shifted"], name="Sub_0"),
            helper.make_node("Mul", ["shifted", "scale"], ["scaled"], name="Mul_1"),
        ]
        start = "scaled"
    nodes += [
        helper.make_node("AveragePool", [start], ["pooled"], kernel_shape=[cell] * 2, strides=[cell] * 2, name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["fc1"], name="gemm"),
    ]
    return write(path, nodes, [port("data", ["N", 3, side, side])], [port("fc1", ["N", length])], weights)


def write_arcface(path: Path, *, side: int = 112, normalises: bool = False, seed: int = 3) -> Path:
    return write_row(path, side=side, length=512, normalises=normalises, seed=seed)


def write_gender_age(path: Path, *, normalises: bool = False, seed: int = 4) -> Path:
    return write_row(path, side=96, length=3, normalises=normalises, seed=seed)


def write_swapper(
    path: Path,
    *,
    side: int = 128,
    source_first: bool = False,
    has_map: bool = True,
    map_dtype: str = "float32",
    names: tuple[str, str, str] = ("target", "source", "output"),
    seed: int = 5,
) -> Path:
    """inswapper_128: mixes the target's channels and tints them by the source. The last weight is the 512x512 map."""
    random = randoms(seed)
    target, source, output = names
    weights = {
        "mix": (np.eye(3) + random.normal(0, 0.2, (3, 3))).astype(np.float32).reshape(3, 3, 1, 1),
        "tint": random.normal(0, 0.5, (512, 3)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    if has_map:
        weights["buff2fs"] = (random.normal(0, 1, (512, 512)) / 22).astype(map_dtype)
    nodes = [
        helper.make_node("Conv", [target, "mix"], ["mixed"]),
        helper.make_node("MatMul", [source, "tint"], ["tinted"]),
        helper.make_node("Unsqueeze", ["tinted", "axes"], ["spread"]),
        helper.make_node("Add", ["mixed", "spread"], [output]),
    ]
    ports = [port(target, [1, 3, side, side]), port(source, [1, 512])]
    outputs = [port(output, [1, 3, side, side])]
    return write(path, nodes, ports[::-1] if source_first else ports, outputs, weights)


def write_restorer(
    path: Path,
    *,
    side: int = 512,
    weight: str = "",
    weight_dims: Dims = (1,),
    weight_first: bool = False,
    half: bool = False,
    names: tuple[str, str] = ("input", "weight"),
    gain: float = -1.0,
) -> Path:
    """GFPGAN, or CodeFormer with a `weight` of "float" or "double": `gain` * picture + weight / 2.

    The default makes the negative of a face. `half`: the picture's values have 16 bits.
    """
    values = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    dtype = np.float16 if half else np.float32
    picture, name = names
    inputs = [port(picture, [1, 3, side, side], values)]
    weights: dict[str, NDArray[Any]] = {"gain": np.array(gain, dtype)}
    nodes = [helper.make_node("Mul", [picture, "gain"], ["changed" if weight else "restored"])]
    if weight:
        inputs.append(port(name, weight_dims, TensorProto.DOUBLE if weight == "double" else TensorProto.FLOAT))
        weights["half"] = np.array(0.5, dtype)
        nodes += [
            helper.make_node("Cast", [name], ["cast"], to=values),
            helper.make_node("Mul", ["cast", "half"], ["shift"]),
            helper.make_node("Add", ["changed", "shift"], ["restored"]),
        ]
    outputs = [port("restored", [1, 3, side, side], values)]
    return write(path, nodes, inputs[::-1] if weight_first else inputs, outputs, weights)


def write_table(
    path: Path,
    table: NDArray[np.float32],
    *,
    side: int | None = 640,
    labels: Sequence[str] = (),
    mask_side: int = 0,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """A YOLO detector that finds what `table` (columns, rows) says, whatever it sees.

    `mask_side`: of the second output that segmenting networks have.
    """
    weights = {"table": table[None].astype(np.float32), "zero": np.array(0, np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["table", "nothing"], ["output0"]),
    ]
    sides: list[int | str] = [side, side] if side else ["height", "width"]
    outputs = [port("output0", [1, *table.shape] if side else ["batch", table.shape[0], "anchors"])]
    if mask_side:
        weights["masks"] = np.zeros((1, 32, mask_side, mask_side), np.float32)
        nodes.append(helper.make_node("Add", ["masks", "nothing"], ["output1"]))
        outputs.append(port("output1", [1, 32, mask_side, mask_side]))
    told = {"names": str(dict(enumerate(labels)))} if labels else {}
    return write(
        path, nodes, [port("images", [1 if side else "batch", 3, *sides])], outputs, weights, {**told, **(notes or {})}
    )


def yolo_table(
    boxes: Sequence[tuple[float, float, float, float, int, float]], *, num_labels: int, rows: int = 64
) -> NDArray[np.float32]:
    """(4 + num_labels, rows) of left, top, right, bottom, label, score on the network's own picture; the rest is 0."""
    table = np.zeros((4 + num_labels, rows), np.float32)
    for index, (left, top, right, bottom, label, score) in enumerate(boxes):
        table[:4, index] = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        table[4 + label, index] = score
    return table


def write_yunet(path: Path, *, side: int = 640) -> Path:
    """The ports of YuNet 2023mar: cls, obj, bbox and kps for three strides. It finds nothing."""
    weights: dict[str, NDArray[Any]] = {"zero": np.array(0, np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    outputs = []
    for kind, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            name, rows = f"{kind}_{stride}", (side // stride) ** 2
            weights[f"{name}_v"] = np.zeros((1, rows, columns), np.float32)
            nodes.append(helper.make_node("Add", [f"{name}_v", "nothing"], [name]))
            outputs.append(port(name, [1, rows, columns]))
    return write(path, nodes, [port("input", [1, 3, side, side])], outputs, weights)


def write_insightface_pack(folder: Path) -> Path:
    """What buffalo_l holds, but the 3D landmarks."""
    write_scrfd(folder / "det_10g.onnx")
    write_arcface(folder / "w600k_r50.onnx")
    write_gender_age(folder / "genderage.onnx")
    write_row(folder / "2d106det.onnx", side=192, length=212)
    return folder


def with_external_weights(path: Path, location: str = "weights.bin") -> Path:
    """The same model, with its weights in a file beside it."""
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location=location, size_threshold=0)
    return path
