"""Models to begin with: where each one is, how large, under which licence.

Sizes only tell what to expect: at the download the site says the exact one, and the sha256 to check it by. Licences
are named as the makers name them. All of it is safetensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

OPENRAIL_M = "CreativeML OpenRAIL-M"
OPENRAIL_PP = "CreativeML OpenRAIL++-M"
LICENCE_PAGES: Mapping[str, str] = MappingProxyType(
    {
        OPENRAIL_M: "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
        OPENRAIL_PP: "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
        "MIT": "https://opensource.org/license/mit",
        "BSD-3-Clause": "https://opensource.org/license/bsd-3-clause",
        "CC BY-NC-SA 4.0": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """A row of the list. `source`, `name` and `fp16` are those of a DownloadRequest; `size` in bytes, about."""

    title: str
    source: str
    purpose: str
    size: int
    licence: str
    name: str = ""
    fp16: bool = False


STARTERS: tuple[Starter, ...] = (
    Starter(
        title="Stable Diffusion 1.5",
        source="Comfy-Org/stable-diffusion-v1-5-archive/v1-5-pruned-emaonly-fp16.safetensors",
        purpose="The checkpoint that most small adapters are made for; 512 px, runs on any machine.",
        size=2_132_696_762,
        licence=OPENRAIL_M,
    ),
    Starter(
        title="Stable Diffusion 1.5 inpainting",
        source="stable-diffusion-v1-5/stable-diffusion-inpainting",
        purpose="Repaints a masked part so that it fits what is around it.",
        size=2_135_000_000,
        licence=OPENRAIL_M,
        name="sd-v1-5-inpainting",
        fp16=True,
    ),
    Starter(
        title="SDXL 1.0",
        source="stabilityai/stable-diffusion-xl-base-1.0/sd_xl_base_1.0.safetensors",
        purpose="The larger base model; 1024 px, better at composition and text.",
        size=6_938_078_334,
        licence=OPENRAIL_PP,
    ),
    Starter(
        title="SDXL 1.0 inpainting",
        source="diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        purpose="Inpainting at 1024 px.",
        size=6_940_000_000,
        licence=OPENRAIL_PP,
        name="sdxl-inpainting-0.1",
        fp16=True,
    ),
    Starter(
        title="SDXL VAE, fp16 fix",
        source="madebyollin/sdxl-vae-fp16-fix/sdxl_vae.safetensors",
        purpose="SDXL's autoencoder, changed so that it also works in half precision.",
        size=334_641_162,
        licence="MIT",
        name="sdxl-vae-fp16-fix",
    ),
    Starter(
        title="LCM LoRA for SD 1.5",
        source="latent-consistency/lcm-lora-sdv1-5/pytorch_lora_weights.safetensors",
        purpose="Pictures in 4 to 8 steps (CFG scale 1 to 2).",
        size=134_621_556,
        licence=OPENRAIL_PP,
        name="lcm-lora-sdv1-5",
    ),
    Starter(
        title="LCM LoRA for SDXL",
        source="latent-consistency/lcm-lora-sdxl/pytorch_lora_weights.safetensors",
        purpose="Pictures in 4 to 8 steps (CFG scale 1 to 2).",
        size=393_855_224,
        licence=OPENRAIL_PP,
        name="lcm-lora-sdxl",
    ),
    Starter(
        title="SDXL-Lightning LoRA, 4 steps",
        source="ByteDance/SDXL-Lightning/sdxl_lightning_4step_lora.safetensors",
        purpose="SDXL in 4 steps (Euler, CFG scale 1).",
        size=393_854_592,
        licence=OPENRAIL_PP,
    ),
    Starter(
        title="TAESD",
        source="madebyollin/taesd/diffusion_pytorch_model.safetensors",
        purpose="A tiny decoder for previews of SD 1.x and 2.x.",
        size=9_793_292,
        licence="MIT",
        name="taesd",
    ),
    Starter(
        title="TAESDXL",
        source="madebyollin/taesdxl/diffusion_pytorch_model.safetensors",
        purpose="A tiny decoder for previews of SDXL.",
        size=9_793_292,
        licence="MIT",
        name="taesdxl",
    ),
    Starter(
        title="Real-ESRGAN x4plus",
        source="Comfy-Org/Real-ESRGAN_repackaged/RealESRGAN_x4plus.safetensors",
        purpose="Enlarges photographs four times.",
        size=66_857_836,
        licence="BSD-3-Clause",
    ),
    Starter(
        title="4x-UltraSharp",
        source="Kim2091/UltraSharp/4x-UltraSharp.safetensors",
        purpose="Enlarges four times, crisper. Not for commercial use.",
        size=66_864_028,
        licence="CC BY-NC-SA 4.0",
    ),
)
