"""Opening networks: which one, where it runs, what can go wrong, and letting go of it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from extensions.face_consistency.backends.catalog import MissingModel, identify
from extensions.face_consistency.backends.onnx_file import BrokenModel
from extensions.face_consistency.backends.sessions import CPU, CUDA, Session
from extensions.face_consistency.backends.shelf import Backends
from extensions.face_consistency.face import Face
from tests import onnx_files as files
from tests.extensions.face_consistency.backends.conftest import make_picture
from webui.library import onnx_runtime


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """Everything that a user may have."""
    room = tmp_path / "models" / "face"
    files.write_insightface_pack(room / "buffalo_l")
    files.write_swapper(room / "inswapper_128.onnx")
    files.write_restorer(room / "GFPGANv1.4.onnx", side=256)
    files.write_restorer(room / "codeformer.onnx", side=256, weight="double")
    files.write_table(room / "face_yolov8n.onnx", files.yolo_table([(9, 9, 60, 60, 0, 0.9)], num_labels=1), side=160)
    files.write_table(room / "hand_yolov8n.onnx", files.yolo_table([(9, 9, 60, 60, 0, 0.9)], num_labels=1), side=160)
    files.write_table(room / "320n.onnx", files.yolo_table([(9, 9, 60, 60, 3, 0.9)], num_labels=18), side=320)
    return tmp_path / "models"


def test_every_backend_of_a_full_folder_runs_one_after_the_other(models_dir: Path, face: Face) -> None:
    backends, picture = Backends([models_dir], "cpu"), make_picture(512, 512)
    source = backends.arcface().embed(picture, face)
    swapped = backends.swapper().swap(picture, face, source, pixel_boost=2, color=0.5)
    restored = backends.restorer("codeformer").restore(swapped.pixels, face, weight=0.7, visibility=0.8)
    assert (restored.pixels != picture).any()
    assert len(backends.detector().find(picture)) > 2
    assert backends.gender_age().read(picture, face.box).gender in {"female", "male"}
    assert len(backends.objects("hand_yolov8n").find(picture)) == 1
    assert "bare breast" in backends.safety().look(picture).message
    backends.close()


def test_a_network_is_opened_once_and_anew_when_its_file_has_changed(models_dir: Path) -> None:
    backends = Backends([models_dir], "cpu")
    first = backends.restorer("GFPGANv1.4")
    assert backends.restorer("gfpganv1.4") is first
    files.write_restorer(models_dir / "face" / "GFPGANv1.4.onnx", side=512)
    assert backends.restorer("GFPGANv1.4").size_px == 512
    backends.close()


def test_two_small_detectors_stay_open_but_only_one_large_restorer(models_dir: Path) -> None:
    backends = Backends([models_dir], "cpu")
    faces, hands = backends.objects("face_yolov8n"), backends.objects("hand_yolov8n")
    assert backends.objects("face_yolov8n") is faces
    assert backends.objects("hand_yolov8n") is hands
    gfpgan = backends.restorer("GFPGANv1.4")
    backends.restorer("codeformer")
    with pytest.raises(BrokenModel, match="it was closed while it was in use"):
        gfpgan.improve(make_picture(256, 256), weight=0.5)
    backends.close()


def test_closing_frees_the_networks_and_the_next_call_opens_anew(models_dir: Path) -> None:
    backends = Backends([models_dir], "cpu")
    old = backends.gender_age()
    backends.close()
    backends.close()
    with pytest.raises(BrokenModel, match="it was closed"):
        old.read(make_picture(64, 64), (0, 0, 64, 64))
    assert backends.gender_age().read(make_picture(64, 64), (0, 0, 64, 64)).age is not None


def test_without_any_files_every_backend_says_what_to_put_where(tmp_path: Path) -> None:
    backends = Backends([tmp_path])
    assert backends.models().entries == ()
    for get in (
        backends.swapper, backends.restorer, backends.arcface, backends.detector, backends.gender_age,
        backends.objects, backends.safety,
    ):  # fmt: skip
        with pytest.raises(MissingModel, match=r"There is no .* under models/face\. Put one there, such as .*\.onnx\."):
            get()


def test_damaged_weights_are_refused_by_the_runtime_in_one_sentence(tmp_path: Path) -> None:
    path = files.write_gender_age(tmp_path / "face" / "genderage.onnx")
    model = onnx.load(str(path))
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-8]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BrokenModel, match=r"'genderage' cannot be used: onnxruntime cannot open it") as caught:
        Backends([tmp_path], "cpu").gender_age()
    assert "\n" not in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_a_damaged_name_is_refused_in_one_sentence_too(tmp_path: Path) -> None:
    """The runtime quotes it, and its message is no text any more."""
    path = files.write_gender_age(tmp_path / "face" / "genderage.onnx")
    data = path.read_bytes()
    assert data.count(b"Gemm") == 1
    path.write_bytes(data.replace(b"Gemm", b"Ge\xdcm"))
    with pytest.raises(BrokenModel, match="onnxruntime cannot open it"):
        Backends([tmp_path], "cpu").gender_age()


@pytest.mark.parametrize("length", [3, 7])
def test_a_network_that_gives_other_shapes_than_its_file_says_is_refused(
    length: int, tmp_path: Path, face: Face
) -> None:
    path = files.write_row(tmp_path / "face" / "w600k.onnx", side=112, length=length)
    model = onnx.load(str(path))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 512
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BrokenModel, match=rf"(it gave {length} numbers, not 512|onnxruntime cannot open it)"):
        Backends([tmp_path], "cpu").arcface().embed(make_picture(64, 64), face)


def test_an_unknown_operation_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = files.write_gender_age(tmp_path / "face" / "genderage.onnx")
    model = onnx.load(str(path))
    model.graph.node[-1].op_type = "Nonsense"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BrokenModel, match="onnxruntime cannot open it"):
        Backends([tmp_path], "cpu").gender_age()


def test_a_network_that_fails_while_it_runs_says_so(tmp_path: Path) -> None:
    path = files.write_gender_age(tmp_path / "genderage.onnx")
    session = Session(identify(path, "genderage"), "cpu")
    with pytest.raises(BrokenModel, match=r"'genderage' cannot be used: it failed while it ran"):
        session.run(np.zeros((1, 3, 90, 90)))


def test_a_file_with_a_problem_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(BrokenModel, match=r"'empty' cannot be used: it is empty"):
        Session(identify(tmp_path / "empty.onnx", "empty"))


def test_cuda_that_is_not_there_is_refused_when_asked_for_and_passed_over_when_not(models_dir: Path) -> None:
    model = identify(models_dir / "face" / "buffalo_l" / "genderage.onnx", "genderage")
    runtime = onnx_runtime.runtime()
    if CUDA not in runtime.get_available_providers():
        with pytest.raises(BrokenModel, match=r"knows no CUDA.*\"auto\" or \"cpu\""):
            Session(model, "cuda")
        assert Session(model, "auto").provider == CPU
    assert Session(model, "cpu").provider == CPU


class FakeRuntime:
    """An onnxruntime with CUDA, whose sessions take the providers in `works`."""

    def __init__(self, works: tuple[str, ...]) -> None:
        self.works = works
        self.asked: list[str] = []
        self.options: Any = None
        self.preloaded = False
        self.refuses = ""

    SessionOptions = SimpleNamespace

    def get_available_providers(self) -> list[str]:
        return [CUDA, CPU]

    def preload_dlls(self) -> None:
        self.preloaded = True

    def InferenceSession(self, path: str, options: Any, providers: list[Any], enable_fallback: int) -> Any:  # noqa: N802
        self.options = options
        self.asked = [one if isinstance(one, str) else one[0] for one in providers]
        if self.refuses in self.asked:
            raise RuntimeError("cuDNN is missing")
        return SimpleNamespace(get_providers=lambda: [one for one in self.asked if one in self.works])


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    runtime = FakeRuntime((CUDA, CPU))
    monkeypatch.setattr(onnx_runtime, "runtime", lambda: runtime)
    monkeypatch.setattr(
        FakeRuntime, "SessionOptions", lambda self: SimpleNamespace(add_session_config_entry=lambda key, value: None)
    )
    return runtime


@pytest.mark.parametrize(("provider", "asked"), [("auto", [CUDA, CPU]), ("cuda", [CUDA, CPU]), ("cpu", [CPU])])
def test_cuda_is_taken_where_it_is_unless_the_processor_is_wanted(
    provider: Any, asked: list[str], models_dir: Path, fake_cuda: FakeRuntime
) -> None:
    session = Session(identify(models_dir / "face" / "inswapper_128.onnx", "inswapper_128"), provider)
    assert fake_cuda.asked == asked
    assert session.provider == asked[0]
    assert fake_cuda.preloaded == (CUDA in asked), "torch's own CUDA libraries are found"


def test_cuda_that_fails_is_refused_when_asked_for_and_told_when_not(models_dir: Path, fake_cuda: FakeRuntime) -> None:
    fake_cuda.works = (CPU,)
    model = identify(models_dir / "face" / "inswapper_128.onnx", "inswapper_128")
    with pytest.raises(BrokenModel, match="no CUDA device could be used"):
        Session(model, "cuda")
    assert Session(model, "auto").provider == CPU


def test_cuda_that_cannot_be_opened_is_refused_when_asked_for_and_the_processor_taken_when_not(
    models_dir: Path, fake_cuda: FakeRuntime
) -> None:
    fake_cuda.refuses = CUDA
    model = identify(models_dir / "face" / "inswapper_128.onnx", "inswapper_128")
    with pytest.raises(BrokenModel, match="cuDNN is missing"):
        Session(model, "cuda")
    assert Session(model, "auto").provider == CPU


@pytest.mark.parametrize(("told", "threads"), [("3", 3), ("", 0), ("two", 0)])
def test_the_number_of_threads_is_the_users_as_with_torch(
    told: str, threads: int, models_dir: Path, fake_cuda: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    Session(identify(models_dir / "face" / "inswapper_128.onnx", "inswapper_128"), "cpu")
    assert fake_cuda.options.intra_op_num_threads == threads
    assert fake_cuda.options.log_severity_level == 3


def test_listing_models_imports_no_runtime_and_opens_nothing(models_dir: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from extensions.face_consistency.backends.catalog import find_models\n"
        f"print(len(find_models([Path({str(models_dir)!r})]).entries))\n"
        "print(sorted({'onnxruntime', 'onnx', 'insightface', 'torch', 'gradio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["10", "[]"], done.stderr
