"""What the tools can be asked to do: one value per tool, for the page, the command line and stored jobs alike.

Checkpoints and LoRAs are named as in the lists, or by the path of a file or folder. A destination without a folder goes
where the program looks for such models.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from webui.errors import InvalidRequest

CheckpointLayout = Literal["diffusers", "single-file"]
Precision = Literal["keep", "fp32", "fp16", "bf16"]
LoraPrecision = Literal["fp32", "fp16", "bf16"]
RankMethod = Literal["sv_ratio", "sv_fro", "sv_cumulative"]
Rank = Annotated[int, Field(ge=1, le=1024)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WeightedLora(_Request):
    """As `<lora:name:text_encoder_weight:unet_weight>`; the U-Net's weight counts for both where the other is None."""

    name: str
    unet_weight: float = 1.0
    text_encoder_weight: float | None = None


class Convert(_Request):
    """A checkpoint in another layout or precision, or with another autoencoder."""

    tool: Literal["convert"] = "convert"
    source: str
    destination: str
    to: CheckpointLayout = "single-file"
    precision: Precision = "keep"
    vae: str = ""


class Merge(_Request):
    """A * (1 - multiplier) + B * multiplier, or with `c`: A + (B - C) * multiplier. `blocks` as in MergeRecipe."""

    tool: Literal["merge"] = "merge"
    a: str
    b: str
    c: str = ""
    destination: str
    multiplier: float = 0.5
    blocks: dict[str, float] = {}
    to: CheckpointLayout = "single-file"
    precision: Precision = "fp16"
    vae: str = ""


class Bake(_Request):
    """A checkpoint with LoRAs in its weights for good."""

    tool: Literal["bake"] = "bake"
    checkpoint: str
    loras: Annotated[tuple[WeightedLora, ...], Field(min_length=1)]
    destination: str
    to: CheckpointLayout = "single-file"
    precision: Precision = "keep"


class Extract(_Request):
    """The difference of two checkpoints as a LoRA. `conv_rank` None leaves the larger convolutions out."""

    tool: Literal["extract"] = "extract"
    base: str
    tuned: str
    destination: str
    rank: Rank = 32
    conv_rank: Rank | None = None
    min_difference: Annotated[float, Field(ge=0)] = 0.01
    precision: LoraPrecision = "fp16"


class Resize(_Request):
    """A LoRA of smaller rank. `method` and `threshold` as in RankChoice."""

    tool: Literal["resize"] = "resize"
    lora: str
    destination: str
    rank: Rank = 16
    conv_rank: Rank | None = None
    method: RankMethod | None = None
    threshold: float = 0.0
    precision: LoraPrecision = "fp16"


class MergeLoras(_Request):
    """Several LoRAs as one: exact, with the ranks added up, where `rank` is None."""

    tool: Literal["merge-loras"] = "merge-loras"
    loras: Annotated[tuple[WeightedLora, ...], Field(min_length=1)]
    destination: str
    rank: Rank | None = None
    conv_rank: Rank | None = None
    precision: LoraPrecision = "fp16"


ToolRequest = Annotated[Convert | Merge | Bake | Extract | Resize | MergeLoras, Field(discriminator="tool")]
_ADAPTER: TypeAdapter[Convert | Merge | Bake | Extract | Resize | MergeLoras] = TypeAdapter(ToolRequest)


def parse_tool_request(values: dict[str, Any]) -> Convert | Merge | Bake | Extract | Resize | MergeLoras:
    """Raises InvalidRequest that names the first field that is wrong."""
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "tool"
        raise InvalidRequest(field, f"{field} cannot be {first.get('input')!r}: {first['msg']}.") from error
