"""The parts that the tabs are built from, and their names. What is alike in two tabs is made here once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from webui.generation.request import (
    DEFAULT_IMAGE_GUIDANCE_SCALE,
    MAX_BATCH_SIZE,
    MAX_STEPS,
)
from webui.library.catalog import AUTOMATIC_VAE, DEFAULT_GUIDANCE_SCALE, DEFAULT_STEPS, OWN_VAE, CheckpointInfo
from webui.library.families import FAMILIES
from webui.pipeline.samplers import SAMPLERS
from webui.pipeline.schedules import SCHEDULES
from webui.ui import forms
from webui.ui.component import JsonHtml
from webui.ui.controls import (
    IMAGE_FORMATS,
    LABELS,
    MASK_AREAS,
    MASK_MODES,
    MASKED_CONTENTS,
    MAX_IMAGE_CFG_SCALE,
    RESIZE_MODES,
    Task,
)
from webui.ui.mask_painter import MaskPainter, PaintedImage
from webui.ui.models_panel import ModelsSlot
from webui.ui.picture_input import PictureInput
from webui.ui.sections import Section

EDITING_CHANNELS = 8
"""Input channels of a U-Net that sees the picture to edit (instruct-pix2pix)."""
VAE_CHOICES = (("Automatic", AUTOMATIC_VAE), ("None (the checkpoint's own)", OWN_VAE))
"""Before the names of files."""
NO_PROMPT = "What should be in the picture"
PAINTED_TASKS = ("img2img", "inpaint")
"""Those that start from a picture on a canvas."""


@dataclass(slots=True, kw_only=True)
class Form:
    """One tab's controls by name. `controls` are the user's values; the others are buttons and displays."""

    task: Task
    controls: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    buttons: dict[str, Any] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    boxes: dict[str, Any] = field(default_factory=dict)
    """Around a section, by its id."""
    folds: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """The accordions around a control, outermost first."""
    uploads: set[str] = field(default_factory=set)
    """Names of the controls that hold pictures."""
    chips: Any = None
    models: Any = None
    """The place for the browser of models, with the settings that those in the prompt are made for."""
    results: Any = None
    restore: Any = None
    fitted: Any = None
    """[width, height] for a new picture, on their way into the form."""

    def add(self, name: str, component: Any) -> Any:
        self.controls[name] = component
        return component

    def id(self, name: str) -> str:
        """As `atelier.js` makes it of a control's name."""
        return f"{self.task}_{name.replace('.', '-')}"

    def remembered(self) -> dict[str, Any]:
        """What the browser remembers: everything but pictures."""
        return {name: control for name, control in self.controls.items() if name not in self.uploads}

    def controls_of(self, section: Section) -> list[str]:
        return [section.id, *(section.control(part) for part in section.fields)]

    def updates(self, values: Mapping[str, Any]) -> dict[Any, Any]:
        """As Gradio takes it, for the values that this form has a control for."""
        return {self.controls[name]: value for name, value in values.items() if name in self.controls}


@dataclass(slots=True, kw_only=True)
class Shell:
    """What all tabs share."""

    checkpoint: Any
    refresh: Any
    problems: Any
    theme: Any
    models: Any
    tabs: Any = None
    tab_names: dict[str, Any] = field(default_factory=dict)


class Chips(JsonHtml):
    """Example prompts as buttons; `value` is {"samples": [...], "chosen": str}.

    A click is a "pick". "change" would also come when the server writes the value, and would empty the prompt.
    """

    def __init__(self, samples: tuple[str, ...], **options: Any) -> None:
        super().__init__(
            value={"samples": list(samples), "chosen": ""},
            html_template='<div class="at-chips" role="group" aria-label="Example prompts"></div>',
            js_on_load="atelier.chips({element, props, trigger, watch, event: 'pick'})",
            **options,
        )


class Results(JsonHtml):
    """The output slot; `value` is what Generate answered: {"job": id} or {"problem": control}. The rest is polled."""

    def __init__(self, task: Task, **options: Any) -> None:
        super().__init__(
            value={},
            html_template=f'<section class="at-results" data-state="empty" data-job="" id="{task}_results_box" '
            'aria-label="Results"></section>',
            js_on_load=f"atelier.results({{element, props, trigger, watch, task: '{task}', "
            "events: ['send_img2img', 'send_inpaint', 'send_extras', 'reuse']})",
            **options,
        )


class Queue(JsonHtml):
    """The user's waiting and running jobs, each with its place and a button to cancel it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            html_template='<h2 class="at-heading">Your jobs</h2><ul class="at-queue" aria-label="Your jobs"></ul>',
            js_on_load="atelier.queue({element})",
            **options,
        )


class Problems(JsonHtml):
    """Checkpoints that cannot be used, and why; `value` is {"problems": [...]}."""

    def __init__(self, problems: list[str], **options: Any) -> None:
        super().__init__(
            value={"problems": problems},
            html_template='<ul class="at-problems" aria-label="Checkpoints that cannot be used"></ul>',
            js_on_load="atelier.problems({element, props, watch})",
            **options,
        )


def add_compose(form: Form, info: CheckpointInfo | None) -> None:
    """Prompts with counters, examples, and right under them what starts and stops a job."""
    prompts = () if info is None else info.example_prompts
    start = prompts[0] if prompts else ""
    if form.task != "txt2img" and info is not None and info.sample_caption:
        start = info.sample_caption
    with gr.Column(elem_classes="at-compose"):
        add_prompts(form, info, start)
        with gr.Row(elem_classes="at-hints"):
            form.chips = Chips(prompts, elem_id=form.id("examples"))
            add_restore(form)
        add_actions(form, "Generate", skip=True)
        form.models = ModelsSlot(form.task, elem_id=form.id("models"))


def add_prompts(form: Form, info: CheckpointInfo | None, start: str) -> None:
    with gr.Row(elem_classes="at-prompts"):
        _add_prompt(form, "prompt", start, NO_PROMPT)
        _add_prompt(
            form, "negative_prompt", "" if info is None else info.sample_negative_prompt, "What should not be in it"
        )


def add_restore(form: Form) -> None:
    form.restore = gr.UploadButton(
        "Open settings from picture",
        elem_id=form.id("restore"),
        elem_classes="at-restore",
        file_types=["image"],
        size="sm",
        min_width=180,
        scale=0,
    )


def add_actions(form: Form, start: str, *, skip: bool) -> None:
    """What starts a job, with `start` on it, and what stops it."""
    with gr.Row(elem_classes="at-actions"):
        form.buttons["generate"] = gr.Button(
            start, variant="primary", elem_id=form.id("generate"), min_width=110, scale=3
        )
        form.buttons["interrupt"] = gr.Button("Interrupt", elem_id=form.id("interrupt"), min_width=96, scale=0)
        if skip:
            form.buttons["skip"] = gr.Button("Skip", elem_id=form.id("skip"), min_width=72, scale=0)


def add_results(form: Form) -> None:
    with gr.Column(elem_classes="at-output"):
        form.results = Results(form.task, elem_id=form.id("results"))


def add_source(form: Form, sample: Path | None, *, paint: bool, max_pixels: int) -> None:
    """The picture to start from; the sample is there so that the first click works."""
    form.uploads.add("picture")
    with gr.Column(elem_classes="at-source"):
        form.add(
            "picture",
            MaskPainter(
                None if sample is None else PaintedImage(image=sample, mask=None),
                paint=paint,
                label="Picture and mask" if paint else LABELS["picture"],
                elem_id=form.id("picture"),
                sample=sample,
                max_pixels=max_pixels,
                elem_classes="at-flush",
                height_px=460 if paint else 360,
            ),
        )


def add_strength(form: Form) -> None:
    with gr.Row():
        _slider(form, "strength", 0.0, 1.0, 0.75, 0.01)
        form.add(
            "resize_mode",
            gr.Dropdown(
                list(RESIZE_MODES),
                value="stretch",
                label=LABELS["resize_mode"],
                elem_id=form.id("resize_mode"),
                filterable=False,
            ),
        )


def add_mask_settings(form: Form) -> None:
    with gr.Row():
        _choice(form, "masked_content", MASKED_CONTENTS, "original")
        _choice(form, "mask_area", MASK_AREAS, "whole")
    with gr.Row():
        _slider(form, "mask_blur", 0, 64, 4, 1)
        _slider(form, "mask_padding", 0, 256, 32, 4)
    _choice(form, "mask_mode", MASK_MODES, "masked")


def add_sampling(form: Form, info: CheckpointInfo | None) -> None:
    with gr.Row():
        _choice(form, "sampler", tuple(SAMPLERS), "Euler a")
        _choice(form, "schedule", tuple(SCHEDULES), "Automatic")
    with gr.Row():
        _slider(form, "steps", 1, MAX_STEPS, DEFAULT_STEPS if info is None else info.num_inference_steps, 1)
        _slider(form, "cfg_scale", 1, 30, DEFAULT_GUIDANCE_SCALE if info is None else info.guidance_scale, 0.5)
    if form.task in PAINTED_TASKS:
        start = DEFAULT_IMAGE_GUIDANCE_SCALE
        _slider(form, "image_cfg_scale", 0, MAX_IMAGE_CFG_SCALE, start, 0.05, visible=edits_pictures(info))


def add_size(form: Form, native_size: int) -> None:
    with gr.Row(elem_classes="at-size"):
        _number(form, "width", native_size, step=8)
        form.buttons["swap"] = _small_button("Swap", form.id("swap"))
        _number(form, "height", native_size, step=8)
        if form.task in PAINTED_TASKS:
            form.buttons["fit"] = _small_button("Fit to picture", form.id("fit"))
            form.fitted = gr.JSON(visible=False)


def add_batches(form: Form) -> None:
    with gr.Row():
        _number(form, "batch_count", 1)
        _slider(form, "batch_size", 1, min(8, MAX_BATCH_SIZE), 1, 1)


def add_seed(form: Form) -> None:
    with gr.Row(elem_classes="at-seed"):
        _number(form, "seed", -1)
        form.buttons["random_seed"] = _small_button("Random", form.id("random_seed"))
        form.buttons["reuse_seed"] = _small_button("Reuse", form.id("reuse_seed"))


def add_advanced(form: Form) -> None:
    with gr.Accordion("Advanced", open=False, elem_id=form.id("advanced")):
        _slider(form, "clip_skip", 1, 12, 1, 1)
        _choice(form, "vae", VAE_CHOICES, AUTOMATIC_VAE)
        _choice(form, "image_format", IMAGE_FORMATS, "png")


def add_sections(form: Form, sections: tuple[Section, ...], *, opened: bool = False, on: bool = False) -> None:
    """The postprocessors, each with the switch that is its title; `opened` shows their settings."""
    form.sections = sections
    for section in sections:
        with gr.Column(elem_classes="at-step", elem_id=form.id(f"{section.id}-section")) as box:
            form.boxes[section.id] = box
            if section.problem:
                gr.Textbox(section.problem, label=section.title, interactive=False, lines=2)
                continue
            _add_switch(form, section, on=on)
            if section.fields:
                _add_settings(form, section, opened=opened)


def _add_switch(form: Form, section: Section, *, on: bool) -> None:
    switch = gr.Checkbox(
        on, label=section.title, elem_id=form.id(section.id), elem_classes="at-step-switch", container=False
    )
    form.add(section.id, switch)


def _add_settings(form: Form, section: Section, *, opened: bool) -> None:
    def id_of(name: str) -> str:
        return form.id(f"{section.id}.{name}")

    with gr.Accordion(
        "Settings", open=opened, elem_id=form.id(f"{section.id}-settings"), elem_classes="at-step-body"
    ) as fold:
        drawn = forms.draw(section.fields, id_of=id_of)
    form.folds[section.id] = (fold,)
    for part in section.fields:
        name = section.control(part)
        form.add(name, drawn.controls[part.name])
        form.folds[name] = (fold, *drawn.folds[part.name])
        if part.kind in forms.PICTURE_KINDS:
            form.uploads.add(name)


def add_pictures(form: Form) -> None:
    """The finished pictures to work on, one or several."""
    form.uploads.add("picture")
    form.add(
        "picture", PictureInput(label="Pictures", multiple=True, elem_id=form.id("picture"), elem_classes="at-flush")
    )


def _add_prompt(form: Form, name: str, start: str, placeholder: str) -> None:
    with gr.Column(elem_classes="at-prompt", min_width=280):
        form.add(
            name,
            gr.Textbox(
                start, label=LABELS[name], placeholder=placeholder, lines=3, max_lines=12, elem_id=form.id(name)
            ),
        )
        form.counters[name] = gr.HTML(
            "0/75",
            elem_id=form.id(f"{name}_tokens"),
            elem_classes="at-tokens",
            js_on_load=None,
            apply_default_css=False,
        )


def edits_pictures(info: CheckpointInfo | None) -> bool:
    """Whether the checkpoint is told the picture beside the prompt, and how closely to follow it."""
    return info is not None and FAMILIES[info.family].in_channels == EDITING_CHANNELS


def _slider(form: Form, name: str, low: float, high: float, start: float, step: float, *, visible: bool = True) -> None:
    shown: dict[str, Any] = {"label": LABELS[name], "elem_id": form.id(name), "min_width": 150, "visible": visible}
    form.add(name, gr.Slider(low, high, start, step=step, buttons=[], **shown))


def _number(form: Form, name: str, start: int, *, step: int = 1) -> None:
    # No bounds here: Gradio would refuse the value itself, with a message that does not name the control.
    form.add(name, gr.Number(start, label=LABELS[name], step=step, elem_id=form.id(name), min_width=90))


def _choice(form: Form, name: str, choices: Any, start: str) -> None:
    form.add(
        name,
        gr.Dropdown(list(choices), value=start, label=LABELS[name], elem_id=form.id(name), min_width=150),
    )


def _small_button(label: str, elem_id: str) -> Any:
    return gr.Button(label, elem_id=elem_id, elem_classes="at-small", size="sm", min_width=60, scale=0)
