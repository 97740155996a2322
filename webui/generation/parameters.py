"""The flat parameters of a request: one model for the form, the command line, stored jobs and picture metadata.

Pictures and masks are not parameters; they are handed over beside them.
"""

from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from webui.errors import InvalidRequest
from webui.generation.postprocess import PostprocessStep
from webui.generation.request import (
    DEFAULT_IMAGE_GUIDANCE_SCALE,
    Extras,
    GenerationRequest,
    Img2Img,
    Inpaint,
    MaskArea,
    MaskedContent,
    MaskSpec,
    Sampling,
)
from webui.images.geometry import ResizeMode
from webui.images.metadata import ImageFormat
from webui.library.catalog import AUTOMATIC_VAE


class Parameters(BaseModel):
    """Defaults are those of the values in `request`, where ranges are checked and units explained."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    checkpoint: str
    prompt: str = ""
    negative_prompt: str = ""
    width: int = 512
    height: int = 512
    num_batches: int = 1
    batch_size: int = 1
    seed: int | None = None
    clip_skip: int = 0
    vae: str = AUTOMATIC_VAE
    sampler: str = "Euler a"
    schedule: str = "Automatic"
    num_inference_steps: int = 20
    guidance_scale: float = 7.0
    image_guidance_scale: float = DEFAULT_IMAGE_GUIDANCE_SCALE
    eta: float | None = None
    image_format: ImageFormat = "png"
    task: Literal["txt2img", "img2img", "inpaint", "extras"] = "txt2img"
    strength: float = 0.75
    resize_mode: ResizeMode = "stretch"
    mask_blur_px: int = 4
    mask_inverted: bool = False
    mask_area: MaskArea = "whole"
    mask_padding_px: int = 32
    mask_content: MaskedContent = "original"
    postprocess: tuple[PostprocessStep, ...] = ()


def parse_parameters(values: dict[str, Any]) -> Parameters:
    """Raises InvalidRequest that names the first field that is wrong."""
    try:
        return Parameters(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(field, f"{field} cannot be {first.get('input')!r}: {first['msg']}.") from error


def build_request(
    parameters: Parameters, *, image: Image.Image | None = None, mask: Image.Image | None = None
) -> GenerationRequest:
    """The request of `parameters`; `image` is RGB, `mask` is mode "L". Raises InvalidRequest."""
    return GenerationRequest(
        checkpoint=parameters.checkpoint,
        prompt=parameters.prompt,
        negative_prompt=parameters.negative_prompt,
        width=parameters.width,
        height=parameters.height,
        num_batches=parameters.num_batches,
        batch_size=parameters.batch_size,
        seed=parameters.seed,
        clip_skip=parameters.clip_skip,
        vae=parameters.vae,
        sampling=Sampling(
            sampler=parameters.sampler,
            schedule=parameters.schedule,
            num_inference_steps=parameters.num_inference_steps,
            guidance_scale=parameters.guidance_scale,
            image_guidance_scale=parameters.image_guidance_scale,
            eta=parameters.eta,
        ),
        init=_build_init(parameters, image, mask),
        image_format=parameters.image_format,
        postprocess=parameters.postprocess,
    )


def _build_init(
    parameters: Parameters, image: Image.Image | None, mask: Image.Image | None
) -> Img2Img | Inpaint | Extras | None:
    if parameters.task == "txt2img":
        return None
    if image is None:
        raise InvalidRequest("image", "There is no picture to start from.", hint="Open, drop or paste one.")
    if parameters.task == "extras":
        return Extras(image=image)
    if parameters.task == "img2img":
        return Img2Img(image=image, strength=parameters.strength, resize_mode=parameters.resize_mode)
    if mask is None:
        raise InvalidRequest("mask", "There is no mask.", hint="Paint over what should change, or use img2img.")
    spec = MaskSpec(
        image=mask,
        blur_px=parameters.mask_blur_px,
        inverted=parameters.mask_inverted,
        area=parameters.mask_area,
        padding_px=parameters.mask_padding_px,
        content=parameters.mask_content,
    )
    return Inpaint(image=image, mask=spec, strength=parameters.strength, resize_mode=parameters.resize_mode)


def parameters_of(request: GenerationRequest) -> Parameters:
    """The inverse of `build_request`."""
    sampling = request.sampling
    return Parameters(
        checkpoint=request.checkpoint,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_batches=request.num_batches,
        batch_size=request.batch_size,
        seed=request.seed,
        clip_skip=request.clip_skip,
        vae=request.vae,
        sampler=sampling.sampler,
        schedule=sampling.schedule,
        num_inference_steps=sampling.num_inference_steps,
        guidance_scale=sampling.guidance_scale,
        image_guidance_scale=sampling.image_guidance_scale,
        eta=sampling.eta,
        image_format=request.image_format,
        postprocess=request.postprocess,
        **_task_values(request.init),
    )


def _task_values(init: Img2Img | Inpaint | Extras | None) -> dict[str, Any]:
    if init is None:
        return {"task": "txt2img"}
    if isinstance(init, Extras):
        return {"task": "extras"}
    values = {"task": "img2img", "strength": init.strength, "resize_mode": init.resize_mode}
    if isinstance(init, Img2Img):
        return values
    return values | {
        "task": "inpaint",
        "mask_blur_px": init.mask.blur_px,
        "mask_inverted": init.mask.inverted,
        "mask_area": init.mask.area,
        "mask_padding_px": init.mask.padding_px,
        "mask_content": init.mask.content,
    }
