"""Models that an extension names: which are there, and getting one whole, out of an archive, or a part of a file."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model_server import ModelServer
from webui.errors import WebUIError
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.events import JobEvent
from webui.library.downloads.download import Downloads
from webui.library.downloads.events import DownloadProgress
from webui.library.events import ModelSaved
from webui.plugins.manifest import ModelFile
from webui.plugins.models import ModelRequest, get_model, presence_of
from webui.services import downloads_of
from webui.settings import load_settings

MODEL = np.random.default_rng(7).bytes(300_000)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer().running() as server:
        yield server


@pytest.fixture
def downloads(tmp_path: Path) -> Downloads:
    return downloads_of(load_settings(data_dir=tmp_path, private_downloads=True))


def named(url: str, content: bytes = MODEL, **more: object) -> ModelFile:
    values = {"file": "face/swap.onnx", "url": url, "licence": "MIT", "size_bytes": len(content)}
    return ModelFile.model_validate({**values, "sha256": hashlib.sha256(content).hexdigest(), **more})


def get(model: ModelFile, downloads: Downloads, events: list[JobEvent] | None = None) -> ModelSaved:
    request = ModelRequest(extension="faces", model=model)
    seen = [] if events is None else events
    return get_model(
        ModelRequest.model_validate(request.model_dump(mode="json")), downloads, report=seen.append, check=lambda: None
    )


def tar_of(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def assert_only_the_model(downloads: Downloads) -> None:
    assert (downloads.models_dir / "face" / "swap.onnx").read_bytes() == MODEL
    assert list(downloads.parts_dir.iterdir()) == []


def test_a_file_comes_whole_and_checked(server: ModelServer, downloads: Downloads) -> None:
    server.add("/swap", MODEL)
    events: list[JobEvent] = []
    saved = get(named(f"{server.url}/swap"), downloads, events)
    assert_only_the_model(downloads)
    assert (saved.path, saved.size) == (str(downloads.models_dir / "face" / "swap.onnx"), len(MODEL))
    progress = [event for event in events if isinstance(event, DownloadProgress)]
    assert progress[-1].done == progress[-1].total == len(MODEL)


def test_one_that_is_there_is_not_fetched_again(server: ModelServer, downloads: Downloads) -> None:
    server.add("/swap", MODEL)
    get(named(f"{server.url}/swap"), downloads)
    server.seen.clear()
    assert get(named(f"{server.url}/swap"), downloads).already_there
    assert server.seen == []


@pytest.mark.parametrize("archive", [tar_of, lambda files: tar_of(files, "w"), zip_of], ids=["tar.gz", "tar", "zip"])
def test_a_member_of_an_archive_is_taken_out_of_it(server: ModelServer, downloads: Downloads, archive: object) -> None:
    packed = archive({"package/readme.md": b"hello", "package/swap.onnx": MODEL})  # type: ignore[operator]
    server.add("/pack.tgz", packed)
    get(named(f"{server.url}/pack.tgz", member="package/swap.onnx"), downloads)
    assert_only_the_model(downloads)


def test_a_part_of_a_member_can_be_the_model(server: ModelServer, downloads: Downloads) -> None:
    server.add("/pack.tgz", tar_of({"package/all.bin": b"head" + MODEL + b"tail"}))
    get(named(f"{server.url}/pack.tgz", member="package/all.bin", bytes=[4, 4 + len(MODEL)]), downloads)
    assert_only_the_model(downloads)


@pytest.mark.parametrize("ranges", [True, False], ids=["asked for alone", "cut out of all of it"])
def test_a_part_of_a_file_can_be_the_model(server: ModelServer, downloads: Downloads, ranges: bool) -> None:
    server.add("/all.bin", b"head" + MODEL + b"tail" * 100, ranges=ranges)
    get(named(f"{server.url}/all.bin", bytes=[4, 4 + len(MODEL)]), downloads)
    assert_only_the_model(downloads)


@pytest.mark.parametrize(
    ("served", "more", "reason"),
    [
        (MODEL[:-1] + b"x", {"bytes": [0, len(MODEL)]}, "not the file that the extension names"),
        (tar_of({"package/swap.onnx": MODEL + b"x"}), {"member": "package/swap.onnx"}, "not the file"),
        (tar_of({"package/swap.onnx": MODEL[:-1]}), {"member": "package/swap.onnx"}, "not the file"),
        (tar_of({"package/other.onnx": MODEL}), {"member": "package/swap.onnx"}, "There is no 'package/swap.onnx'"),
        (zip_of({"other.onnx": MODEL}), {"member": "swap.onnx"}, r"There is no 'swap\.onnx'"),
        (b"no archive at all", {"member": "swap.onnx"}, "no zip or tar archive"),
        (tar_of({"swap.onnx": MODEL})[:-5000], {"member": "swap.onnx"}, "is damaged"),
        (MODEL[:-1], {}, "announced"),
        (MODEL[:-1] + b"x", {}, "is not the file that was announced"),
    ],
)
def test_what_is_not_the_model_is_thrown_away(
    server: ModelServer, downloads: Downloads, served: bytes, more: dict[str, object], reason: str
) -> None:
    server.add("/swap", served)
    with pytest.raises(WebUIError, match=reason):
        get(named(f"{server.url}/swap", **more), downloads)
    assert not (downloads.models_dir / "face" / "swap.onnx").exists()


def test_a_damaged_archive_is_fetched_anew(server: ModelServer, downloads: Downloads) -> None:
    packed = tar_of({"swap.onnx": MODEL})
    served = server.add("/pack.tgz", packed[:-5000], etag='"same"')
    model = named(f"{server.url}/pack.tgz", member="swap.onnx")
    with pytest.raises(WebUIError, match="is damaged"):
        get(model, downloads)
    served.body = packed
    get(model, downloads)
    assert_only_the_model(downloads)


def test_another_file_of_that_name_stays(server: ModelServer, downloads: Downloads) -> None:
    server.add("/swap", MODEL)
    target = downloads.models_dir / "face" / "swap.onnx"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"mine")
    with pytest.raises(WebUIError, match=r"another 'swap\.onnx'"):
        get(named(f"{server.url}/swap"), downloads)
    assert target.read_bytes() == b"mine"


def test_it_can_be_stopped(server: ModelServer, downloads: Downloads) -> None:
    server.add("/swap", MODEL)
    cancel = CancelToken()
    request = ModelRequest(extension="faces", model=named(f"{server.url}/swap"))
    cancel.interrupt()
    with pytest.raises(JobInterrupted):
        get_model(request, downloads, report=lambda event: None, check=cancel.check)


@given(st.binary(max_size=40), st.booleans())
def test_a_model_is_there_where_the_extension_looks_for_it(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, shipped: bool
) -> None:
    folder = tmp_path_factory.mktemp("models")
    own, first, second = folder / "own", folder / "first", folder / "second"
    model = named("https://example.org/x", b"0123456789", file="face/x.onnx", shipped=shipped)
    assert presence_of(model, own, (first, second)) == "missing"
    place = own if shipped else second
    (place / "face").mkdir(parents=True)
    (place / "face" / "x.onnx").write_bytes(content)
    assert presence_of(model, own, (first, second)) == ("present" if len(content) == 10 else "other")
