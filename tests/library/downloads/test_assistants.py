"""Getting captioners and maskers: of a repository the files that one needs, into a folder of its own."""

from pathlib import Path

import pytest

from tests.assistant_files import write_masker, write_tagger, write_tags
from tests.library.downloads.test_download import Home, at_other_host, home
from webui.errors import InvalidRequest, UnsupportedModel
from webui.training.assistants.catalog import Assistants

assert home  # the fixture

TAGGER = {"README.md": b"#", "model.safetensors": b"weights of timm", "config.json": b"{}", "model.msgpack": b"x"}
BLIP = ("config.json", "preprocessor_config.json", "special_tokens_map.json", "tokenizer.json", "vocab.txt")


def usable(home: Home, kind) -> list[str]:
    return [one.id for one in Assistants([home.models]).all(kind) if not one.problem]


def test_of_a_taggers_repository_its_network_and_its_list_are_taken(home: Home, tmp_path: Path) -> None:
    network = write_tagger(tmp_path / "model.onnx").read_bytes()
    tags = write_tags(tmp_path / "tags.csv").read_bytes()
    home.server.add_repository("ann/wd-tagger", {**TAGGER, "model.onnx": network, "selected_tags.csv": tags})
    saved = home.get("ann/wd-tagger", target="captioner")
    assert (saved.path, saved.kind) == (str(home.models / "captioners" / "wd-tagger"), "captioner")
    assert home.files() == ["captioners/wd-tagger/model.onnx", "captioners/wd-tagger/selected_tags.csv"]
    assert usable(home, "captions") == ["wd-tagger"]


def test_of_a_network_that_writes_sentences_all_that_it_needs_and_safetensors_before_pickles(home: Home) -> None:
    files = dict.fromkeys(BLIP, b"{}")
    home.server.add_repository(
        "ann/blip", {**files, "model.safetensors": b"s", "pytorch_model.bin": b"p", "tf_model.h5": b"t"}
    )
    home.get("ann/blip", target="captioner")
    assert home.files() == sorted(f"captioners/blip/{name}" for name in (*BLIP, "model.safetensors"))


def test_a_captioner_with_a_pickle_only_needs_the_users_word(home: Home) -> None:
    home.server.add_repository("ann/blip", {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"p"})
    with pytest.raises(InvalidRequest, match=r"pytorch_model\.bin is a pickle"):
        home.get("ann/blip", target="captioner")
    home.get("ann/blip", target="captioner", allow_pickle=True)
    assert "captioners/blip/pytorch_model.bin" in home.files()


def test_a_masker_is_the_network_that_was_named_or_the_best_known_one(home: Home, tmp_path: Path) -> None:
    network = write_masker(tmp_path / "u2net.onnx").read_bytes()
    files = {"u2net.onnx": network, "onnx/model.onnx": network, "onnx/model_fp16.onnx": network}
    home.server.add_repository("ann/BiRefNet-ONNX", files)
    assert Path(home.get("ann/BiRefNet-ONNX", target="masker").path).name == "BiRefNet-ONNX"
    assert Path(home.get("ann/BiRefNet-ONNX/u2net.onnx", target="masker").path).name == "u2net"
    assert home.files() == ["maskers/BiRefNet-ONNX/model.onnx", "maskers/u2net/u2net.onnx"]
    assert usable(home, "masks") == ["BiRefNet-ONNX", "u2net"]


def test_a_masker_comes_from_any_address_and_what_is_no_network_is_not_kept(home: Home, tmp_path: Path) -> None:
    home.server.add("/files/u2net.onnx", write_masker(tmp_path / "u2net.onnx").read_bytes())
    home.get(at_other_host(home, "/files/u2net.onnx"), target="masker")
    assert home.files() == ["maskers/u2net/u2net.onnx"]
    home.server.add("/files/isnet.onnx", b"<html>gone</html>")
    with pytest.raises(UnsupportedModel, match="it is a web page"):
        home.get(at_other_host(home, "/files/isnet.onnx"), target="masker")
    left = [name for name in home.files() if not name.endswith(".lock")]
    assert left == ["maskers/u2net/u2net.onnx"]


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        ("ann/empty", "captioner", "is no captioner that is known"),
        ("ann/empty", "masker", r"has no \.onnx file"),
        ("ann/several", "masker", r"has 2 \.onnx files"),
        ("ann/several/a.onnx", "captioner", "A captioner is more than one file"),
        ("ann/several/c.onnx", "masker", r"has no c\.onnx"),
        ("civitai:3@7", "masker", "not to be had from Civitai"),
        ("HOST/files/x.safetensors", "masker", r"'x\.safetensors' is no \.onnx file"),
        ("HOST/files/x.onnx", "captioner", "A captioner is more than one file"),
    ],
)
def test_what_is_none_is_refused_before_anything_is_fetched(source: str, target: str, told: str, home: Home) -> None:
    home.server.add_repository("ann/empty", {"README.md": b"#"})
    home.server.add_repository("ann/several", {"a.onnx": b"a", "b.onnx": b"b"})
    with pytest.raises(InvalidRequest, match=told):
        home.get(source.replace("HOST", home.server.other_url), target=target)
    assert home.files() == []
