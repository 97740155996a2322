"""What happens when something is clicked. Handlers take values by name and answer with updates by component.

Nothing is caught here: `stream.attempt` turns an error into words.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from webui.library.catalog import AUTOMATIC_VAE, DEFAULT_NATIVE_SIZE_PX, OWN_VAE, CheckpointInfo
from webui.services import Services
from webui.ui.controls import Task, build_request, form_of, size_for, upright_size, usable_values
from webui.ui.form import VAE_CHOICES, Form, Shell, edits_pictures
from webui.ui.guard import owner_of
from webui.ui.mask_painter import PaintedImage
from webui.ui.stream import JobViews, Trouble, attempt

MEMORY_VERSION = 1
COUNTED = ("prompt", "negative_prompt")
OF_CHECKPOINT = ("width", "height", "steps", "cfg_scale")
"""Controls that take a checkpoint's own values when it is chosen."""
OF_MODELS = ("vae", "image_cfg_scale")
"""Controls whose choices or presence depend on the models there are."""

Updates = dict[Any, Any]


class Handlers:
    def __init__(self, services: Services, views: JobViews, shell: Shell, forms: Mapping[Task, Form]) -> None:
        self._services = services
        self._views = views
        self._shell = shell
        self._forms = forms

    def generate(self, task: Task, values: Mapping[str, Any], request: gr.Request) -> dict[str, str]:
        """Submits, and answers with the job to follow or the control to mend."""
        max_pixels = self._services.settings.max_image_pixels

        def submit() -> str:
            wanted = build_request(task, values, max_pixels=max_pixels)
            return self._services.generate(wanted, owner=owner_of(request)).id

        job_id = attempt(submit)
        if isinstance(job_id, Trouble):
            _tell(job_id)
            return {"problem": job_id.control}
        return {"job": job_id}

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
            values = usable_values(memory["values"]) if known and isinstance(memory["values"], dict) else {}
            updates |= form.updates(values) | self._choices(form, chosen, values)
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
        if info is None:
            return {}
        updates: Updates = {}
        for form in self._forms.values():
            own = (info.native_size, info.native_size, info.num_inference_steps, info.guidance_scale)
            updates |= form.updates(dict(zip(OF_CHECKPOINT, own, strict=True)))
            updates |= form.updates({"image_cfg_scale": gr.Slider(visible=edits_pictures(info))})
            updates[form.chips] = {"samples": list(info.example_prompts), "chosen": ""}
        return updates

    def pick_model(self, click: Mapping[str, Any]) -> Updates:
        """The card of a checkpoint or VAE was clicked: as if it had been chosen from its list."""
        form = self._forms.get(click.get("task", ""))
        if "vae" in click and form is not None:
            known = click["vae"] in (AUTOMATIC_VAE, *self._services.vaes())
            return form.updates({"vae": click["vae"]}) if known else {}
        name = str(click.get("checkpoint", ""))
        info = self._info(name)
        if info is None:
            return {}
        return {**self._list_checkpoints(self._services.checkpoints(), info), **self.choose_checkpoint(name)}

    def restore(self, task: Task, path: str | None) -> Updates:
        """The settings that a dropped or opened picture was made with."""
        if not path:
            return {}
        restored = attempt(lambda: self._services.restore(Path(path)))
        if isinstance(restored, Trouble):
            _tell(restored)
            return {}
        values = form_of(restored.values)
        checkpoint = values.pop("checkpoint", "")
        notes = list(restored.notes)
        self._keep_known_vae(values, notes)
        updates = self._forms[task].updates(values)
        if self._info(checkpoint) is not None:
            updates[self._shell.checkpoint] = checkpoint
        elif checkpoint:
            notes.append(f"Its checkpoint '{checkpoint}' is not here; the chosen one stays.")
        gr.Info(" ".join(notes), title="Settings restored")
        return updates

    def reuse(self, task: Task, event: Mapping[str, Any], request: gr.Request) -> Updates:
        """All settings of a shown picture, its own seed included."""

        def look_up() -> dict[str, Any]:
            picture = self._views.picture(str(event["job"]), int(event["index"]), owner_of(request))
            parameters = self._services.queue.record(str(event["job"])).payload["parameters"]
            return form_of({**parameters, "seed": picture.seed})

        values = attempt(look_up)
        if isinstance(values, Trouble):
            _tell(values)
            return {}
        checkpoint = values.pop("checkpoint", "")
        self._keep_known_vae(values, [])
        updates = self._forms[task].updates(values)
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
                "picture": PaintedImage(image=picture.path, mask=None),
                "prompt": parameters["prompt"],
                "negative_prompt": parameters["negative_prompt"],
                "width": width,
                "height": height,
            }

        values = attempt(look_up)
        if isinstance(values, Trouble):
            _tell(values)
            return {}
        return {**self._forms[target].updates(values), self._shell.tabs: gr.Tabs(selected=target)}

    def fit_size(self, painted: PaintedImage | None, checkpoint: str | None) -> tuple[Any, Any]:
        """Width and height in the shape of the input picture."""
        size = (0, 0) if painted is None or painted.image is None else upright_size(painted.image)
        if 0 in size:
            gr.Warning("There is no picture to take the size from.", title="Picture")
            return gr.skip(), gr.skip()
        native = self._native_size(checkpoint)
        return size_for(size, (native, native))

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


def _tell(trouble: Trouble) -> None:
    gr.Warning(trouble.text, title=trouble.title)
