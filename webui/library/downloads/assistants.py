"""Captioners and maskers for photos: which files of a repository make one. Each becomes a folder of its own.

What they are is the user's word: they are no models of pictures, so nothing in `identify` knows them.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from urllib.parse import unquote

from webui.errors import InvalidRequest, UnsupportedModel
from webui.library.downloads.addresses import Url
from webui.library.downloads.plan import Plan, RemoteFile
from webui.library.downloads.sources import HuggingFaceSource
from webui.library.onnx_file import NotReadable, missing_weights, read_graph

FOLDERS: Mapping[str, str] = MappingProxyType({"captioner": "captioners", "masker": "maskers"})
"""What a user can call them -> folder below `models`."""

ONNX = ".onnx"
TAGGER_FILES = ("model.onnx", "selected_tags.csv")
BEST_FILES = ("model.onnx", "onnx/model.onnx")
"""Of several networks of a repository the one that is meant where nobody says so."""
BESIDE = ("_data", ".data")
"""What a file of weights beside a network adds to its name."""
MAX_NAMED_FILES = 6
_SMALL_FILES = re.compile(
    r"(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|special_tokens_map"
    r"|added_tokens|vocab)\.json|vocab\.txt|merges\.txt"
)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def chosen_files(target: str, source: HuggingFaceSource, names: Collection[str]) -> dict[str, str]:
    """File in the repository -> file in the new folder, out of `names`. Raises InvalidRequest that names choices."""
    chosen = _captioner(source, names) if target == "captioner" else _masker(source, names)
    return {name: PurePosixPath(name).name for name in chosen}


def folder_name(source: HuggingFaceSource) -> str:
    """The repository's, or that of the file that was asked for where it says something."""
    stem = PurePosixPath(source.file).stem
    return source.repository.rpartition("/")[2] if stem in {"", "model"} else stem


def plan_address(target: str, url: Url) -> Plan:
    """For the file at `url`. Raises InvalidRequest where that cannot be one."""
    name = PurePosixPath(unquote(url.path)).name
    if target == "captioner" or not name.lower().endswith(ONNX):
        raise InvalidRequest(
            "source",
            "A captioner is more than one file." if target == "captioner" else f"'{name[:80]}' is no {ONNX} file.",
            hint="Give its repository on Hugging Face (owner/name).",
        )
    return Plan(title=PurePosixPath(name).stem, files=(RemoteFile(url=url, path=name),), folder=True)


def check_networks(folder: Path) -> None:
    """Raises UnsupportedModel for what has come instead of a network."""
    for path in sorted(folder.glob(f"*{ONNX}")):
        try:
            problem = missing_weights(path, read_graph(path))
        except NotReadable as error:
            problem = str(error)
        if problem:
            raise UnsupportedModel(path, problem, hint="Check the address.")


def _captioner(source: HuggingFaceSource, names: Collection[str]) -> list[str]:
    if source.file:
        raise InvalidRequest("source", "A captioner is more than one file.", hint=f"Give {source.repository}.")
    if set(TAGGER_FILES) <= set(names):
        return list(TAGGER_FILES)
    weights = _weights(names)
    if "config.json" in names and weights:
        return sorted([*(name for name in names if _SMALL_FILES.fullmatch(name)), *weights])
    raise InvalidRequest(
        "source",
        f"{source.repository} is no captioner that is known: it has neither {' with '.join(TAGGER_FILES)}, nor "
        "config.json with weights.",
        hint="SmilingWolf/wd-vit-tagger-v3 and Salesforce/blip-image-captioning-base are some.",
    )


def _weights(names: Collection[str]) -> list[str]:
    """safetensors before a pickle, one file before several."""
    if "model.safetensors" in names:
        return ["model.safetensors"]
    if shards := [name for name in names if _SHARD.fullmatch(name)]:
        return [*shards, "model.safetensors.index.json"]
    return ["pytorch_model.bin"] if "pytorch_model.bin" in names else []


def _masker(source: HuggingFaceSource, names: Collection[str]) -> list[str]:
    networks = sorted(name for name in names if name.lower().endswith(ONNX))
    best = [source.file] if source.file else [name for name in BEST_FILES if name in networks] or networks
    if not networks or (source.file and source.file not in networks):
        raise InvalidRequest(
            "source", f"{source.repository} has no {source.file or ONNX + ' file'}.", hint=_choices(source, networks)
        )
    if len(best) > 1 and best[0] not in BEST_FILES:
        raise InvalidRequest(
            "source", f"{source.repository} has {len(best)} {ONNX} files.", hint=_choices(source, networks)
        )
    return [best[0], *(name for name in names if name in {f"{best[0]}{end}" for end in BESIDE})]


def _choices(source: HuggingFaceSource, networks: list[str]) -> str:
    if not networks:
        return "Give a repository with the network as .onnx."
    more = ", ..." if len(networks) > MAX_NAMED_FILES else ""
    return f"Choose one: {', '.join(f'{source.repository}/{name}' for name in networks[:MAX_NAMED_FILES])}{more}."
