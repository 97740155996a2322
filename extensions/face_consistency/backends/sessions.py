"""One opened network: onnxruntime on the processor or a CUDA device, fed by position, closed when told.

onnxruntime is imported when the first network is opened: it takes 0.2 s, and most runs need none.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from webui.hooks import onnx_runtime

from .catalog import FaceModel
from .onnx_file import BrokenModel, Port

Provider = Literal["auto", "cpu", "cuda"]
"""Where networks run; "auto" takes CUDA if the installed onnxruntime has it."""

Floats = NDArray[np.float32]

CPU, CUDA = onnx_runtime.CPU, "CUDAExecutionProvider"
CUDA_OPTIONS: Mapping[str, str] = MappingProxyType(
    {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
)
"""The pictures' own network needs the device's memory: take what is asked for, not the next power of two."""


class Session:
    """A network of `model`, whose `graph` is known. `run` may be called from several threads."""

    def __init__(self, model: FaceModel, provider: Provider = "auto") -> None:
        if model.graph is None:
            raise BrokenModel(model.name, model.problem or "it could not be read")
        self.model = model
        self.inputs: tuple[Port, ...] = model.graph.inputs
        self.outputs: tuple[Port, ...] = model.graph.outputs
        self._runtime = onnx_runtime.runtime()
        self._failures = onnx_runtime.failures()
        self._session: Any = self._open(provider)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def provider(self) -> str:
        """Where it really runs, in onnxruntime's word."""
        return str(self._session.get_providers()[0]) if self._session is not None else ""

    def run(self, *values: NDArray[Any]) -> list[Floats]:
        """`values` in the order of `inputs`, cast to what the network takes. Raises BrokenModel."""
        session = self._session
        if session is None:
            raise BrokenModel(self.name, "it was closed while it was in use", hint="Try again.")
        feed = {
            port.name: np.ascontiguousarray(value, np.dtype(port.dtype))
            for port, value in zip(self.inputs, values, strict=True)
        }
        try:
            outputs = session.run([port.name for port in self.outputs], feed)
        except self._failures as error:
            raise BrokenModel(self.name, f"it failed while it ran ({self._first_line(error)})") from error
        return [np.asarray(output, np.float32) for output in outputs]

    def close(self) -> None:
        """Gives its memory back. Twice does nothing."""
        self._session = None

    def _first_line(self, error: Exception) -> str:
        return onnx_runtime.first_line(error, self.model.path)

    def _open(self, provider: Provider) -> Any:
        runtime = self._runtime
        has_cuda = CUDA in runtime.get_available_providers()
        if provider == "cuda" and not has_cuda:
            raise BrokenModel(
                self.name,
                "the installed onnxruntime knows no CUDA",
                hint='Set the provider to "auto" or "cpu", or install onnxruntime-gpu in place of onnxruntime.',
            )
        if not has_cuda or provider == "cpu":
            return self._opened([CPU])
        runtime.preload_dlls()  # CUDA and cuDNN as they came with torch
        try:
            session = self._opened([(CUDA, dict(CUDA_OPTIONS)), CPU])
        except BrokenModel:
            if provider == "cuda":
                raise
            return self._opened([CPU])
        if provider == "cuda" and session.get_providers()[0] != CUDA:
            raise BrokenModel(
                self.name,
                "no CUDA device could be used for it",
                hint='Set the provider to "auto" or "cpu", or check that CUDA and cuDNN fit onnxruntime-gpu.',
            )
        return session

    def _opened(self, providers: list[Any]) -> Any:
        try:
            return onnx_runtime.open_session(self.model.path, providers)
        except self._failures as error:
            raise BrokenModel(self.name, f"onnxruntime cannot open it ({self._first_line(error)})") from error


def index_of(ports: Sequence[Port], rank: int) -> int:
    """Which port has so many axes. The catalog has seen to it that there is one."""
    return next(index for index, port in enumerate(ports) if port.shape is not None and len(port.shape) == rank)
