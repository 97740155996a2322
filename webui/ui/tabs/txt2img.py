"""The txt2img tab: pictures from a prompt alone."""

import gradio as gr

from webui.library.catalog import CheckpointInfo
from webui.ui import form as parts
from webui.ui.form import Form
from webui.ui.sections import Section


def build_txt2img(info: CheckpointInfo | None, native_size: int, sections: tuple[Section, ...] = ()) -> Form:
    form = Form(task="txt2img")
    with gr.Row(elem_classes="at-work"):
        parts.add_compose(form, info)
        with gr.Column(elem_classes="at-settings"):
            parts.add_sampling(form, info)
            parts.add_size(form, native_size)
            parts.add_batches(form)
            parts.add_seed(form)
            parts.add_advanced(form)
            parts.add_sections(form, sections)
        parts.add_results(form)
    return form
