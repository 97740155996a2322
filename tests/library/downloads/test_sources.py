"""What users paste is understood; what names nothing is refused with examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model_server import ModelServer, lora
from webui.errors import InvalidRequest, WebUIError
from webui.library.downloads.addresses import parse_url
from webui.library.downloads.civitai import plan_civitai
from webui.library.downloads.client import Access, Client
from webui.library.downloads.hugging_face import plan_hugging_face
from webui.library.downloads.plan import Plan
from webui.library.downloads.sources import CivitaiSource, HuggingFaceSource, Sites, UrlSource, parse_source

SITES = Sites(hugging_face=parse_url("https://huggingface.co"), civitai=parse_url("https://civitai.com"))
WEIGHTS = lora()


def hf(repository: str, revision: str = "main", file: str = "") -> HuggingFaceSource:
    return HuggingFaceSource(repository=repository, revision=revision, file=file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stabilityai/sdxl-vae", hf("stabilityai/sdxl-vae")),
        (" stabilityai/sdxl-vae@v1.0 ", hf("stabilityai/sdxl-vae", "v1.0")),
        ("ann/x@refs/pr/3", hf("ann/x", "refs/pr/3")),
        ("ann/x/sub/a b.safetensors", hf("ann/x", "main", "sub/a b.safetensors")),
        ("https://huggingface.co/ann/x", hf("ann/x")),
        ("huggingface.co/ann/x/", hf("ann/x")),
        ("https://huggingface.co/ann/x/tree/fp16", hf("ann/x", "fp16")),
        ("https://huggingface.co/ann/x/blob/main/a%20b.safetensors", hf("ann/x", "main", "a b.safetensors")),
        ("https://huggingface.co/ann/x/resolve/dev/u/a.pt?download=true", hf("ann/x", "dev", "u/a.pt")),
        ("https://civitai.com/models/4384", CivitaiSource(model=4384)),
        ("https://www.civitai.com/models/4384/dreamshaper", CivitaiSource(model=4384)),
        ("https://civitai.com/models/4384?modelVersionId=128713", CivitaiSource(model=4384, version=128713)),
        ("civitai.com/model-versions/128713", CivitaiSource(version=128713)),
        ("https://civitai.com/api/download/models/128713?type=Model&format=SafeTensor&token=x",
         CivitaiSource(version=128713, wanted={"type": "model", "format": "safetensor"})),
        ("urn:air:sdxl:lora:civitai:328553@368189", CivitaiSource(model=328553, version=368189)),
        ("air:sd1:checkpoint:civitai:4384", CivitaiSource(model=4384)),
        ("civitai:4384@128713", CivitaiSource(model=4384, version=128713)),
        ("https://example.org/a.safetensors?x=1", UrlSource(url=parse_url("https://example.org/a.safetensors?x=1"))),
    ],
)  # fmt: skip
def test_names_and_addresses_are_understood(text: str, expected: object) -> None:
    assert parse_source(text, SITES) == expected


@pytest.mark.parametrize(
    "text",
    ["", "sdxl", "a/b/../../etc/passwd", "../b", "http://example.org/x", "file:///etc/passwd", "civitai:",
     "C:\\models\\x", "https://huggingface.co/datasets/ann/x", "https://huggingface.co/ann", "https://civitai.com/images/1",
     "https://huggingface.co/ann/x/tree/main/unet", "https://huggingface.co/ann/x/blob/main/../../y"],
)  # fmt: skip
def test_what_names_no_model_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_source(text, SITES)


def test_pages_of_the_sites_mean_the_mirror_where_there_is_one() -> None:
    mirrors = Sites(hugging_face=parse_url("https://hf.example"), civitai=parse_url("https://civitai.example"))
    assert parse_source("https://huggingface.co/ann/x", mirrors) == hf("ann/x")
    assert parse_source("https://hf.example/ann/x", mirrors) == hf("ann/x")
    assert parse_source("https://civitai.com/models/3", mirrors) == CivitaiSource(model=3)


@given(st.text(max_size=80))
def test_any_text_is_a_source_or_an_error_in_words(text: str) -> None:
    try:
        source = parse_source(text, SITES)
    except InvalidRequest:
        return
    if isinstance(source, HuggingFaceSource):
        assert not {"..", "."} & set(source.file.split("/"))
        assert source.repository.count("/") == 1


def of(server: ModelServer, source: HuggingFaceSource, *, fp16: bool = False, allow_pickle: bool = False) -> Plan:
    client = Client(Access(private=True), check=lambda: None)
    site = parse_url(server.url, plain_http=True)
    return plan_hugging_face(source, client, site, fp16=fp16, allow_pickle=allow_pickle)


def diffusers_repository() -> dict[str, bytes]:
    files = {"model_index.json": b"{}", "README.md": b"#", "sd.safetensors": WEIGHTS, "unet/config.json": b"{}"}
    for part in ("unet", "vae"):
        for name in ("", ".fp16"):
            for suffix in ("safetensors", "bin"):
                files[f"{part}/diffusion_pytorch_model{name}.{suffix}"] = WEIGHTS
    files |= {"text_encoder/model.safetensors": WEIGHTS, "text_encoder/pytorch_model.bin": WEIGHTS}
    files |= {f"tokenizer/{name}": b"{}" for name in ("vocab.json", "merges.txt", "tokenizer_config.json")}
    return files | {"safety_checker/model.safetensors": WEIGHTS, "unet/model.onnx": b"1"}


def test_of_a_diffusers_repository_only_what_is_used_is_fetched_in_the_wanted_precision(server: ModelServer) -> None:
    server.add_repository("ann/model", diffusers_repository())
    plan = of(server, hf("ann/model"), fp16=True)
    assert plan.folder
    assert {file.path: file.url.path.partition("/main/")[2] for file in plan.files} == {
        "model_index.json": "model_index.json",
        "unet/config.json": "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors": "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.safetensors": "text_encoder/model.safetensors",
        "tokenizer/vocab.json": "tokenizer/vocab.json",
        "tokenizer/merges.txt": "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json": "tokenizer/tokenizer_config.json",
    }
    assert all(file.size is not None for file in plan.files)
    full = of(server, hf("ann/model"))
    assert not [file for file in full.files if ".fp16" in str(file.url)]


def test_a_network_in_several_files_comes_with_its_index(server: ModelServer) -> None:
    stem = "unet/diffusion_pytorch_model"
    shards = {f"{stem}-0000{index}-of-00002.safetensors": WEIGHTS for index in (1, 2)}
    others = {f"{stem}.safetensors.index.json": b"{}", "model_index.json": b"{}", f"{stem}.bin": WEIGHTS}
    server.add_repository("ann/split", shards | others | {f"{stem}.safetensors.index.fp16.json": b"{}"})
    paths = {file.path for file in of(server, hf("ann/split")).files}
    assert paths == {*shards, f"{stem}.safetensors.index.json", "model_index.json"}


def test_a_repository_whose_weights_are_pickles_is_refused_unless_they_are_allowed(server: ModelServer) -> None:
    files = {path: body for path, body in diffusers_repository().items() if not path.endswith(".safetensors")}
    server.add_repository("ann/old", {**files, "text_encoder/pytorch_model.bin": WEIGHTS})
    with pytest.raises(InvalidRequest, match="pickle"):
        of(server, hf("ann/old"))
    plan = of(server, hf("ann/old"), allow_pickle=True)
    assert "unet/diffusion_pytorch_model.bin" in {file.path for file in plan.files}


def test_the_only_model_file_of_a_repository_is_taken_under_a_name_that_says_something(server: ModelServer) -> None:
    server.add_repository(
        "ann/lcm-lora", {"pytorch_lora_weights.safetensors": WEIGHTS, "README.md": b"", "a.bin": b"1"}
    )
    (file,) = of(server, hf("ann/lcm-lora")).files
    assert file.path == "lcm-lora.safetensors"
    assert file.size == len(WEIGHTS)
    assert len(file.sha256) == 64


def test_several_model_files_are_a_question_with_its_answers(server: ModelServer) -> None:
    server.add_repository("ann/two", {"a.safetensors": WEIGHTS, "sub/b.safetensors": WEIGHTS})
    with pytest.raises(InvalidRequest, match="2 model files") as caught:
        of(server, hf("ann/two"))
    assert "ann/two/sub/b.safetensors" in caught.value.hint
    with pytest.raises(InvalidRequest, match="no file 'c"):
        of(server, hf("ann/two", file="c.safetensors"))
    (file,) = of(server, hf("ann/two", file="sub/b.safetensors")).files
    assert file.path == "b.safetensors"


def test_a_gated_repository_is_told_with_how_to_get_in(server: ModelServer) -> None:
    server.add("/api/models/ann/gated/revision/main", b"{}", needs_token="t")
    with pytest.raises(WebUIError, match="needs a login") as caught:
        of(server, hf("ann/gated"))
    assert "HF_TOKEN" in caught.value.hint
    assert "Access is restricted" in caught.value.message
    with pytest.raises(WebUIError, match="There is no model ann"):
        of(server, hf("ann/nowhere"))


def civitai_file(server: ModelServer, name: str, **more: object) -> dict[str, object]:
    return {
        "name": name,
        "type": "Model",
        "sizeKB": len(WEIGHTS) / 1024,
        "metadata": {"format": "SafeTensor", "fp": more.pop("fp", "fp32"), "size": more.pop("size", "full")},
        "hashes": {"SHA256": "AB" * 32},
        "downloadUrl": f"{server.url}/api/download/models/7?n={name}",
        **more,
    }


def plan_of(server: ModelServer, source: CivitaiSource, *, fp16: bool = False) -> Plan:
    client = Client(Access(private=True), check=lambda: None)
    return plan_civitai(source, client, parse_url(server.url, plain_http=True), fp16=fp16)


def test_a_civitai_model_gives_its_newest_version_with_size_hash_and_trigger_words(server: ModelServer) -> None:
    newest = {
        "id": 7,
        "name": "v2",
        "baseModel": "SD 1.5",
        "trainedWords": ["ink wash,", " brush "],
        "files": [civitai_file(server, "ink.safetensors")],
    }
    older = {"id": 6, "name": "v1", "files": [civitai_file(server, "old.safetensors")]}
    server.add_json(
        "/api/v1/models/3", {"id": 3, "name": "Ink", "modelVersions": [{"id": 8, "files": []}, newest, older]}
    )
    plan = plan_of(server, CivitaiSource(model=3))
    assert plan.title == "Ink v2"
    (file,) = plan.files
    assert (file.path, file.size, file.sha256) == ("ink.safetensors", len(WEIGHTS), "ab" * 32)
    assert plan.card["activation text"] == "ink wash, brush"
    assert plan.card["sd version"] == "SD1"
    assert plan.card["notes"].endswith("/models/3?modelVersionId=7")


def test_of_several_civitai_files_the_asked_for_then_the_safe_then_the_primary_one_is_taken(
    server: ModelServer,
) -> None:
    pickle = civitai_file(
        server, "x.ckpt", primary=True, metadata={"format": "PickleTensor", "fp": "fp16", "size": "full"}
    )
    files = [
        civitai_file(server, "train.zip", type="Training Data"),
        pickle,
        civitai_file(server, "small.safetensors", fp="fp16", size="pruned"),
        civitai_file(server, "full.safetensors", primary=True),
    ]
    server.add_json(
        "/api/v1/model-versions/7", {"id": 7, "modelId": 3, "name": "v", "model": {"name": "X"}, "files": files}
    )
    assert plan_of(server, CivitaiSource(version=7)).files[0].path == "full.safetensors"
    assert plan_of(server, CivitaiSource(version=7), fp16=True).files[0].path == "small.safetensors"
    assert plan_of(server, CivitaiSource(version=7, wanted={"size": "pruned"})).files[0].path == "small.safetensors"
    assert plan_of(server, CivitaiSource(version=7, wanted={"format": "pickletensor"})).files[0].path == "x.ckpt"
