"""A generation request: a value that says everything about the pictures to make.

The task is the type of `init`: None is txt2img; Img2Img, Inpaint and Extras carry what they need. A request that
exists is valid; validation happens when it is built and names the field.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from PIL import Image

from webui.errors import InvalidRequest
from webui.generation.postprocess import PostprocessStep
from webui.images.geometry import ResizeMode
from webui.images.metadata import ImageFormat
from webui.library.catalog import AUTOMATIC_VAE
from webui.pipeline.samplers import find_sampler
from webui.pipeline.schedules import find_schedule

MaskedContent = Literal["fill", "original", "latent noise", "latent nothing"]
MaskArea = Literal["whole", "masked"]

DEFAULT_IMAGE_GUIDANCE_SCALE = 1.5
MAX_SIDE_PX = 4096
MAX_STEPS = 150
MAX_BATCHES = 1000
MAX_BATCH_SIZE = 16
MAX_SEED = 2**32 - 1
"""Largest seed; picture k of a job uses seed + k, modulo 2**32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the denoise loop runs. `sampler` and `schedule` are labels of the tables in `pipeline`."""

    sampler: str = "Euler a"
    schedule: str = "Automatic"
    num_inference_steps: int = 20
    guidance_scale: float = 7.0
    image_guidance_scale: float = DEFAULT_IMAGE_GUIDANCE_SCALE
    """How closely to follow the picture that is edited; used by instruct-pix2pix checkpoints alone."""
    eta: float | None = None
    """Amount of fresh noise of ancestral samplers and DDIM; None is the sampler's own default."""

    def __post_init__(self) -> None:
        find_sampler(self.sampler)
        find_schedule(self.schedule)
        _check_range("num_inference_steps", self.num_inference_steps, 1, MAX_STEPS)
        _check_range("guidance_scale", self.guidance_scale, 0.0, 50.0)
        _check_range("image_guidance_scale", self.image_guidance_scale, 0.0, 10.0)
        if self.eta is not None:
            _check_range("eta", self.eta, 0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSpec:
    """`image` is mode "L" in the size of the picture it masks; 255 is where something new is painted."""

    image: Image.Image
    blur_px: int = 4
    inverted: bool = False
    area: MaskArea = "whole"
    padding_px: int = 32
    content: MaskedContent = "original"

    def __post_init__(self) -> None:
        _check_range("blur_px", self.blur_px, 0, 64)
        _check_range("padding_px", self.padding_px, 0, 256)
        _check_choice("content", self.content, get_args(MaskedContent))
        _check_choice("area", self.area, get_args(MaskArea))


@dataclass(frozen=True, slots=True, kw_only=True)
class Img2Img:
    """`image` is RGB, upright, in sRGB; `strength` 0 gives it back unchanged, 1 ignores it."""

    image: Image.Image
    strength: float = 0.75
    resize_mode: ResizeMode = "stretch"

    def __post_init__(self) -> None:
        _check_range("strength", self.strength, 0.0, 1.0)
        _check_choice("resize_mode", self.resize_mode, get_args(ResizeMode))


@dataclass(frozen=True, slots=True, kw_only=True)
class Inpaint:
    """As Img2Img, but only where `mask` is white; elsewhere the pixels stay as they are."""

    image: Image.Image
    mask: MaskSpec
    strength: float = 0.75
    resize_mode: ResizeMode = "stretch"

    def __post_init__(self) -> None:
        _check_range("strength", self.strength, 0.0, 1.0)
        _check_choice("resize_mode", self.resize_mode, get_args(ResizeMode))
        if self.mask.image.size != self.image.size:
            raise InvalidRequest(
                "mask",
                f"The mask is {_size(self.mask.image)}, but the picture is {_size(self.image)}.",
                hint="Use a mask of the picture's own size.",
            )
        low, high = self.mask.image.getextrema()
        if (low == 255) if self.mask.inverted else (high == 0):
            raise InvalidRequest(
                "mask",
                "The mask is empty: nothing would change.",
                hint="Paint over what should change, or use img2img.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """A finished picture, RGB: nothing is generated, it only goes through the request's postprocess steps."""

    image: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """Everything about `num_batches * batch_size` pictures. `seed` None is drawn when the job is submitted."""

    checkpoint: str
    prompt: str = ""
    negative_prompt: str = ""
    width: int = 512
    height: int = 512
    num_batches: int = 1
    batch_size: int = 1
    seed: int | None = None
    clip_skip: int = 0
    """Text encoder layers left out at the end; the field's "Clip skip 2" is 1 here."""
    sampling: Sampling = field(default_factory=Sampling)
    init: Img2Img | Inpaint | Extras | None = None
    vae: str = AUTOMATIC_VAE
    """`library.catalog.AUTOMATIC_VAE`, `OWN_VAE`, or the name of a file."""
    image_format: ImageFormat = "png"
    postprocess: tuple[PostprocessStep, ...] = ()
    """In this order, before a picture is saved. Their parameters are checked where the extensions are known."""

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("height", self.height)):
            _check_range(name, value, 64, MAX_SIDE_PX)
            if value % 8:
                raise InvalidRequest(
                    name,
                    f"{name.capitalize()} {value} is not a multiple of 8.",
                    hint=f"Use {value // 8 * 8} or {value // 8 * 8 + 8}.",
                )
        _check_range("num_batches", self.num_batches, 1, MAX_BATCHES)
        _check_range("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        _check_range("clip_skip", self.clip_skip, 0, 11)
        if self.seed is not None:
            _check_range("seed", self.seed, 0, MAX_SEED)
        _check_choice("image_format", self.image_format, get_args(ImageFormat))
        if isinstance(self.init, Extras) and self.num_images != 1:
            raise InvalidRequest(
                "num_batches",
                f"{self.num_images} pictures cannot be made of a finished one.",
                hint="Use a batch count and a batch size of 1.",
            )
        ids = [step.id for step in self.postprocess]
        for id in ids:
            if ids.count(id) > 1:
                raise InvalidRequest("postprocess", f"'{id}' is named {ids.count(id)} times.", hint="Name it once.")

    @property
    def num_images(self) -> int:
        return self.num_batches * self.batch_size

    def seed_of(self, index: int) -> int:
        """Seed of picture `index`; made alone with it, the picture is the same, bit for bit on the CPU."""
        if self.seed is None:
            raise ValueError("The request's seed must be drawn before it runs.")
        return (self.seed + index) % (MAX_SEED + 1)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidRequest(name, f"{name} is {value}, outside {low} to {high}.", hint=f"Use {low} to {high}.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidRequest(name, f"{name} is '{value}'.", hint=f"Use one of: {', '.join(choices)}.")


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
