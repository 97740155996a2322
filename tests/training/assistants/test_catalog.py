"""Which assistants there are: told by their files, and what is wrong with one in words."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.assistant_files import TAGS, write_blip, write_masker, write_tagger, write_tags
from tests.onnx_files import with_external_weights, write_arcface
from webui.errors import InvalidRequest, UnsupportedModel
from webui.training.assistants.catalog import Assistants, open_captioner, open_masker
from webui.training.assistants.taggers import Thresholds
from webui.training.data.subjects import SubjectMasker


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def assistants(models: Path) -> Assistants:
    return Assistants([models])


def broken(assistants: Assistants, kind, name: str) -> str:
    return next(one for one in assistants.all(kind) if one.id == name).problem


def test_captioners_are_told_by_their_files(models: Path, assistants: Assistants) -> None:
    room = models / "captioners"
    write_tags(write_tagger(room / "wd-vit-tagger-v3" / "model.onnx").with_name("selected_tags.csv"))
    write_tags(write_tagger(room / "wd-v1.onnx", side=320, batch=1).with_suffix(".csv"))
    write_blip(room / "blip")
    (room / "README.md").write_text("what goes here")
    (room / ".part").mkdir()
    found = assistants.all("captions")
    assert [(one.id, one.makes, one.about, one.problem) for one in found] == [
        ("blip", "sentences", "BlipForConditionalGeneration", ""),
        ("wd-v1", "tags", "8 tags", ""),
        ("wd-vit-tagger-v3", "tags", "8 tags", ""),
    ]
    assert open_captioner(assistants.find("captions", "WD-V1"), Thresholds(), ())


def test_maskers_are_told_by_their_ports_and_those_of_extensions_come_first(models: Path) -> None:
    room = models / "maskers"
    write_masker(room / "u2net.onnx")
    write_masker(room / "BiRefNet" / "model.onnx", dims=(1, 3, 1024, 1024), num_outputs=1)
    people = SubjectMasker(id="people", label="People", mask=lambda pixels: np.ones(pixels.shape[:2], np.float32))
    assistants = Assistants([models], lambda: [people])
    found = assistants.all("masks")
    assert [(one.id, one.name, one.about) for one in found] == [
        ("people", "People", ""),
        ("BiRefNet", "BiRefNet", "BiRefNet"),
        ("u2net", "u2net", "U2-Net"),
    ]
    for one in found:
        assert open_masker(one)


def test_the_users_models_hide_those_of_the_same_name_that_ship(tmp_path: Path) -> None:
    for name, side in (("mine", 320), ("shipped", 448)):
        write_tags(write_tagger(tmp_path / name / "captioners" / "wd.onnx", side=side).with_suffix(".csv"))
    (found,) = Assistants([tmp_path / "mine", tmp_path / "shipped"]).all("captions")
    assert found.path == tmp_path / "mine" / "captioners" / "wd.onnx"


def test_a_broken_tagger_says_why(models: Path, assistants: Assistants) -> None:
    room = models / "captioners"
    write_tagger(room / "alone.onnx")
    write_tags(write_tagger(room / "short" / "model.onnx").with_name("selected_tags.csv"), TAGS[:5])
    write_tags(write_arcface(room / "face.onnx").with_suffix(".csv"))
    (room / "cut.onnx").write_bytes((room / "alone.onnx").read_bytes()[:300])
    (room / "page.onnx").write_text("<html>")
    write_tags(with_external_weights(write_tagger(room / "apart" / "model.onnx")).with_name("selected_tags.csv"))
    (room / "apart" / "weights.bin").unlink()
    (room / "empty").mkdir()
    (room / "blip.safetensors").write_bytes(b"x")
    wanted = {
        "alone": "its list of tags is missing: 'alone.csv' or 'selected_tags.csv' beside it",
        "short": "'selected_tags.csv' has 5 tags, and the network gives 8",
        "face": "it takes ?x3x112x112 and gives ?x512, which is no tagger",
        "cut": "cut off",
        "page": "it is a web page",
        "apart": "'weights.bin', which is missing beside it",
        "empty": "there is neither a model.onnx with selected_tags.csv",
        "blip": "it is a file of weights alone",
    }
    assert {one.id for one in assistants.all("captions")} == set(wanted)
    for name, words in wanted.items():
        assert words in broken(assistants, "captions", name)
    with pytest.raises(InvalidRequest, match="'alone' cannot be used: its list of tags is missing"):
        assistants.find("captions", "alone")


def test_a_broken_blip_says_why(models: Path, assistants: Assistants) -> None:
    folder = write_blip(models / "captioners" / "blip")
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, text = weights.read_bytes(), config.read_text("utf-8")
    config.write_text("{", encoding="utf-8")
    assert "its config.json cannot be read" in broken(assistants, "captions", "blip")
    config.write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}), encoding="utf-8")
    assert "it is a LlamaForCausalLM" in broken(assistants, "captions", "blip")
    config.write_text(text, encoding="utf-8")
    weights.write_bytes(whole[:-10])
    assert "model.safetensors: it is cut off" in broken(assistants, "captions", "blip")
    weights.unlink()
    assert "its weights are missing: model.safetensors" in broken(assistants, "captions", "blip")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert "is missing: model-00001-of-00002.safetensors" in broken(assistants, "captions", "blip")
    (folder / "processor_config.json").unlink()
    assert "processor_config.json is missing" in broken(assistants, "captions", "blip")


def test_a_broken_masker_says_why(models: Path, assistants: Assistants) -> None:
    room = models / "maskers"
    write_masker(room / "thing.onnx", dims=(1, 3, 512, 512), num_outputs=1)
    write_arcface(room / "face.onnx")
    for name in ("a", "b"):
        write_masker(room / "two" / f"{name}.onnx")
    assert "which network it is cannot be told; put one of these into its name: birefnet" in broken(
        assistants, "masks", "thing"
    )
    assert "which is no masker (1x3xHxW to 1x1xHxW)" in broken(assistants, "masks", "face")
    assert "it has 2 .onnx files" in broken(assistants, "masks", "two")


def test_a_name_that_is_not_there_is_refused_with_close_ones_or_how_to_get_one(
    models: Path, assistants: Assistants
) -> None:
    with pytest.raises(InvalidRequest, match="no captioner named 'wd'") as caught:
        assistants.find("captions", "wd")
    assert "SmilingWolf" in caught.value.hint and caught.value.field == "assistant"
    write_masker(models / "maskers" / "u2netp.onnx")
    with pytest.raises(InvalidRequest) as caught:
        assistants.find("masks", "u2net")
    assert caught.value.hint == "There is: u2netp."


def test_a_network_that_cannot_be_opened_is_named(models: Path, assistants: Assistants) -> None:
    path = write_masker(models / "maskers" / "u2net.onnx")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Sigmoid", b"Sigmoit"))
    with pytest.raises(UnsupportedModel, match=r"'u2net.onnx' cannot be used: onnxruntime cannot open it"):
        open_masker(assistants.find("masks", "u2net"))


def test_listing_opens_nothing_and_imports_neither_torch_nor_a_runtime(models: Path) -> None:
    write_tags(write_tagger(models / "captioners" / "wd.onnx").with_suffix(".csv"))
    write_masker(models / "maskers" / "u2net.onnx")
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from webui.training.assistants.catalog import Assistants\n"
        f"found = Assistants([Path({str(models)!r})])\n"
        "print(len(found.all('captions')), len(found.all('masks')))\n"
        "print(sorted({'onnxruntime', 'onnx', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["1 1", "[]"], done.stderr
