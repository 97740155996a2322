"""What a user can type to name a model: text in, one of three values out. Asks no server.

A Hugging Face repository or a file in it, a page, version or AIR name of Civitai, or any https address of a file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from webui.errors import InvalidRequest
from webui.library.downloads.addresses import Url, parse_url

EXAMPLES = "owner/name, owner/name/file.safetensors, a page of Civitai, or any https address of a file"

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPOSITORY = re.compile(rf"({_PART})/({_PART})(?:@([A-Za-z0-9._/-]+)|/([^@]+))?")
_AIR = re.compile(r"(?:urn:)?(?:air:)(?:[a-z0-9_.-]+:){2}civitai:(\d+)(?:@(\d+))?(?:\.[a-z]+)?", re.IGNORECASE)
_SHORT_AIR = re.compile(r"civitai:(\d+)(?:@(\d+))?", re.IGNORECASE)
_HUGGING_FACE_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
"""Pages of these mean the configured site, also where that is a mirror."""
_CIVITAI_HOSTS = frozenset({"civitai.com", "www.civitai.com", "civitai.green", "civitai.red"})
_HUGGING_FACE_ROUTES = ("resolve", "blob", "raw", "tree")
_CIVITAI_CHOICES: tuple[str, ...] = ("type", "format", "size", "fp")
_NOT_OWNERS = frozenset({"datasets", "spaces", "api", "docs", "papers", "collections", "blog"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFaceSource:
    """`file` is a path inside the repository, or "" for what the repository holds."""

    repository: str
    revision: str = "main"
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CivitaiSource:
    """A version, or the newest one of a model. `wanted` are the download address's own choices: format, size, fp."""

    model: int | None = None
    version: int | None = None
    wanted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlSource:
    url: Url


Source = HuggingFaceSource | CivitaiSource | UrlSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Where the two sites are; mirrors and tests put others."""

    hugging_face: Url
    civitai: Url


def parse_source(text: str, sites: Sites, *, plain_http: bool = False) -> Source:
    """What `text` names. Raises InvalidRequest with examples if it names nothing."""
    text = text.strip()
    if match := _AIR.fullmatch(text) or _SHORT_AIR.fullmatch(text):
        return CivitaiSource(model=int(match[1]), version=int(match[2]) if match[2] else None)
    if "://" in text or text.startswith(("huggingface.co/", "civitai.com/")):
        url = parse_url(text if "://" in text else f"https://{text}", plain_http=plain_http)
        if _is_at(url, sites.hugging_face) or url.host in _HUGGING_FACE_HOSTS:
            return _hugging_face_page(url)
        if _is_at(url, sites.civitai) or url.host in _CIVITAI_HOSTS:
            return _civitai_page(url)
        return UrlSource(url=url)
    if match := _REPOSITORY.fullmatch(text):
        owner, name, revision, file = match.groups()
        return HuggingFaceSource(
            repository=f"{owner}/{name}", revision=revision or "main", file=_checked_file(file or "")
        )
    raise InvalidRequest("source", f"'{text[:200]}' names no model.", hint=f"Give {EXAMPLES}.")


def _is_at(url: Url, site: Url) -> bool:
    return (url.host.removeprefix("www."), url.port) == (site.host.removeprefix("www."), site.port)


def _hugging_face_page(url: Url) -> Source:
    """/owner/name, and below it /resolve|blob|raw|tree/REVISION/FILE."""
    parts = [unquote(part) for part in url.path.strip("/").split("/")]
    if len(parts) < 2 or parts[0] in _NOT_OWNERS or not _REPOSITORY.fullmatch("/".join(parts[:2])):
        raise InvalidRequest("source", f"{url} is not the page of a model.", hint=f"Give {EXAMPLES}.")
    repository = "/".join(parts[:2])
    if len(parts) < 4 or parts[2] not in _HUGGING_FACE_ROUTES:
        return HuggingFaceSource(repository=repository)
    revision, file = parts[3], "/".join(parts[4:])
    if file and parts[2] == "tree":
        raise InvalidRequest("source", f"{url} is a folder.", hint=f"Give the repository or a file in it: {EXAMPLES}.")
    return HuggingFaceSource(repository=repository, revision=revision, file=_checked_file(file))


def _checked_file(file: str) -> str:
    if any(part in ("", ".", "..") for part in file.split("/")) and file:
        raise InvalidRequest("source", f"'{file}' is not a file of a repository.")
    return file


def _civitai_page(url: Url) -> Source:
    """/models/ID[/name][?modelVersionId=], /model-versions/ID, /api/download/models/VERSION[?format=...]."""
    parts = urlsplit(url.target)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if match := re.fullmatch(r"/api/download/models/(\d+)/?", parts.path):
        wanted = {name: query[name].lower() for name in _CIVITAI_CHOICES if name in query}
        return CivitaiSource(version=int(match[1]), wanted=wanted)
    if match := re.fullmatch(r"(?:/api/v1)?/model-versions/(\d+)/?", parts.path):
        return CivitaiSource(version=int(match[1]))
    if match := re.fullmatch(r"(?:/api/v1)?/models/(\d+)(?:/[^/]*)?/?", parts.path):
        version = query.get("modelVersionId", "")
        return CivitaiSource(model=int(match[1]), version=int(version) if version.isdecimal() else None)
    raise InvalidRequest(
        "source", f"{url} is not the page of a model.", hint="Open a model there and copy its address."
    )
