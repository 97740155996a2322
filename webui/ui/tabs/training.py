"""The Training tab: for now only what it will be."""

import gradio as gr

TEXT = """### Training is not here yet

This is where you will train a LoRA of a person, an object or a style from your own pictures: choose the pictures,
see their captions, start, watch the loss and sample pictures, and use the result in the other tabs.
"""


def build_training() -> None:
    gr.Markdown(TEXT, elem_classes="at-prose")
