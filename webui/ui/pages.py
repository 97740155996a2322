"""The pages as a whole: side bar, tabs, and which click calls which handler."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from webui.library.catalog import DEFAULT_NATIVE_SIZE_PX, CheckpointInfo
from webui.services import Services
from webui.ui.controls import TASKS, Task
from webui.ui.form import PAINTED_TASKS, Form, Problems, Queue, Shell
from webui.ui.handlers import COUNTED, OF_CHECKPOINT, OF_MODELS, Handlers, Updates, checkpoint_choices, problems_of
from webui.ui.mask_painter import flush_js
from webui.ui.models_panel import ModelsLink
from webui.ui.sections import Section, sections_of
from webui.ui.stream import JobViews
from webui.ui.tabs.extensions import build_extension_tabs, build_extensions
from webui.ui.tabs.extras import build_extras
from webui.ui.tabs.img2img import build_img2img
from webui.ui.tabs.inpaint import build_inpaint
from webui.ui.tabs.models import build_models
from webui.ui.tabs.training import build_training
from webui.ui.tabs.txt2img import build_txt2img

MEMORY_SECRET = "atelier"
"""Fixed, so that values outlive a restart. They are the form's, in the user's own browser: nothing to hide."""
SENT_TO: tuple[Task, ...] = ("img2img", "inpaint", "extras")
"""The tabs that take a shown picture."""
OFFERED = ("sampler", "schedule", "steps", "cfg_scale")
"""Controls that a model's recommended settings can set, as `models_offers.js` lists them."""
CACHE_SWEEP_S = 3600
CACHE_AGE_S = 24 * 3600


def build_blocks(services: Services, views: JobViews) -> gr.Blocks:
    infos = services.checkpoints()
    start = next((info for info in infos if not info.problem), None)
    with gr.Blocks(
        title="Atelier", analytics_enabled=False, fill_width=True, delete_cache=(CACHE_SWEEP_S, CACHE_AGE_S)
    ) as blocks:
        memories = {task: gr.BrowserState(None, storage_key=f"atelier-{task}", secret=MEMORY_SECRET) for task in TASKS}
        checkpoint_memory = gr.BrowserState(None, storage_key="atelier-checkpoint", secret=MEMORY_SECRET)
        with gr.Row(elem_classes="at-page"):
            shell = _build_sidebar(infos, start)
            with gr.Column(elem_classes="at-main"):
                sections = sections_of(services.host.postprocessors())
                forms = _build_tabs(shell, start, sections, services)
        handlers = Handlers(services, views, shell, forms)
        for form in forms.values():
            _connect_form(form, shell, handlers, memories[form.task])
            _connect_results(form, forms, shell, handlers)
        _connect_shell(blocks, shell, forms, handlers, memories, checkpoint_memory)
    return blocks


def _build_tabs(
    shell: Shell, start: CheckpointInfo | None, sections: tuple[Section, ...], services: Services
) -> dict[Task, Form]:
    max_pixels = services.settings.max_image_pixels
    size = DEFAULT_NATIVE_SIZE_PX if start is None else start.native_size
    forms: dict[Task, Form] = {}
    with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as shell.tabs:
        with gr.Tab("txt2img", id="txt2img") as shell.tab_names["txt2img"]:
            forms["txt2img"] = build_txt2img(start, size, sections)
        with gr.Tab("img2img", id="img2img") as shell.tab_names["img2img"]:
            forms["img2img"] = build_img2img(start, size, sections, max_pixels=max_pixels)
        with gr.Tab("Inpaint", id="inpaint") as shell.tab_names["inpaint"]:
            forms["inpaint"] = build_inpaint(start, size, sections, max_pixels=max_pixels)
        with gr.Tab("Extras", id="extras") as shell.tab_names["extras"]:
            forms["extras"] = build_extras(start, size, sections)
        with gr.Tab("Models", id="models") as shell.tab_names["models"]:
            build_models()
        with gr.Tab("Training", id="training") as shell.tab_names["training"]:
            build_training()
        with gr.Tab("Extensions", id="extensions") as shell.tab_names["extensions"]:
            build_extensions()
        build_extension_tabs(services.host.tabs(), shell.tab_names.setdefault)
    return forms


def _build_sidebar(infos: list[CheckpointInfo], start: CheckpointInfo | None) -> Shell:
    # Not gr.Sidebar: that one lies over the page on narrow windows, and hides the list of jobs when it is closed.
    with gr.Column(elem_id="sidebar", min_width=200, scale=0):
        with gr.Row(elem_classes="at-top"):
            gr.HTML('<h1 class="at-brand">Atelier</h1>', js_on_load=None, elem_classes="at-flush")
            theme = gr.Button("Light or dark", size="sm", elem_id="theme", min_width=96, scale=0)
        checkpoint = gr.Dropdown(
            checkpoint_choices(infos),
            value=None if start is None else start.name,
            label="Checkpoint",
            elem_id="checkpoint",
            interactive=True,
            min_width=180,
        )
        refresh = gr.Button("Refresh", size="sm", elem_id="refresh", min_width=80)
        problems = Problems(problems_of(infos), elem_id="problems")
        Queue(elem_id="queue")
        models = ModelsLink("" if start is None else start.name, elem_id="models_link")
    return Shell(checkpoint=checkpoint, refresh=refresh, problems=problems, theme=theme, models=models)


def _connect_form(form: Form, shell: Shell, handlers: Handlers, memory: Any) -> None:
    task, controls, buttons = form.task, form.controls, form.buttons
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    by_script: dict[str, Any] = {"fn": None, "queue": False, "api_visibility": "private"}

    def generate(values: dict[Any, Any], request: gr.Request) -> Updates:
        named = {name: values[control] for name, control in controls.items()}
        return handlers.generate(task, {**named, "checkpoint": values[shell.checkpoint]}, request)

    # First the last stroke and what is being uploaded, then the form.
    submit = buttons["generate"].click(js="atelierPictures.flush", **by_script).success
    if task in PAINTED_TASKS:
        submit = submit(js=flush_js(form.id("picture")), **by_script).success
    folds = {fold for around in form.folds.values() for fold in around}
    submit(generate, {*controls.values(), shell.checkpoint}, {form.results, *folds}, trigger_mode="once", **quiet)
    buttons["interrupt"].click(js="() => atelier.act('interrupt')", **by_script)
    if "skip" in buttons:
        buttons["skip"].click(js="() => atelier.act('skip')", **by_script)
    for section in form.sections:
        if section.id in form.folds:
            controls[section.id].input(
                handlers.open_section, controls[section.id], form.folds[section.id][0], queue=False, **quiet
            )
    sides = [controls["width"], controls["height"]]
    buttons["swap"].click(js="(width, height) => [height, width]", inputs=sides, outputs=sides, **by_script)
    buttons["random_seed"].click(js="() => -1", outputs=controls["seed"], **by_script)
    buttons["reuse_seed"].click(js=f"() => atelier.shownSeed('{task}')", outputs=controls["seed"], **by_script)
    if form.chips is not None:
        form.chips.pick(js="(value) => value.chosen", inputs=form.chips, outputs=controls["prompt"], **by_script)
    if form.models is not None:
        offered = [controls[name] for name in OFFERED]
        form.models.pick(
            js=f"atelierOffers.taken('{task}')", inputs=[form.models, *offered], outputs=offered, **by_script
        )
    if "fit" in buttons:
        gr.on(
            [buttons["fit"].click, controls["picture"].upload],
            handlers.fit_size,
            [controls["picture"], shell.checkpoint],
            form.fitted,
            **quiet,
        ).success(js=f"atelier.fitted('{task}')", inputs=[form.fitted, *sides], outputs=sides, **by_script)
    for name in COUNTED:
        controls[name].change(
            handlers.count_tokens,
            [controls[name], shell.checkpoint],
            form.counters[name],
            trigger_mode="always_last",
            queue=False,
            **quiet,
        )
    form.restore.upload(
        functools.partial(handlers.restore, task), form.restore, {*controls.values(), shell.checkpoint, *folds}, **quiet
    )
    controls["vae"].change(js=f"(name) => atelierModels.choseVae('{task}', name)", inputs=controls["vae"], **by_script)
    remembered = form.remembered()
    gr.on(
        [control.change for control in remembered.values()],
        js=f"atelier.remember({json.dumps(list(remembered))})",
        inputs=list(remembered.values()),
        outputs=memory,
        **by_script,
    )


def _connect_results(form: Form, forms: Mapping[Task, Form], shell: Shell, handlers: Handlers) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def reuse(event: gr.EventData, request: gr.Request) -> Updates:
        return handlers.reuse(form.task, event._data, request)

    folds = {fold for around in form.folds.values() for fold in around}
    form.results.reuse(reuse, None, {*form.controls.values(), shell.checkpoint, *folds}, **quiet)
    for target in SENT_TO:
        _connect_send(form, forms[target], shell, handlers)


def _connect_send(form: Form, target: Form, shell: Shell, handlers: Handlers) -> None:
    def send(event: gr.EventData, request: gr.Request) -> Updates:
        return handlers.send(target.task, event._data, request)

    listen = getattr(form.results, f"send_{target.task}")
    listen(send, None, {*target.controls.values(), shell.tabs}, show_progress="hidden", api_visibility="private")


def _connect_shell(
    blocks: gr.Blocks,
    shell: Shell,
    forms: Mapping[Task, Form],
    handlers: Handlers,
    memories: Mapping[Task, Any],
    checkpoint_memory: Any,
) -> None:
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    by_script: dict[str, Any] = {"fn": None, "queue": False, "api_visibility": "private"}
    chips = {form.chips for form in forms.values() if form.chips is not None}
    boxes = {box for form in forms.values() for box in form.boxes.values()}
    counters = {counter for form in forms.values() for counter in form.counters.values()}
    remembered = {control for form in forms.values() for control in form.remembered().values()}
    of_models = {form.controls[name] for form in forms.values() for name in OF_MODELS if name in form.controls}
    lists = {shell.checkpoint, shell.problems, shell.models, *chips, *of_models}

    def open_page(values: dict[Any, Any], request: gr.Request) -> Updates:
        return handlers.open_page(
            {task: values[memory] for task, memory in memories.items()}, values[checkpoint_memory], request
        )

    blocks.load(
        open_page,
        {*memories.values(), checkpoint_memory},
        {*lists, *counters, *remembered, *boxes, shell.tabs},
        **quiet,
    ).then(js="() => atelier.ready()", **by_script)
    shell.refresh.click(handlers.refresh_checkpoints, shell.checkpoint, lists, **quiet)
    its_own = {form.controls[name] for form in forms.values() for name in OF_CHECKPOINT} | of_models
    shell.checkpoint.input(handlers.choose_checkpoint, shell.checkpoint, {*its_own, *chips}, **quiet)
    shell.models.pick(handlers.pick_model, shell.models, {*lists, *its_own}, **quiet)
    shell.checkpoint.change(
        js="(name) => atelierModels.chose(name)", inputs=shell.checkpoint, outputs=checkpoint_memory, **by_script
    )
    shell.theme.click(js="() => atelier.toggleTheme()", **by_script)
    for name, tab in shell.tab_names.items():
        tab.select(js=f"() => atelier.openTab('{name}')", **by_script)
