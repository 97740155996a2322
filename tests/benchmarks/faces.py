"""How well the original face comes back: similarity before and after, the build, the rest of the picture, the time.

    python launch.py bench faces [--out FOLDER] [--rounds 3]
    python tests/benchmarks/faces.py --photos FOLDER --only blended

Portraits: the astronaut of scikit-image (NASA, public domain), the frontal faces of the group picture that lies in the
installed insightface package (read there, never copied), and those of --photos (NAME.jpg, and NAME-2.jpg for a second
picture of the same person). Each is changed as a picture could change that was generated anew: its proportions, light,
colour, sharpness, pose, and, blended into it, another person's face. The warp then has to give the person back. Scores
against the photo that the pixels come from flatter; those against a second photo don't.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from extensions.face_consistency import topology  # noqa: E402
from extensions.face_consistency.analysis import Models  # noqa: E402
from extensions.face_consistency.detection import find_faces  # noqa: E402
from extensions.face_consistency.face import SAME_PERSON, VERY_CLOSE, Face, Pixels  # noqa: E402  # noqa: E402
from extensions.face_consistency.identity import embed, similarity  # noqa: E402
from extensions.face_consistency.masks import width_of  # noqa: E402
from extensions.face_consistency.warp import warp_face  # noqa: E402

MODELS = ROOT / "extensions" / "face_consistency" / "models"
PICTURE_PX = 512
FACE_SHARE = 0.34
"""Of the picture's width that the face takes in the portraits."""
MAX_JAW_ERROR = 0.05
CELL = (200, 240)
Field = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Portrait:
    """`full` and its face: the upload; `pixels` and its face: the same, square and PICTURE_PX wide."""

    name: str
    full: Pixels
    full_face: Face
    pixels: Pixels
    face: Face
    second: Pixels | None = None


@dataclass(frozen=True)
class Change:
    """What was done to a portrait; the functions run in this order, and None does nothing."""

    kind: str
    name: str
    other: float = 0.0
    """Share of another person's face, its proportions included."""
    bend: Field | None = None
    """From the changed picture's places, in face widths from the face's middle, to the portrait's."""
    light: Callable[[Pixels], Pixels] | None = None
    angle: float = 0.0


@dataclass(frozen=True)
class Measured:
    kind: str
    name: str
    before: float
    after: float
    second_before: float | None
    second_after: float | None
    jaw_error: float
    changed_outside: int
    warp_ms: float
    problem: str
    pictures: tuple[Pixels, ...]

    @property
    def kept(self) -> float:
        """With the rule that the picture stays as it was when the warp makes it worse."""
        return max(self.before, self.after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often the time is taken; the middle one counts")
    parser.add_argument("--out", type=Path, help="folder for contact sheets and the table as JSON")
    parser.add_argument("--photos", type=Path, help="folder with further portraits")
    parser.add_argument("--only", help="only kinds with this in their name")
    parser.add_argument("--options", type=json.loads, default={}, help="of warp_face, as JSON")
    options = parser.parse_args()
    models = Models(MODELS)
    portraits = list(find_portraits(models, options.photos))
    print(f"{len(portraits)} portraits: {', '.join(portrait.name for portrait in portraits)}")
    results = []
    for portrait in portraits:
        other = most_alike_turned(portrait, portraits)
        for change in CHANGES:
            if options.only is None or options.only in change.kind:
                results.append(measure(portrait, other, change, models, options.options))
    print_table(results)
    print_failures(results)
    if options.out:
        write_pictures(results, options.out)
    if options.only is None:
        print_times(portraits[0], models, options.rounds)


def find_portraits(models: Models, photos: Path | None) -> Iterator[Portrait]:
    import skimage.data

    yield portrait_of("astronaut", skimage.data.astronaut(), models)
    import insightface

    group = read(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg")
    frontal = [face for face in find_faces(group, models=models) if abs(face.yaw_degrees) < 25]
    for number, face in enumerate(frontal, start=1):
        left, top, right, bottom = np.clip(np.int32(face.box) + np.int32([-60, -60, 60, 60]), 0, 1280).tolist()
        yield portrait_of(f"group {number}", group[top:bottom, left:right], models)
    for path in sorted(photos.glob("*.jpg")) if photos else ():
        if not path.stem.endswith("-2"):
            second = path.with_name(f"{path.stem}-2.jpg")
            yield portrait_of(path.stem, read(path), models, read(second) if second.is_file() else None)


def portrait_of(name: str, full: Pixels, models: Models, second: Pixels | None = None) -> Portrait:
    full = np.ascontiguousarray(full)
    face = find_faces(full, models=models)[0]
    middle = face.points[:, :2].mean(axis=0)
    scale = FACE_SHARE * PICTURE_PX / width_of(face.points)
    move = np.float32([[scale, 0, PICTURE_PX / 2 - scale * middle[0]], [0, scale, PICTURE_PX / 2 - scale * middle[1]]])
    small = full if scale >= 1 else cv2.GaussianBlur(full, (0, 0), 0.4 / scale)
    pixels = cv2.warpAffine(
        small, move, (PICTURE_PX, PICTURE_PX), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return Portrait(name, full, face, pixels, find_faces(pixels, models=models)[0], second)


def most_alike_turned(portrait: Portrait, portraits: list[Portrait]) -> Portrait:
    """The other person to blend in: a face from another side would tear the picture apart."""
    others = [other for other in portraits if other is not portrait]
    return min(others, key=lambda other: abs(other.face.yaw_degrees - portrait.face.yaw_degrees))


# Changes


def changed(portrait: Portrait, other: Portrait, change: Change) -> Pixels:
    pixels = portrait.pixels
    if change.other:
        pixels = with_other_face(portrait, other, change.other)
    middle = portrait.face.points[:, :2].mean(axis=0)
    width = width_of(portrait.face.points)
    places = np.moveaxis(np.float32(np.mgrid[:PICTURE_PX, :PICTURE_PX])[::-1], 0, 2)
    if change.bend is not None:
        there = change.bend((places - middle) / width) * width + middle
        pixels = cv2.remap(pixels, np.float32(there), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if change.light is not None:
        pixels = change.light(pixels)
    if change.angle:
        turn = cv2.getRotationMatrix2D((PICTURE_PX / 2, PICTURE_PX / 2), -change.angle, 1)
        size = (PICTURE_PX, PICTURE_PX)
        pixels = cv2.warpAffine(pixels, turn, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return pixels


def with_other_face(portrait: Portrait, other: Portrait, share: float) -> Pixels:
    """Half-way proportions at half, the other's at 1; a smooth spline between the meshes, so none of our own code."""
    from scipy.interpolate import RBFInterpolator

    ours, theirs = portrait.face.points[:, :2].copy(), other.face.points[:, :2].copy()
    fit = cv2.estimateAffinePartial2D(theirs, ours, method=cv2.LMEDS)[0]
    goal = ours + np.float32(share) * (theirs @ fit[:, :2].T + fit[:, 2] - ours)
    corners = np.float32([[x, y] for x in (0, 170, 340, 511) for y in (0, 170, 340, 511) if {x, y} & {0, 511}])
    step = 8
    grid = np.moveaxis(np.float32(np.mgrid[:PICTURE_PX:step, :PICTURE_PX:step])[::-1], 0, 2).reshape(-1, 2)

    def bent(pixels: Pixels, points: NDArray[np.float32]) -> Pixels:
        chosen = np.unique(np.float32(np.concatenate([goal, corners])), axis=0, return_index=True)[1]
        spline = RBFInterpolator(
            np.concatenate([goal, corners])[chosen],
            np.concatenate([points, corners])[chosen],
            neighbors=40,
            smoothing=1,
        )
        size = (PICTURE_PX // step, PICTURE_PX // step, 2)
        places = cv2.warpAffine(
            np.float32(spline(grid)).reshape(size),
            np.float32([[step, 0, 0], [0, step, 0]]),
            (PICTURE_PX, PICTURE_PX),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return cv2.remap(pixels, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    base, face = bent(portrait.pixels, ours).astype(np.float32), bent(other.pixels, theirs).astype(np.float32)
    mask = np.zeros((PICTURE_PX, PICTURE_PX), np.float32)
    inner = goal.mean(axis=0) + 0.85 * (goal[list(topology.OVAL)] - goal.mean(axis=0))
    cv2.fillPoly(mask, [np.int32(np.round(inner))], share)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.05 * width_of(portrait.face.points))[..., None]
    inside = mask[..., 0] > share / 2
    face = (face - face[inside].mean(axis=0)) + base[inside].mean(axis=0)
    return np.uint8(np.clip(np.rint(base + mask * (face - base)), 0, 255))


def stretched(by: float) -> Field:
    return lambda places: places / np.float32((by, 1))


def liquified(cheeks: float, eyes: float) -> Field:
    """Cheeks and jaw pushed out, eyes made smaller, in the way of a liquify brush."""

    def bend(places: NDArray[np.float32]) -> NDArray[np.float32]:
        away = np.exp(-((places[..., 0] / 0.55) ** 2 + ((places[..., 1] - 0.25) / 0.45) ** 2))
        result = places.copy()
        result[..., 0] *= 1 - cheeks * away
        for side in (-0.22, 0.22):
            from_eye = places - np.float32((side, -0.2))
            near = np.exp(-(np.linalg.norm(from_eye, axis=2) ** 2) / 0.02)
            result += (eyes * near)[..., None] * from_eye
        return result

    return bend


def recoloured(gains: tuple[float, float, float], gamma: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: np.uint8(np.clip(255 * (pixels / 255) ** gamma * np.float32(gains), 0, 255))


def relit(low: float, high: float, angle: float) -> Callable[[Pixels], Pixels]:
    """From `low` on the left to `high` on the right, turned clockwise."""

    def light(pixels: Pixels) -> Pixels:
        y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]] / pixels.shape[0] - 0.5
        along = np.clip(2.2 * (np.cos(np.radians(angle)) * x + np.sin(np.radians(angle)) * y) + 0.5, 0, 1)
        return np.uint8(np.clip(pixels * (low + (high - low) * along)[..., None], 0, 255))

    return light


def blurred(sigma: float) -> Callable[[Pixels], Pixels]:
    return lambda pixels: cv2.GaussianBlur(pixels, (0, 0), sigma)


def coarse(times: int) -> Callable[[Pixels], Pixels]:
    def light(pixels: Pixels) -> Pixels:
        small = cv2.resize(pixels, None, fx=1 / times, fy=1 / times, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)

    return light


HEAVIER = liquified(0.22, 0.25)
WARM, COLD = recoloured((1.08, 0.95, 0.8), 0.9), recoloured((0.85, 0.95, 1.1), 1.2)
FROM_LEFT, FROM_ABOVE = relit(1.35, 0.45, 0), relit(1.3, 0.5, 90)

CHANGES = (
    *(Change("stretched", f"x{by}", bend=stretched(by)) for by in (1.1, 1.2, 1.3, 1.4)),
    Change("liquified", "cheeks", bend=liquified(0.3, 0)),
    Change("liquified", "cheeks and eyes", bend=HEAVIER),
    Change("recoloured", "warm", light=WARM),
    Change("recoloured", "cold", light=COLD),
    Change("relit", "from the left", light=FROM_LEFT),
    Change("relit", "from above", light=FROM_ABOVE),
    Change("blurred", "sigma 5", light=blurred(5)),
    Change("blurred", "1/6 of the size", light=coarse(6)),
    *(Change(f"blended {share:.0%}", "with another", other=share) for share in (0.5, 0.65, 0.75, 0.9)),
    *(Change("rotated, blended 75 %", f"{angle} degrees", other=0.75, angle=angle) for angle in (20, 45, -45)),
    Change("combined", "heavier, 75 %", other=0.75, bend=HEAVIER),
    Change("combined", "x1.3, 75 %, warm", other=0.75, bend=stretched(1.3), light=WARM),
    Change("combined", "heavier, 75 %, cold, 30 degrees", other=0.75, bend=HEAVIER, light=COLD, angle=30),
    Change("combined", "90 %, from the left", other=0.9, light=FROM_LEFT),
    Change("combined", "blurred, 65 %, from above", other=0.65, light=lambda pixels: FROM_ABOVE(blurred(4)(pixels))),
)


# Measuring


def measure(
    portrait: Portrait, other: Portrait, change: Change, models: Models, options: dict[str, object]
) -> Measured:
    target = changed(portrait, other, change)
    person = embed(portrait.full, portrait.full_face, models=models)
    faces = find_faces(target, models=models)
    if not faces:
        return Measured(change.kind, f"{portrait.name}, {change.name}", *NO_FACE, "no face found", (target,))
    started = time.perf_counter()
    warped = warp_face(portrait.full, portrait.full_face, target, faces[0], **options)  # type: ignore[arg-type]
    warp_ms = 1000 * (time.perf_counter() - started)
    after = find_faces(warped.pixels, models=models)
    scores = [score(person, target, faces[0], models), score(person, warped.pixels, (after or faces)[0], models)]
    second: list[float | None] = [None, None]
    if portrait.second is not None:
        again = embed(portrait.second, find_faces(portrait.second, models=models)[0], models=models)
        second = [score(again, target, faces[0], models), score(again, warped.pixels, (after or faces)[0], models)]
    return Measured(
        kind=change.kind,
        name=f"{portrait.name}, {change.name}",
        before=scores[0],
        after=scores[1],
        second_before=second[0],
        second_after=second[1],
        jaw_error=jaw(after[0]) / jaw(faces[0]) - 1 if after else float("nan"),
        changed_outside=int(((warped.pixels != target).any(axis=2) & (warped.mask == 0)).sum()),
        warp_ms=warp_ms,
        problem="" if after else "no face found afterwards",
        pictures=(portrait.pixels, target, warped.pixels, np.uint8(np.repeat(255 * warped.mask[..., None], 3, axis=2))),
    )


NO_FACE = (0.0, 0.0, None, None, float("nan"), 0, 0.0)


def score(person: NDArray[np.float32], pixels: Pixels, face: Face, models: Models) -> float:
    return similarity(person, embed(pixels, face, models=models))


def jaw(face: Face) -> float:
    """Width of the jaw by the height of the face, of the points as the mesh finds them."""
    points = face.points[:, :2]
    width = np.linalg.norm(points[topology.LEFT_JAW] - points[topology.RIGHT_JAW])
    return float(width / np.linalg.norm(points[topology.CHIN] - points[topology.FOREHEAD_TOP]))


def print_table(results: list[Measured]) -> None:
    heads = (
        "kind",
        "pairs",
        "before",
        "after",
        "kept",
        "worst",
        "2nd before",
        "2nd after",
        "jaw mean",
        "jaw worst",
        "outside",
        "ms",
    )
    print(f"\n{heads[0]:<24}" + "".join(f"{head:>11}" for head in heads[1:]))
    for kind in [*dict.fromkeys(result.kind for result in results), "all"]:
        rows = [result for result in results if kind in (result.kind, "all")]
        jaws = [abs(row.jaw_error) for row in rows if row.jaw_error == row.jaw_error]
        seconds = [(row.second_before, row.second_after) for row in rows if row.second_before is not None]
        second = [f"{statistics.mean(float(pair[i] or 0) for pair in seconds):.3f}" if seconds else "-" for i in (0, 1)]
        cells = (
            str(len(rows)),
            *(
                f"{statistics.mean(values):.3f}"
                for values in zip(*((r.before, r.after, r.kept) for r in rows), strict=True)
            ),
            f"{min(row.after for row in rows):.3f}",
            *second,
            f"{statistics.mean(jaws):.1%}" if jaws else "-",
            f"{max(jaws):.1%}" if jaws else "-",
            str(sum(row.changed_outside for row in rows)),
            f"{statistics.median(row.warp_ms for row in rows):.0f}",
        )
        print(f"{kind:<24}" + "".join(f"{cell:>11}" for cell in cells))


def print_failures(results: list[Measured]) -> None:
    print("\nWhat failed:")
    for row in results:
        reasons = [row.problem] if row.problem else []
        if row.after < row.before and row.before < VERY_CLOSE:
            reasons.append("worse than before (the picture would stay as it was)")
        if row.after < SAME_PERSON:
            reasons.append("still not the person")
        if abs(row.jaw_error) > MAX_JAW_ERROR:
            reasons.append(f"jaw {row.jaw_error:+.1%}")
        if row.changed_outside:
            reasons.append(f"{row.changed_outside} pixels changed outside the mask")
        if reasons:
            print(f"  {row.kind}: {row.name}: {row.before:.3f} -> {row.after:.3f}: {'; '.join(reasons)}")


def print_times(portrait: Portrait, models: Models, rounds: int) -> None:
    """One face with everything around it, in a 512 px picture and 512 px wide itself."""
    for label, side in (("512 px picture", PICTURE_PX), ("512 px face", round(512 / FACE_SHARE))):
        source = cv2.resize(portrait.pixels, (side, side), interpolation=cv2.INTER_CUBIC)
        target = cv2.resize(changed(portrait, portrait, CHANGES[2]), (side, side), interpolation=cv2.INTER_CUBIC)
        steps: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds + 1):
            for name, cost in timed_run(source, target, models):
                steps.setdefault(name, []).append(cost)
        middle = {
            name: [statistics.median(times) for times in zip(*costs[1:], strict=True)] for name, costs in steps.items()
        }
        total, processor = (sum(costs) for costs in zip(*middle.values(), strict=True))
        print(f"\n{label}: {total:.0f} ms ({processor:.0f} ms of processor, which says more while other programs work)")
        print("  " + ", ".join(f"{name} {wall:.0f} ({busy:.0f})" for name, (wall, busy) in middle.items()))


def timed_run(source: Pixels, target: Pixels, models: Models) -> Iterator[tuple[str, tuple[float, float]]]:
    """Milliseconds by the clock and of processor, for each step."""
    marks: list[tuple[float, float]] = []

    def mark() -> None:
        marks.append((1000 * time.perf_counter(), 1000 * time.process_time()))

    mark()
    source_face = find_faces(source, models=models)[0]
    mark()
    face = find_faces(target, models=models)[0]
    mark()
    person = embed(source, source_face, models=models)
    mark()
    embed(target, face, models=models)
    mark()
    warped = warp_face(source, source_face, target, face)
    mark()
    similarity(person, embed(warped.pixels, face, models=models))
    mark()
    names = ("find in source", "find in target", "embed source", "embed before", "warp", "embed after")
    for name, start, end in zip(names, marks, marks[1:], strict=False):
        yield name, (end[0] - start[0], end[1] - start[1])


def write_pictures(results: list[Measured], folder: Path) -> None:
    """One sheet per kind; per pair the portrait, the changed picture, the result and the mask."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in dict.fromkeys(result.kind for result in results):
        rows = [sheet_row(row) for row in results if row.kind == kind and len(row.pictures) == 4]
        if rows:
            half = -(-len(rows) // 2)
            rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
            columns = [np.vstack(rows[:half]), np.vstack(rows[half:])]
            name = "".join(letter if letter.isalnum() else "-" for letter in kind)
            write(folder / f"{name}.jpg", np.hstack(columns))
    table = [{k: v for k, v in vars(replace(row, pictures=())).items() if k != "pictures"} for row in results]
    (folder / "results.json").write_text(json.dumps(table, indent=1), encoding="utf-8")


def sheet_row(row: Measured) -> Pixels:
    left, right = (PICTURE_PX - round(PICTURE_PX * 0.62)) // 2, (PICTURE_PX + round(PICTURE_PX * 0.62)) // 2
    top, bottom = (PICTURE_PX - round(PICTURE_PX * 0.74)) // 2, (PICTURE_PX + round(PICTURE_PX * 0.74)) // 2
    cells = [cv2.resize(p[top:bottom, left:right], CELL, interpolation=cv2.INTER_AREA) for p in row.pictures]
    strip = np.hstack(cells)
    text = f"{row.name}: {row.before:.2f} > {row.after:.2f}, jaw {row.jaw_error:+.1%}"
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(strip, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, thickness, cv2.LINE_AA)
    return strip


def read(path: Path) -> Pixels:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def write(path: Path, pixels: Pixels) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
