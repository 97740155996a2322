"""What is known of a model file before any of its weights is read."""

from dataclasses import dataclass
from typing import Literal

from webui.library.families import PredictionType

Kind = Literal["checkpoint", "adapter", "embedding", "vae", "hypernetwork", "upscaler", "tiny_decoder", "text_encoder",
               "controlnet", "unknown"]  # fmt: skip
Layout = Literal["folder", "original", "diffusers", ""]
"""A diffusers folder; a single file with the training code's names or with diffusers'; "" for everything else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """`problems` says in words what is wrong; empty if the file can be used for what it is.

    `family` is the id of a row of FAMILIES, "" if it is none of them. `adapter_base` is the base that a checkpoint's
    adapters are made for, or that an adapter was made for; "" if the file does not tell, then shapes decide.
    """

    kind: Kind = "unknown"
    family: str = ""
    layout: Layout = ""
    adapter_base: str = ""
    prediction_type: PredictionType = "epsilon"
    zero_terminal_snr: bool = False
    native_size: int | None = None
    """Pixels."""
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    dtype: str = ""
    """Of most weights, in safetensors' words: "F16"."""
    num_keys: int = 0
    num_parameters: int = 0
    has_vae: bool = False
    has_text_encoder: bool = False
    ema_only: bool = False
    """The only U-Net in the file is the averaged one."""
    adapter_types: tuple[str, ...] = ()
    rank: int | None = None
    """Of most layers."""
    alpha: float | None = None
    """As the metadata says; the values in the weights count when it is used."""
    trigger_words: tuple[str, ...] = ()
    title: str = ""
    problems: tuple[str, ...] = ()
