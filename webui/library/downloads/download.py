"""The story of one download: what the text names, what the site has, the bytes, what they are, where they go."""

import contextlib
import hashlib
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field

from webui.errors import InvalidRequest, UnsupportedModel
from webui.jobs.events import JobEvent
from webui.library.downloads import assistants, civitai, hugging_face, placing
from webui.library.downloads.client import Access, Client
from webui.library.downloads.events import DownloadFound, DownloadProgress
from webui.library.downloads.fetch import Fetched, Watch, fetch, is_being_fetched, only_one
from webui.library.downloads.plan import Plan, RemoteFile, refuse_pickles
from webui.library.downloads.sources import (
    CivitaiSource,
    HuggingFaceSource,
    Sites,
    Source,
    UrlSource,
    parse_source,
)
from webui.library.events import ModelSaved
from webui.library.header import read_header
from webui.library.identify import ModelFacts, identify
from webui.library.old_files import read_old_header

PARTS_FOLDER = ".downloads"
"""Below `models`, so that a finished file only changes its name."""
KEEP_PARTS_DAYS = 30
REPORT_PAUSE_S = 0.25
SPEED_WINDOW_S = 5.0
TOKEN_HINTS = {HuggingFaceSource: hugging_face.TOKEN_HINT, CivitaiSource: civitai.TOKEN_HINT, UrlSource: "a token"}


class DownloadRequest(BaseModel):
    """What a user asks for; also the payload of the job. `target` as for `placing.target_folder`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1, max_length=4096)
    target: str = Field(default="", max_length=1024)
    name: str = Field(default="", max_length=255)
    allow_pickle: bool = False
    fp16: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """What differs per machine. `anywhere`: requests may name folders outside of `models_dir`."""

    models_dir: Path
    sites: Sites
    access: Access
    anywhere: bool = False

    @property
    def parts_dir(self) -> Path:
        return self.models_dir / PARTS_FOLDER

    def source_of(self, request: DownloadRequest) -> Source:
        """Raises InvalidRequest for what can be refused without asking anybody."""
        placing.target_folder(self.models_dir, request.target, anywhere=self.anywhere)
        return parse_source(request.source, self.sites, plain_http=self.access.private)

    def part_of(self, request: DownloadRequest) -> Path:
        """Where a file grows; a folder grows beside it, as `.folder`."""
        key = hashlib.sha256(f"{request.source.strip()}\n{request.fp16}".encode()).hexdigest()[:24]
        return self.parts_dir / f"{key}.part"

    def discard(self, request: DownloadRequest) -> None:
        """Forgets what was fetched for `request` so far. Raises WebUIError while it is being fetched, by anybody."""
        part = self.part_of(request)
        if not self.parts_dir.is_dir():
            return
        with only_one(part):
            shutil.rmtree(part.with_suffix(".folder"), ignore_errors=True)
            part.unlink(missing_ok=True)
        _remove_notes(part)

    def has_part(self, request: DownloadRequest) -> bool:
        """Whether a later call has something to go on with."""
        part = self.part_of(request)
        return part.is_file() or part.with_suffix(".folder").is_dir()

    def get(
        self,
        request: DownloadRequest,
        *,
        report: Callable[[JobEvent], None],
        check: Callable[[], None],
    ) -> ModelSaved:
        """Brings the model. `check` is asked all the while and stops by raising; a later call goes on from there.

        Raises WebUIError; what was fetched stays.
        """
        source = self.source_of(request)
        discard_old_parts(self.parts_dir)
        download = _Download(self, request, source, report, check)
        try:
            return download.run()
        finally:
            download.client.close()


def make_plan(source: Source, request: DownloadRequest, client: Client, sites: Sites) -> Plan:
    """What there is to fetch."""
    if (target := request.target.lower()) in assistants.FOLDERS:
        return _assistant_plan(source, target, client, sites)
    match source:
        case HuggingFaceSource():
            return hugging_face.plan_hugging_face(
                source, client, sites.hugging_face, fp16=request.fp16, allow_pickle=request.allow_pickle
            )
        case CivitaiSource():
            return civitai.plan_civitai(source, client, sites.civitai, fp16=request.fp16)
        case UrlSource(url=url):
            name = PurePosixPath(unquote(url.path)).name
            return Plan(title=name or url.host, files=(RemoteFile(url=url, path=name),), card={"notes": str(url)})


def _assistant_plan(source: Source, target: str, client: Client, sites: Sites) -> Plan:
    match source:
        case HuggingFaceSource():
            return hugging_face.plan_assistant(source, client, sites.hugging_face, target)
        case UrlSource(url=url):
            return assistants.plan_address(target, url)
        case CivitaiSource():
            raise InvalidRequest("source", f"A {target} is not to be had from Civitai.", hint="Give owner/name.")


class _Download:
    def __init__(
        self,
        settings: Downloads,
        request: DownloadRequest,
        source: Source,
        report: Callable[[JobEvent], None],
        check: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._request = request
        self._source = source
        self._report = report
        self._check = check
        self._meter = Meter(report, None)
        self.client = Client(settings.access, check=self._beat)
        self._token = TOKEN_HINTS[type(source)]
        self._shown = Path(request.name or request.source)
        """What error messages call the model."""

    def run(self) -> ModelSaved:
        plan = make_plan(self._source, self._request, self.client, self._settings.sites)
        if not self._request.allow_pickle:
            refuse_pickles(plan)
        self._report(DownloadFound(title=plan.title, size=plan.size, num_files=len(plan.files)))
        self._shown = Path(plan.title if plan.folder else plan.files[0].path or plan.title)
        saved = self._get_folder(plan) if plan.folder else self._get_file(plan)
        self._report(saved)
        return saved

    def _get_file(self, plan: Plan) -> ModelSaved:
        (file,) = plan.files
        if known := self._already_there(file):
            facts = self._identify(known)
            return _saved(known, facts, file.sha256, already_there=True)
        part = self._settings.part_of(self._request)
        self._meter = Meter(self._report, plan.size)
        fetched = fetch(file, part, self.client, self._watch(self._look), token=self._token)
        facts = self._identify(part)
        is_safetensors = has_safetensors_header(part)
        if not is_safetensors and not self._request.allow_pickle:
            refuse_pickles(replace(plan, files=(replace(file, path=f"{file.path or 'The file'}.pt"),)))
        announced = (fetched.name if isinstance(self._source, UrlSource) else "") or file.path
        name = placing.file_name(self._request.name, announced, is_safetensors=is_safetensors)
        target = self._target(facts, name)
        return self._place(fetched, target, facts, plan)

    def _place(self, fetched: Fetched, target: Path, facts: ModelFacts, plan: Plan) -> ModelSaved:
        is_new = placing.place_file(fetched.part, target, fetched.sha256)
        _remove_notes(fetched.part)
        placing.write_card(target, plan.card)
        return _saved(target, facts, fetched.sha256, already_there=not is_new)

    def _get_folder(self, plan: Plan) -> ModelSaved:
        """All files of a diffusers folder, one after the other, then the folder in one move."""
        part = self._settings.part_of(self._request)
        part.parent.mkdir(parents=True, exist_ok=True)
        with only_one(part):
            saved = self._fill_folder(plan, part.with_suffix(".folder"))
        _remove_notes(part)
        return saved

    def _fill_folder(self, plan: Plan, staging: Path) -> ModelSaved:
        name = placing.safe_name(self._request.name or plan.title.rpartition("/")[2])
        self._meter = Meter(self._report, plan.size)
        for file in plan.files:
            self._check()
            whole = staging / file.path
            if not _is_whole(whole, file):
                part = whole.with_name(f"{whole.name}.part")
                fetch(file, part, self.client, self._watch(_see_nothing), token=self._token)
                part.replace(whole)
                _remove_notes(part)
            self._meter.base += whole.stat().st_size
        kind = self._request.target.lower()
        if kind in assistants.FOLDERS:
            facts = ModelFacts()
            self._check_assistant(staging)
        else:
            facts = identify(staging)
            kind = facts.kind
        target = self._target(facts, name)
        is_new = placing.place_folder(staging, target)
        return replace(_saved(target, facts, "", already_there=not is_new), kind=kind)

    def _check_assistant(self, staging: Path) -> None:
        """What is none is not gone on with. Raises UnsupportedModel."""
        try:
            assistants.check_networks(staging)
        except UnsupportedModel:
            shutil.rmtree(staging, ignore_errors=True)
            raise

    def _folder(self, facts: ModelFacts) -> Path:
        settings, request = self._settings, self._request
        chosen = placing.target_folder(settings.models_dir, request.target, anywhere=settings.anywhere)
        return chosen or placing.folder_of_kind(settings.models_dir, self._shown, facts.kind, facts.problems)

    def _target(self, facts: ModelFacts, name: str) -> Path:
        target = self._folder(facts) / name
        if not self._settings.anywhere:
            placing.refuse_misleading(target, self._settings.models_dir)
        return target

    def _already_there(self, file: RemoteFile) -> Path | None:
        """The same file under the name that it would get, in any folder that it could go to."""
        if not file.sha256:
            return None
        models_dir = self._settings.models_dir
        chosen = placing.target_folder(models_dir, self._request.target, anywhere=self._settings.anywhere)
        folders = [chosen] if chosen else [models_dir / folder for folder in dict.fromkeys(placing.FOLDERS.values())]
        name = placing.file_name(self._request.name, file.path, is_safetensors=file.path.endswith(".safetensors"))
        return next(
            (folder / name for folder in folders if placing.is_same(folder / name, file.size, file.sha256)), None
        )

    def _look(self, part: Path, done: int, total: int | None) -> bool:
        """Refuses a file by its first bytes, long before the last one: what it is stands in its header."""
        if done < 8:
            return False
        if not has_safetensors_header(part):
            if not self._request.allow_pickle:
                raise UnsupportedModel(self._shown, "it is not a safetensors file", hint=_NOT_SAFETENSORS_HINT)
            return True
        with part.open("rb") as file:
            needed = 8 + int.from_bytes(file.read(8), "little")
        if done < needed:
            return False
        if total is not None:
            facts = identify(part, header=read_header(part, final_size=total))
            self._folder(facts)
        return True

    def _identify(self, path: Path) -> ModelFacts:
        if has_safetensors_header(path) or not self._request.allow_pickle:
            return identify(path)
        return identify(path, header=read_old_header(path))

    def _watch(self, arrived: Callable[[Path, int, int | None], bool]) -> Watch:
        return Watch(progress=self._meter.count, check=self._beat, pause=self._pause, arrived=arrived)

    def _beat(self) -> None:
        """Asked many times a second, also while nothing arrives."""
        self._check()
        self._meter.beat()

    def _pause(self, seconds: float) -> None:
        pause(seconds, self._beat)


def pause(seconds: float, beat: Callable[[], None]) -> None:
    """Waits, and calls `beat` as often as events may be reported."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        beat()
        time.sleep(min(left, REPORT_PAUSE_S))


class Meter:
    """Bytes so far as events, not too many: speed over the last seconds, and time left at that speed."""

    def __init__(self, report: Callable[[JobEvent], None], total: int | None) -> None:
        self._report = report
        self._total = total
        self._samples: deque[tuple[float, int]] = deque()
        self._done = 0
        self._whole = total
        self.base = 0
        """Bytes of the files before the present one."""

    def count(self, done: int, total: int | None) -> None:
        """`done` of `total` bytes of the present file."""
        self._done = self.base + done
        self._whole = self._total if self._total is not None else total
        now = time.monotonic()
        if self._is_due(now) or self._done == self._whole:
            self._tell(now)

    def beat(self) -> None:
        """Tells where it stands if nothing has arrived for a while."""
        if self._samples and self._is_due(now := time.monotonic()):
            self._tell(now)

    def _is_due(self, now: float) -> bool:
        return not self._samples or now - self._samples[-1][0] >= REPORT_PAUSE_S

    def _tell(self, now: float) -> None:
        self._samples.append((now, self._done))
        while now - self._samples[0][0] > SPEED_WINDOW_S:
            self._samples.popleft()
        first_time, first_done = self._samples[0]
        speed = max(self._done - first_done, 0) / (now - first_time) if now > first_time else 0.0
        left = None if self._whole is None or speed == 0 else max(self._whole - self._done, 0) / speed
        self._report(DownloadProgress(done=self._done, total=self._whole, bytes_per_s=speed, seconds_left=left))


def discard_old_parts(parts_dir: Path) -> None:
    """Removes what nobody went on with for a month."""
    oldest = time.time() - KEEP_PARTS_DAYS * 24 * 3600
    keys = {path.name.partition(".")[0] for path in parts_dir.iterdir()} if parts_dir.is_dir() else set()
    for key in keys:
        part = parts_dir / f"{key}.part"
        with contextlib.suppress(OSError):  # another process does the same
            if max(path.stat().st_mtime for path in parts_dir.glob(f"{key}.*")) > oldest or is_being_fetched(part):
                continue
            shutil.rmtree(part.with_suffix(".folder"), ignore_errors=True)
            part.unlink(missing_ok=True)
            _remove_notes(part)


def has_safetensors_header(path: Path) -> bool:
    """Whether the first bytes are a header length and an opening brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) < 9 or (int.from_bytes(start[:8], "little") < 100_000_000 and start[8:] == b"{")


_NOT_SAFETENSORS_HINT = "If it is a pickle (.ckpt, .pt, .pth) whose author you trust, allow pickles."


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether an earlier call has brought `file` already, and the site still has the same."""
    if file.sha256:
        return placing.is_same(path, file.size, file.sha256)
    return path.is_file() and path.stat().st_size == file.size


def _see_nothing(part: Path, done: int, total: int | None) -> bool:
    return True


def _notes(part: Path) -> list[Path]:
    """What `fetch` keeps beside a part."""
    return list(part.parent.glob(f"{part.name}.*"))


def _remove_notes(part: Path) -> None:
    for path in _notes(part):
        path.unlink(missing_ok=True)


def _saved(path: Path, facts: ModelFacts, sha256: str, *, already_there: bool) -> ModelSaved:
    files = path.rglob("*") if path.is_dir() else [path]
    return ModelSaved(
        path=str(path),
        kind=facts.kind,
        family=facts.family,
        size=sum(file.stat().st_size for file in files if file.is_file()),
        sha256=sha256,
        already_there=already_there,
    )
