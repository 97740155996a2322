"""Which family a checkpoint is of: from the structure of its U-Net, the names of its text encoders, and hints."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from webui.errors import WebUIError
from webui.library import hints
from webui.library.architecture import UnetStructure, unet_structure
from webui.library.facts import Layout, ModelFacts
from webui.library.families import BASE_OF_ARCHITECTURE, BASE_OF_WIDTH, FAMILIES, AdapterBase, Family, PredictionType
from webui.library.header import Header, TensorInfo

FAMILY_OF: Mapping[tuple[AdapterBase, int], str] = {
    ("sd1", 4): "sd15", ("sd1", 9): "sd15-inpaint", ("sd1", 8): "sd15-ip2p",
    ("sd2", 4): "sd20", ("sd2", 9): "sd20-inpaint",
    ("sdxl", 4): "sdxl", ("sdxl", 9): "sdxl-inpaint", ("sdxl", 8): "sdxl-ip2p",
    ("sdxl-refiner", 4): "sdxl-refiner",
    ("sd-custom", 4): "sd-custom", ("sd-custom", 9): "sd15-inpaint", ("sd-custom", 8): "sd15-ip2p",
}  # fmt: skip
"""By base and channels of the U-Net's input."""
TEXT_MARKS: Mapping[str, AdapterBase] = {
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": "sd1",
    "cond_stage_model.transformer.embeddings.token_embedding.weight": "sd1",
    "cond_stage_model.model.token_embedding.weight": "sd2",
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": "sdxl",
    "conditioner.embedders.1.model.token_embedding.weight": "sdxl",
    "conditioner.embedders.0.model.token_embedding.weight": "sdxl-refiner",
}
"""A weight of every text encoder that original files have. The second row is of files from before transformers 4.25."""
DIFFUSERS_TEXT_MARKS = tuple(
    f"{component}.{middle}embeddings.token_embedding.weight"
    for component in ("text_encoder", "text_encoder_2")
    for middle in ("", "text_model.")
)
VAE_MARKS = ("first_stage_model.decoder.conv_in.weight", "vae.decoder.conv_in.weight")
UNET_MARKS: tuple[tuple[str, Layout], ...] = (
    ("model.diffusion_model.input_blocks.0.0.weight", "original"),
    ("model_ema.diffusion_modelinput_blocks00weight", "original"),
    ("input_blocks.0.0.weight", "original"),
    ("unet.time_embedding.linear_1.weight", "diffusers"),
    ("time_embedding.linear_1.weight", "diffusers"),
)
LCM_STEPS = 4
LCM_GUIDANCE_SCALE = 8.0
"""Of networks that take the guidance scale as an input (Luo et al. 2023, arXiv:2310.04378)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unet:
    """What tells families apart, read from shapes or from a folder's config. Widths in channels."""

    in_channels: int
    context_width: int
    num_levels: int
    linear: bool
    pooled_width: int | None
    has_guidance: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What is said of a checkpoint besides its weights: `name` is its file name and title, `text_base` the base whose
    text encoders it has, `prediction_type` and `zero_terminal_snr` what its marker keys or its scheduler say."""

    name: str
    metadata: Mapping[str, str]
    text_base: AdapterBase | None
    prediction_type: PredictionType | None
    zero_terminal_snr: bool


def single_file_facts(header: Header, name: str) -> ModelFacts | None:
    """Facts of a single-file checkpoint called `name`; None if there is no U-Net in it."""
    tensors = header.tensors
    mark, layout = next(((mark, layout) for mark, layout in UNET_MARKS if mark in tensors), ("", ""))
    if not layout:
        return None
    title = hints.title_of(header.metadata)
    bases = {base for mark, base in TEXT_MARKS.items() if mark in tensors}
    said = Hints(
        name=f"{name} {title}",
        metadata=header.metadata,
        text_base=next(iter(bases)) if len(bases) == 1 else None,
        prediction_type="v_prediction" if "v_pred" in tensors or "ztsnr" in tensors else None,
        zero_terminal_snr="ztsnr" in tensors,
    )
    found = ModelFacts(
        kind="checkpoint",
        layout=layout,
        title=title,
        has_vae=any(mark in tensors for mark in VAE_MARKS),
        has_text_encoder=bool(bases) or any(mark in tensors for mark in DIFFUSERS_TEXT_MARKS),
        ema_only=mark.startswith("model_ema."),
    )
    try:
        structure = unet_structure(header)
    except WebUIError as error:
        return replace(found, problems=(as_fragment(error.message),))
    if structure is None:
        return replace(found, problems=("its U-Net lacks its first layers",))
    found = with_family(found, _unet_of(structure), said)
    return replace(found, problems=(*found.problems, *_text_problems(tensors, structure.context_width, bases)))


def with_family(facts: ModelFacts, unet: Unet, said: Hints) -> ModelFacts:
    """`facts` with the family and what follows from it, or with the reason why it is none that can be run."""
    base = _base(unet, said)
    if base is None:
        return replace(facts, problems=("it is SD 2.1 unCLIP, which takes pictures instead of text",))
    if unet.context_width in (1280, 2048) and unet.pooled_width is None:
        return replace(facts, problems=("it looks like SDXL, but the layers for the picture's size are missing",))
    family_id = FAMILY_OF.get((base, unet.in_channels))
    if family_id is None:
        known = "4, 8 or 9 are known" if unet.in_channels != 5 else "it may be SD 2 depth, which needs a depth map"
        return replace(facts, adapter_base=base, problems=(f"its U-Net takes {unet.in_channels} channels; {known}",))
    prediction = said.prediction_type or hints.prediction_type(said.metadata, said.name)
    if family_id == "sd20" and _is_768_v(prediction, said):
        family_id = "sd20-v"
    family = FAMILIES[family_id]
    steps, guidance_scale = _defaults(family, unet, said.name)
    return replace(
        facts,
        family=family_id,
        adapter_base=family.adapter_base if base != "sd-custom" else base,
        prediction_type=prediction or family.prediction_type,
        zero_terminal_snr=said.zero_terminal_snr or bool(hints.ZERO_SNR_IN_NAME.search(said.name)),
        native_size=family.native_size,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
    )


def as_fragment(message: str) -> str:
    """ "The file is short." -> "the file is short": problems are said in the middle of a sentence."""
    return message[:1].lower() + message[1:].rstrip(".")


def _base(unet: Unet, said: Hints) -> AdapterBase | None:
    """None for unCLIP. The text's width is proof; where it is unusual the metadata or the layers' style has to do."""
    known = BASE_OF_WIDTH.get(unet.context_width)
    if unet.pooled_width is not None:
        if known == "sd2":
            return None
        if known in ("sdxl", "sdxl-refiner"):
            return known
        return "sdxl-refiner" if said.text_base == "sdxl-refiner" or unet.num_levels == 4 else "sdxl"
    if known in ("sd1", "sd2"):
        return known
    architecture = said.metadata.get("modelspec.architecture", "")
    named = next((base for start, base in BASE_OF_ARCHITECTURE if architecture.startswith(start)), None)
    if named in ("sd1", "sd2"):
        return named
    return "sd2" if unet.linear or said.text_base == "sd2" else "sd-custom"


def _is_768_v(prediction: PredictionType | None, said: Hints) -> bool:
    """SD 2.x base and 768-v have the same weights by name and shape; without any hint it is 768-v, the commoner one."""
    if prediction is not None:
        return prediction == "v_prediction"
    return not hints.is_sd2_base(said.metadata, said.name)


def _defaults(family: Family, unet: Unet, name: str) -> tuple[int, float]:
    """Steps and CFG scale to begin with."""
    if unet.has_guidance:
        return LCM_STEPS, LCM_GUIDANCE_SCALE
    row = hints.distillate(name)
    if row is None:
        return family.default_num_inference_steps, family.default_guidance_scale
    return hints.steps_in(name) or row.num_inference_steps, row.guidance_scale


def _unet_of(structure: UnetStructure) -> Unet:
    return Unet(
        in_channels=structure.in_channels,
        context_width=structure.context_width,
        num_levels=len(structure.levels),
        linear=structure.linear,
        pooled_width=structure.pooled_width,
        has_guidance=structure.guidance_width is not None,
    )


def _text_problems(tensors: Mapping[str, TensorInfo], context_width: int, bases: set[AdapterBase]) -> tuple[str, ...]:
    if len(bases) > 1:
        names = " and ".join(sorted(bases))
        return (f"it holds the text encoders of two families ({names}): its merge went wrong",)
    marks = [mark for mark in (*TEXT_MARKS, *DIFFUSERS_TEXT_MARKS) if mark in tensors]
    width = sum(tensors[mark].shape[-1] for mark in marks)
    if marks and width != context_width:
        return (f"its U-Net expects text of width {context_width}, but its text encoders give {width}",)
    return ()
