"""A download ends with the right file in the right folder, or with a reason; and it always can be gone on with."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from tests.model_server import ModelServer, lora, nothing_known
from webui.errors import InvalidRequest, UnsupportedModel, WebUIError
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.events import JobEvent
from webui.library.downloads import download as download_module
from webui.library.downloads.addresses import parse_url
from webui.library.downloads.client import Access
from webui.library.downloads.download import DownloadRequest, Downloads
from webui.library.downloads.events import DownloadFound, DownloadProgress
from webui.library.downloads.sources import Sites
from webui.library.events import ModelSaved

LORA = lora()
EMBEDDING = save({"emb_params": np.zeros((4, 768), np.float32)})
TINY_DECODER = save(
    {f"{name}.weight": np.zeros((64, 4 if name == "1" else 64, 3, 3), np.float16) for name in ("1", "3.conv.0")}
)


class Home:
    """A models folder, and downloads into it from `server`."""

    def __init__(self, server: ModelServer, folder: Path) -> None:
        self.server = server
        self.models = folder / "models"
        self.events: list[JobEvent] = []
        self.cancel = CancelToken()
        self.site = parse_url(server.url, plain_http=True)
        self.downloads = self.made()

    def made(self, **more: Any) -> Downloads:
        sites = Sites(
            hugging_face=self.site,
            civitai=parse_url(self.server.url.replace("127.0.0.1", "localhost"), plain_http=True),
        )
        return Downloads(models_dir=self.models, sites=sites, access=Access(private=True), **more)

    def get(self, source: str, *, downloads: Downloads | None = None, **more: Any) -> ModelSaved:
        return (downloads or self.downloads).get(
            DownloadRequest(source=source, **more),
            report=self.events.append,
            check=self.cancel.check,
        )

    def files(self) -> list[str]:
        found = (path for path in self.models.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.models).as_posix() for path in found)


@pytest.fixture
def home(server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(download_module._Download, "_pause", lambda *_: None)
    return Home(server, tmp_path)


def test_a_lora_of_hugging_face_lands_among_the_loras(home: Home) -> None:
    home.server.add_repository("ann/ink-wash", {"pytorch_lora_weights.safetensors": LORA, "README.md": b"#"})
    saved = home.get("ann/ink-wash")
    path = home.models / "loras" / "ink-wash.safetensors"
    assert path.read_bytes() == LORA
    assert (saved.path, saved.kind, saved.already_there) == (str(path), "adapter", False)
    assert saved.sha256 == hashlib.sha256(LORA).hexdigest()
    assert json.loads(path.with_suffix(".json").read_text())["notes"].endswith("/ann/ink-wash")
    assert home.files() == ["loras/ink-wash.json", "loras/ink-wash.safetensors"]


@pytest.mark.parametrize(
    ("body", "folder"),
    [(LORA, "loras"), (EMBEDDING, "embeddings"), (TINY_DECODER, "vae_approx")],
)
def test_a_file_goes_where_what_it_is_belongs(home: Home, body: bytes, folder: str) -> None:
    home.server.add("/files/thing.safetensors", body)
    assert Path(home.get(at_other_host(home, "/files/thing.safetensors")).path).parent.name == folder


def at_other_host(home: Home, path: str) -> str:
    """An address that belongs to neither site."""
    return home.server.other_url + path


def test_a_civitai_file_brings_its_trigger_words(home: Home) -> None:
    sha256 = hashlib.sha256(LORA).hexdigest()
    file = {"name": "Ink wash.safetensors", "type": "Model", "sizeKB": len(LORA) / 1024, "primary": True,
            "metadata": {"format": "SafeTensor"}, "hashes": {"SHA256": sha256.upper()},
            "downloadUrl": f"{home.server.url.replace('127.0.0.1', 'localhost')}/api/download/models/7"}  # fmt: skip
    home.server.add_json(
        "/api/v1/model-versions/7", {"id": 7, "name": "v1", "trainedWords": ["inkwash"], "files": [file]}
    )
    home.server.add("/api/download/models/7", LORA, headers={"Content-Disposition": 'attachment; filename="other.bin"'})
    home.get("civitai:3@7")
    assert home.files() == ["loras/Ink wash.json", "loras/Ink wash.safetensors"]
    assert json.loads((home.models / "loras" / "Ink wash.json").read_text())["activation text"] == "inkwash"


def test_a_file_that_is_nothing_known_is_refused_by_its_first_bytes(home: Home) -> None:
    home.server.add("/big.safetensors", nothing_known())
    with pytest.raises(UnsupportedModel, match=r"big\.safetensors") as caught:
        home.get(at_other_host(home, "/big.safetensors"))
    assert "--to FOLDER" in caught.value.hint
    assert home.downloads.part_of(DownloadRequest(source=at_other_host(home, "/big.safetensors"))).stat().st_size < len(
        nothing_known()
    )
    assert not (home.models / "checkpoints").exists()


def test_a_chosen_folder_takes_anything(home: Home) -> None:
    home.server.add("/big.safetensors", nothing_known())
    saved = home.get(at_other_host(home, "/big.safetensors"), target="lora")
    assert Path(saved.path) == home.models / "loras" / "big.safetensors"


@pytest.mark.parametrize(
    "target", ["../elsewhere", "/tmp", "loras/../../x", "~", "loras/odd", "checkpoints/a/text_encoder", "\0"]
)
def test_a_page_may_name_kinds_of_models_and_no_folders(home: Home, target: str) -> None:
    with pytest.raises(InvalidRequest, match="no kind of model"):
        home.get("ann/x", target=target)
    assert home.server.seen == []


@pytest.mark.parametrize(
    ("target", "name"),
    [("checkpoint", "photo.vae"), ("checkpoint", "photo.VAE.safetensors"), ("lora", "model_index.safetensors")],
)
def test_a_page_may_not_give_a_name_that_changes_other_models(home: Home, target: str, name: str) -> None:
    home.server.add("/x.safetensors", LORA)
    with pytest.raises(InvalidRequest, match=r"would be taken for the VAE|makes a folder a model"):
        home.get(at_other_host(home, "/x.safetensors"), target=target, name=name)
    assert Path(home.get(at_other_host(home, "/x.safetensors"), target=target, name="good").path).is_file()
    command_line = home.made(anywhere=True)
    saved = home.get(at_other_host(home, "/x.safetensors"), target=target, name=name, downloads=command_line)
    assert Path(saved.path).is_file()


def test_the_command_line_may_name_any_folder(home: Home, tmp_path: Path) -> None:
    home.server.add("/x.safetensors", LORA)
    saved = home.get(
        at_other_host(home, "/x.safetensors"), target=str(tmp_path / "usb"), downloads=home.made(anywhere=True)
    )
    assert Path(saved.path) == tmp_path / "usb" / "x.safetensors"


def torch_file(path: Path) -> bytes:
    torch.save({"emb_params": torch.zeros(4, 768)}, path)
    return path.read_bytes()


def test_pickles_are_refused_before_a_byte_is_fetched_unless_they_are_allowed(home: Home, tmp_path: Path) -> None:
    home.server.add("/cat.pt", torch_file(tmp_path / "x.pt"))
    with pytest.raises(InvalidRequest, match="can carry code") as caught:
        home.get(at_other_host(home, "/cat.pt"))
    assert caught.value.field == "allow_pickle"
    assert home.server.seen == []
    saved = home.get(at_other_host(home, "/cat.pt"), allow_pickle=True)
    assert Path(saved.path) == home.models / "embeddings" / "cat.pt"


def test_a_pickle_in_disguise_is_refused(home: Home, tmp_path: Path) -> None:
    body = torch_file(tmp_path / "x.pt")
    home.server.add("/cat.safetensors", body)
    with pytest.raises(UnsupportedModel, match="not a safetensors file"):
        home.get(at_other_host(home, "/cat.safetensors"))
    assert not (home.models / "embeddings").exists()
    saved = home.get(at_other_host(home, "/cat.safetensors"), allow_pickle=True)
    assert Path(saved.path).name == "cat.pt"


def test_a_safetensors_file_is_called_so_whatever_its_site_says(home: Home) -> None:
    home.server.add(
        "/get", LORA, headers={"Content-Disposition": "attachment; filename*=UTF-8''..%2F..%2Fevil%C3%A4.ckpt"}
    )
    saved = home.get(at_other_host(home, "/get"))
    assert Path(saved.path) == home.models / "loras" / "evilä.safetensors"


def test_another_file_is_never_overwritten_and_the_same_one_is_no_trouble(home: Home) -> None:
    home.server.add("/x.safetensors", LORA)
    source = at_other_host(home, "/x.safetensors")
    home.get(source)
    assert home.get(source).already_there
    home.server.files["/x.safetensors"].body = lora(seed=1)
    with pytest.raises(InvalidRequest, match="another 'x"):
        home.get(source)
    assert (home.models / "loras" / "x.safetensors").read_bytes() == LORA
    home.server.files.clear()
    with pytest.raises(WebUIError):
        home.get(source, name="second")


def test_a_refused_name_costs_no_second_transfer(home: Home) -> None:
    home.server.add_repository("ann/x", {"x.safetensors": LORA})
    (home.models / "loras").mkdir(parents=True)
    (home.models / "loras" / "x.safetensors").write_bytes(b"mine")
    with pytest.raises(InvalidRequest, match="another 'x"):
        home.get("ann/x")
    home.server.seen.clear()
    assert Path(home.get("ann/x", name="second").path).name == "second.safetensors"
    assert [seen.path for seen in home.server.seen] == ["/api/models/ann/x/revision/main?blobs=true"]


def test_a_known_file_is_not_fetched_at_all(home: Home) -> None:
    home.server.add_repository("ann/x", {"x.safetensors": LORA})
    home.get("ann/x")
    home.server.seen.clear()
    saved = home.get("ann/x")
    assert saved.already_there
    assert [seen.path for seen in home.server.seen] == ["/api/models/ann/x/revision/main?blobs=true"]


def diffusers_repository() -> dict[str, bytes]:
    unet = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "cross_attention_dim": 768}
    configs = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "unet/config.json": unet,
        "vae/config.json": {"_class_name": "AutoencoderKL"},
        "text_encoder/config.json": {"architectures": ["CLIPTextModel"]},
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"},
        "tokenizer/vocab.json": {},
    }
    files = {path: json.dumps(config).encode() for path, config in configs.items()}
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        files[f"{part}.fp16.safetensors"] = lora(seed=len(part))
    return files | {"tokenizer/merges.txt": b"#", "safety_checker/model.safetensors": LORA}


def test_a_diffusers_repository_becomes_a_folder_once_all_of_it_is_there(home: Home) -> None:
    files = diffusers_repository()
    home.server.add_repository("ann/model", files)
    cdn = "/cdn/" + hashlib.sha256(files["vae/diffusion_pytorch_model.fp16.safetensors"]).hexdigest()
    home.server.files[cdn].faults = ["cut"] + ["reset"] * 20
    with pytest.raises(WebUIError):
        home.get("ann/model", fp16=True, target="checkpoint")
    assert not (home.models / "checkpoints").exists()
    home.server.files[cdn].faults = []
    home.server.seen.clear()
    saved = home.get("ann/model", fp16=True, target="checkpoint")
    folder = home.models / "checkpoints" / "model"
    assert saved.path == str(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == sorted(path.replace(".fp16", "") for path in files if "safety" not in path)
    unet = "/cdn/" + hashlib.sha256(files["unet/diffusion_pytorch_model.fp16.safetensors"]).hexdigest()
    assert home.server.asked(unet) == []
    assert "range" in home.server.asked(cdn)[0].headers
    assert home.files() == sorted(f"checkpoints/model/{name}" for name in names)


def test_a_folder_that_changed_on_the_site_is_not_mixed_from_two_versions(home: Home) -> None:
    files = diffusers_repository()
    home.server.add_repository("ann/model", files)
    vae = "/cdn/" + hashlib.sha256(files["vae/diffusion_pytorch_model.fp16.safetensors"]).hexdigest()
    home.server.files[vae].faults = ["reset"] * 20
    with pytest.raises(WebUIError):
        home.get("ann/model", target="checkpoint")
    changed = files | {"unet/diffusion_pytorch_model.fp16.safetensors": lora(seed=99), "unet/config.json": b"{ }"}
    home.server.add_repository("ann/model", changed)
    home.server.files[vae].faults = []
    home.get("ann/model", target="checkpoint")
    folder = home.models / "checkpoints" / "model"
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == lora(seed=99)
    assert (folder / "unet" / "config.json").read_bytes() == b"{ }"


def test_a_download_tells_how_far_it_is(home: Home) -> None:
    home.server.add_repository("ann/x", {"x.safetensors": LORA})
    home.get("ann/x")
    found, *progress, saved = home.events
    assert found == DownloadFound(title="x.safetensors", size=len(LORA), num_files=1)
    assert isinstance(saved, ModelSaved)
    done = [event.done for event in progress if isinstance(event, DownloadProgress)]
    assert done == sorted(done)
    assert done[-1] == len(LORA)


def test_a_stopped_download_goes_on_or_is_thrown_away(home: Home) -> None:
    home.server.add_repository("ann/x", {"x.safetensors": LORA})
    home.server.files["/cdn/" + hashlib.sha256(LORA).hexdigest()].faults = ["cut"] + ["reset"] * 20
    request = DownloadRequest(source="ann/x")

    def report(event: JobEvent) -> None:
        home.events.append(event)
        if isinstance(event, DownloadProgress):
            home.cancel.interrupt()

    with pytest.raises(JobInterrupted):
        home.downloads.get(request, report=report, check=home.cancel.check)
    assert home.downloads.has_part(request)
    home.downloads.discard(request)
    assert not home.downloads.has_part(request)
    assert home.files() == []


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_another_process_is_fetching_is_not_thrown_away(home: Home, is_folder: bool) -> None:
    home.server.add_repository("ann/x", diffusers_repository() if is_folder else {"x.safetensors": LORA})
    request = DownloadRequest(source="ann/x", target="checkpoint")
    refused = []

    def report(event: JobEvent) -> None:
        if isinstance(event, DownloadProgress):
            with pytest.raises(WebUIError, match="already being fetched"):
                home.downloads.discard(request)
            refused.append(event)

    home.downloads.get(request, report=report, check=home.cancel.check)
    assert refused
    assert list(home.downloads.parts_dir.iterdir()) == []
    home.downloads.discard(request)


def test_what_nobody_went_on_with_is_thrown_away_after_a_month(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    old = home.downloads.parts_dir / "old.part"
    (home.downloads.parts_dir / "older.folder" / "unet").mkdir(parents=True)
    old.write_bytes(b"1")
    old.with_name("old.part.state").write_text("{}")
    home.server.add("/x.safetensors", LORA)
    home.get(at_other_host(home, "/x.safetensors"))
    assert old.exists()
    monkeypatch.setattr(download_module, "KEEP_PARTS_DAYS", -1)
    home.get(at_other_host(home, "/x.safetensors"))
    assert list(home.downloads.parts_dir.iterdir()) == []


def test_speed_and_time_left_follow_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 0.1, 1.0, 2.0, 10.0])
    monkeypatch.setattr(download_module.time, "monotonic", lambda: next(seconds))
    events: list[Any] = []
    meter = download_module.Meter(events.append, 1000)
    for done in (0, 50, 100, 200, 400):
        meter.count(done, None)
    assert [event.done for event in events] == [0, 100, 200, 400]
    assert [event.bytes_per_s for event in events] == [0, 100, 100, 0]
    assert [event.seconds_left for event in events] == [None, 9, 8, None]


def test_a_stalled_download_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 1.0, 1.1, 2.0, 7.5])
    monkeypatch.setattr(download_module.time, "monotonic", lambda: next(seconds))
    events: list[Any] = []
    meter = download_module.Meter(events.append, 1000)
    meter.beat()
    meter.count(0, None)
    meter.count(100, None)
    for _ in range(3):
        meter.beat()
    assert [(event.done, event.bytes_per_s) for event in events] == [(0, 0), (100, 100), (100, 50), (100, 0)]
