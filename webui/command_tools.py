"""`launch.py models convert | merge | bake | extract | resize | merge-loras`: options to a request."""

import argparse
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from webui.library.tool_requests import TOOL_REQUESTS, ToolRequest, parse_blocks, parse_tool_request

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
_WEIGHTED = re.compile(rf"(?P<name>.+?):(?P<first>{_NUMBER})(?::(?P<second>{_NUMBER}))?")


def request_of(options: argparse.Namespace) -> ToolRequest:
    """The request of parsed options. Raises InvalidRequest that names the field."""
    values = {key: value for key, value in vars(options).items() if key in _FIELDS[options.tool] and value is not None}
    if "loras" in values:
        values["loras"] = [parse_weighted(text) for text in values["loras"]]
    if "blocks" in values:
        values["blocks"] = parse_blocks(values["blocks"])
    return parse_tool_request({**values, "tool": options.tool})


def parse_weighted(text: str) -> dict[str, Any]:
    """ "name", "name:0.8" or "name:0.8:0.5" as in a LoRA tag: the text encoder's weight first, or one for both."""
    match = _WEIGHTED.fullmatch(text)
    if match is None:
        return {"name": text}
    first, second = match["first"], match["second"]
    if second is None:
        return {"name": match["name"], "unet_weight": float(first)}
    return {"name": match["name"], "unet_weight": float(second), "text_encoder_weight": float(first)}


def _convert_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="SOURCE", help="name or path of a checkpoint")
    command.add_argument("destination", metavar="DESTINATION", help="new file or folder")
    command.add_argument("--to", choices=("diffusers", "single-file"), required=True, help="layout")
    _precision(command, "keep")
    _vae(command)


def _merge_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("a", metavar="A", help="first checkpoint; an inpainting model goes here")
    command.add_argument("b", metavar="B", help="second checkpoint")
    command.add_argument("destination", metavar="DESTINATION", help="new file or folder")
    command.add_argument("--add-difference", dest="c", metavar="C", help="A + (B - C) * multiplier")
    command.add_argument("--multiplier", type=float, help="0 is A, 1 is B (0.5)")
    command.add_argument("--blocks", help='other multipliers for single blocks: "IN00=0.2,M00=1,BASE=0"')
    command.add_argument("--to", choices=("diffusers", "single-file"), help="layout (single-file)")
    _precision(command, "fp16")
    _vae(command)


def _bake_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("checkpoint", metavar="CHECKPOINT")
    command.add_argument("loras", metavar="LORA[:WEIGHT]", nargs="+")
    command.add_argument("--output", dest="destination", required=True, metavar="DESTINATION")
    command.add_argument("--to", choices=("diffusers", "single-file"), help="layout (single-file)")
    _precision(command, "keep")


def _extract_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("base", metavar="BASE", help="checkpoint to subtract")
    command.add_argument("tuned", metavar="TUNED", help="checkpoint that has what the LoRA shall give")
    command.add_argument("destination", metavar="DESTINATION", help="new .safetensors file")
    command.add_argument("--rank", type=int, help="of linear layers (32)")
    command.add_argument("--conv-rank", type=int, help="of convolutions (left out)")
    command.add_argument("--min-difference", type=float, help="text encoders that differ less are left out (0.01)")
    _precision(command, "fp16", keep=False)


def _resize_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("lora", metavar="LORA")
    command.add_argument("destination", metavar="DESTINATION", help="new .safetensors file")
    command.add_argument("--rank", type=int, help="at most (16)")
    command.add_argument("--conv-rank", type=int, help="of convolutions, at most (as --rank)")
    command.add_argument("--method", choices=("sv_ratio", "sv_fro", "sv_cumulative"), help="fewer where that is enough")
    command.add_argument("--threshold", type=float, help="for --method: 20 for sv_ratio, 0.9 for the others")
    _precision(command, "fp16", keep=False)


def _merge_loras_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("loras", metavar="LORA[:WEIGHT]", nargs="+")
    command.add_argument("--output", dest="destination", required=True, metavar="DESTINATION")
    command.add_argument("--rank", type=int, help="of the result (the ranks added up, which is exact)")
    command.add_argument("--conv-rank", type=int, help="of convolutions (as --rank)")
    _precision(command, "fp16", keep=False)


def _precision(command: argparse.ArgumentParser, default: str, *, keep: bool = True) -> None:
    choices = (("keep",) if keep else ()) + ("fp32", "fp16", "bf16")
    command.add_argument("--precision", choices=choices, help=f"of the new weights ({default})")


def _vae(command: argparse.ArgumentParser) -> None:
    command.add_argument("--vae", help="name or path of an autoencoder to put in")


TOOLS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = MappingProxyType(
    {
        "convert": ("write a checkpoint in another layout or precision", _convert_options),
        "merge": ("mix two checkpoints, or add the difference of two to a third", _merge_options),
        "bake": ("put LoRAs into a checkpoint for good", _bake_options),
        "extract": ("make a LoRA of what tells two checkpoints apart", _extract_options),
        "resize": ("give a LoRA a smaller rank", _resize_options),
        "merge-loras": ("make one LoRA of several", _merge_loras_options),
    }
)
"""Name -> summary and options; `request_of` makes the request."""

_FIELDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {kind.model_fields["tool"].default: frozenset(kind.model_fields) - {"tool"} for kind in TOOL_REQUESTS}
)
