"""The open pictures: fetched once with the npm client, cut out and kept as RGBA in memory.

Fluent Emoji, art by Microsoft, MIT; 3D pictures packed by LobeHub, MIT; flat drawings packed by Iconify, MIT.
"""

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import numpy as np
import numpy.typing as npt
import resvg_py
from PIL import Image

from webui.training.starter.variants import SpriteKey, sprite_keys

ARCHIVES = {
    "3d": ("@lobehub/fluent-emoji-3d@1.1.0", "lobehub-fluent-emoji-3d-1.1.0.tgz"),
    "flat": ("@iconify-json/fluent-emoji-flat@1.2.6", "iconify-json-fluent-emoji-flat-1.2.6.tgz"),
}
SPRITE_PX = 256
HELD_OUT_EVERY = 40
"""Of the icons that are no concept, one in so many is kept back to measure the autoencoder with."""
TINTS = {"brown hair": (110, 62, 32), "pink hair": (238, 110, 175), "blue hair": (60, 120, 225)}
DARK, GRAY = 110, 60  # 8-bit limits: hair is darker than the one and its channels differ by less than the other
# Width of a full figure by build, as (share of the height from the top, factor) between which it runs straight.
BUILD_WIDTHS = {
    "slim": ((0.0, 0.95), (0.2, 0.92), (0.3, 0.72), (0.6, 0.66), (0.9, 0.74), (1.0, 0.85)),
    "heavy": ((0.0, 1.08), (0.16, 1.15), (0.28, 1.6), (0.45, 2.0), (0.58, 1.95), (0.8, 1.5), (1.0, 1.25)),
}


@dataclass(frozen=True, slots=True)
class Packages:
    """The two archives on disk, by style."""

    archives: dict[str, Path]

    @classmethod
    def fetch(cls, folder: Path) -> Self:
        """Download what is missing from `folder`."""
        return cls({style: _fetch(folder, *names) for style, names in ARCHIVES.items()})

    def solid(self, codepoints: Iterable[str]) -> dict[str, Image.Image]:
        """The 3D pictures with these code points, RGBA."""
        wanted = {f"package/assets/{codepoint}.webp": codepoint for codepoint in codepoints}
        found = {}
        with tarfile.open(self.archives["3d"]) as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.name in wanted else None
                if stream:
                    found[wanted[member.name]] = Image.open(io.BytesIO(stream.read())).convert("RGBA")
        return found

    def flat(self, codepoints: Iterable[str]) -> dict[str, Image.Image]:
        """The flat pictures with these code points, RGBA; the package leaves the variation selectors out."""
        with tarfile.open(self.archives["flat"]) as tar:
            names, icons = (json.load(_open(tar, f"package/{name}.json")) for name in ("chars", "icons"))
        found = {}
        for codepoint in codepoints:
            name = names.get(codepoint.replace("-fe0f", ""))
            if name in icons["icons"]:
                found[codepoint] = _rasterize(icons["icons"][name]["body"])
        return found

    def all_codepoints(self) -> list[str]:
        """Of the 3D package, sorted."""
        with tarfile.open(self.archives["3d"]) as tar:
            return sorted(Path(name).stem for name in tar.getnames() if name.endswith(".webp"))


def load_sprites(packages: Packages, keys: tuple[SpriteKey, ...] | None = None) -> dict[SpriteKey, Image.Image]:
    """The pictures of `keys`, or the whole vocabulary, cut to their visible box, with their hair and build."""
    keys = sprite_keys() if keys is None else keys
    pictures = {
        "3d": packages.solid(dict.fromkeys(key.codepoint for key in keys if key.style == "3d")),
        "flat": packages.flat(dict.fromkeys(key.codepoint for key in keys if key.style == "flat")),
    }
    missing = [f"{key.style} {key.codepoint}" for key in keys if key.codepoint not in pictures[key.style]]
    if missing:
        raise FileNotFoundError(f"The packages have no picture of {', '.join(missing)}.")
    return {key: _finish(pictures[key.style][key.codepoint], key) for key in keys}


def load_other_sprites(packages: Packages, *, keep_every: int) -> tuple[list[Image.Image], list[Image.Image]]:
    """Pictures that are no concept, in both styles, for the autoencoder alone: (one in `keep_every`, held out)."""
    known = {key.codepoint for key in sprite_keys()}
    others = [codepoint for codepoint in packages.all_codepoints() if codepoint not in known]
    held_out = others[::HELD_OUT_EVERY]
    training = [codepoint for codepoint in others if codepoint not in set(held_out)][::keep_every]
    kept, back = (
        [cut_out(picture) for load in (packages.solid, packages.flat) for picture in load(some).values()]
        for some in (training, held_out)
    )
    return kept, back


def cut_out(sprite: Image.Image) -> Image.Image:
    """`sprite` without its empty margin (alpha of at most 8)."""
    return sprite.crop(sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())


def tint_hair(sprite: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """`sprite` with its dark gray parts in `colour`: the hair, and with it brows and pupils."""
    pixels = np.asarray(sprite).astype(np.float32)
    colours = pixels[..., :3]
    brightest, darkest = colours.max(axis=-1), colours.min(axis=-1)
    share = np.clip((DARK - brightest) / 40, 0, 1) * np.clip((GRAY - (brightest - darkest)) / 20, 0, 1)
    tinted = np.array(colour, np.float32) * (0.75 + 0.5 * brightest / DARK)[..., None]
    mixed = colours + share[..., None] * (tinted - colours)
    return Image.fromarray(np.concatenate([mixed.clip(0, 255), pixels[..., 3:]], axis=-1).round().astype(np.uint8))


def widen(sprite: Image.Image, profile: tuple[tuple[float, float], ...]) -> Image.Image:
    """A figure stretched sideways around its middle by a factor that changes with the height."""
    heights, factors = zip(*profile, strict=True)
    row_factors = np.interp(np.arange(sprite.height) / sprite.height, heights, factors)
    width = round(sprite.width * max(factors))
    source = _premultiplied(sprite)
    centre, target_centre = (sprite.width - 1) / 2, (width - 1) / 2
    columns = (np.arange(width)[None, :] - target_centre) / row_factors[:, None] + centre
    left = np.floor(columns).astype(int)
    share = (columns - left)[..., None]
    rows = np.arange(sprite.height)[:, None]
    padded = np.pad(source, ((0, 0), (1, 1), (0, 0)))
    first, second = (padded[rows, np.clip(left + offset, 0, sprite.width + 1)] for offset in (1, 2))
    return _from_premultiplied((1 - share) * first + share * second)


def _finish(picture: Image.Image, key: SpriteKey) -> Image.Image:
    if key.tint:
        picture = tint_hair(picture, TINTS[key.tint])
    picture = cut_out(picture)
    return widen(picture, BUILD_WIDTHS[key.build]) if key.build else picture


def _premultiplied(sprite: Image.Image) -> npt.NDArray[np.float32]:
    pixels = np.asarray(sprite).astype(np.float32) / 255
    return np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], axis=-1)


def _from_premultiplied(pixels: npt.NDArray[np.float32]) -> Image.Image:
    alpha = pixels[..., 3:]
    straight = np.concatenate([pixels[..., :3] / np.maximum(alpha, 1e-4), alpha], axis=-1)
    return Image.fromarray((straight.clip(0, 1) * 255).round().astype(np.uint8))


def _fetch(folder: Path, package: str, file_name: str) -> Path:
    archive = folder / file_name
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            subprocess.run(["npm", "pack", package, "--silent"], cwd=partial, check=True, stdout=subprocess.DEVNULL)
            (Path(partial) / file_name).replace(archive)
    return archive


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    stream = tar.extractfile(name)
    if stream is None:
        raise FileNotFoundError(f"{name} is missing in the package of flat pictures.")
    return stream


def _rasterize(body: str) -> Image.Image:
    size = f'viewBox="0 0 32 32" width="{SPRITE_PX}" height="{SPRITE_PX}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{body}</svg>'
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")
