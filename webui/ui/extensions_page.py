"""What the Extensions tab shows: installed extensions, their settings and models, and what waits to be installed."""

import ipaddress
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from webui.errors import WebUIError
from webui.jobs.record import JobRecord
from webui.library.downloads.amounts import amount
from webui.plugins.host import Extension
from webui.plugins.installing import PROBLEM, Installer, Proposal, hooks_of
from webui.plugins.manifest import ModelFile
from webui.plugins.models import presence_of
from webui.plugins.rights import is_own_address
from webui.services import EXTENSION_MODEL, Services, models_dirs
from webui.settings import Settings
from webui.ui.downloads import brief_download, ended_text, view_of
from webui.ui.forms import KINDS, Field, control_values, fields_of

HOOK_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "postprocessors": "works on finished pictures",
        "before_stage": "takes part in every generation",
        "after_stage": "takes part in every generation",
        "tabs": "has a tab of its own",
        "routes": "answers below /extensions/ID/",
        "commands": "has commands for the command line",
        "settings_model": "has settings",
    }
)
"""What an extension with this hook does; of others nothing is said."""
MAX_LINES = 400
"""So many lines of what an installation says are kept, the latest ones."""


def why_no_changes(settings: Settings) -> str:
    """Why nobody may switch extensions or change their settings on this page; "" if its users may."""
    if is_own_address(settings.host) or settings.user:
        return ""
    return (
        "Everybody in the network can open this page, so extensions cannot be changed here. Set `user` and `password`, "
        "or use `launch.py extensions` on the machine."
    )


def comes_from_here(client: str, headers: Mapping[str, str]) -> bool:
    """Whether a request was made on this machine, and not handed on by a proxy for somebody else."""
    forwarded = {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"}
    if forwarded & {name.lower() for name in headers}:
        return False
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False


class Listing:
    """The list. Remembers what it has read of extensions' files."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._read: dict[str, tuple[Any, tuple[str, ...]]] = {}

    def of(self, owner: str, *, with_paths: bool) -> list[dict[str, Any]]:
        """JSON of all extensions; the program's own first. `with_paths`: also where on this machine they are."""
        extensions = sorted(self._services.host.extensions(), key=lambda one: (not one.built_in, one.title.lower()))
        jobs = [job for job in self._services.queue.jobs(owner=owner) if job.kind == EXTENSION_MODEL]
        rows = [self._row(extension, jobs) for extension in extensions]
        return rows if with_paths else [{**row, "folder": "", "source": ""} for row in rows]

    def _row(self, extension: Extension, jobs: Sequence[JobRecord]) -> dict[str, Any]:
        source = self._services.host.states.get(extension.id).source
        manifest = extension.manifest
        problems = list(extension.problems)
        if extension.state != "on" and source.get(PROBLEM):
            problems.append(source[PROBLEM])
        mine = [job for job in jobs if job.payload["extension"] == extension.id]
        return {
            "id": extension.id,
            "title": extension.title,
            "version": "" if manifest is None else manifest.version,
            "description": "" if manifest is None else manifest.description,
            "built_in": extension.built_in,
            "folder": str(extension.folder),
            "source": source_text(source),
            "state": extension.state,
            "problems": problems,
            "needs_restart": extension.needs_restart,
            "adds": self._adds(extension),
            "settings": settings_form(extension),
            "models": [self._model(extension, model, mine) for model in (manifest.models if manifest else ())],
        }

    def _adds(self, extension: Extension) -> list[str]:
        """In words; of one that runs its steps by name."""
        manifest = extension.manifest
        if manifest is None:
            return []
        loaded = self._services.host.loaded(extension.id)
        hooks = self._hooks_of(extension, (loaded, manifest.version))
        steps = [] if loaded is None else [step.title for step in loaded.postprocessors]
        words = what_hooks_do(hooks, extension.id)
        if steps:
            words[0:0] = [f"works on finished pictures: {', '.join(steps)}"]
            words = [word for word in words if word != HOOK_WORDS["postprocessors"]]
        commands = ", ".join(manifest.commands)
        return [f"{word}: {commands}" if commands and word == HOOK_WORDS["commands"] else word for word in words]

    def _hooks_of(self, extension: Extension, state: Any) -> tuple[str, ...]:
        """Read again when `state` is another one: the extension was loaded anew or is another version."""
        known = self._read.get(extension.id)
        if known is None or known[0] != state:
            known = self._read[extension.id] = (state, hooks_of(extension.folder))
        return known[1]

    def _model(self, extension: Extension, model: ModelFile, jobs: Sequence[JobRecord]) -> dict[str, Any]:
        job = next((job for job in jobs if job.payload["model"]["file"] == model.file), None)
        return {
            "file": model.file,
            "amount": amount(model.size_bytes, None),
            "licence": model.licence,
            "licence_url": model.licence_url,
            "non_commercial": model.non_commercial,
            "shipped": model.shipped,
            "url": model.url,
            "state": presence_of(model, extension.folder, models_dirs(self._services.settings)),
            "job": None if job is None else self._job(job),
        }

    def _job(self, job: JobRecord) -> dict[str, Any]:
        if not job.state.ended:
            return brief_download(self._services.queue, job)
        view = view_of(self._services.queue, job)
        hint = "" if view.failed is None else view.failed.hint
        return {"id": job.id, "state": str(job.state), "status": f"{ended_text(view)} {hint}".strip()}


def what_hooks_do(hooks: Sequence[str], id: str) -> list[str]:
    words = [HOOK_WORDS[hook].replace("ID", id) for hook in HOOK_WORDS if hook in hooks]
    return list(dict.fromkeys(words))


def source_text(source: Mapping[str, str]) -> str:
    """Where an extension was installed from, "" if nobody knows."""
    match source.get("kind"):
        case "git":
            at = f", {source['ref']}" if source.get("ref") else ""
            return f"{source.get('url', '')}{at} ({source.get('commit', '')[:8]})"
        case "folder":
            return source.get("path", "")
        case "zip":
            return source.get("name", "")
    return ""


def settings_form(extension: Extension) -> dict[str, Any] | None:
    """The form's fields and what they show; None without settings."""
    if extension.settings_model is None or extension.settings is None:
        return None
    fields = fields_of(extension.settings_model)
    values = control_values(fields, extension.settings.model_dump(mode="json"))
    return {"fields": [_field(field) for field in fields], "values": values, "defaults": control_values(fields, {})}


def _field(field: Field) -> dict[str, Any]:
    """As the script draws it; `choices` are pairs of label and what the control holds."""
    show = KINDS["choice"].show
    return {**asdict(field), "choices": [(label, show(field, value)) for label, value in field.choices]}


def proposal_json(proposal: Proposal) -> dict[str, Any]:
    """What the user is asked about."""
    manifest = proposal.manifest
    return {
        "token": proposal.token,
        "id": manifest.id,
        "title": manifest.title,
        "version": manifest.version,
        "replaces": proposal.replaces,
        "description": manifest.description,
        "licence": proposal.licence,
        "source": source_text(proposal.source),
        "commit": proposal.source.get("commit", ""),
        "files": [{"name": name, "amount": _bytes(size)} for name, size in proposal.files],
        "amount": _bytes(sum(size for _, size in proposal.files)),
        "packages": [{"name": name, "there": there} for name, there in proposal.packages],
        "does": what_hooks_do(proposal.hooks, manifest.id),
        "hooks": list(proposal.hooks),
        "commands": dict(manifest.commands),
        "models": [
            {
                "file": model.file,
                "amount": amount(model.size_bytes, None),
                "licence": model.licence,
                "licence_url": model.licence_url,
                "non_commercial": model.non_commercial,
                "shipped": model.shipped,
            }
            for model in manifest.models
        ],
    }


def _bytes(count: int) -> str:
    return f"{count} bytes" if count < 1000 else amount(count, None)


class Installation:
    """The second step, which may take minutes: in a thread of its own, with what it says for pages that ask."""

    def __init__(self, installer: Installer) -> None:
        self._installer = installer
        self._lock = threading.Lock()
        self._number = 0
        self._title = ""
        self._lines: list[str] = []
        self._ended = True
        self._error = ""
        self._done = ""

    def start(self, token: str) -> None:
        """Raises InvalidRequest if nothing waits under `token`."""
        proposal = self._installer.waiting(token)
        with self._lock:
            if not self._ended:
                raise WebUIError("An extension is being installed.", hint="Wait until it is done.")
            self._number += 1
            self._title, self._lines, self._ended = f"{proposal.manifest.title} {proposal.manifest.version}", [], False
            self._error = self._done = ""
        threading.Thread(target=self._run, args=(token,), name="extension installation", daemon=True).start()

    def state(self) -> dict[str, Any] | None:
        """What runs, or ran last; None if nothing did."""
        with self._lock:
            if not self._number:
                return None
            return {
                "number": self._number,
                "title": self._title,
                "lines": list(self._lines),
                "ended": self._ended,
                "error": self._error,
                "done": self._done,
            }

    def _run(self, token: str) -> None:
        error = done = ""
        try:
            extension = self._installer.install(token, self._say)
            if extension.state == "on":
                done = f"{extension.title} is installed and on."
            else:
                why = self._installer.problem_of(extension.id)
                error = f"{extension.title} is installed, but does not run. {why}" if why else ""
                done = "" if error else f"{extension.title} is installed and stays off."
        except WebUIError as failure:
            error = str(failure)
        except Exception as failure:  # a thread of our own: whoever waits has to be told
            error = f"Installing failed: {failure!r}"
            raise
        finally:
            with self._lock:
                self._error, self._done, self._ended = error, done, True

    def _say(self, line: str) -> None:
        with self._lock:
            self._lines = [*self._lines, line][-MAX_LINES:]
