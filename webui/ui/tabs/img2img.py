"""The img2img tab: a picture, changed as a whole by a prompt."""

import gradio as gr

from webui.library.catalog import CheckpointInfo
from webui.ui import form as parts
from webui.ui.form import Form
from webui.ui.sections import Section


def build_img2img(
    info: CheckpointInfo | None, native_size: int, sections: tuple[Section, ...] = (), *, max_pixels: int
) -> Form:
    form = Form(task="img2img")
    with gr.Row(elem_classes=["at-work", "at-with-source"]):
        parts.add_compose(form, info)
        parts.add_source(form, None if info is None else info.sample_image, paint=False, max_pixels=max_pixels)
        with gr.Column(elem_classes="at-settings"):
            parts.add_strength(form)
            parts.add_sampling(form, info)
            parts.add_size(form, native_size)
            parts.add_batches(form)
            parts.add_seed(form)
            parts.add_advanced(form)
            parts.add_sections(form, sections)
        parts.add_results(form)
    return form
