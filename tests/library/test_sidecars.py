"""Notes beside a model: read as other programs write them, and written so that nothing of theirs is lost."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from webui.errors import InvalidRequest, StorageError
from webui.library.sidecars import Sidecar, read_sidecars, write_notes, write_preview

A1111 = {
    "description": "Brush and water.",
    "sd version": "SD1",
    "activation text": "ink wash, brush",
    "preferred weight": 0.7,
    "negative text": "photo",
    "notes": "Best below 0.9.",
}
SETTINGS = "Steps: 4-8, Sampler: LCM"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "ink.v2.safetensors"
    path.write_bytes(b"")
    return path


def notes_of(model: Path) -> Path:
    return model.with_name("ink.v2.json")


def test_a1111s_notes_are_read(model: Path) -> None:
    notes_of(model).write_text(json.dumps(A1111), encoding="utf-8")
    assert read_sidecars([notes_of(model)]) == Sidecar(
        description="Brush and water.",
        base="SD1",
        activation_text="ink wash, brush",
        preferred_weight=0.7,
        negative_text="photo",
        notes="Best below 0.9.",
    )


def test_trigger_words_of_a_downloaded_description_are_read(model: Path) -> None:
    path = model.with_name("ink.v2.civitai.info")
    path.write_text(json.dumps({"trainedWords": ["ink wash, ", "", 3, "brush"], "baseModel": "SD 1.5", "files": []}))
    assert read_sidecars([path]) == Sidecar(trained_words=("ink wash", "brush"), base="SD 1.5")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*A1111, "prediction type", "trainedWords", "baseModel", "x"]), JSON))
def test_no_content_of_a_notes_file_is_an_error(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    folder = tmp_path_factory.mktemp("notes")
    for name in ("m.json", "m.civitai.info"):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    notes = read_sidecars([folder / "m.json", folder / "m.civitai.info"])
    assert notes.preferred_weight is None or isinstance(notes.preferred_weight, float)
    assert all(isinstance(word, str) and word for word in notes.trained_words)


@pytest.mark.parametrize("content", ["", "[1, 2]", "{broken", "\x00", "[" * 100_000])
def test_a_notes_file_that_is_something_else_says_nothing_and_is_not_written_over(model: Path, content: str) -> None:
    notes_of(model).write_text(content)
    assert read_sidecars([notes_of(model)]) == Sidecar()
    with pytest.raises(StorageError, match="not written over"):
        write_notes(model, {"notes": "mine"})
    assert notes_of(model).read_text() == content


@given(
    st.dictionaries(
        st.sampled_from(["activation_text", "negative_text", "recommended_settings", "notes"]),
        st.text("ab \n\"'<é🎨", max_size=20),
    ),
    st.none() | st.floats(-10, 10).filter(bool),
)
def test_what_was_written_is_read_back_and_foreign_keys_stay(
    tmp_path_factory: pytest.TempPathFactory, texts: dict[str, str], weight: float | None
) -> None:
    model = tmp_path_factory.mktemp("notes") / "ink.v2.safetensors"
    theirs = {**A1111, "civitai id": {"model": 7}, "recommended settings": SETTINGS}
    notes_of(model).write_text(json.dumps(theirs), encoding="utf-8")
    path = write_notes(model, {**texts, "preferred_weight": weight})
    notes = read_sidecars([path])
    assert {name: getattr(notes, name) for name in texts} == {name: text.strip() for name, text in texts.items()}
    assert notes.preferred_weight == weight
    assert notes.description == A1111["description"]
    assert notes.recommended_settings == texts.get("recommended_settings", SETTINGS).strip()
    assert json.loads(path.read_text(encoding="utf-8"))["civitai id"] == {"model": 7}
    assert sorted(entry.name for entry in model.parent.iterdir()) == ["ink.v2.json"]


def test_an_emptied_field_leaves_the_file(model: Path) -> None:
    notes_of(model).write_text(json.dumps(A1111))
    write_notes(model, {"preferred_weight": "", "notes": " "})
    assert set(json.loads(notes_of(model).read_text())) == set(A1111) - {"preferred weight", "notes"}


def test_what_no_field_can_show_stays_when_the_field_is_empty(model: Path) -> None:
    theirs = {"recommended settings": {"steps": 4}, "notes": ["one", "two"]}
    notes_of(model).write_text(json.dumps(theirs))
    assert read_sidecars([notes_of(model)]) == Sidecar()
    write_notes(model, {"recommended_settings": "", "notes": "", "negative_text": "photo"})
    assert json.loads(notes_of(model).read_text()) == {**theirs, "negative text": "photo"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("preferred_weight", "much"), ("preferred_weight", 11), ("preferred_weight", float("nan")),
     ("prediction_type", "v"), ("notes", "x" * 20_001), ("notes", 3),
     ("recommended_settings", 4.0), ("description", "x"), ("__class__", "x")],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_refused_by_name(model: Path, field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        write_notes(model, {field: value})
    assert refused.value.field == field
    assert not notes_of(model).exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"ink\.v2\.json"):
        write_notes(tmp_path / "gone" / "ink.v2.safetensors", {"notes": "x"})


def test_the_notes_of_a_checkpoint_folder_lie_beside_it(tmp_path: Path) -> None:
    (tmp_path / "v1.5").mkdir()
    assert write_notes(tmp_path / "v1.5", {"notes": "x"}) == tmp_path / "v1.5.json"


def test_a_preview_is_small_and_carries_no_text(model: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", "a private prompt")
    original = model.with_name("picture.png")
    Image.new("RGB", (1600, 800), "#268").save(original, pnginfo=chunks)
    with Image.open(original) as picture:
        path = write_preview(model, picture)
    assert path == model.with_name("ink.v2.png")
    with Image.open(path) as preview:
        assert preview.size == (768, 384)
    assert b"private" not in path.read_bytes()


def test_the_preview_of_an_embedding_in_a_picture_lies_beside_it(tmp_path: Path) -> None:
    assert write_preview(tmp_path / "word.png", Image.new("RGB", (8, 8))) == tmp_path / "word.preview.png"
