import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.pictures import picture, saved
from webui.errors import InvalidRequest
from webui.training.data.edits import FILE_NAME, Edit, read_edits, write_edits
from webui.training.data.photos import PhotoReader, facts_of
from webui.training.data.sources import Collection, find_photos


def found(source: Path, tmp_path: Path) -> Collection:
    return find_photos(source, unpack_to=tmp_path / "unpacked")


def left_out(collection: Collection) -> dict[str, str]:
    return {each.name: each.kind for each in collection.left_out}


def test_photos_of_a_folder_and_its_subfolders_are_found_with_their_captions(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    saved(folder, "b.png", picture(1), "a red hat")
    saved(folder, "trip/a.jpg", picture(2))
    (folder / "trip" / "a.caption").write_text("a beach")
    saved(folder, ".hidden/c.png", picture(3))
    photos = found(folder, tmp_path).photos
    assert [(photo.name, photo.caption) for photo in photos] == [("b.png", "a red hat"), ("trip/a.jpg", "a beach")]
    assert (photos[0].width, photos[0].height) == (256, 192)


def test_what_cannot_be_used_is_named_and_the_rest_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    saved(folder, "good.jpg", picture(1))
    broken = saved(folder, "broken.jpg", picture(2))
    broken.write_bytes(broken.read_bytes()[:600])
    (folder / "empty.png").touch()
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (folder / "notes.md").write_text("hello")
    (folder / "lost.txt").write_text("a caption")
    saved(folder, "gone-masklabel.png", picture(3))
    collection = found(folder, tmp_path)
    assert [photo.name for photo in collection.photos] == ["good.jpg"]
    assert left_out(collection) == {
        "broken.jpg": "unreadable",
        "empty.png": "unreadable",
        "photo.heic": "unreadable",
        "notes.md": "not a picture",
        "lost.txt": "caption without picture",
        "gone-masklabel.png": "mask without picture",
    }
    assert all(each.name in each.sentence for each in collection.left_out)


@pytest.mark.parametrize("what", ["nothing", "only rubbish", "empty folder", "text file"])
def test_a_source_without_photos_is_refused_with_a_sentence(what: str, tmp_path: Path) -> None:
    source = tmp_path / "photos"
    if what in ("only rubbish", "empty folder"):
        source.mkdir()
    if what == "only rubbish":
        (source / "a.jpg").write_bytes(b"no picture")
        (source / "b.md").write_text("no picture")
    if what == "text file":
        source.write_text("hello")
    with pytest.raises(InvalidRequest, match="photos") as refused:
        found(source, tmp_path)
    assert refused.value.field == "data.photos"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_photos_of_any_mode_are_read(mode: str, tmp_path: Path) -> None:
    gray = Image.fromarray((np.asarray(picture(1).convert("L")).astype(np.uint16)) * 257)
    image = gray if mode == "I;16" else picture(1).convert(mode)
    name = "a.tif" if mode == "CMYK" else "a.png"
    saved(tmp_path / "photos", name, image)
    assert found(tmp_path / "photos", tmp_path).photos[0].size == (256, 192)


def test_a_photo_that_lies_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos").mkdir()
    picture(1).save(tmp_path / "photos" / "a.jpg", exif=exif)
    photo = found(tmp_path / "photos", tmp_path).photos[0]
    assert (photo.width, photo.height) == (192, 256)


def test_the_hash_is_of_the_picture_and_not_of_the_file(tmp_path: Path) -> None:
    image = picture(1)
    saved(tmp_path / "photos", "a.png", image)
    saved(tmp_path / "photos", "b.bmp", image)
    image.save(tmp_path / "photos" / "c.png", compress_level=0)
    saved(tmp_path / "photos", "d.png", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    hashes = {photo.name: photo.sha256 for photo in found(tmp_path / "photos", tmp_path).photos}
    assert hashes["a.png"] == hashes["b.bmp"] == hashes["c.png"] != hashes["d.png"]
    assert facts_of(Image.new("RGB", (2, 8))).sha256 != facts_of(Image.new("RGB", (8, 2))).sha256


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    from webui.training.data import photos as module

    real = module.open_image
    monkeypatch.setattr(module, "open_image", lambda path, **more: reads.append(path) or real(path, **more))
    path = saved(tmp_path, "a.png", picture(1))
    reader = PhotoReader()
    assert reader.read(path) == reader.read(path)
    assert len(reads) == 1
    saved(tmp_path, "a.png", picture(2, (300, 200)))
    assert reader.read(path).width == 300


def test_kohyas_folders_give_repeats_words_and_class_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    saved(folder, "img/10_ohwx man/a.png", picture(1))
    saved(folder, "img/10_ohwx man/b.png", picture(2), "ohwx man, hat")
    saved(folder, "reg/1_man/c.png", picture(3))
    saved(folder, "2024_holiday/d.png", picture(4))
    collection = found(folder, tmp_path)
    said = {photo.name: (photo.caption, photo.repeats, photo.is_prior) for photo in collection.photos}
    assert said == {
        "img/10_ohwx man/a.png": ("ohwx man", 10, False),
        "img/10_ohwx man/b.png": ("ohwx man, hat", 10, False),
        "reg/1_man/c.png": ("man", 1, True),
        "2024_holiday/d.png": (None, 1, False),
    }
    assert any("'10_ohwx man'" in note and "2 photos, each 10 times" in note for note in collection.notes)


def test_onetrainers_concepts_are_read(tmp_path: Path) -> None:
    saved(tmp_path / "one", "red_hat.png", picture(1), "beside")
    saved(tmp_path / "one", "deep/below.png", picture(2))
    saved(tmp_path / "two", "x.png", picture(3))
    saved(tmp_path / "val", "v.png", picture(4), "kept back")
    saved(tmp_path / "off", "o.png", picture(5))
    (tmp_path / "prompts.txt").write_text("first prompt\nsecond prompt\n")
    concepts = [
        {"name": "one", "path": "one", "balancing": 3.0, "balancing_strategy": "REPEATS",
         "text": {"prompt_source": "filename"}},
        {"name": "two", "path": str(tmp_path / "two"), "type": "PRIOR_PREDICTION",
         "text": {"prompt_source": "concept", "prompt_path": "prompts.txt"}},
        {"name": "val", "path": "val", "type": "VALIDATION", "text": {"prompt_source": "sample"}},
        {"name": "off", "path": "off", "enabled": False},
        {"name": "gone", "path": "nowhere"},
        {"name": "one", "path": "one"},
    ]  # fmt: skip
    (tmp_path / "concepts.json").write_text(json.dumps(concepts))
    collection = found(tmp_path / "concepts.json", tmp_path)
    said = {p.name: (p.caption, p.repeats, p.is_prior, p.held_out) for p in collection.photos}
    assert said == {
        "one/red_hat.png": ("red hat", 3, False, False),
        "one/red_hat.png (2)": ("beside", 1, False, False),
        "two/x.png": ("first prompt", 1, True, False),
        "val/v.png": ("kept back", 1, False, True),
    }
    assert left_out(collection) == {"gone": "missing"}


def test_kohyas_metadata_is_read(tmp_path: Path) -> None:
    saved(tmp_path / "img", "a.png", picture(1))
    saved(tmp_path / "img", "b.jpg", picture(2), "beside")
    metadata = {
        str(tmp_path / "img" / "a"): {"caption": "a dog", "tags": "hat, red"},
        "img/b.jpg": {},
        "img/c.png": {"caption": "gone"},
    }
    (tmp_path / "meta.json").write_text(json.dumps(metadata))
    collection = found(tmp_path / "meta.json", tmp_path)
    said = {photo.name: photo.caption for photo in collection.photos}
    assert said == {"img/a.png": "a dog, hat, red", "img/b.jpg": "beside"}
    assert left_out(collection) == {"img/c.png": "missing"}


def test_records_of_captions_in_a_folder_are_used_where_there_are_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    saved(folder, "a.png", picture(1))
    saved(folder, "b.png", picture(2), "its own")
    lines = [{"file_name": "a.png", "text": "from the list"}, {"file_name": "b.png", "text": "other"}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    collection = found(folder, tmp_path)
    assert {photo.name: photo.caption for photo in collection.photos} == {"a.png": "from the list", "b.png": "its own"}
    assert "Captions of 1 photo were taken from metadata.jsonl." in collection.notes
    assert len(found(folder / "metadata.jsonl", tmp_path).photos) == 2


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[1]", b'{"a": 1}', b"\xff\xfe\x00", b"null", b'"x"'])
def test_a_file_that_is_no_list_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_bytes(content)
    with pytest.raises(InvalidRequest, match="list"):
        found(tmp_path / "list.json", tmp_path)


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_zip_is_unpacked_once_and_read_like_a_folder(tmp_path: Path) -> None:
    files = {"10_cat/a.png": png(1), "10_cat/a.txt": b"a cat", "__MACOSX/._a.png": b"x", "10_cat/.DS_Store": b"x"}
    archive = zipped(tmp_path / "photos.zip", files)
    collection = found(archive, tmp_path)
    assert [(photo.caption, photo.repeats) for photo in collection.photos] == [("a cat", 10)]
    assert collection.left_out == ()
    before = sorted((tmp_path / "unpacked").rglob("*"))
    assert found(archive, tmp_path).photos == collection.photos
    assert sorted((tmp_path / "unpacked").rglob("*")) == before


@pytest.mark.parametrize("name", ["../out.png", "/out.png", "a/../../out.png", "..\\out.png", "C:\\out.png"])
def test_a_zip_that_reaches_outside_is_refused_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "photos.zip", {"a.png": png(1), name: png(2)})
    with pytest.raises(InvalidRequest, match="outside of itself"):
        found(archive, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


@pytest.mark.parametrize("damage", ["not a zip", "cut off", "wrong bytes"])
def test_a_damaged_zip_is_refused(damage: str, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "photos.zip", {"a.png": png(1)})
    data = archive.read_bytes()
    archive.write_bytes(
        {"not a zip": b"hello", "cut off": data[:-40], "wrong bytes": data.replace(b"IDAT", b"xxxx")}[damage]
    )
    with pytest.raises(InvalidRequest, match=r"photos\.zip"):
        found(archive, tmp_path)


def test_decisions_by_hand_are_kept_and_obeyed(tmp_path: Path) -> None:
    for i in range(3):
        saved(tmp_path / "photos", f"{i}.png", picture(i))
    write_edits(tmp_path / "photos", {"0.png": Edit(excluded=True), "1.png": Edit(crop=(10, 20, 110, 90))})
    write_edits(tmp_path / "photos", {"2.png": Edit(repeats=4)})
    collection = found(tmp_path / "photos", tmp_path)
    assert [(p.name, p.size, p.repeats) for p in collection.photos] == [
        ("1.png", (100, 70), 1),
        ("2.png", (256, 192), 4),
    ]
    assert left_out(collection) == {"0.png": "excluded"}
    write_edits(tmp_path / "photos", {"0.png": Edit()})
    assert len(found(tmp_path / "photos", tmp_path).photos) == 3


def test_a_crop_of_a_photo_that_is_another_one_now_stays_inside_of_it(tmp_path: Path) -> None:
    saved(tmp_path / "photos", "a.png", picture(1, (100, 80)))
    saved(tmp_path / "photos", "b.png", picture(2, (100, 80)))
    write_edits(tmp_path / "photos", {"a.png": Edit(crop=(50, 40, 400, 300)), "b.png": Edit(crop=(200, 0, 300, 10))})
    assert [photo.area for photo in found(tmp_path / "photos", tmp_path).photos] == [(50, 40, 100, 80), (0, 0, 100, 80)]


@pytest.mark.parametrize("content", ["{", '{"a.png": {"crop": [5, 0, 5, 9]}}', '{"a.png": {"colour": 1}}', "[]"])
def test_damaged_decisions_are_refused_by_the_name_of_the_file(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(InvalidRequest, match="atelier-photos"):
        read_edits(tmp_path)


def test_reading_can_be_stopped_and_tells_how_far_it_is(tmp_path: Path) -> None:
    for i in range(4):
        saved(tmp_path / "photos", f"{i}.png", picture(i))
    steps: list[tuple[int, int]] = []
    find_photos(tmp_path / "photos", unpack_to=tmp_path, report=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_photos(tmp_path / "photos", unpack_to=tmp_path, check=stop)
