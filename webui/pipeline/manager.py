"""Which checkpoint is on the device. Used by the worker's thread only, so there is no lock."""

from collections.abc import Sequence
from pathlib import Path

from webui.pipeline.allocator import give_back
from webui.library.catalog import CheckpointInfo, find_checkpoint
from webui.pipeline.device import Device, translated_memory_errors
from webui.pipeline.model import Model, load_model


class PipelineManager:
    """Loads the checkpoint a request names and keeps it for the next one.

    A load that fails leaves the old model in place. A checkpoint whose files changed is read again.
    """

    def __init__(self, models_dirs: Sequence[Path], device: Device) -> None:
        self._models_dirs = tuple(models_dirs)
        self.device = device
        self._model: Model | None = None
        self._stamp: tuple[int, ...] = ()

    def is_loaded(self, name: str) -> bool:
        return self._model is not None and self._model.info.name == name

    def load(self, name: str) -> Model:
        """Raises ModelNotFound, UnsupportedModel or OutOfDeviceMemory."""
        info = find_checkpoint(name, self._models_dirs)
        stamp = _stamp(info)
        if self._model is not None and self._model.info == info and self._stamp == stamp:
            return self._model
        with translated_memory_errors(
            self.device, what=f"loading '{name}'", hint="Close other programs, or choose a smaller checkpoint."
        ):
            self._model = load_model(info, self.device)
        self._stamp = stamp
        give_back()
        return self._model


def _stamp(info: CheckpointInfo) -> tuple[int, ...]:
    """Changes when a weight file is replaced."""
    files = sorted(info.path.glob("*/*.safetensors"))
    return tuple(value for path in files for value in (path.stat().st_mtime_ns, path.stat().st_size))
