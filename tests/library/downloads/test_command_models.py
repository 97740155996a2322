"""`models get` and `models list`, as a user types them."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.model_server import ModelServer, lora
from webui.cli import main

LORA = lora(width=1280, rank=32, layers=12)
SHA256 = hashlib.sha256(LORA).hexdigest()


@pytest.fixture
def repository(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    monkeypatch.setenv("WEBUI_PRIVATE_DOWNLOADS", "true")
    monkeypatch.setenv("WEBUI_HF_ENDPOINT", server.url)
    monkeypatch.setenv("WEBUI_CIVITAI_ENDPOINT", server.other_url)
    server.add_repository("ann/ink", {"ink.safetensors": LORA})
    return server


def test_get_prints_where_the_model_is(
    repository: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "get", "ann/ink", "--data-dir", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    path = tmp_path / "models" / "loras" / "ink.safetensors"
    assert out == f"{path}\n"
    assert "ink.safetensors, " in err
    assert path.read_bytes() == LORA


def test_get_tells_all_as_json_and_a_second_time_that_it_is_there(
    repository: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for already_there in (False, True):
        assert main(["models", "--data-dir", str(tmp_path), "get", "ann/ink", "--json", "--name", "mine"]) == 0
        saved = json.loads(capsys.readouterr().out)
        assert saved == {
            "path": str(tmp_path / "models" / "loras" / "mine.safetensors"),
            "kind": "adapter",
            "family": saved["family"],
            "size": len(LORA),
            "sha256": SHA256,
            "already_there": already_there,
        }


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nonsense"], "names no model"),
        (["ann/nothing"], "There is no model ann/nothing"),
        (["http://10.0.0.1:9/x.pt"], "can carry code"),
        (["ann/ink", "--to", "loras", "--name", "taken"], "another 'taken"),
    ],
)
def test_an_error_is_one_line_and_code_2(
    repository: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    (tmp_path / "models" / "loras").mkdir(parents=True)
    (tmp_path / "models" / "loras" / "taken.safetensors").write_bytes(b"mine")
    assert main(["models", "get", *arguments, "--data-dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert word in err.splitlines()[-1]


def test_private_addresses_are_refused_by_default(
    server: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.url.replace("http:", "https:")
    assert main(["models", "get", f"{address}/x.safetensors", "--data-dir", str(tmp_path)]) == 2
    assert "127.0.0.1 is not a public address" in capsys.readouterr().err
    assert server.seen == []


def test_a_killed_get_goes_on_where_it_was(repository: ModelServer, tmp_path: Path) -> None:
    cdn = repository.files[f"/cdn/{SHA256}"]
    cdn.gate = threading.Event()
    command = [sys.executable, "-m", "webui", "models", "get", "ann/ink", "--data-dir", str(tmp_path)]
    parts = tmp_path / "models" / ".downloads"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=dict(os.environ)) as process:
        while sum(path.stat().st_size for path in parts.glob("*.part")) < len(LORA) // 4:
            assert process.poll() is None
        process.kill()
    cdn.gate.set()
    cdn.gate = None
    repository.seen.clear()
    assert main(["models", "get", "ann/ink", "--data-dir", str(tmp_path)]) == 0
    assert int(repository.asked(f"/cdn/{SHA256}")[0].headers["range"].removeprefix("bytes=").rstrip("-")) > 0
    assert (tmp_path / "models" / "loras" / "ink.safetensors").read_bytes() == LORA
    assert list(parts.iterdir()) == []


def test_list_shows_what_is_there(repository: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "get", "ann/ink", "--data-dir", str(tmp_path)]) == 0
    (tmp_path / "models" / "loras" / "broken.safetensors").write_bytes(b"<html>")
    capsys.readouterr()
    assert main(["models", "list", "--kind", "adapter", "--json", "--data-dir", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    listed = {row["name"]: (row["size"], bool(row["problem"])) for row in rows}
    assert (listed["broken"], listed["ink"]) == ((6, True), (len(LORA), False))
    assert listed.keys() >= {"few-steps", "pixel-art", "zorble"}, "those that come with the program"
    assert main(["models", "list", "--data-dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "starter" in text
    assert "web page" in text
