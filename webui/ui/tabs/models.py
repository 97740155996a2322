"""The Models tab: what there is, in full height."""

import gradio as gr

from webui.ui.models_panel import ModelsSlot


def build_models() -> None:
    with gr.Column(elem_classes="at-models-tab"):
        ModelsSlot(always=True, elem_id="models_browser")
