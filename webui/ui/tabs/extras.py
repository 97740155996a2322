"""The Extras tab: finished pictures through the postprocessors, without generating anything."""

import gradio as gr

from webui.library.catalog import CheckpointInfo
from webui.ui import form as parts
from webui.ui.form import Form
from webui.ui.sections import Section

NO_STEPS = "Nothing here works on finished pictures yet: the steps come from extensions, and none is on."
FOR_REDRAWING = "Only for steps that redraw a part of the picture with the checkpoint. All others load no model."


def build_extras(info: CheckpointInfo | None, native_size: int, sections: tuple[Section, ...] = ()) -> Form:
    form = Form(task="extras")
    with gr.Row(elem_classes=["at-work", "at-extras"]):
        with gr.Column(elem_classes="at-compose"):
            parts.add_pictures(form)
            parts.add_actions(form, "Run", skip=False)
        with gr.Column(elem_classes="at-settings"):
            if not sections:
                gr.Markdown(NO_STEPS, elem_classes="at-prose")
            parts.add_sections(form, sections, opened=len(sections) == 1, on=len(sections) == 1)
            with gr.Accordion("Redrawing", open=False, elem_id=form.id("redrawing")):
                gr.Markdown(FOR_REDRAWING, elem_classes="at-prose")
                parts.add_prompts(form, info, "")
                parts.add_sampling(form, info)
                parts.add_size(form, native_size)
                parts.add_seed(form)
            parts.add_advanced(form)
            parts.add_restore(form)
        parts.add_results(form)
    return form
