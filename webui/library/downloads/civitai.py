"""Plans for models of Civitai. API: https://developer.civitai.com/site/reference/model-versions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from webui.errors import InvalidRequest
from webui.library.downloads.addresses import Url, parse_url
from webui.library.downloads.client import Client, NetworkError
from webui.library.downloads.plan import Plan, RemoteFile, check_status
from webui.library.downloads.sources import CivitaiSource

TOKEN_HINT = "CIVITAI_API_TOKEN"
_WHOLE_BYTES = 1e-3
"""Sizes come in KiB with a fraction; one that is no whole number of bytes was rounded and says nothing exact."""


def plan_civitai(source: CivitaiSource, client: Client, site: Url, *, fp16: bool) -> Plan:
    """The file to get of a version, or of the newest version of a model. Raises WebUIError."""
    version = _version(source, client, site)
    files = [entry for entry in version.get("files") or [] if isinstance(entry, dict) and entry.get("downloadUrl")]
    chosen = _choose(files, source.wanted, fp16=fp16)
    if chosen is None:
        raise InvalidRequest("source", f"Version {version.get('id')} offers no model file to download.")
    sha256 = str((chosen.get("hashes") or {}).get("SHA256") or "").lower()
    model = version.get("model") if isinstance(version.get("model"), dict) else {}
    file = RemoteFile(
        url=parse_url(str(chosen["downloadUrl"]), base=site, plain_http=site.scheme == "http"),
        path=str(chosen.get("name") or f"civitai-{version.get('id')}.safetensors"),
        size=_size(chosen.get("sizeKB")),
        sha256=sha256 if re.fullmatch(r"[0-9a-f]{64}", sha256) else "",
    )
    title = f"{(model or {}).get('name') or version.get('modelName') or 'Civitai'} {version.get('name', '')}".strip()
    return Plan(title=title, files=(file,), card=_card(version, site))


def _version(source: CivitaiSource, client: Client, site: Url) -> Mapping[str, Any]:
    if source.version is not None:
        return _get(
            client, site, f"/api/v1/model-versions/{source.version}", f"version {source.version} on {site.host}"
        )
    model = _get(client, site, f"/api/v1/models/{source.model}", f"model {source.model} on {site.host}")
    versions = [entry for entry in model.get("modelVersions") or [] if isinstance(entry, dict) and entry.get("files")]
    if not versions:
        raise InvalidRequest("source", f"Model {source.model} has no version that can be downloaded.")
    return {**versions[0], "modelName": model.get("name"), "modelId": model.get("id")}


def _get(client: Client, site: Url, route: str, what: str) -> Mapping[str, Any]:
    url = parse_url(f"{str(site).rstrip('/')}{route}", plain_http=site.scheme == "http")
    status, headers, body = client.json(url)
    check_status(status, headers, what, token=TOKEN_HINT)
    if not isinstance(body, dict):
        raise NetworkError(f"What {site.host} says about {what} cannot be read.", hint="Try again later.")
    return body


def _choose(files: Sequence[Mapping[str, Any]], wanted: Mapping[str, str], *, fp16: bool) -> Mapping[str, Any] | None:
    """What the address asks for; then safetensors, the wanted precision, and what the site calls primary."""

    def rank(entry: Mapping[str, Any]) -> tuple[bool, ...]:
        about = {**(entry.get("metadata") or {}), "type": entry.get("type")}
        facts = {name: str(about.get(name) or "").lower() for name in ("type", "format", "size", "fp")}
        unasked = facts["type"] not in ("model", "pruned model", "") and "type" not in wanted
        mismatch = any(facts[name] != value for name, value in wanted.items())
        pickle = "safetensor" not in facts["format"] and not str(entry.get("name", "")).endswith(".safetensors")
        return unasked, mismatch, pickle, fp16 and facts["fp"] != "fp16", not entry.get("primary")

    ranked = sorted(files, key=rank)
    return ranked[0] if ranked else None


def _size(kibibytes: Any) -> int | None:
    if not isinstance(kibibytes, int | float) or kibibytes <= 0:
        return None
    size = kibibytes * 1024
    return round(size) if abs(size - round(size)) < _WHOLE_BYTES else None


def _card(version: Mapping[str, Any], site: Url) -> dict[str, str]:
    """In the words of the sidecar files: trigger words, base model, where it came from."""
    words = [str(word).strip().rstrip(",") for word in version.get("trainedWords") or [] if str(word).strip()]
    page = f"{str(site).rstrip('/')}/models/{version.get('modelId')}?modelVersionId={version.get('id')}"
    card = {
        "activation text": ", ".join(words),
        "sd version": _BASES.get(str(version.get("baseModel")), ""),
        "notes": page,
    }
    return {name: value for name, value in card.items() if value}


_BASES: Mapping[str, str] = {
    "SD 1.4": "SD1", "SD 1.5": "SD1", "SD 1.5 LCM": "SD1", "SD 1.5 Hyper": "SD1",
    "SD 2.0": "SD2", "SD 2.1": "SD2", "SD 2.0 768": "SD2", "SD 2.1 768": "SD2",
    "SDXL 0.9": "SDXL", "SDXL 1.0": "SDXL", "SDXL 1.0 LCM": "SDXL", "SDXL Turbo": "SDXL",
    "SDXL Lightning": "SDXL", "SDXL Hyper": "SDXL", "Pony": "SDXL", "Illustrious": "SDXL", "NoobAI": "SDXL",
}  # fmt: skip
