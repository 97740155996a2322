"""The box of tools in the Models tab. `assets/model_tools.js` builds it from the table."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from webui.ui.component import JsonHtml

FieldKind = Literal["checkpoint", "adapter", "vae", "loras", "number", "choice", "text"]
Choices = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolField:
    """A control. Empty numbers and choices are left out of the request.

    `empty` is what an empty one shows; `needs` names a choice without which this one has no use.
    """

    name: str
    label: str
    kind: FieldKind
    start: str = ""
    step: str = "1"
    choices: Choices = ()
    empty: str = ""
    note: str = ""
    needs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolForm:
    """`tool` as in the request; `action` stands on the button that starts it."""

    tool: str
    title: str
    action: str
    summary: str
    fields: tuple[ToolField, ...]


PRECISIONS: Choices = (("fp32", "32 bits (fp32)"), ("fp16", "16 bits (fp16)"), ("bf16", "16 bits (bf16)"))
LAYOUTS: Choices = (("single-file", "Single file"), ("diffusers", "Diffusers folder"))
METHODS: Choices = (
    ("sv_ratio", "Largest singular value divided by the threshold"),
    ("sv_fro", "Share of the Frobenius norm"),
    ("sv_cumulative", "Share of the sum of singular values"),
)


def _checkpoint(name: str, label: str, *, empty: str = "Choose a checkpoint", note: str = "") -> ToolField:
    return ToolField(name=name, label=label, kind="checkpoint", empty=empty, note=note)


def _precision(start: str, *, keep: bool) -> ToolField:
    choices = ((("keep", "As it is"),) if keep else ()) + PRECISIONS
    return ToolField(name="precision", label="Precision", kind="choice", start=start, choices=choices)


def _ranks(start: str, *, empty: str, conv_empty: str) -> tuple[ToolField, ToolField]:
    conv_label = "Rank of convolutions"
    return (
        ToolField(name="rank", label="Rank", kind="number", start=start, empty=empty),
        ToolField(name="conv_rank", label=conv_label, kind="number", empty=conv_empty),
    )


LAYOUT = ToolField(name="to", label="Layout", kind="choice", start="single-file", choices=LAYOUTS)
VAE = ToolField(name="vae", label="VAE", kind="vae", empty="Its own")
NAME = ToolField(name="destination", label="Name of the new model", kind="text")
LORAS = ToolField(name="loras", label="LoRAs", kind="loras")

FORMS = (
    ToolForm(
        tool="merge",
        title="Merge checkpoints",
        action="Merge",
        summary="A · (1 − multiplier) + B · multiplier; with C, A + (B − C) · multiplier.",
        fields=(
            _checkpoint("a", "A", note="An inpainting model goes here."),
            _checkpoint("b", "B"),
            _checkpoint("c", "C", empty="None"),
            ToolField(name="multiplier", label="Multiplier", kind="number", start="0.5", step="0.05"),
            ToolField(
                name="blocks",
                label="Other multipliers for single blocks",
                kind="text",
                empty="IN00=0.2, M00=1, BASE=0",
                note="IN00 …, M00, OUT00 … of the U-Net; BASE is all else.",
            ),
            VAE,
            _precision("fp16", keep=True),
            LAYOUT,
            NAME,
        ),
    ),
    ToolForm(
        tool="convert",
        title="Convert",
        action="Convert",
        summary="A checkpoint in another layout or precision, or with another VAE.",
        fields=(_checkpoint("source", "Checkpoint"), VAE, _precision("keep", keep=True), LAYOUT, NAME),
    ),
    ToolForm(
        tool="bake",
        title="Bake in LoRAs",
        action="Bake",
        summary="A checkpoint that has LoRAs in its weights for good.",
        fields=(_checkpoint("checkpoint", "Checkpoint"), LORAS, _precision("keep", keep=True), LAYOUT, NAME),
    ),
    ToolForm(
        tool="extract",
        title="Extract a LoRA",
        action="Extract",
        summary="What tells two checkpoints apart, as a LoRA for the first.",
        fields=(
            _checkpoint("base", "Base"),
            _checkpoint("tuned", "Tuned checkpoint"),
            *_ranks("32", empty="32", conv_empty="Left out"),
            ToolField(
                name="min_difference",
                label="Least difference of a text encoder",
                kind="number",
                start="0.01",
                step="0.01",
                note="One that differs less is left out.",
            ),
            _precision("fp16", keep=False),
            NAME,
        ),
    ),
    ToolForm(
        tool="resize",
        title="Resize a LoRA",
        action="Resize",
        summary="A LoRA of smaller rank, each layer as close as that rank can be.",
        fields=(
            ToolField(name="lora", label="LoRA", kind="adapter", empty="Choose a LoRA"),
            *_ranks("16", empty="16", conv_empty="The same"),
            ToolField(
                name="method", label="Fewer where that is enough", kind="choice", choices=METHODS, empty="This rank"
            ),
            ToolField(
                name="threshold",
                label="Threshold",
                kind="number",
                step="any",
                needs="method",
                note="20 for the first rule, 0.9 for a share.",
            ),
            _precision("fp16", keep=False),
            NAME,
        ),
    ),
    ToolForm(
        tool="merge-loras",
        title="Merge LoRAs",
        action="Merge",
        summary="Several LoRAs as one: exact without a rank, else the closest of that rank.",
        fields=(
            LORAS,
            *_ranks("", empty="All ranks added up", conv_empty="The same"),
            _precision("fp16", keep=False),
            NAME,
        ),
    ),
)


class ModelTools(JsonHtml):
    """`value` is what never changes: the forms. Models to choose from and jobs come from our own routes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            value={"forms": [asdict(form) for form in FORMS]},
            html_template='<section class="at-get at-make" aria-label="Tools"></section>',
            js_on_load="atelierTools.panel({element, props})",
            **options,
        )
