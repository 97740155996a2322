"""A page with one painter, and what its handlers got: the smallest program around the component."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr

from webui.ui.mask_painter import MaskPainter, PaintedImage, flush_js


@dataclass
class PainterPage:
    """`preset` is what "Send" puts into the painter; `received` what "Generate" read from it, one entry a click."""

    preset: PaintedImage | None = None
    received: list[PaintedImage | None] = field(default_factory=list)
    url: str = ""

    def build(self, *, sample: Path) -> gr.Blocks:
        with gr.Blocks(title="painter", analytics_enabled=False) as demo:
            with gr.Tabs():
                with gr.Tab("Inpaint"):
                    painter = MaskPainter(label="Picture and mask", elem_id="inpaint_image", sample=sample)
                    generate = gr.Button("Generate", elem_id="generate")
                    count = gr.Textbox(label="Count")
                with gr.Tab("Other"):
                    viewer = MaskPainter(label="Input picture", elem_id="img2img_image", paint=False, height_px=400)
                    send = gr.Button("Send")
            gr.HTML("<div style='height: 1200px'>below</div>")
            generate.click(None, js=flush_js("inpaint_image")).success(self._receive, painter, count)
            send.click(lambda: (self.preset, self.preset), None, [painter, viewer])
        return demo

    def _receive(self, painted: PaintedImage | None) -> str:
        self.received.append(painted)
        return str(len(self.received))


@contextmanager
def serve(page: PainterPage, *, sample: Path, port: int | None = None) -> Iterator[PainterPage]:
    demo = page.build(sample=sample)
    _, page.url, _ = demo.launch(server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
    try:
        yield page
    finally:
        demo.close(verbose=False)
