"""The Models tab: a box that gets more, and what there is, in full height."""

import gradio as gr

from webui.ui.downloads_panel import GetModels
from webui.ui.models_panel import ModelsSlot


def build_models() -> None:
    with gr.Column(elem_classes="at-models-tab"):
        GetModels(elem_id="get_models")
        ModelsSlot(always=True, elem_id="models_browser")
