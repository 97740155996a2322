"""Plans for repositories of Hugging Face: a file, the one model file of a repository, or a diffusers folder.

API: https://huggingface.co/docs/hub/api (`/api/models/OWNER/NAME/revision/REVISION?blobs=true` lists files with sizes
and, for large ones, their sha256).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from webui.errors import InvalidRequest
from webui.library.downloads import assistants
from webui.library.downloads.addresses import Url, parse_url
from webui.library.downloads.client import Client, NetworkError
from webui.library.downloads.plan import MODEL_SUFFIXES, Plan, RemoteFile, check_status, is_pickle
from webui.library.downloads.sources import HuggingFaceSource
from webui.library.scan import DIFFUSERS_INDEX

TOKEN_HINT = "HF_TOKEN"
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
"""Folders of a diffusers checkpoint that are used here; safety checkers, feature extractors and the like are not."""
_SMALL_FILES = re.compile(
    r"(config|model_index|tokenizer|tokenizer_config|special_tokens_map|vocab|scheduler_config)\.json|merges\.txt"
)
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model|pytorch_model)(\.fp16)?(-\d+-of-\d+)?\.(safetensors|bin)")
_GENERIC_STEMS = frozenset(
    {"pytorch_lora_weights", "diffusion_pytorch_model", "model", "adapter_model", "pytorch_model", "learned_embeds"}
)
MAX_NAMED_FILES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A file as the repository lists it."""

    path: str
    size: int | None
    sha256: str


def plan_hugging_face(source: HuggingFaceSource, client: Client, site: Url, *, fp16: bool, allow_pickle: bool) -> Plan:
    """`fp16`: half-precision files where the repository has both. Raises WebUIError; InvalidRequest names choices."""
    listed, card = _repository(source, client, site)

    def remote(file: _Listed, path: str) -> RemoteFile:
        return _remote(source, site, file, path)

    if source.file:
        chosen = listed.get(source.file)
        if chosen is None:
            raise InvalidRequest(
                "source",
                f"{source.repository} has no file '{source.file}'.",
                hint=_choices(source, list(listed.values())),
            )
        return _single(remote(chosen, _file_name(source, chosen)), card)
    if DIFFUSERS_INDEX in listed:
        files = tuple(remote(file, path) for path, file in _folder_files(source, listed, fp16, allow_pickle).items())
        return Plan(title=source.repository, files=files, folder=True, card=card)
    chosen = _only_model(source, list(listed.values()), allow_pickle)
    return _single(remote(chosen, _file_name(source, chosen)), card)


def plan_assistant(source: HuggingFaceSource, client: Client, site: Url, target: str) -> Plan:
    """The folder of a captioner or masker. Raises WebUIError; InvalidRequest names choices."""
    listed, card = _repository(source, client, site)
    chosen = assistants.chosen_files(target, source, listed)
    files = tuple(_remote(source, site, listed[name], path) for name, path in chosen.items())
    return Plan(title=assistants.folder_name(source), files=files, folder=True, card=card)


def _remote(source: HuggingFaceSource, site: Url, file: _Listed, path: str) -> RemoteFile:
    route = f"/{source.repository}/resolve/{quote(source.revision, safe='')}/{quote(file.path)}"
    return RemoteFile(url=_at(site, route), path=path, size=file.size, sha256=file.sha256)


def _single(file: RemoteFile, card: Mapping[str, str]) -> Plan:
    return Plan(title=file.path, files=(file,), card=card)


def _repository(source: HuggingFaceSource, client: Client, site: Url) -> tuple[dict[str, _Listed], dict[str, str]]:
    route = f"/api/models/{source.repository}/revision/{quote(source.revision, safe='')}?blobs=true"
    status, headers, body = client.json(_at(site, route))
    check_status(status, headers, f"model {source.repository} ({source.revision})", token=TOKEN_HINT)
    if not isinstance(body, dict) or not isinstance(body.get("siblings"), list):
        raise NetworkError(f"The list of files of {source.repository} cannot be read.", hint="Try again later.")
    listed = [_listed(entry) for entry in body["siblings"] if isinstance(entry, dict) and "rfilename" in entry]
    card = {"notes": str(_at(site, f"/{source.repository}"))}
    return {file.path: file for file in listed}, card


def _listed(entry: Mapping[str, Any]) -> _Listed:
    large = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
    size = (large or entry).get("size", entry.get("size"))
    sha256 = str((large or {}).get("sha256", ""))
    return _Listed(
        path=str(entry["rfilename"]),
        size=size if isinstance(size, int) and size >= 0 else None,
        sha256=sha256.lower() if re.fullmatch(r"[0-9a-fA-F]{64}", sha256) else "",
    )


def _folder_files(
    source: HuggingFaceSource, listed: Mapping[str, _Listed], fp16: bool, allow_pickle: bool
) -> dict[str, _Listed]:
    """Path in the new folder -> file, for the parts that are used. Variants are saved under their plain names."""
    chosen = {DIFFUSERS_INDEX: listed[DIFFUSERS_INDEX]}
    for part in PARTS:
        inside = {path: file for path, file in listed.items() if path.rpartition("/")[0] == part}
        chosen |= {path: file for path, file in inside.items() if _SMALL_FILES.fullmatch(path.rpartition("/")[2])}
        weights = [file for path, file in inside.items() if _WEIGHTS.fullmatch(path.rpartition("/")[2])]
        if weights:
            chosen |= _weights(source, listed, part, weights, fp16=fp16, allow_pickle=allow_pickle)
    return chosen


def _weights(
    source: HuggingFaceSource,
    listed: Mapping[str, _Listed],
    part: str,
    files: Sequence[_Listed],
    *,
    fp16: bool,
    allow_pickle: bool,
) -> dict[str, _Listed]:
    """The weights of one part: safetensors before pickles, then the wanted precision before the other one."""

    def rank(file: _Listed) -> tuple[bool, bool]:
        return is_pickle(file.path), (".fp16" in file.path) is not fp16

    best = min(map(rank, files))
    chosen = [file for file in files if rank(file) == best]
    if best[0] and not allow_pickle:
        raise InvalidRequest(
            "allow_pickle",
            f"{source.repository} has its {part} only as a pickle ({chosen[0].path}): a format that can carry code.",
            hint="Look for a repository with .safetensors files, or allow pickles if you trust its author.",
        )
    whole = [file for file in chosen if "-of-" not in file.path]
    if whole:
        return {whole[0].path.replace(".fp16", ""): whole[0]}
    return {file.path: file for file in (*chosen, *_indexes(listed, part, chosen[0]))}


def _indexes(listed: Mapping[str, _Listed], part: str, shard: _Listed) -> list[_Listed]:
    """The list of which weight is in which file of a split network, by whose names it goes: they stay as they are."""
    suffix, precision = PurePosixPath(shard.path).suffix, ".fp16" if ".fp16" in shard.path else ""
    pattern = re.compile(rf"{part}/[a-z_]+{re.escape(suffix)}\.index{re.escape(precision)}\.json")
    return [file for path, file in listed.items() if pattern.fullmatch(path)]


def _only_model(source: HuggingFaceSource, listed: Sequence[_Listed], allow_pickle: bool) -> _Listed:
    """The one model file of a repository without a diffusers checkpoint."""
    models = [file for file in listed if PurePosixPath(file.path).suffix.lower() in MODEL_SUFFIXES]
    safe = [file for file in models if not is_pickle(file.path)]
    candidates = safe or (models if allow_pickle else [])
    if len(candidates) == 1:
        return candidates[0]
    if not candidates and models:
        raise InvalidRequest(
            "allow_pickle",
            f"{source.repository} has only pickles ({models[0].path}): a format that can carry code.",
            hint="Look for a repository with .safetensors files, or allow pickles if you trust its author.",
        )
    what = f"{len(candidates)} model files" if candidates else "no model file"
    raise InvalidRequest("source", f"{source.repository} has {what}.", hint=_choices(source, candidates))


def _choices(source: HuggingFaceSource, files: Sequence[_Listed]) -> str:
    models = [file for file in files if PurePosixPath(file.path).suffix.lower() in MODEL_SUFFIXES]
    if not models:
        return "Give the repository of a model, or the address of a file."
    named = [f"{source.repository}/{file.path}" for file in models[:MAX_NAMED_FILES]]
    return f"Choose one: {', '.join(named)}{', ...' if len(models) > MAX_NAMED_FILES else ''}."


def _file_name(source: HuggingFaceSource, file: _Listed) -> str:
    """The file's own name, or the repository's where that says nothing."""
    name = PurePosixPath(file.path)
    generic = name.stem.removesuffix(".fp16") in _GENERIC_STEMS
    return source.repository.partition("/")[2] + name.suffix if generic else name.name


def _at(site: Url, route: str) -> Url:
    return parse_url(f"{str(site).rstrip('/')}{route}", plain_http=site.scheme == "http")
