"""The mask painter: a picture and a mask painted over it, on a 2D canvas of our own.

The browser keeps both at full size; here arrive paths in the upload cache, which Gradio has checked. Nothing is
decoded in this module: open the files with `webui.images.open_image`.

The canvas sends a stroke a moment after it ends. An event that reads the painter must wait for the last one, and its
inputs are read before its own `js=` runs, so the waiting is an event of its own in front of it:

    button.click(None, js=flush_js("inpaint_image")).success(generate, inputs=[...])
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioModel

from webui.ui.component import WithoutStub

ASSETS = Path(__file__).resolve().parent / "assets"
# One script, in this order: the later ones use the earlier ones' names.
SCRIPTS = (
    "mask_painter_mask.js",
    "mask_painter_shapes.js",
    "mask_painter_files.js",
    "mask_painter_tools.js",
    "mask_painter_view.js",
    "mask_painter_gestures.js",
    "mask_painter_sync.js",
    "mask_painter.js",
)
ON_LOAD = "atelierPainter.mount({ element, props, trigger, upload, watch });"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaintedImage:
    """Files in the upload cache, unopened. `mask` is black and white, white = repaint, of the upright picture's size;
    None when nothing is painted."""

    image: Path | None
    mask: Path | None = None


class PainterValue(GradioModel):  # type: ignore[misc]
    """What travels between browser and server; FileData makes Gradio check that paths are uploads."""

    image: FileData | None = None
    mask: FileData | None = None


class MaskPainter(gr.HTML, metaclass=WithoutStub):  # type: ignore[misc]
    """`paint=False` is the same canvas as a plain picture input. `sample` is a picture offered while it is empty.

    Events: `change` (any new value), `input` (the user's change has arrived), `upload` and `clear` (the user opened or
    removed a picture). A value set from Python replaces the picture, and the mask too.
    """

    data_model = PainterValue

    def __init__(
        self,
        value: PaintedImage | None = None,
        *,
        paint: bool = True,
        label: str = "Picture",
        sample: Path | None = None,
        height_px: int = 520,
        max_pixels: int = 64_000_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            value,
            label=label,
            html_template=_read("mask_painter.html"),
            css_template=f"--painter-height: {height_px}px;\n" + _read("mask_painter.css"),
            head=f"<script>{_script()}</script>",
            js_on_load=ON_LOAD,
            apply_default_css=False,
            max_pixels=max_pixels,
            **{**kwargs, "paint": paint},
        )
        if sample is not None:
            self.props["sample"] = self._served(sample)

    def preprocess(self, payload: PainterValue | None) -> PaintedImage | None:
        if payload is None or payload.image is None:
            return None
        return PaintedImage(image=Path(payload.image.path), mask=Path(payload.mask.path) if payload.mask else None)

    def postprocess(self, value: PaintedImage | None) -> PainterValue:
        if value is None or value.image is None:
            return PainterValue()
        return PainterValue(image=self._cached(value.image), mask=self._cached(value.mask) if value.mask else None)

    def api_info(self) -> dict[str, Any]:
        schema: dict[str, Any] = PainterValue.model_json_schema()
        return schema

    def example_payload(self) -> None:
        return None

    def example_value(self) -> None:
        return None

    def _cached(self, file: Path) -> FileData:
        """A byte-for-byte copy in the cache, from wherever on this machine `file` lies; never re-encoded."""
        return FileData(path=self.move_resource_to_block_cache(file), orig_name=file.name)

    def _served(self, file: Path) -> dict[str, Any]:
        """`file` as the browser would get it after an upload, kept for as long as the program runs."""
        data = self._cached(file)
        self.keep_in_cache.add(data.path)
        return {**data.model_dump(), "url": f"{gr.route_utils.API_PREFIX}/file={data.path}"}


def flush_js(elem_id: str) -> str:
    """`js=` for an event without function, before the one that reads the painter `elem_id`: waits for its last stroke.

    It fails, and with it what follows by `.success`, when a stroke cannot be sent; the canvas then says so.
    """
    return f"async () => {{ await window.atelierFlush({json.dumps(elem_id)}); return []; }}"


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _script() -> str:
    body = "\n".join(_read(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}\n}})();'
