"""Tags of adapters: what they may say, and what happens to those that say it wrongly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.prompt.blocks import BLOCKS, LAYOUTS, SD_BLOCKS, BlockWeights, parse_block_weights
from webui.prompt.grammar import parse_prompt
from webui.prompt.tags import HypernetTag, LoraTag

SEVENTEEN = "0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1,1.1,1.2,1.3,1.4,1.5,1.6,1.7"


def tag(text: str) -> LoraTag:
    parsed = parse_prompt(text)
    assert parsed.problems == ()
    return parsed.loras[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<lora:a>", LoraTag(name="a")),
        ("<lora:a:0.5>", LoraTag(name="a", unet_weight=0.5, text_encoder_weight=0.5)),
        ("<lora:a:-.5>", LoraTag(name="a", unet_weight=-0.5, text_encoder_weight=-0.5)),
        ("<lora: a b : 0.5 >", LoraTag(name="a b", unet_weight=0.5, text_encoder_weight=0.5)),
        ("<lora:a:0.5:0.2>", LoraTag(name="a", unet_weight=0.2, text_encoder_weight=0.5)),
        ("<lora:a:0.5:0.2:8>", LoraTag(name="a", unet_weight=0.2, text_encoder_weight=0.5, max_rank=8)),
        ("<lyco:a:te=0.1:unet=0.9>", LoraTag(name="a", unet_weight=0.9, text_encoder_weight=0.1)),
        ("<LORA:a:te=0.1>", LoraTag(name="a", unet_weight=0.1, text_encoder_weight=0.1)),
        ("<lora:a:unet=0.1>", LoraTag(name="a", unet_weight=0.1, text_encoder_weight=1.0)),
        ("<lora:a:0.5:unet=0.1>", LoraTag(name="a", unet_weight=0.1, text_encoder_weight=0.5)),
        ("<lora:a:1:dyn=4>", LoraTag(name="a", max_rank=4)),
        ("<lora:a:1:start=5>", LoraTag(name="a", start=5)),
        ("<lora:a:1:stop=0.4>", LoraTag(name="a", stop=0.4)),
        ("<lora:a:1:step=5-10>", LoraTag(name="a", start=5, stop=10)),
        ("<lora:a:1:area=mask>", LoraTag(name="a", area="mask")),
        ("<lora:v1.0_b-c, d:1>", LoraTag(name="v1.0_b-c, d")),
        ("<lora:sub/a:1>", LoraTag(name="sub/a")),
    ],
)
def test_tags_carry_their_arguments(text: str, expected: LoraTag) -> None:
    assert tag(text) == expected


def test_hypernetworks_have_a_name_and_a_weight() -> None:
    parsed = parse_prompt("<hypernet:anime> x <hypernet:b:0.3>")
    assert parsed.hypernets == (HypernetTag(name="anime"), HypernetTag(name="b", weight=0.3, position=19))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<lora:a:nan>", "'NAN' names no blocks"),
        ("<lora:a:te=inf>", "te is 'inf', which is not a number"),
        ("<lora:a:1:1:1:1>", "4 weights are given"),
        ("<lora:a:1:1:0>", "dyn is '0'"),
        ("<lora:a:1:dyn=1.5>", "dyn is '1.5'"),
        ("<lora:a:1:start=-1>", "start is -1, which is neither a number of steps nor a share"),
        ("<lora:a:1:stop=1.5>", "stop is 1.5, which is neither a number of steps nor a share"),
        ("<lora:a:1:step=5>", "step is '5', which is not two steps"),
        ("<lora:a:1:area=face>", "only area=mask is known"),
        ("<lora:a:1:lbw=1,2,3>", "3 block weights are none of 12, 17, 20, 26"),
        ("<lora:a:1:lbw=IN99>", "'IN99' names no blocks"),
        ("<lora: :1>", "names no file"),
        ("<hypernet:a:b>", "weight is 'b'"),
        ("<hypernet:a:1:2>", "'1:2' is not one weight"),
    ],
)
def test_a_tag_with_a_wrong_argument_is_left_out_with_the_reason(text: str, reason: str) -> None:
    parsed = parse_prompt(f"cat {text} dog")
    assert (parsed.loras, parsed.hypernets) == ((), ())
    assert [problem.position for problem in parsed.problems] == [4]
    assert reason in parsed.problems[0].reason
    assert parsed.sections[0][0].text == "cat  dog"


def test_arguments_of_other_programs_are_passed_over_with_a_note() -> None:
    parsed = parse_prompt("<lora:a:0.5:hr=0.2>")
    assert parsed.loras == (LoraTag(name="a", unet_weight=0.5, text_encoder_weight=0.5),)
    assert "'hr=' means nothing here" in parsed.problems[0].reason


def test_steps_count_from_zero_and_shares_are_of_the_run() -> None:
    assert list(LoraTag(name="a").steps(4)) == [0, 1, 2, 3]
    assert list(LoraTag(name="a", start=1, stop=3).steps(4)) == [1, 2]
    assert list(LoraTag(name="a", start=0.5).steps(4)) == [2, 3]
    assert list(LoraTag(name="a", stop=0.01).steps(4)) == [0]
    assert list(LoraTag(name="a", stop=0).steps(4)) == []
    assert list(LoraTag(name="a", start=9).steps(4)) == []
    assert list(LoraTag(name="a", stop=1.0).steps(4)) == [0]


@given(num_steps=st.integers(1, 150), mark=st.one_of(st.floats(0, 1), st.integers(0, 200)))
def test_what_starts_where_another_stops_covers_every_step_once(num_steps: int, mark: float) -> None:
    before, after = LoraTag(name="a", stop=mark), LoraTag(name="b", start=mark)
    assert [*before.steps(num_steps), *after.steps(num_steps)] == list(range(num_steps))


@pytest.mark.parametrize(
    ("length", "shape", "first", "last"),
    [
        (12, "sdxl", "IN04", "OUT05"),
        (17, "sd", "IN01", "OUT11"),
        (20, "sdxl", "IN00", "OUT08"),
        (26, "sd", "IN00", "OUT11"),
    ],
)
def test_lists_of_four_lengths_speak_of_the_blocks_of_their_layout(
    length: int, shape: str, first: str, last: str
) -> None:
    names = LAYOUTS[length][1]
    assert (len(names), names[0], names[1], names[-1]) == (length, "BASE", first, last)
    weights = parse_block_weights(",".join(str(n + 1) for n in range(length))).of(shape)  # type: ignore[arg-type]
    assert weights is not None
    assert {block: weight for block, weight in weights.items() if weight} == dict(
        zip(names, range(1, length + 1), strict=True)
    )
    assert parse_block_weights(",".join(["1"] * length)).of("sdxl" if shape == "sd" else "sd") is None


@pytest.mark.parametrize(
    ("preset", "weights"),
    [
        ("NONE", "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0"),
        ("ALL", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"),
        ("ALL0.5", "0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5,0.5"),
        ("INS", "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0"),
        ("IND", "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0"),
        ("INALL", "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0"),
        ("MIDD", "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0"),
        ("OUTD", "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0"),
        ("OUTS", "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1"),
        ("OUTALL", "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1"),
        ("IN05", "0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0"),
        ("MID", "0,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0"),
        ("IN05-OUT03", "0,0,0,0,1,1,1,1,1,0,0,0,0,0,0,0,0"),
        ("OUT03-IN05", "0,0,0,0,1,1,1,1,1,0,0,0,0,0,0,0,0"),
        ("NOT IN05-OUT03", "1,1,1,1,0,0,0,0,0,1,1,1,1,1,1,1,1"),
        ("base, m00", "1,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0"),
    ],
)
def test_presets_and_ranges_are_those_of_the_extension(preset: str, weights: str) -> None:
    named, listed = parse_block_weights(preset).of("sd"), parse_block_weights(weights).of("sd")
    assert named is not None and listed is not None
    assert {block: named[block] for block in LAYOUTS[17][1]} == {block: listed[block] for block in LAYOUTS[17][1]}


def test_presets_speak_of_both_networks() -> None:
    weights = parse_block_weights("OUTS").of("sdxl")
    assert weights is not None
    assert [block for block, weight in weights.items() if weight] == ["BASE", *(f"OUT0{n}" for n in range(3, 9))]


@pytest.mark.parametrize("text", ["<lora:a:0.5:lbw={}>", "<lora:a:0.5:{}>", "<lora:a:0.5:0.5:{}>"])
def test_block_weights_come_with_a_name_or_without(text: str) -> None:
    assert tag(text.format(SEVENTEEN)).block_weights == parse_block_weights(SEVENTEEN)
    assert tag(text.format("OUTD")).block_weights == parse_block_weights("OUTD")


@given(st.lists(st.floats(-2, 2), min_size=26, max_size=26))
def test_block_weights_keep_their_numbers(numbers: list[float]) -> None:
    weights = parse_block_weights(",".join(map(str, numbers)))
    assert weights == BlockWeights(sd=tuple(numbers), sdxl=None)
    assert weights.of("sd") == dict(zip(SD_BLOCKS, numbers, strict=True))
    assert BLOCKS["sd"] == SD_BLOCKS


@given(st.text(max_size=30))
def test_no_argument_is_an_error(text: str) -> None:
    parse_prompt(f"<lora:a:{text}>")
    parse_prompt(f"<lora:a:lbw={text}>")
