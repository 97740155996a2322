"""The library: every model by its names, lists that are up to date, and headers that are read once."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from tests.library_files import write_checkpoint, write_embedding, write_lora, write_notes, write_vae
from webui.errors import ModelNotFound, UnsupportedModel
from webui.library import catalog, entries
from webui.library.catalog import Library, ModelFile


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def library(models: Path, tmp_path: Path) -> Iterator[Library]:
    library = Library([models], tmp_path / "cache")
    yield library
    library.close()


def names(files: list[ModelFile]) -> list[str]:
    return [file.name for file in files]


def test_each_kind_lies_in_its_folder_and_in_folders_within(library: Library, models: Path) -> None:
    write_checkpoint(models / "checkpoints" / "sub" / "photo.safetensors")
    write_lora(models / "loras" / "styles" / "ink.safetensors")
    write_embedding(models / "embeddings" / "word.safetensors")
    write_vae(models / "vae" / "mse.safetensors")
    assert [info.name for info in library.checkpoints()] == ["photo"]
    assert names(library.adapters()) == ["ink"]
    assert names(library.embeddings()) == ["word"]
    assert names(library.vaes()) == ["mse"]
    assert library.hypernetworks() == []
    assert all(not file.problem for file in (*library.adapters(), *library.embeddings(), *library.vaes()))


def test_an_adapter_is_found_by_file_name_path_and_the_name_inside(library: Library, models: Path) -> None:
    path = write_lora(models / "loras" / "styles" / "ink.safetensors", ss_output_name="Ink Wash")
    for name in ("ink", "styles/ink", "Ink Wash", "ink wash", "INK", "styles\\ink", "ink.safetensors"):
        assert library.find_adapter(name).path == path


def test_of_equal_names_the_first_has_the_short_one(library: Library, models: Path) -> None:
    write_lora(models / "loras" / "a" / "ink.safetensors")
    write_lora(models / "loras" / "b" / "ink.safetensors")
    assert names(library.adapters()) == ["ink", "b/ink"]
    assert [library.find_adapter(name).location for name in ("ink", "b/ink")] == ["a/ink", "b/ink"]


def test_the_first_models_folder_goes_before_the_second(models: Path, tmp_path: Path) -> None:
    own, shipped = (write_lora(tmp_path / name / "loras" / "ink.safetensors") for name in ("own", "shipped"))
    assert own != shipped
    library = Library([tmp_path / "own", tmp_path / "shipped"], tmp_path / "cache")
    assert [file.path for file in library.adapters()] == [own]


def test_what_is_missing_or_broken_is_said_by_name(library: Library, models: Path) -> None:
    write_lora(models / "loras" / "ink-wash.safetensors")
    (models / "loras" / "broken.safetensors").write_bytes(b"x")
    (models / "loras" / "gone.safetensors").symlink_to(models / "nowhere")
    write_checkpoint(models / "loras" / "photo.safetensors")
    with pytest.raises(ModelNotFound, match=r"no LoRA named 'inkwash'.*Did you mean ink-wash"):
        library.find_adapter("inkwash")
    with pytest.raises(UnsupportedModel, match="only 1 bytes"):
        library.find_adapter("broken")
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        library.find_adapter("gone")
    with pytest.raises(UnsupportedModel, match="models/checkpoints"):
        library.find_adapter("photo")
    assert [bool(file.problem) for file in library.adapters()] == [True, True, False, True]


def test_new_changed_and_removed_files_are_seen_without_a_restart(library: Library, models: Path) -> None:
    assert library.adapters() == []
    stamp = library.stamp()
    path = write_lora(models / "loras" / "ink.safetensors", rank=4)
    assert library.find_adapter("ink").facts.rank == 4  # asked by name: at once
    assert library.stamp() != stamp
    write_lora(path, rank=16)
    library.refresh()
    assert library.find_adapter("ink").facts.rank == 16
    path.unlink()
    library.refresh()
    assert library.adapters() == []


def test_a_list_that_did_not_change_keeps_its_stamp(library: Library, models: Path) -> None:
    write_lora(models / "loras" / "ink.safetensors")
    first = library.adapters()
    stamp = library.stamp()
    library.refresh()
    assert library.adapters() == first
    assert library.stamp() == stamp


def test_a_header_is_read_once_even_over_restarts(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ink", "wash"):
        write_lora(models / "loras" / f"{name}.safetensors", ss_output_name=name.title())
    first = Library([models], tmp_path / "cache")
    expected = first.adapters()
    first.close()
    looked: list[Path] = []
    look = entries.look_into
    monkeypatch.setattr(catalog, "look_into", lambda path: looked.append(path) or look(path))
    second = Library([models], tmp_path / "cache")
    assert second.adapters() == expected
    write_lora(models / "loras" / "wash.safetensors", rank=32)
    second.refresh()
    assert looked == [models / "loras" / "wash.safetensors"]
    second.close()


@pytest.mark.parametrize("damage", [b"", b"not a database", b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_index_is_made_anew(models: Path, tmp_path: Path, damage: bytes) -> None:
    write_lora(models / "loras" / "ink.safetensors")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / catalog.INDEX_FILE).write_bytes(damage)
    for _ in range(2):
        library = Library([models], tmp_path / "cache")
        assert names(library.adapters()) == ["ink"]
        library.close()


def test_an_index_that_cannot_be_kept_changes_nothing_else(models: Path, tmp_path: Path) -> None:
    write_lora(models / "loras" / "ink.safetensors")
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert names(Library([models], tmp_path / "cache").adapters()) == ["ink"]


def test_a_vae_beside_a_checkpoint_is_a_vae(library: Library, models: Path) -> None:
    write_checkpoint(models / "checkpoints" / "photo.safetensors")
    write_vae(models / "checkpoints" / "photo.vae.safetensors")
    assert [info.name for info in library.checkpoints()] == ["photo"]
    assert names(library.vaes()) == ["photo.vae"]


def test_a_preview_is_no_embedding_and_an_embedding_in_a_picture_is_one(library: Library, models: Path) -> None:
    folder = models / "embeddings"
    write_embedding(folder / "word.safetensors")
    for name in ("word.png", "word.preview.png", "holiday.png"):
        Image.new("RGB", (8, 8)).save(folder / name)
    card = PngImagePlugin.PngInfo()
    vectors = {"string_to_param": {"*": {"TORCHTENSOR": [[0.5] * 768] * 3}}}
    card.add_text("sd-ti-embedding", base64.b64encode(json.dumps(vectors).encode()).decode())
    Image.new("RGB", (8, 8)).save(folder / "card.png", pnginfo=card)
    found = {file.name: file for file in library.embeddings()}
    assert set(found) == {"word", "card"}
    assert (found["card"].num_vectors, found["card"].facts.adapter_base, found["card"].problem) == (3, "sd1", "")
    assert found["word"].num_vectors == 4
    assert found["word"].preview == folder / "word.png"


def test_the_sample_in_a_checkpoint_folder_is_its_preview(tiny_models_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_models_dir / "checkpoints" / "tiny", tmp_path / "checkpoints" / "tiny")
    Image.new("RGB", (8, 8)).save(folder / "sample.png")
    library = Library([tmp_path], tmp_path / "cache")
    assert library.files("checkpoint")[0].preview == folder / "sample.png"
    Image.new("RGB", (8, 8)).save(tmp_path / "checkpoints" / "tiny.png")
    library.refresh()
    assert library.files("checkpoint")[0].preview == tmp_path / "checkpoints" / "tiny.png"
    library.close()


def test_old_files_are_told_apart_too(library: Library, models: Path) -> None:
    (models / "embeddings").mkdir(parents=True)
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}, "name": "old"}, models / "embeddings" / "old.pt")
    (old,) = library.embeddings()
    assert (old.problem, old.num_vectors, old.facts.adapter_base) == ("", 2, "sd1")


def test_the_prediction_type_can_be_set_by_hand(library: Library, models: Path) -> None:
    write_checkpoint(models / "checkpoints" / "two.safetensors", "sd20")
    file = library.files("checkpoint")[0]
    before = library.find_checkpoint("two").prediction_type
    other = "v_prediction" if before == "epsilon" else "epsilon"
    library.write_notes(file, {"prediction_type": other})
    assert library.find_checkpoint("two").prediction_type == other
    library.write_notes(file, {"prediction_type": ""})
    assert library.find_checkpoint("two").prediction_type == before


def test_notes_that_another_program_changes_are_seen(library: Library, models: Path) -> None:
    path = write_lora(models / "loras" / "ink.safetensors")
    write_notes(path, **{"preferred weight": 0.5})
    assert library.find_adapter("ink").notes.preferred_weight == 0.5
    write_notes(path, **{"preferred weight": 0.75, "notes": "longer"})
    library.refresh()
    assert library.find_adapter("ink").notes.preferred_weight == 0.75


def test_folders_that_link_to_each_other_are_read_once(library: Library, models: Path) -> None:
    write_lora(models / "loras" / "styles" / "ink.safetensors")
    (models / "loras" / "styles" / "again").symlink_to(models / "loras")
    assert names(library.adapters()) == ["ink"]


def test_many_threads_may_ask_at_once(library: Library, models: Path) -> None:
    for number in range(20):
        write_lora(models / "loras" / f"ink-{number}.safetensors")
    actions: list[Callable[[], object]] = [library.adapters, library.refresh, lambda: library.find_adapter("ink-7")]
    with ThreadPoolExecutor(max_workers=6) as pool:
        for answer in [pool.submit(action) for action in actions * 40]:
            answer.result()
    assert len(library.adapters()) == 20


STEMS = st.lists(st.tuples(st.sampled_from(["", "a/", "b/", "a/c/"]), st.sampled_from(["ink", "Ink", "wash.v2"])),
                 unique=True, max_size=8)  # fmt: skip


@given(STEMS)
def test_every_listed_name_finds_its_own_file(
    tmp_path_factory: pytest.TempPathFactory, stems: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("models")
    for below, stem in stems:
        write_lora(folder / "loras" / f"{below}{stem}.safetensors", ss_output_name="ink")
    library = Library([folder], folder / "cache")
    files = library.adapters()
    assert len(files) == len(stems)
    assert [library.find_adapter(file.name) for file in files] == files
    assert [library.find_adapter(file.location) for file in files] == files
    assert [library.file(file.id) for file in files] == files
    library.close()
    shutil.rmtree(folder)
