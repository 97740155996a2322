"""Models that an extension names: which are there, and getting one that the user has asked for.

Fetched by the same machinery as other models. What comes has to have the manifest's size and sha256, or it is thrown
away; it never takes the place of another file.
"""

import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict

from webui.errors import WebUIError
from webui.jobs.events import JobEvent
from webui.library.disk_space import disk_errors, require_space
from webui.library.downloads.client import Client, NetworkError
from webui.library.downloads.download import Downloads, Meter, discard_old_parts, pause
from webui.library.downloads.events import DownloadFound
from webui.library.downloads.fetch import FREE_SOME, Watch, fetch, only_one
from webui.library.downloads.placing import is_same, place_file
from webui.library.downloads.plan import RemoteFile, check_status
from webui.library.events import ModelSaved
from webui.plugins.manifest import ModelFile

READ_BYTES = 2**20
TOKEN_HINT = "a token"

Presence = Literal["present", "missing", "other"]


class ModelRequest(BaseModel):
    """The payload of the job: what the user agreed to, whatever the extension says by then."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extension: str
    model: ModelFile


def presence_of(model: ModelFile, folder: Path, models_dirs: tuple[Path, ...]) -> Presence:
    """Whether the model lies where the extension in `folder` looks for it; "other": a file of another size does."""
    places = [folder / model.file] if model.shipped else [models / model.file for models in models_dirs]
    sizes = [place.stat().st_size for place in places if place.is_file()]
    if not sizes:
        return "missing"
    return "present" if model.size_bytes in sizes else "other"


def get_model(
    request: ModelRequest, downloads: Downloads, *, report: Callable[[JobEvent], None], check: Callable[[], None]
) -> ModelSaved:
    """Brings the model below `downloads.models_dir`. `check` is asked all the while and stops by raising.

    Raises WebUIError; what was fetched of a whole file or archive stays for the next time.
    """
    discard_old_parts(downloads.parts_dir)
    getting = _Getting(request.model, downloads, report, check)
    try:
        return getting.run()
    finally:
        getting.client.close()


class _WrongArchive(WebUIError):
    """It does not hold what the extension says."""


class _Getting:
    def __init__(
        self,
        model: ModelFile,
        downloads: Downloads,
        report: Callable[[JobEvent], None],
        check: Callable[[], None],
    ) -> None:
        self._model = model
        self._report = report
        self._check = check
        self._meter = Meter(report, None)
        self._target = downloads.models_dir / model.file
        key = hashlib.sha256(f"extension {model.url}\n{model.sha256}".encode()).hexdigest()[:24]
        self._part = downloads.parts_dir / f"{key}.part"
        self.client = Client(downloads.access, check=self._beat)

    def run(self) -> ModelSaved:
        model = self._model
        if is_same(self._target, model.size_bytes, model.sha256):
            return self._saved(already_there=True)
        whole = not model.member and model.bytes is None
        size = model.size_bytes if whole or not model.member else None
        self._report(DownloadFound(title=self._target.name, size=size, num_files=1))
        url = self.client.url(model.url)
        if model.member:
            fetch(RemoteFile(url=url, path=url.path), self._part, self.client, self._watch(), token=TOKEN_HINT)
            made = self._unpacked()
        elif whole:
            file = RemoteFile(url=url, path=model.file, size=model.size_bytes, sha256=model.sha256)
            made = fetch(file, self._part, self.client, self._watch(), token=TOKEN_HINT).part
        else:
            made = self._range()
        self._require_right(made)
        is_new = place_file(made, self._target, model.sha256)
        self._throw_away()
        return self._saved(already_there=not is_new)

    def _saved(self, *, already_there: bool) -> ModelSaved:
        model = self._model
        saved = ModelSaved(
            path=str(self._target),
            kind="",
            family="",
            size=model.size_bytes,
            sha256=model.sha256,
            already_there=already_there,
        )
        self._report(saved)
        return saved

    def _unpacked(self) -> Path:
        try:
            return self._from_archive()
        except _WrongArchive:
            self._throw_away()  # lest the next call takes it for a good one
            raise

    def _from_archive(self) -> Path:
        """The wanted bytes of the wanted member, in a file of their own."""
        made = self._part.with_name(f"{self._part.name}.member")
        first, before = self._model.bytes or (0, self._model.size_bytes + 1)
        with only_one(self._part), self._member() as member, disk_errors(made, hint=FREE_SOME):
            require_space(made.parent, self._model.size_bytes, what="the unpacked file", hint=FREE_SOME)
            with made.open("wb") as file:
                _skip(member, first, self._check)
                left = before - first
                while left > 0 and (chunk := member.read(min(left, READ_BYTES))):
                    self._check()
                    file.write(chunk)
                    left -= len(chunk)
        return made

    @contextmanager
    def _member(self) -> Iterator[IO[bytes]]:
        name = self._model.member
        try:
            if zipfile.is_zipfile(self._part):
                with zipfile.ZipFile(self._part) as archive, archive.open(name) as member:
                    yield member
                return
            with tarfile.open(self._part) as tar:
                found = tar.extractfile(name)
                if found is None:
                    raise KeyError(name)
                with found:
                    yield found
        except KeyError as error:
            raise _WrongArchive(f"There is no '{name}' in what {self._model.url} gives.") from error
        except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise _WrongArchive(f"What {self._model.url} gives is no zip or tar archive, or is damaged.") from error

    def _range(self) -> Path:
        """Asks for the wanted bytes alone; a server that sends all of the file is not listened to any longer."""
        first, before = self._model.bytes or (0, 0)
        url = self.client.url(self._model.url)
        with disk_errors(self._part, hint=FREE_SOME):
            self._part.parent.mkdir(parents=True, exist_ok=True)
        asked = {"range": f"bytes={first}-{before - 1}"}
        with only_one(self._part), self.client.get(url, asked) as answer:
            check_status(answer.status, answer.headers, f"the file {self._model.file}", token=TOKEN_HINT)
            if answer.status == 206 and not answer.headers.get("content-range", "").startswith(f"bytes {first}-"):
                raise NetworkError(f"{url.host} sent another part than asked for.", hint="Try again later.")
            skipped, done = 0 if answer.status == 206 else first, 0
            with disk_errors(self._part, hint=FREE_SOME), self._part.open("wb") as file:
                for chunk in answer.chunks:
                    wanted = chunk[skipped:][: before - first - done]
                    skipped = max(skipped - len(chunk), 0)
                    file.write(wanted)
                    done += len(wanted)
                    self._meter.count(done, before - first)
                    if done == before - first:
                        break
        return self._part

    def _require_right(self, made: Path) -> None:
        model = self._model
        if is_same(made, model.size_bytes, model.sha256):
            return
        size = made.stat().st_size
        self._throw_away()
        raise WebUIError(
            f"What came for {model.file} is not the file that the extension names: {size:,} bytes of "
            f"{model.size_bytes:,}, or another sha256.",
            hint="It was thrown away. The file may have changed there; look for a new version of the extension.",
        )

    def _throw_away(self) -> None:
        for left in self._part.parent.glob(f"{self._part.stem}.*"):
            left.unlink(missing_ok=True)

    def _watch(self) -> Watch:
        return Watch(progress=self._meter.count, check=self._beat, pause=self._pause, arrived=lambda *_: True)

    def _beat(self) -> None:
        self._check()
        self._meter.beat()

    def _pause(self, seconds: float) -> None:
        pause(seconds, self._beat)


def _skip(member: IO[bytes], count: int, check: Callable[[], None]) -> None:
    while count > 0 and (chunk := member.read(min(count, READ_BYTES))):
        check()
        count -= len(chunk)
