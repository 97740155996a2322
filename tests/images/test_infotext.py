import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.images.infotext import MIN_FIELDS, Infotext, format_infotext, parse_infotext

# As the programs of the field write it.
FULL = """\
masterpiece, (a cat:1.2) on a roof,
night: full moon, <lora:ink-wash:0.8>
BREAK
"quoted", 50% off
Negative prompt: lowres, bad hands,
text: watermark
Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model: x, \
Denoising strength: 0.5, Mask blur: 4, Lora hashes: "a: 123, b: 456", Version: v1.10.1"""

FULL_FIELDS = {
    "Steps": "20",
    "Sampler": "Euler a",
    "Schedule type": "Karras",
    "CFG scale": "7",
    "Seed": "1",
    "Size": "512x512",
    "Model": "x",
    "Denoising strength": "0.5",
    "Mask blur": "4",
    "Lora hashes": "a: 123, b: 456",
    "Version": "v1.10.1",
}


def test_a_full_text_is_read_as_prompt_negative_prompt_and_ordered_fields() -> None:
    read = parse_infotext(FULL)
    assert read.prompt == (
        'masterpiece, (a cat:1.2) on a roof,\nnight: full moon, <lora:ink-wash:0.8>\nBREAK\n"quoted", 50% off'
    )
    assert read.negative_prompt == "lowres, bad hands,\ntext: watermark"
    assert list(read.fields.items()) == list(FULL_FIELDS.items())


def test_a_full_text_is_written_as_the_field_writes_it() -> None:
    assert format_infotext(parse_infotext(FULL)) == FULL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # No negative prompt.
        (
            "a cat\nSteps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 4294967295, Size: 64x64",
            Infotext(
                prompt="a cat",
                fields={
                    "Steps": "20",
                    "Sampler": "DPM++ 2M Karras",
                    "CFG scale": "7",
                    "Seed": "4294967295",
                    "Size": "64x64",
                },
            ),
        ),
        # No prompt.
        (
            "Negative prompt: dog\nSteps: 1, Sampler: LCM, Seed: 2",
            Infotext(prompt="", negative_prompt="dog", fields={"Steps": "1", "Sampler": "LCM", "Seed": "2"}),
        ),
        # Neither.
        ("Steps: 1, Sampler: LCM, Seed: 2", Infotext(prompt="", fields={"Steps": "1", "Sampler": "LCM", "Seed": "2"})),
        # An empty negative prompt.
        (
            "cat\nNegative prompt: \nSteps: 1, Sampler: LCM, Seed: 2",
            Infotext(prompt="cat", fields={"Steps": "1", "Sampler": "LCM", "Seed": "2"}),
        ),
        # Windows line ends, space at the end.
        (
            "cat\r\nNegative prompt: dog\r\nSteps: 1, Sampler: LCM, Seed: 2\r\n",
            Infotext(prompt="cat", negative_prompt="dog", fields={"Steps": "1", "Sampler": "LCM", "Seed": "2"}),
        ),
        # A prompt alone, though it looks a little like fields.
        ("a scene: night, mood: dark", Infotext(prompt="a scene: night, mood: dark")),
        ("", Infotext(prompt="")),
        # Prompts inside the fields are quoted, with their line ends and quotes escaped.
        (
            r"cat" "\n" r'Steps: 1, Sampler: LCM, Hires prompt: "a \"big\" cat,\nred: yes \\o/", Seed: 2',
            Infotext(
                prompt="cat",
                fields={"Steps": "1", "Sampler": "LCM", "Hires prompt": 'a "big" cat,\nred: yes \\o/', "Seed": "2"},
            ),
        ),
        # Fields without a value are skipped, as are pieces that other programs leave unquoted.
        (
            'cat\nSteps: 1, Tiling, Sampler: LCM, Seed: 2, Civitai resources: [{"type":"checkpoint","id":1}], RNG: CPU',
            Infotext(
                prompt="cat",
                fields={
                    "Steps": "1",
                    "Sampler": "LCM",
                    "Seed": "2",
                    "Civitai resources": '[{"type":"checkpoint"',
                    "RNG": "CPU",
                },
            ),
        ),
        # A quoted value that isn't JSON stays as it is; the last of two equal names counts.
        (
            'cat\nSteps: 1, Sampler: "odd \\q", Seed: 2, Seed: 3',
            Infotext(prompt="cat", fields={"Steps": "1", "Sampler": '"odd \\q"', "Seed": "3"}),
        ),
    ],
)
def test_texts_of_other_programs(text: str, expected: Infotext) -> None:
    assert parse_infotext(text) == expected


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain text", "plain text"),
        ("a, b", '"a, b"'),
        ("a: b", '"a: b"'),
        ("a\nb", '"a\\nb"'),
        ('say "a", b', '"say \\"a\\", b"'),
        ("ä, 猫", '"ä, 猫"'),
        ('5" tall', '5" tall'),
        ("C:\\x", '"C:\\\\x"'),
        ("back\\slash", "back\\slash"),
        ("", ""),
        # Other programs would read these two back without the quotes and the space.
        ('"all quoted"', '"\\"all quoted\\""'),
        (" space ", '" space "'),
    ],
)
def test_values_are_quoted_where_readers_need_it(value: str, written: str) -> None:
    infotext = Infotext(prompt="", fields={"Steps": "1", "Value": value, "Seed": "2", "Size": "8x8"})
    assert format_infotext(infotext) == f"Steps: 1, Value: {written}, Seed: 2, Size: 8x8"
    assert parse_infotext(format_infotext(infotext)) == infotext


@pytest.mark.parametrize("name", ["", "x", "a:b", "a, b", " a", "-a", "a\nb", "a(b)"])
def test_a_field_name_that_no_reader_finds_again_is_a_mistake(name: str) -> None:
    with pytest.raises(ValueError, match="name of a field"):
        format_infotext(Infotext(prompt="", fields={name: "1"}))


def in_canonical_form(prompt: str) -> bool:
    """No outer space, line ends as "\\n", no line that begins the negative prompt."""
    begins_negative = any(line.lstrip().startswith("Negative prompt:") for line in prompt.split("\n"))
    return prompt == prompt.strip() and "\r\n" not in prompt and not begins_negative


# Marks that mean something in the text come up more often than chance would have it.
TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from('\n\n,,::""\\  \r\t'), max_size=60)
PROMPTS = (TEXT | st.just(FULL.partition("\nNegative")[0])).filter(in_canonical_form)
NEGATIVE_PROMPTS = TEXT.filter(lambda text: text == text.strip() and "\r\n" not in text)
NAMES = st.builds(
    str.__add__,
    st.sampled_from(string.ascii_letters + "_9é猫"),
    st.text(string.ascii_letters + string.digits + " -/_", min_size=1, max_size=20),
)
FIELDS = st.dictionaries(NAMES, TEXT, min_size=MIN_FIELDS, max_size=8)


@given(PROMPTS, NEGATIVE_PROMPTS, FIELDS)
def test_what_is_written_reads_back_equal(prompt: str, negative_prompt: str, fields: dict[str, str]) -> None:
    infotext = Infotext(prompt=prompt, negative_prompt=negative_prompt, fields=fields)
    read = parse_infotext(format_infotext(infotext))
    assert read == infotext
    assert list(read.fields) == list(fields)


@given(PROMPTS, NEGATIVE_PROMPTS, FIELDS)
def test_quoted_values_are_json_and_the_rest_has_nothing_that_splits_it(
    prompt: str, negative_prompt: str, fields: dict[str, str]
) -> None:
    text = format_infotext(Infotext(prompt=prompt, negative_prompt=negative_prompt, fields=fields))
    line = text.split("\n")[-1]
    for name, value in fields.items():
        assert line.startswith(f"{name}: ")
        line = line.removeprefix(f"{name}: ")
        if line.startswith('"'):
            decoded, end = json.JSONDecoder().raw_decode(line)
        else:
            decoded = line.split(",")[0]
            end = len(decoded)
        assert decoded == value
        line = line[end:].removeprefix(", ")
    assert line == ""


@given(TEXT)
def test_any_text_can_be_read_and_reading_is_stable(text: str) -> None:
    once = parse_infotext(text)
    assert parse_infotext(text) == once
    assert "\r\n" not in once.prompt


def test_a_very_long_line_without_fields_is_read_in_linear_time() -> None:
    # Quadratic time would be an hour.
    words = "word " * 200_000
    assert parse_infotext(words).fields == {}
    assert parse_infotext("a: " * 200_000).prompt
