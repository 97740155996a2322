"""Opens ONNX networks: onnxruntime as this program wants it. Imported only when the first network is opened (0.2 s)."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

CPU = "CPUExecutionProvider"
ERRORS_ONLY = 3
"""onnxruntime's log severity. Its warnings about unused weights are hundreds of lines per file."""
FAILURES = (
    "EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelRequiresCompilation",
    "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException",
)  # fmt: skip
"""What onnxruntime raises; the classes have no common base of their own."""


def runtime() -> ModuleType:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    module = importlib.import_module("onnxruntime")
    module.disable_telemetry_events()
    return module


def session_options(module: ModuleType) -> Any:
    options = module.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    # As torch does: the user's number of threads, else one per core.
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0
    # Else its threads burn a core each while torch works between two calls.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def failures() -> tuple[type[Exception], ...]:
    """What opening and running a network can raise."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = tuple(getattr(state, name) for name in FAILURES if hasattr(state, name))
    # It also raises RuntimeError, and UnicodeDecodeError when its own message quotes a damaged name.
    return (*own, RuntimeError, ValueError)


def open_session(path: Path, providers: list[Any]) -> Any:
    """An InferenceSession. Raises `failures()`."""
    module = runtime()
    # Its own fallback would print, and tell nobody where the network runs.
    return module.InferenceSession(str(path), session_options(module), providers=providers, enable_fallback=0)


def first_line(error: Exception, path: Path) -> str:
    """Of an error's text, without the folder that the file lies in."""
    text = str(error).replace(str(path), path.name)
    return (text.splitlines() or [type(error).__name__])[0][:200]
