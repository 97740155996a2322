"""What happens when something is clicked. Handlers take values by name and answer with updates by component.

Nothing is caught here: `stream.attempt` turns an error into words.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from webui.errors import InvalidRequest
from webui.images.reading import flatten, open_image
from webui.library.catalog import AUTOMATIC_VAE, DEFAULT_NATIVE_SIZE_PX, OWN_VAE, CheckpointInfo
from webui.services import Services
from webui.ui import sections
from webui.ui.controls import LABELS, Task, build_request, form_of, size_for, upright_size, usable_values
from webui.ui.form import VAE_CHOICES, Form, Shell, edits_pictures
from webui.ui.guard import owner_of
from webui.ui.mask_painter import PaintedImage
from webui.ui.stream import JobViews, Trouble, attempt

MEMORY_VERSION = 1
COUNTED = ("prompt", "negative_prompt")
OF_CHECKPOINT = ("width", "height", "steps", "cfg_scale")
"""Controls that take a checkpoint's own values when it is chosen."""
NO_STEP = "postprocess"
"""The field of a request that has no step, though it needs one."""
OF_MODELS = ("vae", "image_cfg_scale")
"""Controls whose choices or presence depend on the models there are."""

Updates = dict[Any, Any]
NOTHING: Updates = gr.skip()
"""Changes no component. Gradio takes an empty dict for a missing value and reports an error."""


class Handlers:
    def __init__(self, services: Services, views: JobViews, shell: Shell, forms: Mapping[Task, Form]) -> None:
        self._services = services
        self._views = views
        self._shell = shell
        self._forms = forms

    def generate(self, task: Task, values: Mapping[str, Any], request: gr.Request) -> Updates:
        """Submits, and answers with the job to follow or the control to mend, in sight."""
        form = self._forms[task]
        titles = {name: section.title for section in form.sections for name in form.controls_of(section)}
        owner = owner_of(request)

        def submit() -> str:
            steps = sections.steps_of(form.sections, values, self._keep)
            if task == "extras":
                return self._submit_each(values, steps, owner)
            return self._submit(task, values, steps, owner)

        job_id = attempt(submit, {**LABELS, **titles})
        if not isinstance(job_id, Trouble):
            return {form.results: {"job": job_id}}
        control = job_id.control
        named = control in titles and not job_id.text.startswith(job_id.title)
        _tell(replace(job_id, text=f"{job_id.title}: {job_id.text}") if named else job_id)
        if control == NO_STEP and form.sections:
            control = form.sections[0].id
        folds = {fold: gr.Accordion(open=True) for fold in form.folds.get(control, ())}
        return {form.results: {"problem": control}, **folds}

    def _submit(self, task: Task, values: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], owner: str) -> str:
        wanted = build_request(task, values, steps=steps, max_pixels=self._services.settings.max_image_pixels)
        return self._services.generate(wanted, owner=owner).id

    def _submit_each(self, values: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], owner: str) -> str:
        """A job for each picture; the first one's id. No job starts if one of them is no picture at all."""
        paths: Sequence[Path] = values["picture"] or ()
        if not paths:
            raise InvalidRequest("picture", "There is no picture to work on.", hint="Open, drop or paste one.")
        for path in paths:
            if 0 in upright_size(path):
                raise InvalidRequest(
                    "picture", f"'{path.name}' is not a picture that can be opened.", hint="Remove it."
                )
        ids = [self._submit("extras", {**values, "picture": PaintedImage(image=path)}, steps, owner) for path in paths]
        return ids[0]

    def _keep(self, path: Path) -> str:
        """The name of an uploaded picture that a step needs."""
        image = open_image(path, max_pixels=self._services.settings.max_image_pixels, name=path.name)
        return self._services.inputs.put(flatten(image))

    def _kept(self, name: str) -> Path | None:
        inputs = self._services.inputs
        return inputs.path(name) if name in inputs else None

    def open_section(self, on: bool) -> Any:
        """Shows the settings of a postprocessor that the user switches on."""
        return gr.Accordion(open=True) if on else NOTHING

    def count_tokens(self, text: str, checkpoint: str | None) -> str:
        """ "12/75"; nothing if the checkpoint has no tokenizer to ask."""
        counted = attempt(lambda: self._services.count_tokens(text or "", checkpoint or ""))
        return "" if isinstance(counted, Trouble) else f"{counted[0]}/{counted[1]}"

    def open_page(self, memories: Mapping[Task, Any], checkpoint: str | None, request: gr.Request) -> Updates:
        """What this browser remembers, into the forms; the list of checkpoints as it is now."""
        infos = self._services.checkpoints()
        chosen = _chosen(infos, checkpoint)
        updates = self._list_checkpoints(infos, chosen)
        for task, form in self._forms.items():
            memory = memories[task]
            known = isinstance(memory, dict) and memory.get("v") == MEMORY_VERSION
            told = memory["values"] if known and isinstance(memory["values"], dict) else {}
            values = usable_values(told) | sections.usable_values(form.sections, told)
            updates |= form.updates(values) | self._choices(form, chosen, values) | self._running_sections(form)
            for name in COUNTED:
                text = values.get(name, form.controls[name].value)
                updates[form.counters[name]] = self.count_tokens(text, chosen.name if chosen else "")
        tab = request.query_params.get("tab")
        if tab in self._shell.tab_names:
            updates[self._shell.tabs] = gr.Tabs(selected=tab)
        return updates

    def refresh_checkpoints(self, checkpoint: str | None) -> Updates:
        self._services.library.refresh()
        infos = self._services.checkpoints()
        return self._list_checkpoints(infos, _chosen(infos, checkpoint))

    def choose_checkpoint(self, checkpoint: str | None) -> Updates:
        """Its own size, steps, CFG scale and example prompts, in all tabs."""
        info = self._info(checkpoint)
        return NOTHING if info is None else self._settings_of(info)

    def _settings_of(self, info: CheckpointInfo) -> Updates:
        updates: Updates = {}
        for form in self._forms.values():
            own = (info.native_size, info.native_size, info.num_inference_steps, info.guidance_scale)
            updates |= form.updates(dict(zip(OF_CHECKPOINT, own, strict=True)))
            updates |= form.updates({"image_cfg_scale": gr.Slider(visible=edits_pictures(info))})
            if form.chips is not None:
                updates[form.chips] = {"samples": list(info.example_prompts), "chosen": ""}
        return updates

    def pick_model(self, click: Mapping[str, Any]) -> Updates:
        """The card of a checkpoint or VAE was clicked: as if it had been chosen from its list."""
        form = self._forms.get(click.get("task", ""))
        if "vae" in click and form is not None:
            known = click["vae"] in (AUTOMATIC_VAE, *self._services.vaes())
            return form.updates({"vae": click["vae"]}) if known else NOTHING
        name = str(click.get("checkpoint", ""))
        info = self._info(name)
        if info is None:
            return NOTHING
        return {**self._list_checkpoints(self._services.checkpoints(), info), **self._settings_of(info)}

    def restore(self, task: Task, path: str | None) -> Updates:
        """The settings that a dropped or opened picture was made with."""
        if not path:
            return NOTHING
        restored = attempt(lambda: self._services.restore(Path(path)))
        if isinstance(restored, Trouble):
            _tell(restored)
            return NOTHING
        form = self._forms[task]
        steps, more = sections.values_of(form.sections, restored.values["postprocess"], self._kept)
        values = form_of(restored.values) | steps
        checkpoint = values.pop("checkpoint", "")
        notes = [*restored.notes, *more]
        self._keep_known_vae(values, notes)
        updates = form.updates(values) | _unfolded(form, values)
        if self._info(checkpoint) is not None:
            updates[self._shell.checkpoint] = checkpoint
        elif checkpoint:
            notes.append(f"Its checkpoint '{checkpoint}' is not here; the chosen one stays.")
        gr.Info(" ".join(notes), title="Settings restored")
        return updates

    def reuse(self, task: Task, event: Mapping[str, Any], request: gr.Request) -> Updates:
        """All settings of a shown picture, its own seed included."""

        form = self._forms[task]

        def look_up() -> dict[str, Any]:
            picture = self._views.picture(str(event["job"]), int(event["index"]), owner_of(request))
            parameters = self._services.queue.record(str(event["job"])).payload["parameters"]
            steps, _ = sections.values_of(form.sections, parameters.get("postprocess", ()), self._kept)
            return form_of({**parameters, "seed": picture.seed}) | steps

        values = attempt(look_up)
        if isinstance(values, Trouble):
            _tell(values)
            return NOTHING
        checkpoint = values.pop("checkpoint", "")
        self._keep_known_vae(values, [])
        updates = form.updates(values) | _unfolded(form, values)
        if self._info(checkpoint) is not None:
            updates[self._shell.checkpoint] = checkpoint
        return updates

    def send(self, target: Task, event: Mapping[str, Any], request: gr.Request) -> Updates:
        """A shown picture as the input of another tab, with its prompts and its size."""

        def look_up() -> dict[str, Any]:
            picture = self._views.picture(str(event["job"]), int(event["index"]), owner_of(request))
            parameters = self._services.queue.record(str(event["job"])).payload["parameters"]
            native = self._native_size(parameters["checkpoint"])
            width, height = size_for((picture.width, picture.height), (native, native))
            return {
                "picture": [picture.path] if target == "extras" else PaintedImage(image=picture.path, mask=None),
                "prompt": parameters["prompt"],
                "negative_prompt": parameters["negative_prompt"],
                "width": width,
                "height": height,
            }

        values = attempt(look_up)
        if isinstance(values, Trouble):
            _tell(values)
            return NOTHING
        return {**self._forms[target].updates(values), self._shell.tabs: gr.Tabs(selected=target)}

    def fit_size(self, painted: PaintedImage | None, checkpoint: str | None) -> Any:
        """[width, height] in the shape of the input picture."""
        size = (0, 0) if painted is None or painted.image is None else upright_size(painted.image)
        if 0 in size:
            gr.Warning("There is no picture to take the size from.", title="Picture")
            return None
        native = self._native_size(checkpoint)
        return list(size_for(size, (native, native)))

    def _list_checkpoints(self, infos: list[CheckpointInfo], chosen: CheckpointInfo | None) -> Updates:
        updates: Updates = {
            self._shell.checkpoint: gr.Dropdown(
                choices=checkpoint_choices(infos), value=chosen.name if chosen else None
            ),
            self._shell.problems: {"problems": problems_of(infos)},
            self._shell.models: {"chosen": chosen.name if chosen else ""},
        }
        for form in self._forms.values():
            samples = list(chosen.example_prompts) if chosen else []
            if form.chips is not None:
                updates[form.chips] = {"samples": samples, "chosen": ""}
            updates |= self._choices(form, chosen, {})
        return updates

    def _choices(self, form: Form, chosen: CheckpointInfo | None, values: Mapping[str, Any]) -> Updates:
        """Controls whose choices or presence depend on the models there are, with remembered `values` they can show."""
        names = self._services.vaes()
        vae: dict[str, Any] = {"choices": [*VAE_CHOICES, *names]}
        if "vae" in values:
            vae["value"] = values["vae"] if values["vae"] in (AUTOMATIC_VAE, OWN_VAE, *names) else AUTOMATIC_VAE
        scale = {"value": values["image_cfg_scale"]} if "image_cfg_scale" in values else {}
        shown = gr.Slider(visible=edits_pictures(chosen), **scale)
        return form.updates({"vae": gr.Dropdown(**vae), "image_cfg_scale": shown})

    def _running_sections(self, form: Form) -> Updates:
        """Shows the postprocessors whose extension runs, and hides the others."""
        running = {one.id for one in self._services.host.postprocessors()}
        return {box: gr.Column(visible=id in running) for id, box in form.boxes.items()}

    def _keep_known_vae(self, values: dict[str, Any], notes: list[str]) -> None:
        """Puts the name by which the list here knows a picture's VAE; leaves the chosen one where it knows none."""
        if values.get("vae", AUTOMATIC_VAE) in (AUTOMATIC_VAE, OWN_VAE):
            return
        found = attempt(lambda: self._services.library.find_vae(values["vae"]).name)
        if isinstance(found, Trouble):
            notes.append(f"Its VAE '{values.pop('vae')}' is not here; the chosen one stays.")
        else:
            values["vae"] = found

    def _info(self, checkpoint: str | None) -> CheckpointInfo | None:
        usable = (info for info in self._services.checkpoints() if not info.problem)
        return next((info for info in usable if info.name == checkpoint), None)

    def _native_size(self, checkpoint: str | None) -> int:
        info = self._info(checkpoint)
        return DEFAULT_NATIVE_SIZE_PX if info is None else info.native_size


def checkpoint_choices(infos: list[CheckpointInfo]) -> list[tuple[str, str]]:
    return [(info.title, info.name) for info in infos if not info.problem]


def problems_of(infos: list[CheckpointInfo]) -> list[str]:
    """One line for each checkpoint that cannot be used."""
    return [f"{info.title}: {info.problem}" for info in infos if info.problem]


def _chosen(infos: list[CheckpointInfo], name: str | None) -> CheckpointInfo | None:
    """The named checkpoint if it can be used, else the first that can."""
    usable = [info for info in infos if not info.problem]
    return next((info for info in usable if info.name == name), usable[0] if usable else None)


def _unfolded(form: Form, values: Mapping[str, Any]) -> Updates:
    """Opens the sections that `values` switches on: what they wait for, such as a consent, no picture brings back."""
    on = [one.id for one in form.sections if values.get(one.id) and one.id in form.folds]
    return {form.folds[id][0]: gr.Accordion(open=True) for id in on}


def _tell(trouble: Trouble) -> None:
    gr.Warning(trouble.text, title=trouble.title)
