"""What the user can set: one model per postprocessor, for the page, command line, HTTP and stored pictures alike."""

from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from webui.hooks import Picture

from .consent import TERMS

Faces = Literal["auto", "largest", "all", "numbers", "alike"]
Order = Literal["left-right", "right-left", "top-bottom", "bottom-top", "large-small", "small-large"]
Area = Literal["auto", "oval", "brows", "features"]
Blend = Literal["multiband", "feather"]
Gender = Literal["any", "female", "male"]
Safety = Literal["off", "warn", "block"]

MAX_PHOTOS = 10
MAX_STEPS = 150

PERSONAL = MappingProxyType({"personal": True})
"""The answer of a person, not a setting of a picture."""


def _in(group: str, **more: Any) -> dict[str, Any]:
    return {"group": group, **more}


def _half(group: str) -> dict[str, Any]:
    return _in(group, step=0.05)


class FaceParams(BaseModel):
    """Lengths in pixels of the picture; shares 0 to 1; likeness is SFace's cosine, the same person from 0.363."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    consent: bool = Field(default=False, title="I agree", description=TERMS, json_schema_extra=dict(PERSONAL))
    photos: tuple[Picture, ...] = Field(
        default=(),
        max_length=MAX_PHOTOS,
        title="Photos of the person",
        description="Without one, the picture that you start from. The more poses, the better one fits.",
    )
    saved_face: str = Field(
        default="",
        title="Saved face",
        description="Its name; to measure against and to swap in. Warping needs a photo.",
    )
    other_person_consent: bool = Field(
        default=False,
        title="The photo shows somebody else",
        description="I want another person's face in the picture I start from, and both have agreed.",
        json_schema_extra=dict(PERSONAL),
    )

    faces: Faces = Field(
        default="auto",
        title="Which faces",
        description="Automatic: everybody from the picture you start from; with photos, the largest face.",
        json_schema_extra=_in(
            "Which faces",
            labels={
                "auto": "Automatic",
                "largest": "The largest",
                "all": "All",
                "numbers": "By number",
                "alike": "Those like the reference",
            },
        ),
    )
    order: Order = Field(default="left-right", title="Counted", json_schema_extra=_in("Which faces"))
    numbers: tuple[int, ...] = Field(
        default=(1,),
        title="Numbers",
        description="For 'By number'; 1 is the first.",
        json_schema_extra=_in("Which faces"),
    )
    reference: Picture = Field(
        default="", title="Reference", json_schema_extra={"atelier_picture": True, **_in("Which faces")}
    )
    reference_similarity: float = Field(
        default=0.363, ge=0, le=1, title="Least likeness to the reference", json_schema_extra=_half("Which faces")
    )
    gender: Gender = Field(
        default="any",
        title="Gender",
        description="As InsightFace's genderage.onnx guesses it, if that lies under models/face.",
        json_schema_extra=_in("Which faces", labels={"any": "Any", "female": "Female", "male": "Male"}),
    )
    min_face_px: int = Field(
        default=40,
        ge=40,
        le=1024,
        title="Least width of a face",
        description="Below 40 px likeness cannot be measured.",
        json_schema_extra=_in("Which faces"),
    )
    skip_above: float = Field(
        default=0.8,
        ge=0,
        le=1,
        title="Leave a face that is this alike",
        description="0.8 is what two pictures of one person hardly exceed; 1 leaves none.",
        json_schema_extra=_half("Which faces"),
    )

    warp: bool = Field(
        default=True,
        title="Warp",
        description="The original face, bent into the generated head.",
        json_schema_extra=_in("Warp", group_open=True),
    )
    strength: float = Field(default=1.0, ge=0, le=1, title="Strength", json_schema_extra=_half("Warp"))
    shape_keep: float = Field(
        default=0.5,
        ge=0,
        le=1,
        title="Keep shape",
        description="0: the generated proportions. 1: the person's own, inside the generated outline.",
        json_schema_extra=_half("Warp"),
    )
    color: float = Field(
        default=1.0,
        ge=0,
        le=1,
        title="Match colours",
        description="0: the photo's light.",
        json_schema_extra=_half("Warp"),
    )
    area: Area = Field(
        default="auto",
        title="Area",
        description="Automatic leaves the forehead out where hair covers it.",
        json_schema_extra=_in(
            "Warp",
            labels={
                "auto": "Automatic",
                "oval": "Whole face",
                "brows": "Up to the brows",
                "features": "Eyes, nose and mouth",
            },
        ),
    )
    feather: float = Field(
        default=0.05,
        ge=0,
        le=0.3,
        title="Feather",
        description="Of the face's width.",
        json_schema_extra=_in("Warp", step=0.01),
    )
    blend: Blend = Field(
        default="multiband",
        title="Blend",
        json_schema_extra=_in("Warp", labels={"multiband": "In three bands", "feather": "Plain"}),
    )

    refine: bool = Field(
        default=False,
        title="Refine",
        description="Repaints the face a little with the checkpoint, which unifies light and skin.",
        json_schema_extra=_in("Refine"),
    )
    refine_strength: float = Field(default=0.25, ge=0, le=1, title="Refine strength", json_schema_extra=_half("Refine"))
    refine_size: int | None = Field(
        default=None,
        ge=64,
        le=2048,
        multiple_of=8,
        title="Refine size",
        description="Side at which the face is repainted; empty: the picture's own.",
        json_schema_extra=_in("Refine"),
    )
    refine_padding: int = Field(default=32, ge=0, le=256, title="Refine padding", json_schema_extra=_in("Refine"))
    refine_prompt: str = Field(
        default="",
        title="Refine prompt",
        description="Empty: the picture's own.",
        json_schema_extra=_in("Refine", lines=2),
    )
    refine_negative: str = Field(default="", title="Refine negative prompt", json_schema_extra=_in("Refine", lines=2))
    refine_steps: int | None = Field(
        default=None,
        ge=1,
        le=MAX_STEPS,
        title="Refine steps",
        description="Empty: the picture's own.",
        json_schema_extra=_in("Refine"),
    )

    swap: bool = Field(
        default=False,
        title="Swap",
        description="With inswapper_128.onnx or its kin under models/face; their weights are non-commercial.",
        json_schema_extra=_in("Swap and restore"),
    )
    swap_model: str = Field(
        default="",
        title="Swap model",
        description="Empty: the first there is.",
        json_schema_extra=_in("Swap and restore"),
    )
    pixel_boost: int = Field(
        default=1,
        ge=1,
        le=4,
        title="Pixel boost",
        description="Times the network's resolution, at its square in time.",
        json_schema_extra=_in("Swap and restore"),
    )
    swap_color: float = Field(
        default=0.0,
        ge=0,
        le=1,
        title="Swap colours",
        description="How far the swapped face takes the picture's own colours.",
        json_schema_extra=_half("Swap and restore"),
    )
    restore: bool = Field(
        default=False,
        title="Restore",
        description="With GFPGAN or CodeFormer (non-commercial) as .onnx under models/face.",
        json_schema_extra=_in("Swap and restore"),
    )
    restore_model: str = Field(
        default="",
        title="Restore model",
        description="Empty: the first there is.",
        json_schema_extra=_in("Swap and restore"),
    )
    restore_weight: float = Field(
        default=0.5,
        ge=0,
        le=1,
        title="Restore weight",
        description="CodeFormer alone: 0 is cleanest, 1 truest.",
        json_schema_extra=_half("Swap and restore"),
    )
    restore_visibility: float = Field(
        default=0.8, ge=0, le=1, title="Restore visibility", json_schema_extra=_half("Swap and restore")
    )

    safety: Safety = Field(
        default="off",
        title="Safety check",
        description="With nudenet's 320n.onnx under models/face.",
        json_schema_extra={"labels": {"off": "Off", "warn": "Warn", "block": "Leave the picture alone"}},
    )


Target = Literal["faces", "hands", "people", "objects"]


class DetailerParams(BaseModel):
    """Finds things and repaints each with the request's checkpoint, in its own crop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target = Field(
        default="faces",
        title="Find",
        description="Hands need MediaPipe's palm detector or a YOLO file (.onnx) under models/face.",
        json_schema_extra={
            "labels": {"faces": "Faces", "hands": "Hands", "people": "People", "objects": "What the detector finds"}
        },
    )
    detector: str = Field(
        default="",
        title="Detector",
        description="Name of the file; empty: the one that ships for faces, the first that fits for others.",
    )
    prompt: str = Field(
        default="",
        title="Prompt",
        description="Empty: the picture's own. [SEP] parts those of the first, the second, ... from the left.",
        json_schema_extra={"lines": 2},
    )
    negative_prompt: str = Field(default="", title="Negative prompt", json_schema_extra={"lines": 2})
    strength: float = Field(default=0.4, ge=0, le=1, title="Denoising strength", json_schema_extra={"step": 0.05})
    size: int | None = Field(
        default=None,
        ge=64,
        le=2048,
        multiple_of=8,
        title="Size",
        description="Side at which each is repainted; empty: the picture's own.",
    )
    padding_px: int = Field(default=32, ge=0, le=256, title="Padding", description="Surroundings the model sees, px.")
    num_inference_steps: int | None = Field(
        default=None, ge=1, le=MAX_STEPS, title="Steps", description="Empty: the picture's own."
    )
    guidance_scale: float | None = Field(
        default=None, ge=0, le=50, title="CFG scale", description="Empty: the picture's own."
    )
    min_confidence: float | None = Field(
        default=None,
        ge=0.05,
        le=1,
        title="Confidence",
        description="0 to 1; empty: the detector's own.",
        json_schema_extra=_in("What is found"),
    )
    max_count: int = Field(
        default=0, ge=0, le=50, title="At most", description="0: all.", json_schema_extra=_in("What is found")
    )
    by: Literal["area", "confidence"] = Field(
        default="area",
        title="Of these the",
        json_schema_extra=_in("What is found", labels={"area": "Largest", "confidence": "Surest"}),
    )
    min_area: float = Field(
        default=0.0,
        ge=0,
        le=1,
        title="Least area",
        description="Of the picture.",
        json_schema_extra=_in("What is found", step=0.01),
    )
    max_area: float = Field(
        default=1.0, ge=0, le=1, title="Largest area", json_schema_extra=_in("What is found", step=0.01)
    )
    dilate_px: int = Field(default=4, ge=-64, le=128, title="Grow the mask", json_schema_extra=_in("What is found"))
    blur_px: int = Field(default=4, ge=0, le=64, title="Blur the mask", json_schema_extra=_in("What is found"))


class FaceSettings(BaseModel):
    """Of this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    provider: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        title="Optional models run on",
        description="Those under models/face; the ones that come with the extension always run on the processor.",
        json_schema_extra={"labels": {"auto": "The GPU if there is one", "cpu": "The processor", "cuda": "CUDA"}},
    )
