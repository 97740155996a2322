"""What the tools can be asked to do: one value per tool, for the page, the command line and stored jobs alike.

Checkpoints and LoRAs are named as in the lists, or by the path of a file or folder. A destination without a folder goes
where the program looks for such models.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from webui.errors import InvalidRequest
from webui.library.scan import RoomKind

CheckpointLayout = Literal["diffusers", "single-file"]
Precision = Literal["keep", "fp32", "fp16", "bf16"]
LoraPrecision = Literal["fp32", "fp16", "bf16"]
RankMethod = Literal["sv_ratio", "sv_fro", "sv_cumulative"]
Rank = Annotated[int, Field(ge=1, le=1024)]
Name = Annotated[str, Field(max_length=4096)]
MAX_LORAS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """A model that a request names. `field` is where, such as "a" or "loras.0.name"."""

    field: str
    kind: RoomKind
    name: str


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class WeightedLora(_Value):
    """As `<lora:name:text_encoder_weight:unet_weight>`; the U-Net's weight counts for both where the other is None."""

    name: Name
    unet_weight: float = 1.0
    text_encoder_weight: float | None = None


Loras = Annotated[tuple[WeightedLora, ...], Field(min_length=1, max_length=MAX_LORAS)]


class _Request(_Value):
    makes: ClassVar[RoomKind]
    """Kind of the new model."""
    names: ClassVar[Mapping[str, RoomKind]]
    """Fields that name models, and of which kind."""

    destination: Name

    @property
    def makes_folder(self) -> bool:
        """Whether the new model is a diffusers folder, not a single file."""
        return False

    def named_models(self) -> Iterator[NamedModel]:
        """All models that the request names; optional ones only where they are given."""
        for field, kind in self.names.items():
            value = getattr(self, field)
            if not isinstance(value, str):
                for at, lora in enumerate(value):
                    yield NamedModel(field=f"{field}.{at}.name", kind=kind, name=lora.name)
            elif value or type(self).model_fields[field].is_required():
                yield NamedModel(field=field, kind=kind, name=value)


class _MakesCheckpoint(_Request):
    makes: ClassVar[RoomKind] = "checkpoint"

    to: CheckpointLayout = "single-file"

    @property
    def makes_folder(self) -> bool:
        return self.to == "diffusers"


class _MakesLora(_Request):
    makes: ClassVar[RoomKind] = "adapter"

    precision: LoraPrecision = "fp16"


class Convert(_MakesCheckpoint):
    """A checkpoint in another layout or precision, or with another autoencoder."""

    names: ClassVar[Mapping[str, RoomKind]] = {"source": "checkpoint", "vae": "vae"}

    tool: Literal["convert"] = "convert"
    source: Name
    precision: Precision = "keep"
    vae: Name = ""


class Merge(_MakesCheckpoint):
    """A * (1 - multiplier) + B * multiplier, or with `c`: A + (B - C) * multiplier. `blocks` as in MergeRecipe."""

    names: ClassVar[Mapping[str, RoomKind]] = {"a": "checkpoint", "b": "checkpoint", "c": "checkpoint", "vae": "vae"}

    tool: Literal["merge"] = "merge"
    a: Name
    b: Name
    c: Name = ""
    multiplier: float = 0.5
    blocks: dict[str, float] = {}
    precision: Precision = "fp16"
    vae: Name = ""


class Bake(_MakesCheckpoint):
    """A checkpoint with LoRAs in its weights for good."""

    names: ClassVar[Mapping[str, RoomKind]] = {"checkpoint": "checkpoint", "loras": "adapter"}

    tool: Literal["bake"] = "bake"
    checkpoint: Name
    loras: Loras
    precision: Precision = "keep"


class Extract(_MakesLora):
    """The difference of two checkpoints as a LoRA. `conv_rank` None leaves the larger convolutions out."""

    names: ClassVar[Mapping[str, RoomKind]] = {"base": "checkpoint", "tuned": "checkpoint"}

    tool: Literal["extract"] = "extract"
    base: Name
    tuned: Name
    rank: Rank = 32
    conv_rank: Rank | None = None
    min_difference: Annotated[float, Field(ge=0)] = 0.01


class Resize(_MakesLora):
    """A LoRA of smaller rank. `method` and `threshold` as in RankChoice."""

    names: ClassVar[Mapping[str, RoomKind]] = {"lora": "adapter"}

    tool: Literal["resize"] = "resize"
    lora: Name
    rank: Rank = 16
    conv_rank: Rank | None = None
    method: RankMethod | None = None
    threshold: float = 0.0


class MergeLoras(_MakesLora):
    """Several LoRAs as one: exact, with the ranks added up, where `rank` is None."""

    names: ClassVar[Mapping[str, RoomKind]] = {"loras": "adapter"}

    tool: Literal["merge-loras"] = "merge-loras"
    loras: Loras
    rank: Rank | None = None
    conv_rank: Rank | None = None


TOOL_REQUESTS = (Merge, Convert, Bake, Extract, Resize, MergeLoras)
ToolRequest = Convert | Merge | Bake | Extract | Resize | MergeLoras
_ADAPTER: TypeAdapter[ToolRequest] = TypeAdapter(Annotated[ToolRequest, Field(discriminator="tool")])


def parse_tool_request(values: Mapping[str, Any]) -> ToolRequest:
    """Raises InvalidRequest that names the first field that is wrong, such as "rank" or "loras.0.unet_weight"."""
    try:
        request = _ADAPTER.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "tool"
        raise InvalidRequest(field, f"{field} cannot be {first.get('input')!r}: {first['msg']}.") from error
    if isinstance(request, Resize):
        refuse_threshold(request.method, request.threshold)
    return request


def refuse_threshold(method: RankMethod | None, threshold: float) -> None:
    """Raises InvalidRequest for a threshold that means nothing to `method`."""
    if method == "sv_ratio" and threshold <= 1:
        raise InvalidRequest("threshold", f"sv_ratio is {threshold:g}.", hint="Use more than 1, such as 20.")
    if method in ("sv_fro", "sv_cumulative") and not 0 < threshold <= 1:
        raise InvalidRequest("threshold", f"{method} is {threshold:g}.", hint="Use 0 to 1, such as 0.9.")


def parse_blocks(text: str) -> dict[str, float]:
    """ "IN00=0.5,BASE=0" as {"IN00": 0.5, "BASE": 0.0}; MID is another word for M00."""
    blocks = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError as error:
            raise InvalidRequest("blocks", f"'{part}' is not NAME=NUMBER.", hint='Write "IN00=0.5,BASE=0".') from error
        block = name.strip().upper()
        blocks["M00" if block == "MID" else block] = number
    return blocks
