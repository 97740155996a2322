"""The figures, for people and for programs."""

import json

import pytest
from PIL import Image

from extensions.face_consistency.report import FaceReport, badge, details, infotext_fields, notes_on, processed_of


def face(
    action: str = "warped", before: float | None = 0.31, after: float | None = 0.83, reason: str = ""
) -> FaceReport:
    return FaceReport(
        box=(1, 2, 30, 40), action=action, reason=reason, similarity_before=before, similarity_after=after
    )


def test_the_json_has_the_five_keys_and_nothing_else() -> None:
    assert face().json() == {
        "box": [1, 2, 30, 40],
        "action": "warped",
        "reason": "",
        "similarity_before": 0.31,
        "similarity_after": 0.83,
    }
    json.dumps(details([face(), face(before=None, after=None)], ""), allow_nan=False)


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (face(), "warped 0.31 -> 0.83"),
        (face("warped+refined"), "warped + refined 0.31 -> 0.83"),
        (face("kept", 0.5, 0.5, "It is drawn, and a photo would not fit in."), "kept 0.50 (It is drawn)"),
        (face("skipped", None, None, "Too small."), "skipped (Too small)"),
        (face("skipped", 0.91, 0.91, "It is 0.91 like the person."), "skipped 0.91 (It is 0.91 like the person)"),
    ],
)
def test_a_face_is_told_in_one_line(report: FaceReport, line: str) -> None:
    assert report.line() == line


def test_all_of_a_reason_is_told_once_and_its_beginning_elsewhere() -> None:
    reason = "No face where the photo's was: this one is 2.4 face widths away. If it is meant, choose it by its number."
    made = processed_of(Image.new("RGB", (1, 1)), [face("skipped", None, None, reason)], "", ())
    assert made.notes == (reason,)
    assert made.fields == {"Face": "skipped (No face where the photo's was)"}
    assert made.badge is not None and made.badge.title == "skipped (No face where the photo's was)"


def test_several_faces_are_numbered() -> None:
    assert infotext_fields([face(), face(after=0.7)], "") == {
        "Face 1": "warped 0.31 -> 0.83",
        "Face 2": "warped 0.31 -> 0.70",
    }
    assert infotext_fields([], "No face was found.") == {"Face": "unchanged (No face was found)"}


@pytest.mark.parametrize(
    ("reports", "text", "tone"),
    [
        ([face()], "face 0.31 → 0.83", "good"),
        ([face(after=0.7)], "face 0.31 → 0.70", "plain"),
        ([face(after=0.35)], "face 0.31 → 0.35", "warn"),
        ([face(), face(after=0.6)], "face 0.31 → 0.60", "plain"),
        ([face("skipped", 0.9, 0.9, "already")], "face 0.90", "good"),
        ([face("kept", 0.5, 0.5, "drawn")], "face 0.50", "warn"),
        ([face("skipped", None, None, "small")], "face unchanged", "warn"),
        ([face("swapped", None, None, "not measured")], "face swapped", "plain"),
        ([], "face unchanged", "warn"),
    ],
)
def test_the_badge_is_that_of_the_least_alike_face(reports: list[FaceReport], text: str, tone: str) -> None:
    made = badge(reports, "" if reports else "No face was found.")
    assert (made.text, made.tone) == (text, tone)
    assert made.title


def test_what_went_well_is_not_worth_a_note() -> None:
    assert notes_on([face(), face("skipped", 0.9, 0.9, "It is already alike.")]) == ()
    assert notes_on([face("kept", 0.2, 0.2, "It is drawn.")]) == ("It is drawn.",)
    assert notes_on([face(), face("kept", 0.2, 0.2, "It is drawn.")]) == ("Face 2: It is drawn.",)


def test_only_a_changed_picture_is_a_composite() -> None:
    picture = Image.new("RGB", (8, 8))
    assert processed_of(picture, [face()], "", ()).is_composite
    assert not processed_of(picture, [face("kept")], "", ()).is_composite
    unchanged = processed_of(picture, [], "No face was found.", ("a", "a"))
    assert not unchanged.is_composite
    assert unchanged.notes == ("No face was found.", "a")
    assert unchanged.details == {"faces": [], "reason": "No face was found."}
