"""What metadata and file names say about a checkpoint that its weights cannot: prediction type, steps, CFG scale."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from webui.library.families import PredictionType

PREDICTION_TYPES: Mapping[str, PredictionType] = {
    "epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction",
    "v-prediction": "v_prediction", "vpred": "v_prediction", "velocity": "v_prediction", "sample": "sample",
}  # fmt: skip
"""modelspec.prediction_type as trainers write it."""


@dataclass(frozen=True, slots=True)
class Distillate:
    """Checkpoints that need few steps and hardly any guidance. A number of steps in the name wins."""

    id: str
    pattern: re.Pattern[str]
    num_inference_steps: int
    guidance_scale: float


DISTILLATES = (
    # The makers' own Turbo and Lightning models are run without guidance; merges made of them with a little.
    Distillate("turbo", re.compile(r"(sd|sdxl|sd_xl|sd-xl)[-_ ]?turbo", re.I), 4, 1.0),
    Distillate("turbo-merge", re.compile(r"turbo", re.I), 6, 2.0),
    Distillate("lightning", re.compile(r"lightning[-_ ]?\d+[-_ ]?step", re.I), 4, 1.0),
    Distillate("lightning-merge", re.compile(r"lightning", re.I), 6, 1.5),
    Distillate("hyper", re.compile(r"hyper[-_ ]?(sd|\d+[-_ ]?step)", re.I), 8, 1.0),
    Distillate("dmd2", re.compile(r"dmd2", re.I), 4, 1.0),
    Distillate("lcm", re.compile(r"LCM|(?<![a-z])lcm(?![a-z])"), 6, 1.5),
)
"""The first row whose pattern is in the title or the file name counts. Sources: the models' cards."""
STEPS_IN_NAME = re.compile(r"(?<!\d)([1-9]|1[0-6])[-_ ]?steps?(?![a-z])", re.I)
V_IN_NAME = re.compile(r"v[-_ ]?pred|v[-_ ]prediction|768[-_]?v(?![a-z0-9])", re.I)
EPSILON_IN_NAME = re.compile(r"(?<![a-z])(eps|epsilon)(?![a-z])|eps[-_ ]?pred", re.I)
ZERO_SNR_IN_NAME = re.compile(r"zt?snr|zero[-_ ]?(terminal[-_ ]?)?snr", re.I)
BASE_512_IN_NAME = re.compile(r"(?<!\d)512(?!\d)|(?<![a-z])base(?![a-z])|turbo", re.I)


def title_of(metadata: Mapping[str, str]) -> str:
    return (metadata.get("modelspec.title") or metadata.get("ss_output_name") or "").strip()


def prediction_type(metadata: Mapping[str, str], name: str) -> PredictionType | None:
    """What the metadata says, else the name; None if neither says anything."""
    said = metadata.get("modelspec.prediction_type", "").strip().lower()
    if said in PREDICTION_TYPES:
        return PREDICTION_TYPES[said]
    if V_IN_NAME.search(name):
        return "v_prediction"
    return "epsilon" if EPSILON_IN_NAME.search(name) else None


def is_sd2_base(metadata: Mapping[str, str], name: str) -> bool | None:
    """Whether an SD 2.x checkpoint is of the 512-pixel base; None if nothing tells."""
    architecture, resolution = metadata.get("modelspec.architecture", ""), metadata.get("modelspec.resolution", "")
    for text in (architecture.partition("/")[0], resolution):
        if "768" in text:
            return False
        if "512" in text:
            return True
    if "768" in name:
        return False
    return True if BASE_512_IN_NAME.search(name) else None


def distillate(name: str) -> Distillate | None:
    return next((row for row in DISTILLATES if row.pattern.search(name)), None)


def steps_in(name: str) -> int | None:
    """ "sdxl_lightning_4step" -> 4."""
    found = STEPS_IN_NAME.search(name)
    return int(found[1]) if found else None
