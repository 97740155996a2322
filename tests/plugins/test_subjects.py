"""Maskers that extensions give for training: all are offered, and what is wrong with one is told and stops nothing."""

from pathlib import Path

import numpy as np
import pytest

from tests.extension_files import load_host, write_extension
from webui.errors import ExtensionError

PIXELS = np.zeros((6, 8, 3), np.uint8)


def masking(answer: str, *, id: str = "sky", label: str = "Sky") -> str:
    """An extension whose masker's answer is `answer`."""
    return f"""\
import numpy as np

@hookimpl
def subject_maskers(context):
    return [SubjectMasker(id="{id}", label="{label}", mask=lambda pixels: {answer})]
"""


HALF = "np.full(pixels.shape[:2], 0.5)"


def test_the_maskers_of_all_extensions_are_offered_and_the_first_of_equal_ids(tmp_path: Path) -> None:
    for id, code in (("a", masking(HALF)), ("b", masking(HALF, label="Another")), ("c", masking(HALF, id="sea"))):
        write_extension(tmp_path / "extensions", id, code)
    host = load_host(tmp_path)
    assert [(one.id, one.label) for one in host.subject_maskers()] == [("sky", "Sky"), ("sea", "Sky")]
    mask = host.subject_maskers()[0].mask(PIXELS)
    assert mask.shape == (6, 8) and mask.dtype == np.float32 and (mask == 0.5).all()
    host.disable("a")
    assert [one.label for one in host.subject_maskers()] == ["Another", "Sky"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("pixels", "which is no mask of 8 x 6 pixels"),
        ("None", "which is no mask of 8 x 6 pixels"),
        ("np.full((6, 8), 2.0)", "not between 0 and 1"),
        ("np.full((6, 8), np.nan)", "not between 0 and 1"),
        ("1 / 0", "division by zero"),
    ],
)
def test_what_is_no_mask_is_refused_and_named(tmp_path: Path, answer: str, told: str) -> None:
    write_extension(tmp_path / "extensions", "a", masking(answer))
    host = load_host(tmp_path)
    (masker,) = host.subject_maskers()
    with pytest.raises(ExtensionError, match=told):
        masker.mask(PIXELS)
    assert told in " ".join(host.extension("a").problems)


def test_a_hook_that_gives_something_else_is_named_and_the_others_are_offered(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "a", "@hookimpl\ndef subject_maskers():\n    return ['mask']\n")
    write_extension(tmp_path / "extensions", "b", masking(HALF))
    host = load_host(tmp_path)
    assert [one.id for one in host.subject_maskers()] == ["sky"]
    assert "no list of SubjectMasker" in " ".join(host.extension("a").problems)
