"""The open pictures: fetched once with the npm client, cut out and kept as RGBA in memory.

Fluent Emoji 3D, art by Microsoft, MIT; packed by LobeHub, MIT.
"""

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

from webui.training.starter.vocabulary import CONCEPTS

PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
ARCHIVE = "lobehub-fluent-emoji-3d-1.1.0.tgz"


def fetch(folder: Path) -> Path:
    """Download the picture package into `folder` unless it is there; returns the archive."""
    archive = folder / ARCHIVE
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=partial, check=True, stdout=subprocess.DEVNULL)
            (Path(partial) / ARCHIVE).replace(archive)
    return archive


def load_sprites(archive: Path) -> dict[str, Image.Image]:
    """RGBA sprites by key, in vocabulary order, each cut to its visible box."""
    wanted = {f"package/assets/{stem}.webp": key for concept in CONCEPTS for key, stem in concept.file_stems().items()}
    found: dict[str, Image.Image] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            key = wanted.get(member.name)
            stream = tar.extractfile(member) if key else None
            if key and stream:
                found[key] = _cut_out(Image.open(io.BytesIO(stream.read())).convert("RGBA"))
    missing = sorted(set(wanted.values()) - set(found))
    if missing:
        raise FileNotFoundError(f"{archive.name} has no picture of {', '.join(missing)}; is it {PACKAGE}?")
    return {key: found[key] for key in wanted.values()}


def load_other_sprites(archive: Path, *, keep_every: int) -> list[Image.Image]:
    """Every `keep_every`-th picture of the package that is no concept: variety for the autoencoder only."""
    wanted = {f"package/assets/{stem}.webp" for concept in CONCEPTS for stem in concept.file_stems().values()}
    sprites = []
    with tarfile.open(archive) as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".webp") and name not in wanted)
        for name in names[::keep_every]:
            stream = tar.extractfile(name)
            if stream:
                sprites.append(_cut_out(Image.open(io.BytesIO(stream.read())).convert("RGBA")))
    return sprites


def _cut_out(sprite: Image.Image) -> Image.Image:
    """`sprite` without its empty margin (alpha of at most 8)."""
    return sprite.crop(sprite.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())
