"""How a picture was made, as text: the `parameters` line every tool of the field reads, and back to a form.

Our own JSON beside it holds the same without loss; it is used first. Keys and words are the de-facto standard's.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import webui
from webui.errors import InvalidRequest
from webui.generation.outcome import Outcome
from webui.generation.parameters import Parameters, parameters_of, parse_parameters
from webui.generation.postprocess import NO_ADDITIONS, Additions, PostprocessStep
from webui.generation.request import Extras, GenerationRequest, Inpaint
from webui.generation.steps import HasPicture, read_steps, restored_steps
from webui.images.infotext import Infotext, format_infotext, parse_infotext
from webui.images.metadata import ImageMetadata
from webui.library.catalog import AUTOMATIC_VAE
from webui.pipeline.samplers import find_sampler
from webui.pipeline.schedules import SCHEDULES, find_schedule

NOTHING_MORE: Mapping[str, str] = MappingProxyType({})
RESIZE_WORDS = MappingProxyType({"stretch": "Just resize", "crop": "Crop and resize", "fill": "Resize and fill"})

EXTRAS = "Extras"
"""What an infotext calls the task that generates nothing."""

FIRST_KEYS = ("Steps", "Sampler", "Schedule type", "CFG scale", "Image CFG scale", "Seed", "Size", "Model hash",
              "Model", "VAE hash", "VAE", "Denoising strength", "Clip skip")  # fmt: skip
"""In this order; what else there is follows."""


def metadata_of(
    request: GenerationRequest,
    *,
    seed: int,
    size: tuple[int, int],
    made_with: Mapping[str, str] | None = NOTHING_MORE,
    outcome: Outcome | None = None,
) -> ImageMetadata:
    """Metadata of one picture of `request`: made with `seed`, and `size` pixels wide and high when saved.

    `made_with` says in the infotext's own keys what only the run knows, such as hashes of the files used; None where
    no model had a part in it. `outcome` is what the steps made of the picture.
    """
    steps = () if outcome is None else outcome.steps
    single = parameters_of(request).model_copy(
        update={"seed": seed, "num_batches": 1, "batch_size": 1, "postprocess": steps}
    )
    # What a model would have been told is not how this picture was made.
    fields = _fields_of_unpainted(request, seed) if made_with is None else _fields(request, seed)
    if size != (request.width, request.height) or isinstance(request.init, Extras):
        fields["Saved size"] = f"{size[0]}x{size[1]}"
    fields = _ordered({**fields, **(made_with or {})})
    if outcome is not None:
        fields |= outcome.words
    fields["Version"] = f"Atelier {webui.__version__}"
    text = Infotext(prompt=request.prompt, negative_prompt=request.negative_prompt, fields=fields)
    return ImageMetadata(
        infotext=format_infotext(text),
        # Pictures without steps say nothing of steps.
        request_json=single.model_dump_json(exclude=None if steps else {"postprocess"}),
        texts={} if outcome is None else outcome.texts,
        is_composite=outcome is not None and outcome.is_composite,
    )


def _fields_of_unpainted(request: GenerationRequest, seed: int) -> dict[str, str]:
    return {"Task": EXTRAS, "Seed": str(seed), "Model": request.checkpoint}


def _fields(request: GenerationRequest, seed: int) -> dict[str, str]:
    sampling = request.sampling
    fields = {
        "Steps": str(sampling.num_inference_steps),
        "Sampler": sampling.sampler,
        "Schedule type": sampling.schedule,
        "CFG scale": f"{sampling.guidance_scale:g}",
        "Seed": str(seed),
        "Size": f"{request.width}x{request.height}",
        "Model": request.checkpoint,
    }
    if request.vae != AUTOMATIC_VAE:
        fields["VAE"] = request.vae
    if isinstance(request.init, Extras):
        fields["Task"] = EXTRAS
    elif request.init is not None:
        fields["Denoising strength"] = f"{request.init.strength:g}"
        fields["Resize mode"] = RESIZE_WORDS[request.init.resize_mode]
    if request.clip_skip:
        fields["Clip skip"] = str(request.clip_skip + 1)
    if sampling.eta is not None:
        fields["Eta"] = f"{sampling.eta:g}"
    if isinstance(request.init, Inpaint):
        fields |= _mask_fields(request.init)
    return fields


def _ordered(fields: Mapping[str, str]) -> dict[str, str]:
    keys = [key for key in FIRST_KEYS if key in fields]
    return {key: fields[key] for key in (*keys, *(key for key in fields if key not in keys))}


def _mask_fields(init: Inpaint) -> dict[str, str]:
    spec = init.mask
    fields = {
        "Mask mode": "Inpaint not masked" if spec.inverted else "Inpaint masked",
        "Mask blur": str(spec.blur_px),
        "Masked content": spec.content,
        "Inpaint area": "Only masked" if spec.area == "masked" else "Whole picture",
    }
    if spec.area == "masked":
        fields["Masked area padding"] = str(spec.padding_px)
    return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredSettings:
    """`values` are fields of `Parameters` that the picture told; `notes` say what could not be taken over."""

    values: Mapping[str, Any]
    notes: tuple[str, ...]


def restore_settings(
    metadata: ImageMetadata, additions: Additions = NO_ADDITIONS, *, has_picture: HasPicture = lambda name: True
) -> RestoredSettings:
    """Reads our own JSON, or the infotext of any tool that writes the common form. Never raises.

    `postprocess` is always among the values, a list of {"id", "params"} with complete parameters.
    """
    try:
        parameters = Parameters.model_validate_json(metadata.request_json)
    except ValueError:  # none, or written by another version: the infotext says the same in words
        values, steps, notes = _read_infotext(parse_infotext(metadata.infotext), additions)
    else:
        values, steps, notes = parameters.model_dump(), parameters.postprocess, ()
    steps, more = restored_steps(steps, additions, has_picture)
    values["postprocess"] = [{"id": step.id, "params": step.params} for step in steps]
    return RestoredSettings(values=values, notes=(*notes, *more))


def _read_infotext(
    infotext: Infotext, additions: Additions
) -> tuple[dict[str, Any], tuple[PostprocessStep, ...], tuple[str, ...]]:
    """Values, steps as they stand there, and notes."""
    values: dict[str, Any] = {"prompt": infotext.prompt, "negative_prompt": infotext.negative_prompt}
    notes: list[str] = []
    for key, text in infotext.fields.items():
        if key not in _READERS:
            continue
        try:
            read = read_field(key, text)
            parse_parameters({"checkpoint": "", **read})
        except (ValueError, KeyError, InvalidRequest):
            notes.append(f"{key} '{text}' is not known here and was left as it is.")
        else:
            values |= read
    steps, more = read_steps(infotext.fields, additions, known=OWN_KEYS)
    return values, steps, (*notes, *more)


def read_field(key: str, text: str) -> dict[str, Any]:
    """The fields of `Parameters` that the infotext's field `key` sets, their ranges not checked.

    Raises ValueError, KeyError or InvalidRequest for a text that says nothing, KeyError for a key that is not read.
    """
    return _READERS[key](text)


def _sampler_and_schedule(text: str) -> dict[str, Any]:
    """Old names carry the schedule as their last word: "DPM++ 2M Karras"."""
    try:
        return {"sampler": find_sampler(text).label}
    except InvalidRequest:
        for schedule in SCHEDULES.values():
            for name in (schedule.label, *schedule.aliases):
                if text.lower().endswith(f" {name.lower()}"):
                    return {"sampler": find_sampler(text[: -len(name) - 1]).label, "schedule": schedule.label}
        raise


def _size(text: str) -> dict[str, Any]:
    match = re.fullmatch(r"(\d+)\s*x\s*(\d+)", text)
    if match is None:
        raise ValueError(text)
    return {"width": int(match[1]), "height": int(match[2])}


def _resize_mode(text: str) -> dict[str, Any]:
    return {"resize_mode": {word: mode for mode, word in RESIZE_WORDS.items()}[text]}


def _task(text: str) -> dict[str, Any]:
    return {"task": {EXTRAS: "extras"}[text]}


_READERS: Mapping[str, Callable[[str], dict[str, Any]]] = MappingProxyType(
    {
        "Steps": lambda text: {"num_inference_steps": int(text)},
        "Sampler": _sampler_and_schedule,
        "Schedule type": lambda text: {"schedule": find_schedule(text).label},
        "CFG scale": lambda text: {"guidance_scale": float(text)},
        "Image CFG scale": lambda text: {"image_guidance_scale": float(text)},
        "Seed": lambda text: {"seed": int(text)},
        "Size": _size,
        "Model": lambda text: {"checkpoint": text},
        "VAE": lambda text: {"vae": text},
        "Clip skip": lambda text: {"clip_skip": int(text) - 1},
        "Eta": lambda text: {"eta": float(text)},
        "Denoising strength": lambda text: {"strength": float(text), "task": "img2img"},
        "Resize mode": _resize_mode,
        "Mask mode": lambda text: {"mask_inverted": text == "Inpaint not masked"},
        "Mask blur": lambda text: {"mask_blur_px": int(float(text)), "task": "inpaint"},
        "Masked content": lambda text: {"mask_content": text},
        "Inpaint area": lambda text: {"mask_area": "masked" if text == "Only masked" else "whole"},
        "Masked area padding": lambda text: {"mask_padding_px": int(text)},
        "Task": _task,
    }
)

OWN_KEYS = frozenset({*FIRST_KEYS, *_READERS, "Saved size", "Version", "Lora hashes", "Lora layers", "TI hashes"})
"""No postprocessor may report a field by one of these names."""
