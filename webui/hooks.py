"""Everything an extension can do, on one page. Import from here and from nowhere else in the program.

An extension is a folder with `extension.toml` and a package whose `__init__.py` has functions of these names, marked
`@hookimpl`. Each gets those of the arguments that it names, as pluggy does it. docs/extensions.md explains them with
an example.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy
from PIL import Image
from pydantic import BaseModel

from webui.errors import InvalidRequest, UnreadableImage, WebUIError
from webui.generation.postprocess import (
    Badge,
    Moment,
    Picture,
    PostprocessContext,
    Postprocessor,
    PostprocessStep,
    Processed,
    Redraw,
    Stage,
)
from webui.generation.request import Extras, GenerationRequest
from webui.images.infotext import Infotext, format_infotext, parse_infotext
from webui.images.metadata import ImageMetadata, encode_image, read_metadata
from webui.images.reading import flatten, open_image
from webui.jobs.cancel import CancelToken
from webui.library import onnx_file, onnx_runtime
from webui.settings import Settings
from webui.training.data.faces import FaceReader, SeenFace
from webui.training.data.subjects import SubjectMasker

if TYPE_CHECKING:
    from fastapi import APIRouter  # which takes half a second to import, and the command line has no use for it

__all__ = [
    "Badge",
    "CancelToken",
    "Command",
    "CommandContext",
    "ExtensionContext",
    "Extras",
    "FaceReader",
    "GenerationRequest",
    "Hooks",
    "ImageMetadata",
    "Infotext",
    "InvalidRequest",
    "Moment",
    "Picture",
    "PostprocessContext",
    "PostprocessStep",
    "Postprocessor",
    "Processed",
    "Redraw",
    "SeenFace",
    "Settings",
    "Stage",
    "SubjectMasker",
    "Tab",
    "UnreadableImage",
    "WebUIError",
    "encode_image",
    "flatten",
    "format_infotext",
    "hookimpl",
    "hookspec",
    "onnx_file",
    "onnx_runtime",
    "open_image",
    "parse_infotext",
    "read_metadata",
]

PROJECT = "atelier"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionContext:
    """What an extension is told about its surroundings."""

    id: str
    folder: Path
    """Where extension.toml lies; read only."""
    data_dir: Path
    """The extension's own folder to write to; make it when you need it."""
    models_dirs: tuple[Path, ...]
    """The user's `models` folder first; look for files in `models_dirs[i] / "face"` and the like."""
    settings: Callable[[], Any]
    """The present values of its settings model; None without one."""
    max_image_pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """A tab of the page. `build` is called inside a Gradio tab and makes its components."""

    id: str
    label: str
    build: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    """What a command may use."""

    settings: Settings
    process: Callable[[GenerationRequest], Sequence[Processed]]
    """Runs the request's pictures through the engine and its postprocessors, saves nothing. Imports torch.

    Several postprocessors' fields, notes and details are joined, in their order."""
    keep: Callable[[Image.Image], str]
    """Keeps a picture for as long as the command runs; returns its name for a `Picture` parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """`launch.py NAME ...`; `run` returns the exit status and may raise WebUIError.

    `name` stands in extension.toml, under `[commands]`, with one line that says what it does: so that help need not
    import any extension.
    """

    name: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, CommandContext], int]


class Hooks:
    """The hooks. All are optional. What raises or takes too long is named on the Extensions page and switched off.

    `context` is the same value in every call, so `functools.cache` on a function of it makes a thing once.
    """

    @hookspec
    def settings_model(self) -> type[BaseModel]:
        """Frozen model with a default for every field; drawn on the Extensions page, kept between runs."""
        raise NotImplementedError

    @hookspec
    def load(self, context: ExtensionContext) -> None:
        """Once, after the import and `settings_model`, before all others. Be quick: the page waits for it."""

    @hookspec
    def postprocessors(self, context: ExtensionContext) -> Sequence[Postprocessor]:
        """Steps that a finished picture can go through, each with its own section under the pictures' settings."""
        raise NotImplementedError

    @hookspec
    def tabs(self, context: ExtensionContext) -> Sequence[Tab]:
        """Tabs of the page's own row, behind the built-in ones."""
        raise NotImplementedError

    @hookspec
    def routes(self, context: ExtensionContext) -> "APIRouter":
        """Routes, served beneath `/extensions/ID/` behind the same guard (login, same origin) as all others."""
        raise NotImplementedError

    @hookspec
    def commands(self, context: ExtensionContext) -> Sequence[Command]:
        """Commands of `launch.py`, those that extension.toml names. A name that is taken is refused."""
        raise NotImplementedError

    @hookspec
    def face_reader(self, context: ExtensionContext) -> FaceReader | None:
        """Finds faces in photos and tells people apart, for training. Asked of one extension after the other, by id,
        until one gives a reader. Raise where faces cannot be read; `read` may be called from several threads at once.
        """

    @hookspec
    def subject_maskers(self, context: ExtensionContext) -> Sequence[SubjectMasker]:
        """Tell the subject of a photo from its background, for training's masks. Called from any thread."""
        raise NotImplementedError

    @hookspec
    def before_stage(self, moment: Moment, context: ExtensionContext) -> str | None:
        """Before each stage of a generation, on the worker's thread. A returned text is told to the user."""

    @hookspec
    def after_stage(self, moment: Moment, result: Any, context: ExtensionContext) -> Any:
        """After each stage; what is returned, unless None, takes the place of `result`, which is a copy.

        "encode": None. "denoise": clean latents (B, C, height / 8, width / 8), a torch tensor. "decode": list of B
        RGB pictures. "postprocess": the RGB picture. "save": None; `moment.path` is the file. What is returned has
        the shape and type of `result`; only a postprocessed picture may change its size.
        """

    @hookspec
    def unload(self, context: ExtensionContext) -> None:
        """When the program ends or the extension is switched off."""
