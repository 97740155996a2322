"""The Training tab: one slot, filled by `assets/training*.js` from our own routes."""

from typing import Any

import gradio as gr

from webui.ui.component import JsonHtml


class Training(JsonHtml):
    """Its content comes from `/training/...`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            value={},
            html_template='<section class="at-training" aria-label="Training"></section>',
            js_on_load="atelierTraining.panel({element})",
            **options,
        )


def build_training() -> None:
    with gr.Column(elem_classes="at-training-tab"):
        Training(elem_id="training_panel")
