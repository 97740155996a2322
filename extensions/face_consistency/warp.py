"""The original face, bent into the generated head: its features and skin on the new build.

The outline (jaw, cheeks, forehead) follows the generated face; inside it the features lie between the generated and
the original proportions. Pixels come from the source in its full resolution. Never looks for faces, never decides
whether the result is better: that is measured afterwards.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import topology
from .blend import Blend, mix
from .color import match_colors
from .face import Face, Pixels, Points
from .masks import CORNER, EDGE, Area, Mask, area_mask, choose_area, feathered, hair_above_brows, rounded, width_of

RAMP = 0.18
"""Of the face's width: how far inside the outline the original proportions hold in full."""
RING = 1.35
"""The outline, that much larger, is warped too, so that blur and pyramids find no edge beside the mask."""
WINDOW_MARGIN_PX = 16
"""Around the mask, for the wide bands of the blend."""
RINGS = 4
"""Of triangles around one that are its surroundings: more than the lips have."""
GRID_FACE_PX = 160
"""Face width at which the map is computed; larger faces interpolate it."""
SHARPER = 1.3
"""Source pixels per target pixel from which the source is shrunk before it is sampled."""
SOURCE_EDGE = 0.02
"""Of the source's face width that is not used inside its outline where the target shows more of the head: there the
mesh ends on the background as soon as on the cheek."""
MAX_SHRINK = 4.0
"""What is that many times smaller in the source, against the rest of the face, lies on the side that it hides."""

Shares = NDArray[np.floating]
"""One value per point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warped:
    """`mask` (h, w) float32, 0 to 1: exactly 0 where a pixel is the target's own."""

    pixels: Pixels
    mask: Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Lips or eyelids: `share` is how far they are open, of the width between the corners."""

    lids: tuple[int, int]
    corners: tuple[int, int]
    alike: float
    """Difference in openness up to which the warp can bend one into the other."""
    unlike: float
    """From here on it cannot at all."""
    reach: float
    """Of the face's width: half of the mouth or eye; from there it fades within as much again."""

    def share(self, points: Points) -> float:
        height, width = (np.ptp(points[list(pair)], axis=0) for pair in (self.lids, self.corners))
        return float(np.linalg.norm(height) / max(float(np.linalg.norm(width)), 1e-6))


OPENINGS = (
    Opening(lids=(13, 14), corners=(61, 291), alike=0.03, unlike=0.1, reach=0.22),
    Opening(lids=(159, 145), corners=(33, 133), alike=0.08, unlike=0.2, reach=0.11),
    Opening(lids=(386, 374), corners=(263, 362), alike=0.08, unlike=0.2, reach=0.11),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Points laid evenly over the target: (column, row) is the target's `origin + (column, row) / scale`."""

    origin: tuple[float, float]
    scale: float
    size: tuple[int, int]

    def place(self, points: Points) -> Points:
        """From the target's pixels to the grid's."""
        placed: Points = ((points - self.origin) * self.scale).astype(np.float32)
        return placed

    def place_in_space(self, points: Points) -> Points:
        """The same with the depth in the grid's pixels, too."""
        return np.concatenate([self.place(points[:, :2]), points[:, 2:] * np.float32(self.scale)], axis=1)

    def cover(self, picture: Pixels) -> Pixels:
        """The target as the grid's points see it; its border goes on outside."""
        back = np.array([[1 / self.scale, 0, self.origin[0]], [0, 1 / self.scale, self.origin[1]]], np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen: Pixels = cv2.warpAffine(picture, back, self.size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return seen

    def spread(self, values: NDArray[np.float32], window: "_Window") -> NDArray[np.float32]:
        """Values at the grid's points, interpolated for every pixel of the window."""
        shift_x, shift_y = ((at - o) * self.scale for at, o in zip((window.left, window.top), self.origin, strict=True))
        back = np.array([[self.scale, 0, shift_x], [0, self.scale, shift_y]], np.float64)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        spread: NDArray[np.float32] = cv2.warpAffine(values, back, window.size, flags=flags)
        return spread


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The part of the target that can change."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        return self.right - self.left, self.bottom - self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


def warp_face(
    source: Pixels,
    source_face: Face,
    target: Pixels,
    target_face: Face,
    *,
    strength: float = 1.0,
    shape_keep: float = 0.5,
    color: float = 1.0,
    area: Area = "auto",
    feather: float = 0.05,
    blend: Blend = "multiband",
) -> Warped:
    """Puts the source's face into the target's.

    `strength` 0 (the target) to 1 (the source's pixels); `shape_keep` 0 (the generated proportions) to 1 (the
    original ones inside the generated outline); `color` 0 (the source's own) to 1 (the target's light and skin);
    `feather`: of the face's width.
    """
    untouched = Warped(pixels=target.copy(), mask=np.zeros(target.shape[:2], np.float32))
    if strength <= 0 or min(width_of(source_face.points), width_of(target_face.points)) < 1:
        return untouched
    grid = _grid(target_face.points)
    points = destination(source_face.points, target_face.points, shape_keep)
    where, usable = _inverse_map(points, source_face.points, grid, source)
    chosen = choose_area(source, source_face, target, target_face) if area == "auto" else area
    scale = _scale(source_face.points, target_face.points)
    if chosen != "features":
        seen = _sample(source, where, scale / grid.scale)
        usable &= 1 - _fringe_in_one(seen, grid.cover(target), grid.place_in_space(target_face.points))
    alpha = _alpha(target_face.points, chosen, grid, usable, feather) * np.float32(min(strength, 1.0))
    window = _window(grid, alpha, target)
    if window is None:
        return untouched
    piece = target[window.slices]
    warped = _sample(source, grid.spread(where, window), scale)
    if color > 0:
        corner = np.array([window.left, window.top, 0], np.float32)
        warped = match_colors(warped, piece, target_face.points - corner, width_of(target_face.points), color)
    pixels, mask = untouched.pixels, untouched.mask
    mask[window.slices] = grid.spread(alpha, window)
    pixels[window.slices] = mix(piece, warped, mask[window.slices], blend)
    return Warped(pixels=pixels, mask=mask)


def destination(source: Points, target: Points, shape_keep: float) -> Points:
    """Where the source's points go in the target: on its outline exactly, inside by `shape_keep` towards their own.

    The source's mesh is laid on the target's in space, so that two views of one head have the same shape.
    """
    outline = target[list(topology.OVAL), :2].astype(np.float32)
    inside = np.array([cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in target[:, :2]])
    ramp = _smooth(inside / (RAMP * width_of(target)))
    own = aligned(source, target)
    placed: Points = (target + (shape_keep * ramp)[:, None] * (own - target)).astype(np.float32)
    for opening in OPENINGS:
        placed = _with_own_opening(placed, own, opening, ramp, width_of(target))
    return placed


def _with_own_opening(points: Points, own: Points, opening: Opening, ramp: Shares, width_px: float) -> Points:
    """A mouth or an eye as far open as the source's, where the two differ: closed lips hold no teeth to show."""
    differ = abs(opening.share(own) - opening.share(points))
    amount = np.clip((differ - opening.alike) / (opening.unlike - opening.alike), 0, 1)
    middle, own_middle = (mesh[list(opening.corners)].mean(axis=0) for mesh in (points, own))
    away = np.linalg.norm(points - middle, axis=1) / (opening.reach * width_px)
    near = _smooth(2 - away) * ramp
    shape = (own - own_middle) - (points - middle)
    return np.asarray(points + (amount * near)[:, None] * shape, np.float32)


def _smooth(values: Shares) -> Shares:
    """From 0 at 0 to 1 at 1 without a kink."""
    share = np.clip(values, 0, 1)
    return share * share * (3 - 2 * share)


def aligned(source: Points, target: Points) -> Points:
    """The source's mesh moved, turned and scaled in space to lie best on the target's.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns".
    """
    from_middle, to_middle = source.mean(axis=0), target.mean(axis=0)
    ours, theirs = (source - from_middle).astype(np.float64), (target - to_middle).astype(np.float64)
    left, sizes, right = np.linalg.svd(theirs.T @ ours)
    proper = np.array([1, 1, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    turn = left * proper @ right
    scale = (sizes * proper).sum() / max((ours**2).sum(), 1e-9)
    placed: Points = (scale * ours @ turn.T + to_middle).astype(np.float32)
    return placed


def _scale(source: Points, target: Points) -> float:
    """Source pixels per target pixel."""
    return width_of(source) / max(width_of(target), 1.0)


def _grid(points: Points) -> _Grid:
    """Over the outline's ring, at most GRID_FACE_PX wide per face."""
    ring = _ring(points)[:, :2]
    low, high = np.floor(ring.min(axis=0)) - 1, np.ceil(ring.max(axis=0)) + 1
    scale = min(1.0, GRID_FACE_PX / max(width_of(points), 1.0))
    columns, rows = np.ceil((high - low) * scale).astype(int) + 1
    return _Grid(origin=(float(low[0]), float(low[1])), scale=scale, size=(int(columns), int(rows)))


def _window(grid: _Grid, alpha: Mask, target: Pixels) -> _Window | None:
    """Around all of the target that the mask lets change; None if that is nothing."""
    rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    height, width = target.shape[:2]
    left, right = (grid.origin[0] + column / grid.scale for column in columns[[0, -1]].tolist())
    top, bottom = (grid.origin[1] + row / grid.scale for row in rows[[0, -1]].tolist())
    margin = WINDOW_MARGIN_PX + 1 / grid.scale
    left, top = max(0, int(left - margin)), max(0, int(top - margin))
    right, bottom = min(width, int(right + margin) + 1), min(height, int(bottom + margin) + 1)
    return _Window(left=left, top=top, right=right, bottom=bottom) if right > left and bottom > top else None


def _ring(points: Points) -> Points:
    outline = points[list(topology.OVAL)]
    middle = outline.mean(axis=0)
    ring: Points = (middle + RING * (outline - middle)).astype(np.float32)
    return ring


def _ring_triangles() -> topology.Triangles:
    """Between the outline and the ring, whose points follow the mesh's."""
    inner = np.array(topology.OVAL, np.int32)
    outer = topology.NUM_POINTS + np.arange(len(inner), dtype=np.int32)
    beside, further = np.roll(inner, -1), np.roll(outer, -1)
    return np.concatenate([np.stack([inner, outer, beside], axis=1), np.stack([beside, outer, further], axis=1)])


def _inverse_map(
    points: Points, source: Points, grid: _Grid, picture: Pixels
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """For each of the grid's points the place in the source (rows, columns, 2), and 1 where the source shows it."""
    triangles = np.concatenate([topology.mesh_triangles(), _ring_triangles()])
    there = np.concatenate([points, _ring(points)])
    here = np.concatenate([source, _ring(source)])[:, :2]
    flat = grid.place(there[:, :2])
    owner = _owners(flat, there[:, 2], triangles, grid.size)
    where = _places(owner, flat[triangles], here[triangles])
    height, width = picture.shape[:2]
    inside = (where >= -0.5).all(axis=2) & (where[..., 0] <= width - 0.5) & (where[..., 1] <= height - 0.5)
    smaller = _shrinkage(flat, here, triangles)[np.maximum(owner, 0)]
    edge = np.clip(smaller - 1, 0, 1) * SOURCE_EDGE * width_of(source)
    inside &= _depth_inside(source, where) >= edge
    seen = _closed((owner >= 0) & (smaller < MAX_SHRINK), grid)
    return where, (seen & inside).astype(np.uint8)


def _places(owner: NDArray[np.int32], there: Points, here: Points) -> NDArray[np.float32]:
    """For each of the grid's points the place in the source that its triangle's map gives.

    It stays within a grid's step of the triangle: a sliver that owns a pixel would send it anywhere.
    """
    maps = _affine_maps(there, here)
    step = np.ptp(here.reshape(-1, 2), axis=0).max() / max(float(np.ptp(there.reshape(-1, 2), axis=0).max()), 1.0)
    low, high = here.min(axis=1) - step, here.max(axis=1) + step
    rows = np.arange(owner.shape[0], dtype=np.float32)[:, None, None]
    columns = np.arange(owner.shape[1], dtype=np.float32)[None, :, None]
    index = np.maximum(owner, 0)
    parts = maps[index]
    where = parts[..., 0] * columns + parts[..., 1] * rows + parts[..., 2]
    return np.asarray(np.clip(where, low[index], high[index]), np.float32)


def _depth_inside(points: Points, places: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far inside the outline of a face the places of its picture lie, in pixels of it; 0 outside."""
    outline = points[list(topology.OVAL), :2]
    low, high = outline.min(axis=0) - 2, outline.max(axis=0) + 2
    scale = min(1.0, GRID_FACE_PX / max(width_of(points), 1.0))
    columns, rows = (np.ceil((high - low) * scale).astype(int) + 1).tolist()
    drawn = np.zeros((rows, columns), np.uint8)
    cv2.fillPoly(drawn, [np.round((outline - low) * scale * 16).astype(np.int32)], 1, shift=4)
    depth = cv2.distanceTransform(drawn, cv2.DIST_L2, 5) / scale
    found: NDArray[np.float32] = cv2.remap(depth, (places - low) * np.float32(scale), None, cv2.INTER_LINEAR)
    return found


def _affine_maps(there: Points, here: Points) -> NDArray[np.float32]:
    """Per triangle the (2, 3) map from the grid to the source."""
    base, goal = (
        np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=2).astype(np.float64)
        for corners in (there, here)
    )
    flat = np.abs(np.linalg.det(base)) < 1e-6
    base[flat] = np.eye(2)
    linear = goal @ np.linalg.inv(base)
    linear[flat] = 0
    offset = here[:, 0] - np.einsum("nij,nj->ni", linear, there[:, 0].astype(np.float64))
    return np.concatenate([linear, offset[..., None]], axis=2).astype(np.float32)


def _shrinkage(there: Points, here: Points, triangles: topology.Triangles) -> NDArray[np.float32]:
    """Per triangle how much smaller its surroundings are in the source than the whole face is.

    Its surroundings, because single triangles at the lips and lids fold, which hides nothing.
    """
    sums = []
    for flat in (there, here):
        corners = flat[triangles].astype(np.float64)
        one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = np.maximum(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0], 0)
        for _ in range(RINGS):
            around = np.bincount(triangles.ravel(), np.repeat(area, 3), minlength=len(flat))
            area = around[triangles].mean(axis=1)
        sums.append(area / max(area.sum(), 1e-9))
    return np.asarray(sums[0] / np.maximum(sums[1], 1e-9), np.float32)


def _owners(
    flat: Points, depth: NDArray[np.float32], triangles: topology.Triangles, size: tuple[int, int]
) -> NDArray[np.int32]:
    """Which triangle is seen at each of the grid's points; -1 where none is. Nearer ones hide those behind them."""
    corners = flat[triangles]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    facing = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] > 0
    order = np.lexsort((-depth[triangles].mean(axis=1), facing))
    owner = np.full((size[1], size[0]), -1, np.int32)
    exact = np.round(np.clip(corners, -1e4, 1e4) * 16).astype(np.int32)
    for index in order.tolist():
        cv2.fillConvexPoly(owner, exact[index], index, shift=4)
    return owner


def _closed(seen: NDArray[np.bool_], grid: _Grid) -> NDArray[np.bool_]:
    """Without the pinholes that eyelids and nostrils fold into the mesh."""
    size = max(3, round(0.04 * min(grid.size)) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    closed: NDArray[np.bool_] = cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
    return closed


def _fringe_in_one(source: Pixels, target: Pixels, points: Points) -> NDArray[np.uint8]:
    """1 where one of the two shows hair on the forehead and the other skin; the same `points` in both."""
    fringes = hair_above_brows(source, points) ^ hair_above_brows(target, points)
    return np.asarray(cv2.medianBlur(fringes, 9), np.uint8)


def _alpha(points: Points, area: Area, grid: _Grid, usable: NDArray[np.uint8], feather: float) -> Mask:
    width = width_of(points) * grid.scale
    shape = area_mask(grid.place_in_space(points), area, grid.size)
    return feathered(rounded(shape & usable, CORNER * width), edge_px=EDGE * width, feather_px=2 * feather * width)


def _sample(source: Pixels, where: NDArray[np.float32], scale: float) -> Pixels:
    """The source at the places `where`; shrunk first if it has many pixels, `scale`, for one of them: no moire."""
    height, width = source.shape[:2]
    low = np.clip(np.floor(where.min(axis=(0, 1))).astype(int) - 4, 0, (width - 1, height - 1))
    high = np.clip(np.ceil(where.max(axis=(0, 1))).astype(int) + 5, low + 1, (width, height))
    crop = source[low[1] : high[1], low[0] : high[0]]
    places = where - low.astype(np.float32)
    if scale > SHARPER:
        size = max(1, round(crop.shape[1] / scale)), max(1, round(crop.shape[0] / scale))
        ratio = np.array([size[0] / crop.shape[1], size[1] / crop.shape[0]], np.float32)
        crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
        places = (places + np.float32(0.5)) * ratio - np.float32(0.5)
    warped: Pixels = cv2.remap(crop, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return warped
