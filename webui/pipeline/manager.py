"""Which checkpoint is on the device. Used by the thread of the device's lane only, so there is no lock."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from webui.errors import UnsupportedModel
from webui.library.catalog import AUTOMATIC_VAE, OWN_VAE, CheckpointInfo, Library
from webui.library.families import FAMILIES, AdapterBase
from webui.library.names import EXTERNAL_VAE
from webui.pipeline import loading
from webui.pipeline.allocator import give_back
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.components import Component, ComponentCache, default_budget_bytes
from webui.pipeline.device import Device, translated_memory_errors
from webui.pipeline.memory_layouts import MeasuredLayouts
from webui.pipeline.model import Model, assemble, choose_layout, component_dtype
from webui.pipeline.offload import Placement
from webui.pipeline.sources import CheckpointSource, open_checkpoint, open_tiny_decoder, open_vae
from webui.pipeline.weight_files import FileVersion, version_of

VAE_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")
TINY_DECODERS: Mapping[AdapterBase, str] = MappingProxyType(
    {"sd1": "taesd", "sd2": "taesd", "sdxl": "taesdxl", "sdxl-refiner": "taesdxl"}
)
"""Files in `models/vae_approx` that decode previews, by what the checkpoint's latents are."""

logger = logging.getLogger(__name__)

LAYOUTS_FILE = "memory_layouts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Identity:
    """What a model was made of; when any of it changes, it is another model."""

    info: CheckpointInfo
    vae: Path | None
    versions: tuple[FileVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Loaded:
    model: Model
    components: Mapping[str, Component]

    def is_current(self) -> bool:
        """Whether the weights can still be restored: a shared network may come from another checkpoint's file."""
        return all(component.source.is_current() for component in self.components.values())


class PipelineManager:
    """Loads the checkpoint a request names, and keeps it and others for the next ones, as far as memory allows.

    A file that cannot be used leaves the old model in place. A checkpoint whose files changed is read again.
    """

    def __init__(
        self,
        library: Library,
        device: Device,
        *,
        cache_bytes: int = 0,
        device_bytes: int = 0,
        cache_dir: Path | None = None,
        resident: bool = False,
    ) -> None:
        """`cache_bytes` is the most that networks in memory may take; 0: half the machine's memory.

        `device_bytes` is the most that may be used of a CUDA device; 0: what is free. What is measured of the machine
        is noted in `cache_dir`. `resident`: networks are on the device from the start and stay there, as training needs
        them, or there is an error.
        """
        self.library = library
        self.device = device
        self.cache = ComponentCache(cache_bytes or default_budget_bytes())
        moves = device.moves_networks and not resident
        self._placement = Placement(device, limit_bytes=device_bytes) if moves else None
        self._layouts = MeasuredLayouts(None if cache_dir is None else cache_dir / LAYOUTS_FILE)
        self._loaded: dict[_Identity, _Loaded] = {}
        self._current: _Loaded | None = None

    def is_loaded(self, name: str) -> bool:
        """Whether the checkpoint `name` is the one in use."""
        return self._current is not None and self._current.model.info.name == name

    def load(self, name: str, *, vae: str = AUTOMATIC_VAE) -> Model:
        """The model of checkpoint `name`, with its own VAE, the one beside it, or the one called `vae`.

        Raises ModelNotFound, UnsupportedModel or OutOfDeviceMemory.
        """
        info = self.library.find_checkpoint(name)
        vae_path = self._find_vae(info, vae)
        tiny_path = self._find_tiny_decoder(info)
        identity = _Identity(info=info, vae=vae_path, versions=_versions(info.path, vae_path, tiny_path))
        hint = "Close other programs, or choose a smaller checkpoint."
        with translated_memory_errors(self.device, what=f"loading '{name}'", hint=hint):
            loaded = self._loaded.get(identity)
            if loaded is None or not loaded.is_current():
                loaded = self._loaded[identity] = self._load(info, vae_path, tiny_path)
            if loaded is not self._current:
                self._use(loaded)
        return loaded.model

    def unload(self) -> None:
        """Forgets every network, for something else that needs the memory, such as a training."""
        if self._placement is not None:
            self._placement.release()
        self._current = None
        self._loaded.clear()
        self.cache.clear()
        self.device.free_memory()

    def _load(self, info: CheckpointInfo, vae_path: Path | None, tiny_path: Path | None) -> _Loaded:
        self.cache.throw_out_stale()
        self._forget_thrown_out()
        source = open_checkpoint(info)
        wanted = _wanted(source, vae_path)
        if tiny_path is not None and (tiny_decoder := _tiny_decoder(tiny_path)):
            wanted.setdefault("tiny_decoder", tiny_decoder)
        dtypes = {name: component_dtype(name, part.config, self.device) for name, part in wanted.items()}
        components: dict[str, Component] = {}
        for name, part in wanted.items():
            if found := self.cache.find(part, dtypes[name]):
                part.close()
                components[name] = found
        missing = {name: loading.checked_network(part) for name, part in wanted.items() if name not in components}
        self._make_room(sum(loading.size_bytes(wanted[name], dtypes[name]) for name in missing), components)
        for name, empty in missing.items():
            module = self._filled(empty, wanted[name], dtypes[name], info)
            components[name] = self.cache.keep(wanted[name], module, dtypes[name])
        return _Loaded(model=assemble(source, components, self.device, vae_path=vae_path), components=components)

    def _make_room(self, size_bytes: int, found: Mapping[str, Component]) -> None:
        """All that can be known of the new model is known by now: the old one may go where both do not fit."""
        self.cache.make_room(size_bytes, keep=found.values())
        if self.cache.used_bytes + size_bytes > self.cache.budget_bytes:
            if self._placement is not None:
                self._placement.release()
            self._current = None
            self.cache.pin(())
            self._forget_thrown_out()
            self.cache.make_room(size_bytes, keep=found.values())
        self._forget_thrown_out()

    def _filled(self, empty: nn.Module, part: ComponentSource, dtype: torch.dtype, info: CheckpointInfo) -> nn.Module:
        """Where it is to run, or on the host where networks come and go. The U-Net is in the layout that is faster.

        On a processor that is measured once for U-Nets of a width and a size of pictures, and the next ones are read in
        it. Elsewhere it is channels last.
        """
        device = self.device.torch_device if self._placement is None else loading.CPU
        if part.name != "unet":
            return loading.filled(empty, part, dtype, device)
        measured = self._layouts.find(part.config, dtype, info.native_size)
        layout = measured if self.device.is_cpu else torch.channels_last
        if layout is not None:
            return loading.filled(empty, part, dtype, device, layout=layout)
        module = loading.filled(empty, part, dtype, device)
        chosen = choose_layout(module, self.device, info.native_size)
        self._layouts.note(part.config, dtype, info.native_size, chosen)
        return module

    def _use(self, loaded: _Loaded) -> None:
        self._place(loaded)
        self._current = loaded
        self.cache.pin(loaded.components.values())
        self.cache.make_room(0)
        self._forget_thrown_out()
        give_back()

    def _place(self, loaded: _Loaded) -> None:
        """Puts the networks where they can run; the old ones back if that fails."""
        if self._placement is None:
            return
        try:
            self._placement.use(loaded.components, native_size=loaded.model.info.native_size)
        except BaseException:
            if self._current is not None:
                self._placement.use(self._current.components, native_size=self._current.model.info.native_size)
            raise

    def _forget_thrown_out(self) -> None:
        self._loaded = {
            identity: loaded
            for identity, loaded in self._loaded.items()
            if all(component in self.cache for component in loaded.components.values())
        }

    def _find_vae(self, info: CheckpointInfo, vae: str) -> Path | None:
        if vae == OWN_VAE:
            return None
        if vae == AUTOMATIC_VAE:
            name = info.path.name if info.path.is_dir() else info.path.stem
            beside = (info.path.with_name(f"{name}{EXTERNAL_VAE}{suffix}") for suffix in VAE_SUFFIXES)
            return next((path for path in beside if path.is_file()), None)
        return self.library.find_vae(vae).path

    def _find_tiny_decoder(self, info: CheckpointInfo) -> Path | None:
        name = TINY_DECODERS.get(FAMILIES[info.family].adapter_base)
        paths = (folder / "vae_approx" / f"{name}.safetensors" for folder in self.library.models_dirs if name)
        return next((path for path in paths if path.is_file()), None)


def _tiny_decoder(path: Path) -> ComponentSource | None:
    """For previews alone, so a damaged one is left out."""
    try:
        source = open_tiny_decoder(path)
        loading.checked_network(source)
    except UnsupportedModel as error:
        logger.warning("Previews do without the tiny decoder: %s", error)
        return None
    return source


def _wanted(source: CheckpointSource, vae_path: Path | None) -> dict[str, ComponentSource]:
    """The parts to run. Raises UnsupportedModel if one that every model needs is in no file."""
    parts = {name: part for name in source.names() if (part := source.component(name)) is not None}
    if vae_path is not None:
        parts["vae"] = open_vae(vae_path, source.info.family)
    if "unet" not in parts:
        raise UnsupportedModel(source.info.path, "it holds no U-Net")
    if "vae" not in parts:
        hint = "Choose a VAE for it, or put one beside it with the same name and '.vae' before its ending."
        raise UnsupportedModel(source.info.path, "it holds no autoencoder (VAE)", hint=hint)
    if "text_encoder" not in parts and "text_encoder_2" not in parts:
        hint = "It holds a U-Net alone: look for the whole checkpoint."
        raise UnsupportedModel(source.info.path, "it holds no text encoder", hint=hint)
    return parts


def _versions(*paths: Path | None) -> tuple[FileVersion, ...]:
    """Change when a file of the checkpoint is replaced."""
    files: list[Path] = []
    for path in paths:
        if path is not None:
            files += sorted(entry for entry in path.glob("*/*") if entry.is_file()) if path.is_dir() else [path]
    return tuple(version_of(path) for path in files)
