"""An ONNX network on the processor: one array in, arrays out. It works beside whatever the device does."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from webui.errors import UnsupportedModel
from webui.library.onnx_file import Port
from webui.library.onnx_runtime import CPU, failures, first_line, open_session

HINT = "Choose another one, or fetch it anew."


class Network:
    """The file `path`, whose only input is `takes`."""

    def __init__(self, path: Path, takes: Port) -> None:
        """Raises UnsupportedModel."""
        self._path = path
        self._takes = takes
        self._failures = failures()
        try:
            self._session: Any = open_session(path, [CPU])
        except self._failures as error:
            reason = f"onnxruntime cannot open it ({first_line(error, path)})"
            raise UnsupportedModel(path, reason, hint=HINT) from error

    def run(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The first output, as float32. Raises UnsupportedModel."""
        feed = {self._takes.name: np.ascontiguousarray(values, np.dtype(self._takes.dtype))}
        first = self._session.get_outputs()[0].name
        try:
            output = np.asarray(self._session.run([first], feed)[0], np.float32)
        except self._failures as error:
            reason = f"it failed while it ran ({first_line(error, self._path)})"
            raise UnsupportedModel(self._path, reason, hint=HINT) from error
        if not np.isfinite(output).all():
            raise UnsupportedModel(self._path, "it gives values that are no numbers (NaN or Inf)", hint=HINT)
        return output
