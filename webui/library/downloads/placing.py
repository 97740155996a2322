"""Where a fetched model goes, and under which name: into the folder of what it is, over nothing that is there."""

import errno
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from webui.errors import InvalidRequest, UnsupportedModel
from webui.library.disk_space import disk_errors
from webui.library.downloads import assistants
from webui.library.downloads.plan import PICKLE_SUFFIXES
from webui.library.names import misleading
from webui.library.scan import ROOMS

FOLDERS: Mapping[str, str] = MappingProxyType(
    {**{kind: room.folder for kind, room in ROOMS.items()}, "tiny_decoder": "vae_approx"}
)
"""Kind of a model, as `identify` says it -> folder below `models`."""
TARGETS: Mapping[str, str] = MappingProxyType({**FOLDERS, "lora": FOLDERS["adapter"], **assistants.FOLDERS})
"""What a user can call them, and what only a user can tell."""

MAX_NAME_BYTES = 200
CHECK_FOLDER = "Check the folder's permissions and the free space, then start the download again."
READ_BYTES = 2**20
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def safe_name(text: str) -> str:
    """`text` as one file name that every system takes: no folders, no devices, at most 200 bytes; never empty."""
    name = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text)).encode("utf-8", "ignore").decode()
    name = name.strip().lstrip(".").rstrip(". ")
    stem, dot, suffix = name.rpartition(".")
    if dot and len(suffix) <= 16:
        name = f"{_cut(stem, MAX_NAME_BYTES - 1 - len(suffix.encode()))}.{suffix}"
    name = _cut(name, MAX_NAME_BYTES).rstrip(". ")
    return f"_{name}" if not name or _RESERVED.fullmatch(name) else name


def file_name(wanted: str, announced: str, *, is_safetensors: bool) -> str:
    """The name of a file that holds safetensors or a pickle: the user's choice before the site's word.

    The suffix says what is in the file, whatever the site calls it.
    """
    name = safe_name(wanted or PurePosixPath(announced).name or "model")
    known = (".safetensors", *PICKLE_SUFFIXES)
    own = next((suffix for suffix in known if name.lower().endswith(suffix)), "")
    stem = name[: len(name) - len(own)] if own else name
    if is_safetensors:
        return safe_name(f"{stem}.safetensors")
    said = own or PurePosixPath(announced.lower()).suffix
    return safe_name(stem + (said if said in PICKLE_SUFFIXES else ".pt"))


def target_folder(models_dir: Path, target: str, *, anywhere: bool) -> Path | None:
    """The folder that the user chose: one of `TARGETS`; None for "" (no choice).

    `anywhere`: also a path, of this machine or below `models_dir`. Without it a page could put a file into the folder
    of another model, which would then be another one.
    """
    if not target:
        return None
    if target.lower() in TARGETS:
        return models_dir / TARGETS[target.lower()]
    if anywhere and "\0" not in target:
        return Path(os.path.normpath(models_dir / Path(target).expanduser()))
    raise InvalidRequest(
        "target", f"'{target[:200]}' is no kind of model.", hint=f"Choose one of {', '.join(TARGETS)}."
    )


def refuse_misleading(target: Path, models_dir: Path) -> None:
    """Raises InvalidRequest for a name by which the file or folder `target` would change models that are there."""
    in_checkpoints = target.is_relative_to(models_dir / FOLDERS["checkpoint"])
    if reason := misleading(target.name, is_checkpoint=in_checkpoints):
        raise InvalidRequest("name", reason, hint="Give it another name.")


def folder_of_kind(models_dir: Path, path: Path, kind: str, problems: tuple[str, ...]) -> Path:
    """Raises UnsupportedModel for what could not be used: it is nothing known, damaged, or for another program."""
    if kind in FOLDERS and not problems:
        return models_dir / FOLDERS[kind]
    what = "no model that this program knows" if kind == "unknown" else f"a {kind.replace('_', ' ')}"
    reason = "; ".join(problems) or f"it is {what}, for which there is no use here yet"
    raise UnsupportedModel(
        path, reason, hint="To keep it nevertheless, choose a folder for it (on the command line: --to FOLDER)."
    )


def is_same(path: Path, size: int | None, sha256: str) -> bool:
    """Whether the file at `path` has this content. Reads it whole if its size fits."""
    if not sha256 or not path.is_file() or (size is not None and path.stat().st_size != size):
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == sha256


def place_file(part: Path, target: Path, sha256: str) -> bool:
    """Moves `part` to `target`; False if the same file is there already. Raises InvalidRequest if another one is."""
    with disk_errors(target, hint=CHECK_FOLDER):
        target.parent.mkdir(parents=True, exist_ok=True)
        if _move_to_free_name(part, target):
            return True
        if is_same(target, part.stat().st_size, sha256):
            part.unlink()
            return False
    raise _taken(target)


def place_folder(staging: Path, target: Path) -> bool:
    """As `place_file`, for a folder of files that were checked one by one."""
    with disk_errors(target, hint=CHECK_FOLDER):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            try:
                staging.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                beside = target.with_name(f".{target.name}.new")
                shutil.copytree(staging, beside, dirs_exist_ok=True)
                beside.rename(target)
                shutil.rmtree(staging)
            return True
        files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
        if all(is_same(target / path, None, _sha256(staging / path)) for path in files):
            shutil.rmtree(staging)
            return False
    raise _taken(target)


def write_card(path: Path, card: Mapping[str, str]) -> None:
    """What the site says of a model, beside it, in the sidecar file that model browsers read; an own one stays."""
    sidecar = path.with_suffix(".json")
    if card and not sidecar.exists() and path.is_file():
        with disk_errors(sidecar, hint=CHECK_FOLDER):
            sidecar.write_text(json.dumps(dict(card), ensure_ascii=False, indent=1), encoding="utf-8")


def _move_to_free_name(part: Path, target: Path) -> bool:
    """Atomic, and never over another file: a second name for it, then the first one goes. False if it is taken."""
    if target.exists():  # also where a link would be possible: on disks that do not tell upper from lower case
        return False
    try:
        os.link(part, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno == errno.EXDEV:
            beside = target.with_name(f".{target.name}.new")
            shutil.copyfile(part, beside)
            beside.rename(target)
        else:  # a disk without links
            part.rename(target)
            return True
    part.unlink()
    return True


def _cut(text: str, limit: int) -> str:
    return text.encode()[:limit].decode("utf-8", "ignore")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _taken(target: Path) -> InvalidRequest:
    return InvalidRequest(
        "name",
        f"There is another '{target.name}' in {target.parent} already.",
        hint="Choose another name; what was fetched is kept and need not be fetched again.",
    )
