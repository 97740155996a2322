"""What the Training tab shows of photo sets, as JSON."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from webui.plugins.rights import is_own_address
from webui.settings import Settings
from webui.training.data.buckets import plan_buckets
from webui.training.data.captions import tag_counts
from webui.training.data.listings import LeftOut
from webui.training.data.problems import Fix, Problem
from webui.training.data.set_checks import Checker, Findings, Progress, Purpose, of_now
from webui.training.data.set_contents import Contents, SetPhoto
from webui.training.data.sets import OpenSet, PhotoSets
from webui.training.data.sources import fitting
from webui.training.data.split import suggested_holdout
from webui.training.data.uploads import Taken

MOST_TAGS = 300
UNKNOWN = (0, 0)


def why_no_folders(settings: Settings, *, from_here: bool) -> str:
    """Why folders of this machine cannot be opened on the page; "" if they can."""
    if not is_own_address(settings.host):
        return (
            f"The page is served on {settings.host}, so others can open it; folders of this machine are opened only "
            "where nobody else can. Put the photos into a set instead."
        )
    if not from_here:
        return "This page was not opened on the machine itself; its folders are opened only there."
    return ""


def sets_json(sets: PhotoSets, why_not: str) -> dict[str, Any]:
    """Folders of the machine only to those who may open them."""
    shown = [info for info in sets.all() if info.own or not why_not]
    return {
        "sets": [
            {
                "id": info.id,
                "name": info.name,
                "num_photos": sets.count(info),
                "own": info.own,
                "folder": "" if info.own else str(info.source),
                "gone": not info.source.exists(),
            }
            for info in shown
        ],
        "may_use_folders": not why_not,
        "why_not": why_not,
    }


def taken_json(taken: Taken) -> dict[str, Any]:
    return {
        "added": len(taken.pictures),
        "beside": len(taken.beside),
        "names": taken.pictures,
        "kept": taken.kept,
        "refused": [asdict(each) for each in taken.refused],
    }


def set_json(opened: OpenSet, purpose: Purpose, *, known: str, wait_s: float, with_path: bool) -> dict[str, Any]:
    """`known`: only how far looking is, if nothing else is new. Raises InvalidRequest where the set is gone."""
    photos, checker = opened.photos, opened.checker
    contents, found, progress = checker.findings(purpose, wait_s=wait_s)
    version = _version(contents, checker, purpose, photos.undoable())
    checking = None if progress is None else asdict(progress)
    if known == version:
        return {"version": version, "checking": checking}
    info = photos.info
    return {
        "id": info.id,
        "name": info.name,
        "own": info.own,
        "version": version,
        "checking": checking,
        "source": str(info.source) if with_path else "",
        "undo": photos.undoable(),
        "can_write": photos.why_not_writable(),
        "tags": [list(item) for item in _tags(contents)],
        "notes": [*contents.notes, *found.notes],
        **_looked_at(contents, checker, of_now(found, contents), purpose, progress),
    }


def _looked_at(
    contents: Contents, checker: Checker, found: Findings, purpose: Purpose, progress: Progress | None
) -> dict[str, Any]:
    unreadable = {left.name for left in found.unreadable}
    photos = [photo for photo in contents.photos if photo.name not in unreadable or photo.excluded]
    sizes = {photo.name: _size(photo, checker) for photo in photos}
    used = [photo for photo in photos if not photo.excluded and sizes[photo.name] != UNKNOWN]
    plan = plan_buckets([sizes[photo.name] for photo in used], resolution=purpose.resolution, step=purpose.bucket_step)
    placed = {photo.name: (plan.sizes[i], plan.lost[i]) for i, photo in enumerate(used)}
    own = [photo for photo in photos if not photo.excluded and not photo.is_prior]
    num_held = len(found.held_out) if found.stamp else None
    return {
        "photos": [_photo(photo, checker, placed.get(photo.name), found) for photo in photos],
        "left_out": [_left_out(each) for each in (*contents.left_out, *found.unreadable)],
        "problems": [problem_json(problem) for problem in found.problems],
        "buckets": [{"size": list(size), "num": num} for size, num in plan.counts().items()],
        "split": _split(len(own), num_held, purpose),
    }


def _split(num_photos: int, num_held: int | None, purpose: Purpose) -> dict[str, int]:
    """Until all was looked at, what is likely."""
    suggested = suggested_holdout(num_photos)
    if num_held is None:
        num_held = min(suggested if purpose.holdout is None else purpose.holdout, max(0, num_photos - 1))
    return {"train": num_photos - num_held, "held_out": num_held, "suggested": suggested}


def _photo(
    photo: SetPhoto, checker: Checker, placed: tuple[tuple[int, int], float] | None, found: Findings
) -> dict[str, Any]:
    facts = checker.facts_of(photo)
    width, height = checker.size_of(photo)
    crop = fitting(photo.crop, (width, height)) if width else photo.crop
    return {
        "name": photo.name,
        "width": width,
        "height": height,
        "caption": photo.caption,
        "excluded": photo.excluded,
        "crop": None if crop is None else list(crop),
        "repeats": photo.repeats,
        "mask": photo.mask is not None,
        "alpha": facts is not None and facts.has_alpha,
        "bucket": None if placed is None else list(placed[0]),
        "lost": 0.0 if placed is None else round(placed[1], 4),
        "held_out": photo.name in found.held_out,
        "is_prior": photo.is_prior,
        "sha": f"{photo.key[1]:x}-{photo.key[2]:x}",
    }


def _size(photo: SetPhoto, checker: Checker) -> tuple[int, int]:
    """Of the part that counts."""
    width, height = checker.size_of(photo)
    if not width:
        return UNKNOWN
    left, top, right, bottom = fitting(photo.crop, (width, height)) or (0, 0, width, height)
    return right - left, bottom - top


def _tags(contents: Contents) -> list[tuple[str, int]]:
    counts = tag_counts(photo.caption for photo in contents.photos if not photo.excluded and not photo.is_prior)
    return list(counts.items())[:MOST_TAGS]


def _left_out(left: LeftOut) -> dict[str, str]:
    return {"name": left.name, "kind": left.kind, "sentence": left.sentence}


def problem_json(problem: Problem) -> dict[str, Any]:
    return {
        "id": problem_id(problem),
        "kind": problem.kind,
        "names": list(problem.names),
        "sentence": problem.sentence,
        "fixes": [{"id": str(i), "label": fix.label} for i, fix in enumerate(problem.fixes)],
    }


def problem_id(problem: Problem) -> str:
    """The same as long as it is the same problem."""
    return _short("\0".join((problem.kind, *problem.names, problem.sentence)))


def fix_of(problems: Sequence[Problem], problem: str, fix: str) -> Fix | None:
    """By the ids that the page has."""
    for each in problems:
        if problem_id(each) == problem:
            found: Mapping[str, Fix] = {str(i): one for i, one in enumerate(each.fixes)}
            return found.get(fix)
    return None


def _version(contents: Contents, checker: Checker, purpose: Purpose, undoable: str) -> str:
    return _short(f"{contents.stamp} {checker.version} {id(checker)} {purpose} {undoable}")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
