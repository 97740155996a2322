"""The tools' command line: options as typed to the request that runs."""

import argparse

import pytest

from webui.command_tools import TOOLS, parse_weighted, request_of
from webui.errors import InvalidRequest
from webui.library.tool_requests import (
    TOOL_REQUESTS,
    Bake,
    Convert,
    Extract,
    Merge,
    MergeLoras,
    Resize,
    WeightedLora,
    parse_blocks,
)


def typed(*words: str) -> object:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="tool", required=True)
    for name, (_, add_options) in TOOLS.items():
        add_options(commands.add_parser(name))
    return request_of(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "request_"),
    [
        ("convert a b --to diffusers", Convert(source="a", destination="b", to="diffusers")),
        ("merge a b d", Merge(a="a", b="b", destination="d")),
        (
            "merge a b d --add-difference c --multiplier 1 --blocks IN00=0.5,base=0 --precision fp32",
            Merge(
                a="a", b="b", c="c", destination="d", multiplier=1, blocks={"IN00": 0.5, "BASE": 0}, precision="fp32"
            ),
        ),
        (
            "bake a x:0.5 y --output d",
            Bake(
                checkpoint="a",
                loras=(WeightedLora(name="x", unet_weight=0.5), WeightedLora(name="y")),
                destination="d",
            ),
        ),
        ("extract a b d --rank 8 --conv-rank 4", Extract(base="a", tuned="b", destination="d", rank=8, conv_rank=4)),
        (
            "resize a d --rank 4 --method sv_fro --threshold 0.9",
            Resize(lora="a", destination="d", rank=4, method="sv_fro", threshold=0.9),
        ),
        (
            "merge-loras a:1:0.5 --output d",
            MergeLoras(loras=(WeightedLora(name="a", unet_weight=0.5, text_encoder_weight=1.0),), destination="d"),
        ),
    ],
)
def test_options_make_the_request_they_say(words: str, request_: object) -> None:
    assert typed(*words.split()) == request_


def test_every_tool_has_a_command_and_every_command_a_tool() -> None:
    tools = {kind.model_fields["tool"].default for kind in TOOL_REQUESTS}
    assert tools == set(TOOLS)


def test_names_may_have_dots_and_no_weight() -> None:
    assert parse_weighted("add_detail_v1.0") == {"name": "add_detail_v1.0"}
    assert parse_weighted("C:\\loras\\a:b.safetensors:-.5")["name"] == "C:\\loras\\a:b.safetensors"


@pytest.mark.parametrize("text", ["IN00", "IN00=x", ""])
def test_blocks_without_numbers_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_blocks(text)


def test_a_rank_of_nothing_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidRequest, match="rank"):
        typed("resize", "a", "d", "--rank", "0")
