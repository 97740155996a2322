"""Taggers of SmilingWolf's kind: an ONNX network that says of each of its tags how likely it fits a picture.

It takes (1, S, S, 3) floats, BGR from 0 to 255: the picture in the middle of a white square. Beside it lies a list of
its tags, `tag_id,name,category,count`, in the order of its outputs.
"""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.errors import UnsupportedModel
from webui.images.reading import flatten
from webui.library.onnx_file import Graph, Port
from webui.training.assistants.network import Network

GENERAL, CHARACTER, RATING = 0, 4, 9
"""Categories of the list, as Danbooru numbers them. Others (artist, copyright, meta) count as general."""
GENERAL_THRESHOLD = 0.35
CHARACTER_THRESHOLD = 0.85
"""Where the makers of these taggers draw the lines."""
KAOMOJI = frozenset({
    "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3",
    "6_9", ">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||",
})  # fmt: skip
"""Faces made of signs: their underscore is part of the face."""
COLUMNS = ("name", "category")
TOLERANCE = 1e-3
"""By which a probability may lie outside of 0 to 1, as half precision rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """`name` as it is written in a caption."""

    name: str
    category: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Tags that are less likely are left out."""

    general: float = GENERAL_THRESHOLD
    character: float = CHARACTER_THRESHOLD


def is_tagger(graph: Graph) -> bool:
    """Whether it takes one picture with its colours last, and gives a row of numbers."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        return False
    takes, gives = graph.inputs[0], graph.outputs[0]
    if takes.shape is None or gives.shape is None or len(takes.shape) != 4 or len(gives.shape) != 2:
        return False
    batch, height, width, colours = takes.shape
    return batch in {None, 1} and colours == 3 and height == width and height is not None


def read_tags(path: Path) -> tuple[Tag, ...]:
    """Raises ValueError: what is wrong, as part of a sentence."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise ValueError(f"'{path.name}' has no column '{missing[0]}'")
            return tuple(Tag(name=written(row["name"]), category=int(row["category"])) for row in rows)
    except OSError as error:
        raise ValueError(f"'{path.name}' cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, csv.Error, TypeError, AttributeError) as error:
        raise ValueError(f"'{path.name}' is no list of tags") from error
    except ValueError as error:
        if str(error).startswith("'"):
            raise
        raise ValueError(f"'{path.name}' has a category that is no number") from error


def written(name: str) -> str:
    """As people write the tag, with blanks."""
    return name if name in KAOMOJI else name.replace("_", " ").strip()


def pixels_for(image: Image.Image, side: int) -> NDArray[np.float32]:
    """(1, side, side, 3), BGR 0 to 255: the picture in the middle of a white square, scaled with Pillow's bicubic."""
    image = flatten(image)
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(square, np.float32)[None, :, :, ::-1]


def chosen_tags(
    probabilities: NDArray[np.float32], tags: Collection[Tag], thresholds: Thresholds, without: Collection[str] = ()
) -> list[str]:
    """Characters first, then the others, each the likeliest first. Ratings, and tags of `without`, are left out."""
    unwanted = {written(name.strip()).casefold() for name in without}
    found = [
        (tag.category != CHARACTER, -float(probability), tag.name)
        for tag, probability in zip(tags, probabilities, strict=True)
        if tag.category != RATING
        and probability >= (thresholds.character if tag.category == CHARACTER else thresholds.general)
        and tag.name.casefold() not in unwanted
    ]
    return [name for _, _, name in sorted(found, key=lambda each: each[:2])]


class Tagger:
    """Writes the tags of pictures."""

    def __init__(
        self, path: Path, takes: Port, tags: tuple[Tag, ...], thresholds: Thresholds, without: Collection[str] = ()
    ) -> None:
        """Raises UnsupportedModel."""
        self._path = path
        self._tags = tags
        self._thresholds = thresholds
        self._without = without
        self._side = (takes.shape or ())[1] or 0
        self._network = Network(path, takes)

    def caption(self, image: Image.Image) -> str:
        """Tags with commas between them; "" where none is likely enough. Raises UnsupportedModel."""
        probabilities = self._network.run(pixels_for(image, self._side))[0]
        if len(probabilities) != len(self._tags):
            reason = f"it gives {len(probabilities)} numbers, but its list has {len(self._tags)} tags"
            raise UnsupportedModel(self._path, reason, hint="Put the list beside it that came with it.")
        low, high = float(probabilities.min()), float(probabilities.max())
        if low < -TOLERANCE or high > 1 + TOLERANCE:
            reason = f"it gives values from {low:.2f} to {high:.2f}, and not probabilities"
            raise UnsupportedModel(self._path, reason, hint="Look for an export with its sigmoid.")
        return ", ".join(chosen_tags(probabilities, self._tags, self._thresholds, self._without))
