"""What comes out of a run: written into its folder, copied into the user's models, with notes and a picture beside it.

Nothing there is replaced, but for what the very run put there before and nobody changed since.
"""

import filecmp
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from webui.errors import StorageError
from webui.library.catalog import Library
from webui.library.sidecars import write_notes, write_preview
from webui.library.whole_files import write_whole
from webui.training.config import TrainingConfig
from webui.training.events import TrainingFinished
from webui.training.folders import RunFolder
from webui.training.networks.trainable import Trainable
from webui.training.validation.output import Made, metadata_of, notes_of

OUTPUT_ROOMS: Mapping[str, str] = {"embedding": "embeddings", "full": "checkpoints"}
"""Folders of models for what is no LoRA, by method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What has come out of a run.

    `settings` are those with which it came to its end; None before that. `placed` tells where each file of the result
    was copied to, by its name there.
    """

    told: TrainingFinished
    settings: Mapping[str, Any] | None
    placed: Mapping[str, str]


def read_finished(folder: RunFolder) -> Finished | None:
    """None where nothing has come out yet."""
    try:
        kept = json.loads(folder.finished.read_text(encoding="utf-8"))
        settings, placed = kept.pop("settings"), kept.pop("placed", {})
        return Finished(told=TrainingFinished(**kept), settings=settings, placed=placed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def put_out(
    network: Trainable,
    made: Made,
    folder: RunFolder,
    library: Library,
    *,
    picture: Path | None,
    settings: Mapping[str, Any] | None,
    before: Finished | None = None,
) -> TrainingFinished:
    """Writes `network` as `made`, in the place of what came out `before` if that is given. Raises StorageError."""
    method, choice = made.config.network.method, made.choice
    fresh = folder.result.with_name("result.part")
    shutil.rmtree(fresh, ignore_errors=True)
    dtype = torch.float32 if method == "embedding" else torch.float16
    written = network.write(fresh, made.config.name, dtype=dtype, metadata=metadata_of(made))
    own = _own(before, folder) if before is not None else {}
    placed = {path.name: _placed(path, written[0], made.config, library, own) for path in written}
    main = placed[written[0].name]
    for path in (written[0], main):
        write_notes(path, notes_of(made))
        if picture is not None:
            with Image.open(picture) as image:
                write_preview(path, image)
    told = TrainingFinished(
        adapter=str(main),
        best_step=choice.step,
        best_weight=choice.weight,
        run_dir=str(folder.path),
        validation=json.loads(json.dumps(choice.as_json())),  # as events have it when they are read
    )
    where = {name: str(path) for name, path in placed.items()}
    content = json.dumps({"settings": settings, "placed": where, **asdict(told)}, ensure_ascii=False)
    write_whole(fresh / folder.finished.name, content.encode())
    shutil.rmtree(folder.result, ignore_errors=True)
    fresh.rename(folder.result)
    return told


def _own(before: Finished, folder: RunFolder) -> dict[str, Path]:
    """Those files among the user's models that are still as the run put them there."""
    placed = {name: Path(path) for name, path in before.placed.items()}
    return {name: path for name, path in placed.items() if _is_same(folder.result / name, path)}


def _is_same(one: Path, other: Path) -> bool:
    if one.is_dir() or other.is_dir():
        files = [{path.relative_to(root) for path in root.rglob("*") if path.is_file()} for root in (one, other)]
        return files[0] == files[1] and all(_is_same(one / name, other / name) for name in files[0])
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _placed(path: Path, main: Path, config: TrainingConfig, library: Library, own: Mapping[str, Path]) -> Path:
    """Copies `path` into the user's models, beside what has the same name; returns where it lies there."""
    models = library.models_dirs[0]
    room = OUTPUT_ROOMS.get(config.network.method, "loras") if path == main else "embeddings"
    target = own.get(path.name) or _free_path(models / room, path)
    part, old = (target.with_name(f".{target.name}.{suffix}") for suffix in ("part", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(path, part)
            if target.exists():
                target.rename(old)
        else:
            shutil.copy2(path, part)
        part.replace(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"{path.name} could not be copied to {target.parent} ({error.strerror or error}).",
            hint=f"It lies in {path.parent}. Make room on the disk, then resume the run.",
        ) from error
    return target


def _free_path(room: Path, path: Path) -> Path:
    stem, suffix = (path.name, "") if path.is_dir() else (path.stem, path.suffix)
    target, number = room / f"{stem}{suffix}", 2
    while target.exists():
        target, number = room / f"{stem}-{number}{suffix}", number + 1
    return target
