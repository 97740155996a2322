"""Photo sets as the page has them: named, filled, looked at, changed and undone."""

import io
import json
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from tests.training.data.pictures import picture, saved
from webui.errors import ExtensionError, InvalidRequest, StorageError, WebUIError
from webui.training.data import set_changes, set_checks, set_contents, uploads
from webui.training.data.edits import FILE_NAME, Edit
from webui.training.data.faces import Pixels, SeenFace
from webui.training.data.photo_set import PhotoSet, SetInfo
from webui.training.data.set_checks import Findings, Purpose
from webui.training.data.set_names import MOST_BYTES, file_name, is_reserved, set_name, similar_name
from webui.training.data.sets import OpenSet, PhotoSets
from webui.training.data.sources import find_photos
from webui.training.data.uploads import Taken, Upload, incoming

LONG_S = 60.0
SMALL = (96, 64)
STYLE = Purpose(subject="style", resolution=64, bucket_step=8)


@pytest.fixture
def sets(tmp_path: Path) -> Iterator[PhotoSets]:
    sets = PhotoSets(tmp_path / "photos", tmp_path / "cache")
    yield sets
    sets.close()


def encoded(seed: int, form: str = "PNG", size: tuple[int, int] = SMALL) -> bytes:
    data = io.BytesIO()
    picture(seed, size).save(data, form)
    return data.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def upload(sets: PhotoSets, id: str, files: dict[str, bytes] | Sequence[tuple[str, bytes]]) -> Taken:
    with incoming(sets.source(id)) as room:
        listed = []
        for i, (name, data) in enumerate(files.items() if isinstance(files, dict) else files):
            path = room / f"{i}{Path(name).suffix}"
            path.write_bytes(data)
            listed.append(Upload(name=name, path=path))
        return sets.add(id, listed, room)


def looked_at(opened: OpenSet, purpose: Purpose = STYLE) -> Findings:
    _, found, progress = opened.checker.findings(purpose, wait_s=LONG_S)
    assert progress is None
    return found


def captions(sets: PhotoSets, id: str) -> dict[str, str | None]:
    return {photo.name: photo.caption for photo in sets.open(id).photos()}


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- names ----

NASTY = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="./\\ ~:aé\u0301\u202e\0\n", max_size=12),
    st.sampled_from(["con", "LPT1.txt", "..", "a/../b", "C:\\x", "nul ", "COM¹", "\ud800", "ok.", "a" * 300 + ".jpg"]),
)


@settings(max_examples=100)
@given(text=NASTY)
def test_a_set_is_called_something_that_any_system_keeps_or_is_refused(text: str) -> None:
    assert set_name(f"{similar_name(text)} (12)")
    try:
        name = set_name(text)
    except InvalidRequest as refused:
        assert refused.field == "name"
        return
    assert name == unicodedata.normalize("NFC", name).strip()
    assert Path(name).name == name and not name.startswith((".", "~")) and not is_reserved(name)
    assert len(name.encode()) <= MOST_BYTES and not set(name) & set('<>:"/\\|?*\0\n')


@settings(max_examples=100)
@given(text=NASTY)
def test_a_files_name_never_leads_out_of_its_set(text: str) -> None:
    name = file_name(text)
    for part in name.split("/") if name else []:
        assert part and not part.startswith((".", "~")) and not is_reserved(part) and len(part.encode()) <= 255
        assert not set(part) & set('<>:"\\|?*\0\n')


def test_two_sets_cannot_share_a_name_in_any_case(sets: PhotoSets) -> None:
    sets.create("Zoë")
    with pytest.raises(InvalidRequest, match="already"):
        sets.create(unicodedata.normalize("NFD", "ZOË"))
    assert [info.name for info in sets.all()] == ["Zoë"]


def test_a_dropped_folder_gets_a_name_like_its_own(sets: PhotoSets) -> None:
    made = [sets.create(name, similar=True) for name in ("Anna", "anna", "C# / x", "..", "CON", "x" * 300)]
    assert made == ["Anna", "anna (2)", "C_ x", "photos", "_CON", "x" * 54]


@pytest.mark.parametrize("id", ["", "..", ".", "../photos", "nobody", "~000000000000", "folders.json", "/", "a\0b"])
def test_a_set_that_is_not_there_is_refused_whatever_its_name(id: str, sets: PhotoSets, tmp_path: Path) -> None:
    sets.create("Anna")
    saved(tmp_path, "beside.png", picture(1, SMALL))
    for ask in (sets.source, sets.open, sets.remove):
        with pytest.raises(InvalidRequest):
            ask(id)
    assert (tmp_path / "beside.png").is_file() and (tmp_path / "photos" / "Anna").is_dir()


# ---- taking files in ----


def test_pictures_come_with_their_captions_and_masks_in_any_order(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    mask = encoded(9)
    taken = upload(
        sets, id, {"a.txt": b"a hat", "a-masklabel.png": mask, "a.png": encoded(1), "trip/b.jpg": encoded(2)}
    )
    assert (taken.pictures, taken.beside, taken.refused) == (["a.png", "trip/b.jpg"], ["a.txt", "a-masklabel.png"], [])
    assert captions(sets, id) == {"a.png": "a hat", "trip/b.jpg": None}
    assert sets.open(id).photos()[0].mask == sets.source(id) / "a-masklabel.png"


def test_a_caption_that_comes_before_its_picture_waits_for_it(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    taken = upload(sets, id, {"a.txt": b"a hat"})
    assert [(each.name, "not there yet" in each.sentence) for each in taken.refused] == [("a.txt", True)]
    upload(sets, id, {"a.png": encoded(1)})
    assert captions(sets, id) == {"a.png": "a hat"}


def test_the_same_bytes_are_kept_once_and_others_of_the_same_name_get_another(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1), "a.txt": b"one"})
    again = upload(sets, id, {"A.png": encoded(1)})
    assert (again.pictures, again.kept) == ([], 1)
    other = upload(sets, id, {"a.png": encoded(2), "a.txt": b"two"})
    assert other.pictures == ["a (2).png"]
    assert upload(sets, id, {"a.png": encoded(2)}).kept == 1
    assert captions(sets, id) == {"a.png": "one", "a (2).png": "two"}


def test_pictures_that_differ_in_their_suffix_alone_have_captions_of_their_own(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1), "a.jpg": encoded(2, "JPEG"), "a.txt": b"both"})
    assert captions(sets, id) == {"a.png": "both", "a (2).jpg": "both"}
    with sets.open(id).changing("one") as change:
        change.caption("a.png", "one")
    assert captions(sets, id) == {"a.png": "one", "a (2).jpg": "both"}


def test_what_is_no_picture_is_kept_out_by_name_and_the_rest_comes_in(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    heic = b"\0\0\0\x18ftypheic" + bytes(64)
    files = {
        "cut.jpg": encoded(1, "JPEG")[:700],
        "a.heic": heic,
        "film.mov": b"x",
        ".DS_Store": b"x",
        "b.png": encoded(2),
    }
    taken = upload(sets, id, files)
    assert taken.pictures == ["b.png"]
    assert [each.name for each in taken.refused] == ["cut.jpg", "a.heic", "film.mov"]
    assert all(each.name in each.sentence for each in taken.refused)
    assert "HEIC" in taken.refused[1].sentence
    assert list(bytes_in(sets.source(id))) == ["b.png"]


def test_a_zip_is_unpacked_with_its_folders(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    members = {"10_ohwx man/a.png": encoded(1), "10_ohwx man/a.txt": b"a hat", "__MACOSX/._a.png": b"x", "x.doc": b"x"}
    taken = upload(sets, id, {"photos.zip": zipped(members)})
    assert taken.pictures == ["10_ohwx man/a.png"]
    assert [each.name for each in taken.refused] == ["x.doc"]
    photo = sets.open(id).photos()[0]
    assert (photo.caption, photo.repeats) == ("a hat", 10)


def test_a_zip_that_leads_elsewhere_grows_too_large_or_is_damaged_is_refused(
    sets: PhotoSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = sets.create("Anna")
    monkeypatch.setattr(uploads, "MOST_UNPACKED_BYTES", 100_000)
    files = {
        "evil.zip": zipped({"../evil.png": encoded(1)}),
        "bomb.zip": zipped({"a.png": bytes(1_000_000)}),
        "cut.zip": zipped({"a.png": encoded(2)})[:-30],
    }
    taken = upload(sets, id, files)
    assert [each.name for each in taken.refused] == list(files)
    assert all(each.name in each.sentence for each in taken.refused)
    assert bytes_in(sets.source(id)) == {} and not list(tmp_path.rglob("evil.png"))


def test_a_full_disk_leaves_the_set_as_it_was(sets: PhotoSets, monkeypatch: pytest.MonkeyPatch) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})
    before = bytes_in(sets.source(id))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(StorageError, match="No space left"):
            upload(sets, id, {"b.png": encoded(2)})
    assert bytes_in(sets.source(id)) == before


# ---- folders of the machine ----


def test_a_folder_is_referred_to_once_and_forgotten_without_losing_its_photos(sets: PhotoSets, tmp_path: Path) -> None:
    folder = tmp_path / "Urlaub"
    saved(folder, "a.png", picture(1, SMALL), "a beach")
    id = sets.refer(f'"{folder}"')
    assert sets.refer(str(folder)) == id
    assert [(info.name, info.own, sets.count(info)) for info in sets.all()] == [("Urlaub", False, 1)]
    with pytest.raises(InvalidRequest, match="by hand"):
        upload(sets, id, {"b.png": encoded(2)})
    sets.remove(id)
    assert sets.all() == [] and (folder / "a.png").is_file()


@pytest.mark.parametrize("path", ["", "relative/folder", "/nowhere/at/all", "/a\0b", "~nobody-at-all/x", "FILE"])
def test_what_is_no_folder_of_photos_is_not_referred_to(path: str, sets: PhotoSets, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(InvalidRequest):
        sets.refer(str(tmp_path / "notes.md") if path == "FILE" else path)
    assert sets.all() == []


def test_a_whole_drive_is_not_taken_for_a_folder_of_photos(
    sets: PhotoSets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_contents, "MOST_FILES", 2)
    for i in range(3):
        saved(tmp_path / "drive", f"{i}/a.png", picture(i, SMALL))
    with pytest.raises(InvalidRequest, match="more than 2 files"):
        sets.refer(str(tmp_path / "drive"))
    assert sets.all() == []


def test_a_zip_of_the_machine_becomes_a_set_of_its_own(sets: PhotoSets, tmp_path: Path) -> None:
    archive = tmp_path / "Anna.zip"
    archive.write_bytes(zipped({"a.png": encoded(1), "a.txt": b"a hat"}))
    assert [sets.refer(str(archive)), sets.refer(str(archive))] == ["Anna", "Anna (2)"]
    assert captions(sets, "Anna") == {"a.png": "a hat"}


def test_a_folder_that_vanishes_says_so_and_comes_back(sets: PhotoSets, tmp_path: Path) -> None:
    folder = tmp_path / "drive" / "photos"
    saved(folder, "a.png", picture(1, SMALL))
    id = sets.refer(str(folder))
    looked_at(sets.opened(id))
    (tmp_path / "drive").rename(tmp_path / "gone")
    sets.open(id).look_again()
    with pytest.raises(InvalidRequest, match="no file or folder"):
        sets.open(id).photos()
    assert [sets.count(info) for info in sets.all()] == [0]
    (tmp_path / "gone").rename(tmp_path / "drive")
    assert len(sets.open(id).photos()) == 1


def test_removing_an_own_set_takes_its_pictures_but_not_what_a_link_leads_to(sets: PhotoSets, tmp_path: Path) -> None:
    upload(sets, sets.create("Anna"), {"a.png": encoded(1)})
    saved(tmp_path / "elsewhere", "b.png", picture(2, SMALL))
    (sets.root / "linked").symlink_to(tmp_path / "elsewhere")
    sets.remove("Anna")
    sets.remove("linked")
    assert sets.all() == [] and list(bytes_in(tmp_path / "elsewhere")) == ["b.png"]
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_set_that_a_job_needs_is_not_removed(tmp_path: Path) -> None:
    sets = PhotoSets(tmp_path / "photos", tmp_path / "cache", in_use=lambda: {"Anna"})
    upload(sets, sets.create("Anna"), {"a.png": encoded(1)})
    sets.create("Ben")
    with pytest.raises(InvalidRequest, match="Anna"):
        sets.remove("Anna")
    sets.remove("Ben")
    assert [info.name for info in sets.all()] == ["Anna"] and sets.source("Anna").is_dir()


# ---- looking ----


def test_a_set_is_looked_at_as_a_training_would_see_it(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {f"{i}.png": encoded(i) for i in range(6)})
    saved(sets.source(id), "twin.png", picture(0, SMALL).resize((192, 128)))
    (sets.source(id) / "cut.jpg").write_bytes(encoded(1, "JPEG")[:500])
    opened = sets.opened(id)
    found = looked_at(opened)
    assert {"0.png", "twin.png"} == set(next(each.names for each in found.problems if each.kind == "nearly the same"))
    assert [left.name for left in found.unreadable] == ["cut.jpg"]
    assert len(found.held_out) == 1
    with opened.photos.changing("out") as change:
        change.edit({"twin.png": Edit(excluded=True), "cut.jpg": Edit(excluded=True)})
    found = looked_at(opened)
    assert not [each for each in found.problems if each.kind in ("nearly the same", "unreadable")]


def test_a_change_while_photos_are_looked_at_is_seen(sets: PhotoSets, monkeypatch: pytest.MonkeyPatch) -> None:
    id = sets.create("Anna")
    saved(sets.source(id), "a.png", picture(1, SMALL))
    opened, read = sets.opened(id), sets.reader.read

    def meanwhile(path: Path) -> object:
        if path.name == "a.png":
            saved(sets.source(id), "b.png", picture(2, (16, 16)))
            opened.photos.look_again()
        return read(path)

    monkeypatch.setattr(sets.reader, "read", meanwhile)
    found = looked_at(opened)
    assert [each.names for each in found.problems if each.kind == "too small"] == [("b.png",)]


def test_a_check_that_breaks_is_told_and_ends(sets: PhotoSets, monkeypatch: pytest.MonkeyPatch) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(set_checks, "find_problems", broken)
    assert looked_at(sets.opened(id)).notes == ("The photos could not be checked: a bug.",)


class OneFace:
    """Sees a face everywhere, or fails."""

    same_person = 0.5

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.num_reads = 0

    def read(self, pixels: Pixels) -> Sequence[SeenFace]:
        self.num_reads += 1
        if self.fails:
            raise ExtensionError("It has no model.")
        if pixels[..., 0].mean() < 1:
            return []
        return [SeenFace(box=(0.0, 0.0, 60.0, 60.0), embedding=np.ones(1, np.float32))]


@pytest.mark.parametrize("fails", [False, True])
def test_faces_are_looked_for_where_somebody_reads_them(fails: bool, tmp_path: Path) -> None:
    sets = PhotoSets(tmp_path / "photos", tmp_path / "cache", faces=lambda: OneFace(fails=fails))
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1), "b.png": encoded(2)})
    saved(sets.source(id), "black.png", Image.new("RGB", SMALL))
    found = looked_at(sets.opened(id), Purpose(subject="person", resolution=64, bucket_step=8))
    faceless = [each.names for each in found.problems if each.kind == "no face"]
    assert faceless == ([] if fails else [("black.png",)])
    assert found.notes == (("Faces were not looked for: It has no model.",) if fails else ())


def test_faces_are_looked_for_once_in_each_part_of_a_photo(tmp_path: Path) -> None:
    reader = OneFace(fails=False)
    sets = PhotoSets(tmp_path / "photos", tmp_path / "cache", faces=lambda: reader)
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1), "b.png": encoded(2)})
    opened = sets.opened(id)
    seen = []
    for edit in ({}, {"b.png": Edit(repeats=2)}, {"b.png": Edit(crop=(0, 0, 64, 64))}):
        apply(opened.photos, [("edit", name, each) for name, each in edit.items()])
        looked_at(opened, Purpose(subject="person"))
        seen.append(reader.num_reads)
    assert seen == [2, 2, 3]


# ---- changes and undo ----

TEXTS = st.one_of(st.none(), st.text(alphabet="ab ,\n\u00e9\U0001f600", max_size=12))
NAMES = st.sampled_from(["a.png", "10_man/b.png"])
EDITS = st.one_of(
    st.builds(Edit, excluded=st.booleans()),
    st.builds(Edit, crop=st.one_of(st.none(), st.just((0, 0, 32, 32)))),
    st.builds(Edit, repeats=st.one_of(st.none(), st.integers(1, 5))),
)
CHANGES = st.one_of(
    st.tuples(st.just("caption"), NAMES, TEXTS),
    st.tuples(st.just("edit"), NAMES, EDITS),
    st.tuples(st.just("mask"), NAMES, st.one_of(st.none(), st.integers(0, 3).map(encoded))),
)


def apply(photo_set: PhotoSet, changes: Sequence[tuple[str, str, object]]) -> None:
    with photo_set.changing("something") as change:
        for kind, name, value in changes:
            if kind == "edit":
                change.edit({name: value})  # type: ignore[dict-item]
            else:
                getattr(change, kind)(name, value)


@settings(max_examples=12)
@given(steps=st.lists(st.lists(CHANGES, min_size=1, max_size=3), max_size=5))
def test_whatever_was_changed_undo_gives_back_the_same_bytes(
    steps: list[list[tuple[str, str, object]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("set")
    saved(folder, "a.png", picture(1, SMALL), "a hat\nand a coat")
    saved(folder, "10_man/b.png", picture(2, SMALL))
    (folder / "10_man" / "b.caption").write_bytes("caf\u00e9".encode("utf-16"))
    photo_set = PhotoSet(SetInfo(id="x", name="x", source=folder, own=False))
    states = [bytes_in(folder)]
    for step in steps:
        apply(photo_set, step)
        if bytes_in(folder) != states[-1]:
            states.append(bytes_in(folder))
    while len(states) > 1:
        assert bytes_in(folder) == states.pop()
        photo_set.undo()
        while bytes_in(folder) != states[-1]:  # a step may have changed something and changed it back
            photo_set.undo()
    assert bytes_in(folder) == states[0]
    assert [photo.caption for photo in photo_set.photos()] == ["caf\u00e9", "a hat, and a coat"]


def test_at_least_twenty_changes_can_be_taken_back(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})
    photo_set = sets.open(id)
    for i in range(24):
        apply(photo_set, [("caption", "a.png", f"number {i}")])
    for _ in range(22):
        photo_set.undo()
    assert photo_set.photos()[0].caption == "number 1"


def test_undo_leaves_alone_what_somebody_else_has_written_since(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})
    photo_set = sets.open(id)
    apply(photo_set, [("caption", "a.png", "ours")])
    (sets.source(id) / "a.txt").write_text("theirs")
    with pytest.raises(InvalidRequest, match=r"a\.txt"):
        photo_set.undo()
    assert (sets.source(id) / "a.txt").read_text() == "theirs"
    with pytest.raises(InvalidRequest, match="nothing"):
        photo_set.undo()


def test_what_was_decided_of_a_photo_stays_when_something_else_of_it_is_changed(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})
    apply(sets.open(id), [("edit", "a.png", Edit(repeats=3))])
    apply(sets.open(id), [("edit", "a.png", Edit(crop=(0, 0, 30, 30)))])
    photo = sets.open(id).photos()[0]
    assert (photo.repeats, photo.crop) == (3, (0, 0, 30, 30))


def test_the_last_caption_of_one_change_counts(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1), "a.txt": b"old"})
    apply(sets.open(id), [("caption", "a.png", "new"), ("caption", "a.png", "old")])
    assert captions(sets, id) == {"a.png": "old"}


def test_what_was_done_before_an_error_stays_and_can_be_taken_back(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})
    with pytest.raises(InvalidRequest, match=r"b\.png"):
        apply(sets.open(id), [("caption", "a.png", "new"), ("caption", "b.png", "new")])
    assert captions(sets, id) == {"a.png": "new"}
    sets.open(id).undo()
    assert captions(sets, id) == {"a.png": None}


def test_a_folder_that_cannot_be_written_to_is_told_and_nothing_is_undone(
    sets: PhotoSets, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})

    def denied(self: Path, data: bytes) -> int:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", denied)
    for change in (("caption", "a.png", "x"), ("edit", "a.png", Edit(excluded=True)), ("mask", "a.png", encoded(2))):
        with pytest.raises(StorageError, match="Permission denied"):
            apply(sets.open(id), [change])
    assert sets.open(id).undoable() == ""


def test_a_mask_replaces_the_one_there_was_whatever_its_format(sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1), "a-masklabel.webp": encoded(2, "WEBP")})
    before = bytes_in(sets.source(id))
    apply(sets.open(id), [("mask", "a.png", encoded(3))])
    assert sets.open(id).photos()[0].mask == sets.source(id) / "a-masklabel.png"
    assert not (sets.source(id) / "a-masklabel.webp").exists()
    sets.open(id).undo()
    assert bytes_in(sets.source(id)) == before


@pytest.mark.parametrize("bad", [encoded(1, size=(64, 64)), b"no picture", b""])
def test_a_mask_of_another_shape_or_none_at_all_is_refused(bad: bytes, sets: PhotoSets) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})
    with pytest.raises(WebUIError):
        apply(sets.open(id), [("mask", "a.png", bad)])
    assert list(bytes_in(sets.source(id))) == ["a.png"]


# ---- lists ----


def concepts(tmp_path: Path) -> Path:
    saved(tmp_path / "pics", "red_hat.png", picture(1, SMALL), "not this")
    text = {"prompt_source": "filename"}
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps([{"name": "hat", "path": str(tmp_path / "pics"), "text": text, "balancing": 3}]))
    return path


def jsonl(tmp_path: Path) -> Path:
    saved(tmp_path / "pics", "a.png", picture(1, SMALL), "not this")
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps({"file_name": "pics/a.png", "text": "red hat"}))
    return path


@pytest.mark.parametrize("made", [concepts, jsonl])
def test_captions_of_a_list_are_changed_where_the_list_says_otherwise(
    made: Callable[[Path], Path], sets: PhotoSets, tmp_path: Path
) -> None:
    path = made(tmp_path)
    photo_set = sets.open(sets.refer(str(path)))
    name = photo_set.photos()[0].name
    assert photo_set.photos()[0].caption == "red hat"
    with photo_set.changing("new") as change:
        change.caption(name, "blue hat")
        change.edit({name: Edit(crop=(0, 0, 40, 40))})
    assert photo_set.photos()[0].caption == "blue hat"
    trained = find_photos(path, unpack_to=tmp_path / "unpacked").photos[0]
    assert (trained.caption, trained.crop) == ("blue hat", (0, 0, 40, 40))
    assert (tmp_path / FILE_NAME).is_file()
    photo_set.undo()
    assert photo_set.photos()[0].caption == "red hat" and not (tmp_path / FILE_NAME).exists()


def test_a_photo_of_a_list_that_changes_is_noticed(sets: PhotoSets, tmp_path: Path) -> None:
    opened = sets.opened(sets.refer(str(jsonl(tmp_path))))
    looked_at(opened)
    saved(tmp_path / "pics", "a.png", picture(2, (24, 24)))
    opened.photos.look_again()
    assert "too small" in [each.kind for each in looked_at(opened).problems if each.names == ("pics/a.png",)]


# ---- small copies ----


def copies_of(sets: PhotoSets, name: str, data: bytes) -> Image.Image:
    id = sets.create("Anna")
    assert upload(sets, id, {name: data}).refused == []
    thumb = sets.thumbnails.get(sets.source(id) / name, "thumb", sets.reader)
    return Image.open(io.BytesIO(thumb))


def saved_bytes(image: Image.Image, form: str, **more: object) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **more)  # type: ignore[arg-type]
    return data.getvalue()


def deep() -> Image.Image:
    return Image.fromarray(np.asarray(picture(1, SMALL).convert("L")).astype(np.uint16) * 257)


def palette() -> Image.Image:
    image = picture(1, SMALL).quantize(16)
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cmyk.jpg", saved_bytes(picture(1, SMALL).convert("CMYK"), "JPEG")),
        ("deep.png", saved_bytes(deep(), "PNG")),
        ("palette.png", saved_bytes(palette(), "PNG", transparency=0)),
        ("film.gif", saved_bytes(picture(1, SMALL), "GIF", save_all=True, append_images=[picture(2, SMALL)])),
        ("film.webp", saved_bytes(picture(1, SMALL), "WEBP", save_all=True, append_images=[picture(2, SMALL)])),
        ("alpha.png", saved_bytes(picture(1, SMALL).convert("RGBA"), "PNG")),
        ("bits.png", saved_bytes(picture(1, SMALL).convert("1"), "PNG")),
    ],
)
def test_a_picture_of_any_mode_is_shown_small(name: str, data: bytes, sets: PhotoSets) -> None:
    copy = copies_of(sets, name, data)
    assert (copy.format, copy.mode, copy.size) == ("JPEG", "RGB", SMALL)


def test_a_photo_taken_upright_is_shown_and_measured_upright(sets: PhotoSets) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    copy = copies_of(sets, "a.jpg", saved_bytes(picture(1, (640, 400)), "JPEG", exif=exif))
    assert copy.size == (200, 320)
    opened = sets.opened("Anna")
    assert opened.checker.size_of(opened.photos.photos()[0]) == (400, 640)
    assert set_changes.upright_size(sets.source("Anna") / "a.jpg") == (400, 640)


def test_a_copy_is_made_once_also_for_the_next_start(sets: PhotoSets, tmp_path: Path) -> None:
    id = sets.create("Anna")
    upload(sets, id, {"a.png": encoded(1)})
    made = list((tmp_path / "cache").rglob("*.jpg"))
    assert len(made) == 1
    made[0].write_bytes(b"what was kept")
    later = PhotoSets(tmp_path / "photos", tmp_path / "cache")
    assert later.thumbnails.get(later.source(id) / "a.png", "thumb", later.reader) == b"what was kept"
