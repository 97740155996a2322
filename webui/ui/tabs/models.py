"""The Models tab: a box that gets more, one that makes more, and what there is, in full height."""

import gradio as gr

from webui.ui.downloads_panel import GetModels
from webui.ui.models_panel import ModelsSlot
from webui.ui.tabs.model_tools import ModelTools


def build_models() -> None:
    with gr.Column(elem_classes="at-models-tab"):
        GetModels(elem_id="get_models")
        ModelTools(elem_id="model_tools")
        ModelsSlot(elem_id="models_browser")
