import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.prompt.grammar import WeightedText, parse_prompt

FIRST_USER = (
    "<lora:plump_control_v1.0:0.3>, <lora:Fat:0.2>, <lora:add_detail:0.3>, ultra detailed, obesity, photo of a person, "
    "looking into camera, realistic, <lora:Fat_lora_v1:0.7>"
)
FIRST_USER_NEGATIVE = (
    "duplicate, ugly, (bad and mutated hands:1.3), (worst quality:1.5), (low quality:1.5), (blurry:1.5), bad anatomy, "
    "grainy"
)


def pieces(text: str) -> list[tuple[str, float]]:
    return [(piece.text, round(piece.weight, 6)) for section in parse_prompt(text).sections for piece in section]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a (cat)", [("a ", 1.0), ("cat", 1.1)]),
        ("((cat))", [("cat", 1.21)]),
        ("[cat]", [("cat", round(1 / 1.1, 6))]),
        ("(cat:1.3)", [("cat", 1.3)]),
        ("(cat: 1.3 )", [("cat", 1.3)]),
        ("(cat:.5)", [("cat", 0.5)]),
        ("(cat:-1)", [("cat", -1.0)]),
        ("((a:1.2) b:1.5)", [("a", 1.8), (" b", 1.5)]),
        ("[a:1.3]", [("a:1.3", round(1 / 1.1, 6))]),
        ("a:1.3)", [("a:1.3)", 1.0)]),
        ("(open to the end", [("open to the end", 1.1)]),
        ("stray ) and ]", [("stray ) and ]", 1.0)]),
        (r"\(literal\) \[too\] \\", [("(literal) [too] \\", 1.0)]),
        (r"a \lone backslash", [("a lone backslash", 1.0)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("BREAKFAST for B", [("BREAKFAST for B", 1.0)]),
        ("", []),
    ],
)
def test_emphasis_means_what_users_know(text: str, expected: list[tuple[str, float]]) -> None:
    assert pieces(text) == expected


def test_break_starts_a_section_and_keeps_the_weight_around_it() -> None:
    assert parse_prompt("(a BREAK b:1.3)").sections == ((WeightedText("a ", 1.3),), (WeightedText("b", 1.3),))


def test_the_first_users_prompt_is_read() -> None:
    parsed = parse_prompt(FIRST_USER)
    assert [(tag.name, tag.unet_weight) for tag in parsed.loras] == [
        ("plump_control_v1.0", 0.3),
        ("Fat", 0.2),
        ("add_detail", 0.3),
        ("Fat_lora_v1", 0.7),
    ]
    assert parsed.problems == ()
    text = "".join(piece.text for piece in parsed.sections[0])
    assert "<" not in text
    assert "obesity, photo of a person" in text


def test_the_first_users_negative_prompt_is_read() -> None:
    weights = dict(pieces(FIRST_USER_NEGATIVE))
    assert weights["bad and mutated hands"] == 1.3
    assert weights["low quality"] == 1.5
    assert weights[", bad anatomy, grainy"] == 1.0


def test_tags_that_mean_nothing_are_named_with_their_place_and_leave_the_text() -> None:
    parsed = parse_prompt("a <foo:bar> b <lora:x:te=heavy>")
    assert [str(problem) for problem in parsed.problems] == [
        "<foo:bar> (character 3): means nothing here and was left out.",
        "<lora:x:te=heavy> (character 15): te is 'heavy', which is not a number; the tag was left out.",
    ]
    assert parsed.loras == ()
    assert pieces("a <foo:bar> b") == [("a  b", 1.0)]


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    assert len(parse_prompt(text).sections) >= 1


@given(st.text(alphabet=st.characters(exclude_characters="()[]\\<>:B")))
def test_plain_text_is_kept_as_it_is(text: str) -> None:
    assert "".join(piece.text for piece in parse_prompt(text).sections[0]) == text


@given(st.text(min_size=1))
def test_escaped_text_is_kept_as_it_is(text: str) -> None:
    escaped = text.replace("\\", "\\\\")
    for character in "()[]":
        escaped = escaped.replace(character, f"\\{character}")
    if "<" in text or "BREAK" in text:
        return
    assert all(weight == 1.0 for _, weight in pieces(escaped))
    assert "".join(piece for piece, _ in pieces(escaped)) == text
