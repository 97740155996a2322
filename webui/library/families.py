"""The families of models that can be run, one row each, told apart by the names and shapes in a file's header."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

PredictionType = Literal["epsilon", "v_prediction", "sample"]
AdapterBase = Literal["sd1", "sd2", "sdxl", "sdxl-refiner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`adapter_base`: adapters made for one model of this base fit all others of it, by shape and name.

    `configs` is the folder of component configs in `library/configs`, used where a checkpoint brings none.
    """

    id: str
    label: str
    adapter_base: AdapterBase
    configs: str
    native_size: int
    in_channels: int
    prediction_type: PredictionType
    default_guidance_scale: float = 7.0


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.id: family
        for family in (
            Family(
                id="sd15",
                label="SD 1.x",
                adapter_base="sd1",
                configs="sd15",
                native_size=512,
                in_channels=4,
                prediction_type="epsilon",
            ),
        )
    }
)
