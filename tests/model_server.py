"""A server of models on this machine, with all the faults that real ones have. Standard library only."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
from safetensors.numpy import save

SLOW_CHUNK = 64 * 1024


@dataclass(kw_only=True)
class Served:
    """One answer. `faults` are taken one per request, before the file is served as it should be.

    "cut": stops in the middle; "busy": 429 with Retry-After 0; "broken": 500; "416"; "wrong range": another part than
    asked for; "reset": no answer at all.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = ""
    ranges: bool = True
    length: bool = True
    faults: list[str] = field(default_factory=list)
    gate: threading.Event | None = None
    """Holds the second half back until it is set."""
    needs_token: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that go away are what these tests are about."""


class ModelServer:
    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.seen: list[Seen] = []
        self._http = _Quiet(("127.0.0.1", 0), self._handler())
        self._other = _Quiet(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def other_url(self) -> str:
        """The same files under another origin."""
        return f"http://127.0.0.1:{self._other.server_address[1]}"

    def asked(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if urlsplit(seen.path).path == path]

    def add(self, path: str, body: bytes = b"", **options: object) -> Served:
        """Serves `body` at `path` (without its query)."""
        self.files[path] = Served(body=body, **options)  # type: ignore[arg-type]
        return self.files[path]

    def add_repository(self, name: str, files: Mapping[str, bytes], *, revision: str = "main", **api: object) -> None:
        """As Hugging Face shows it: a list with sizes and hashes, and files behind a redirect to another host name."""
        siblings = []
        for path, body in files.items():
            sha256 = hashlib.sha256(body).hexdigest()
            entry: dict[str, object] = {"rfilename": path, "size": len(body), "blobId": sha256[:40]}
            if path.endswith((".safetensors", ".bin", ".ckpt")):
                entry["lfs"] = {"sha256": sha256, "size": len(body), "pointerSize": 134}
            siblings.append(entry)
            self.add(f"/cdn/{sha256}", body, etag=f'"{sha256[:16]}"')
            self.add(
                f"/{name}/resolve/{revision}/{path}",
                status=302,
                headers={
                    "Location": f"{self.url.replace('127.0.0.1', 'localhost')}/cdn/{sha256}?signature=1",
                    "X-Linked-Etag": f'"{sha256}"',
                    "X-Linked-Size": str(len(body)),
                },
            )
        body = json.dumps({"id": name, "sha": "a" * 40, "siblings": siblings, **api}).encode()
        self.add(f"/api/models/{name}/revision/{revision}", body, headers={"Content-Type": "application/json"})

    def add_json(self, path: str, value: object) -> None:
        self.add(path, json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    @contextmanager
    def running(self) -> Iterator["ModelServer"]:
        servers = (self._http, self._other)
        for server in servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield self
        finally:
            for server in servers:
                server.shutdown()
                server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                server.seen.append(
                    Seen(path=self.path, headers={name.lower(): value for name, value in self.headers.items()})
                )
                _serve(self, server.files.get(urlsplit(self.path).path))

        return Handler


def _serve(request: BaseHTTPRequestHandler, file: Served | None) -> None:
    if file is None:
        _answer(request, Served(status=404, body=b"nothing here"))
        return
    if file.needs_token and request.headers.get("Authorization") != f"Bearer {file.needs_token}":
        _answer(request, Served(status=401, headers={"X-Error-Message": "Access is restricted."}))
        return
    fault = file.faults.pop(0) if file.faults else ""
    if fault == "reset":
        request.close_connection = True
        request.connection.close()
    elif fault == "busy":
        _answer(request, Served(status=429, headers={"Retry-After": "0"}))
    elif fault in ("broken", "416"):
        _answer(request, Served(status=500 if fault == "broken" else 416))
    else:
        _send_file(request, file, fault)


def _send_file(request: BaseHTTPRequestHandler, file: Served, fault: str) -> None:
    start, end = 0, len(file.body)
    asked = request.headers.get("Range", "")
    still_same = request.headers.get("If-Range") in (None, file.etag)
    if asked and file.ranges and still_same and file.status == 200:
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1, end) if last else end
        if start >= len(file.body):
            _answer(request, Served(status=416, headers={"Content-Range": f"bytes */{len(file.body)}"}))
            return
    body = file.body[start:end]
    is_part = len(body) < len(file.body)
    request.send_response(206 if is_part else file.status)
    shown = start + 1 if fault == "wrong range" else start
    if is_part:
        request.send_header("Content-Range", f"bytes {shown}-{end - 1}/{len(file.body)}")
    if file.etag:
        request.send_header("ETag", file.etag)
    for name, value in file.headers.items():
        request.send_header(name, value)
    if file.length:
        request.send_header("Content-Length", str(len(body)))
    else:
        request.send_header("Connection", "close")
        request.close_connection = True
    request.end_headers()
    half = len(body) // 2
    request.wfile.write(body[:half])
    if fault == "cut":
        request.wfile.flush()
        request.close_connection = True
        request.connection.close()
        return
    if file.gate is not None:
        request.wfile.flush()
        file.gate.wait(60)
    request.wfile.write(body[half:])


def _answer(request: BaseHTTPRequestHandler, file: Served) -> None:
    request.send_response(file.status)
    for name, value in file.headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(file.body)))
    request.end_headers()
    request.wfile.write(file.body)


def lora(*, seed: int = 0, width: int = 320, rank: int = 4, layers: int = 8) -> bytes:
    """A small SD 1.x LoRA in kohya's names."""
    random = np.random.default_rng(seed)
    tensors = {}
    for index in range(layers):
        name = (
            f"lora_unet_down_blocks_0_attentions_{index % 2}_transformer_blocks_0_attn1_to_{'qkv'[index % 3]}_{index}"
        )
        name = name.rsplit("_", 1)[0] if index < 3 else f"lora_te_text_model_encoder_layers_{index}_mlp_fc1"
        inside, outside = (width, width) if index < 3 else (768, 3072)
        tensors[f"{name}.lora_down.weight"] = random.standard_normal((rank, inside)).astype(np.float16)
        tensors[f"{name}.lora_up.weight"] = random.standard_normal((outside, rank)).astype(np.float16)
        tensors[f"{name}.alpha"] = np.float16([rank])[0:1].reshape(())
    return save(tensors, metadata={"ss_base_model_version": "sd_v1"})


def nothing_known() -> bytes:
    """A safetensors file of no kind that we know."""
    return save({"weather.today": np.zeros((400, 700), np.float32), "weather.tomorrow": np.ones(3, np.float32)})
