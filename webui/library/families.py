"""The families of models that can be run, one row each, told apart by the names and shapes in a file's header."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

PredictionType = Literal["epsilon", "v_prediction", "sample"]
AdapterBase = Literal["sd1", "sd2", "sdxl", "sdxl-refiner", "sd-custom"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`adapter_base`: adapters made for one model of this base fit all others of it, by shape and name.

    `configs` is the folder of component configs in `library/configs`, used where a checkpoint brings none.
    `in_channels` of the U-Net: 4 of the latent picture, 8 with those of a picture to edit, 9 with those of a masked
    picture and the mask. `native_size` in pixels is the side of the squares it was trained on.
    """

    id: str
    label: str
    adapter_base: AdapterBase
    configs: str
    native_size: int
    in_channels: int = 4
    prediction_type: PredictionType = "epsilon"
    default_guidance_scale: float = 7.0
    default_num_inference_steps: int = 20


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.id: family
        for family in (
            Family(id="sd15", label="SD 1.x", adapter_base="sd1", configs="sd15", native_size=512),
            Family(
                id="sd15-inpaint",
                label="SD 1.x inpainting",
                adapter_base="sd1",
                configs="sd15",
                native_size=512,
                in_channels=9,
            ),
            Family(
                id="sd15-ip2p",
                label="SD 1.x instruct-pix2pix",
                adapter_base="sd1",
                configs="sd15",
                native_size=512,
                in_channels=8,
                default_guidance_scale=7.5,
            ),
            Family(id="sd20", label="SD 2.x base", adapter_base="sd2", configs="sd2", native_size=512),
            Family(
                id="sd20-v",
                label="SD 2.x 768-v",
                adapter_base="sd2",
                configs="sd2",
                native_size=768,
                prediction_type="v_prediction",
            ),
            Family(
                id="sd20-inpaint",
                label="SD 2.x inpainting",
                adapter_base="sd2",
                configs="sd2",
                native_size=512,
                in_channels=9,
            ),
            Family(
                id="sdxl",
                label="SDXL",
                adapter_base="sdxl",
                configs="sdxl",
                native_size=1024,
                default_guidance_scale=5.0,
            ),
            Family(
                id="sdxl-inpaint",
                label="SDXL inpainting",
                adapter_base="sdxl",
                configs="sdxl",
                native_size=1024,
                in_channels=9,
                default_guidance_scale=5.0,
            ),
            Family(
                id="sdxl-ip2p",
                label="SDXL instruct-pix2pix",
                adapter_base="sdxl",
                configs="sdxl",
                native_size=1024,
                in_channels=8,
                default_guidance_scale=5.0,
            ),
            Family(
                id="sdxl-refiner",
                label="SDXL refiner",
                adapter_base="sdxl-refiner",
                configs="sdxl-refiner",
                native_size=1024,
                default_guidance_scale=5.0,
            ),
            Family(id="sd-custom", label="SD, own size", adapter_base="sd-custom", configs="sd15", native_size=512),
        )
    }
)

BASE_OF_WIDTH: Mapping[int, AdapterBase] = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}
"""By the width of the text that the U-Net attends to."""
BASE_OF_ARCHITECTURE: tuple[tuple[str, AdapterBase], ...] = (
    ("stable-diffusion-xl-v1-refiner", "sdxl-refiner"),
    ("stable-diffusion-xl", "sdxl"),
    ("stable-diffusion-v2", "sd2"),
    ("stable-diffusion-v1", "sd1"),
)
"""By the beginning of modelspec.architecture."""
