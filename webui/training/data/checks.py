"""What is wrong with a set of photos, before anything is spent: each with its photos, a sentence, and a way out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

from PIL import Image

from webui.training.config import Data, Subject
from webui.training.data.buckets import plan_buckets
from webui.training.data.captions import base_caption
from webui.training.data.crops import placed_area
from webui.training.data.edits import Edit
from webui.training.data.faces import FaceReader
from webui.training.data.likeness import groups_of_nearly_same
from webui.training.data.listings import LeftOut
from webui.training.data.marks import common_mark
from webui.training.data.people import KnownFaces, people_problems
from webui.training.data.photos import Box, Photo
from webui.training.data.prepared import SHAPE_TOLERANCE
from webui.training.data.problems import Fix, Problem, leave_out, quoted
from webui.training.data.split import FEWEST

SMALL = 0.75
"""Of the resolution: photos whose square of equal area has a smaller side bring little."""
BLURRED = 0.5
"""Measured on 30 photos: sharp ones have 0.12 to 0.44; blurred with a sigma of 2 pixels at 512 half of them are above,
with 3 nine of ten."""
CUT_OFF = 0.25
"""Share of a photo that a crop may lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    photos: Sequence[Photo]
    data: Data
    subject: Subject


def find_problems(
    photos: Sequence[Photo],
    left_out: Sequence[LeftOut],
    data: Data,
    subject: Subject,
    *,
    faces: FaceReader | None = None,
    known_faces: KnownFaces | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[Problem]:
    """What someone should know of `photos`, and of the files that are `left_out`; pictures of the class are not judged.

    `faces` are looked for where the subject is a person, but for those that are known. `check` raises where the work
    shall stop.
    """
    checked = _Checked(photos=[photo for photo in photos if not photo.is_prior], data=data, subject=subject)
    problems = [_of_left_out(each) for each in left_out if each.kind != "excluded"]
    for find in (_few, _uncaptioned, _small, _blurred, _barred, _cut_off, _masks):
        check()
        problems += find(checked)
    problems += _same(checked, check)
    problems += _marked(checked)
    if faces is not None and subject == "person":
        problems += people_problems(checked.photos, faces, known=known_faces, check=check)
    return problems


def _of_left_out(left: LeftOut) -> Problem:
    fixes = (leave_out((left.name,)),) if left.kind == "unreadable" else ()
    return Problem(kind=left.kind, names=(left.name,), sentence=left.sentence, fixes=fixes)


def _few(checked: _Checked) -> list[Problem]:
    count = len(checked.photos)
    if count >= FEWEST:
        return []
    sentence = (
        f"{'1 photo is' if count == 1 else f'{count} photos are'} few: the model may learn them by heart, "
        "and none can be kept back to measure with. 15 to 30 are good."
    )
    return [Problem(kind="few photos", names=(), sentence=sentence)]


def _uncaptioned(checked: _Checked) -> list[Problem]:
    names = tuple(
        photo.name for photo in checked.photos if not base_caption(photo.caption, checked.data, checked.subject)
    )
    if not names:
        return []
    sentence = f"Nothing is said of {quoted(names)}. Set a trigger word, or write captions."
    return [Problem(kind="no caption", names=names, sentence=sentence)]


def _small(checked: _Checked) -> list[Problem]:
    problems, resolution = [], checked.data.resolution
    for photo in checked.photos:
        width, height = photo.size
        if sqrt(width * height) < SMALL * resolution:
            then = (
                f"is enlarged {resolution / sqrt(width * height):.1f} times" if checked.data.upscale else "stays small"
            )
            sentence = (
                f"'{photo.name}' is {width} x {height} pixels, small for {resolution} x {resolution}, and {then}."
            )
            problems.append(
                Problem(kind="too small", names=(photo.name,), sentence=sentence, fixes=(leave_out((photo.name,)),))
            )
    return problems


def _blurred(checked: _Checked) -> list[Problem]:
    return [
        Problem(
            kind="blurred",
            names=(photo.name,),
            sentence=f"'{photo.name}' is blurred ({photo.looks.blur:.2f}; sharp photos are below {BLURRED}).",
            fixes=(leave_out((photo.name,)),),
        )
        for photo in checked.photos
        if photo.looks.blur > BLURRED
    ]


def _barred(checked: _Checked) -> list[Problem]:
    problems = []
    for photo in checked.photos:
        inside = photo.looks.inside
        crop = inside and _common(photo.area, inside)
        if crop and crop != photo.area:
            width, height = crop[2] - crop[0], crop[3] - crop[1]
            sentence = f"'{photo.name}' has bars at its edges, which would be learnt; {width} x {height} are inside."
            fix = Fix(label="Cut them off", edits={photo.name: Edit(crop=crop)})
            problems.append(Problem(kind="bars", names=(photo.name,), sentence=sentence, fixes=(fix,)))
    return problems


def _cut_off(checked: _Checked) -> list[Problem]:
    data = checked.data
    plan = plan_buckets(
        [photo.size for photo in checked.photos],
        resolution=data.resolution,
        step=data.bucket_step,
        upscale=data.upscale,
        buckets=data.buckets,
    )
    problems = []
    for photo, size, lost in zip(checked.photos, plan.sizes, plan.lost, strict=True):
        if lost > CUT_OFF:
            width, height = photo.size
            sentence = (
                f"'{photo.name}' ({width} x {height}) is trained in {size[0]} x {size[1]}: {lost:.0%} of it is cut off."
            )
            left, top, right, bottom = placed_area(size, photo.area)
            crop = (round(left), round(top), max(round(right), 1), max(round(bottom), 1))
            fixes = (Fix(label="Choose the part", edits={photo.name: Edit(crop=crop)}), leave_out((photo.name,)))
            problems.append(Problem(kind="odd shape", names=(photo.name,), sentence=sentence, fixes=fixes))
    return problems


def _masks(checked: _Checked) -> list[Problem]:
    if not checked.data.masks:
        return []
    problems, without = [], []
    for photo in checked.photos:
        if photo.mask is None:
            if not photo.facts.has_alpha:
                without.append(photo.name)
            continue
        size = _size_of(photo)
        if size is None or abs(size[0] * photo.height / (size[1] * photo.width) - 1.0) > SHAPE_TOLERANCE:
            what = f"has another shape than '{photo.name}'" if size else "cannot be read"
            sentence = f"The mask '{photo.mask.name}' {what}."
            problems.append(Problem(kind="mask", names=(photo.name,), sentence=sentence))
    if without:
        sentence = f"There is no mask for {quoted(without)}: all of it is learnt from."
        problems.append(Problem(kind="no mask", names=tuple(without), sentence=sentence))
    return problems


def _size_of(photo: Photo) -> tuple[int, int] | None:
    try:
        assert photo.mask is not None
        with Image.open(photo.mask) as file:
            return file.size
    except (OSError, ValueError):
        return None


def _same(checked: _Checked, check: Callable[[], None]) -> list[Problem]:
    problems = []
    for group in groups_of_nearly_same([photo.looks for photo in checked.photos], check=check):
        photos = [checked.photos[i] for i in group]
        names = tuple(photo.name for photo in photos)
        equal = len({photo.sha256 for photo in photos}) == 1
        best = max(photos, key=lambda photo: (photo.width * photo.height, -photo.looks.blur, photo.name))
        others = tuple(name for name in names if name != best.name)
        sentence = f"{quoted(names)} show {'the same' if equal else 'nearly the same'}: it counts {len(names)} times."
        fix = leave_out(others, label=f"Keep '{best.name}' only")
        problems.append(Problem(kind="nearly the same", names=names, sentence=sentence, fixes=(fix,)))
    return problems


def _marked(checked: _Checked) -> list[Problem]:
    mark = common_mark([photo.looks for photo in checked.photos])
    if mark is None:
        return []
    edits = {photo.name: Edit(crop=_without(photo, mark)) for photo in checked.photos}
    names = tuple(edits)
    sentence = f"Something is in the same place of {quoted(names)}, like a watermark or a date. It would be learnt."
    fix = Fix(label="Cut that edge off", edits=edits)
    return [Problem(kind="mark", names=names, sentence=sentence, fixes=(fix,))]


def _without(photo: Photo, mark: tuple[float, float, float, float]) -> Box:
    """The largest part of the photo beside the mark."""
    left, top, right, bottom = photo.area
    x0, x1 = int(mark[0] * photo.width), min(photo.width, int(mark[2] * photo.width) + 1)
    y0, y1 = int(mark[1] * photo.height), min(photo.height, int(mark[3] * photo.height) + 1)
    parts = [
        (left, top, right, max(top + 1, min(bottom, y0))),
        (left, min(max(top, y1), bottom - 1), right, bottom),
        (left, top, max(left + 1, min(right, x0)), bottom),
        (min(max(left, x1), right - 1), top, right, bottom),
    ]
    return max(parts, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))


def _common(one: Box, other: Box) -> Box | None:
    box = max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])
    return box if box[0] < box[2] and box[1] < box[3] else None
