"""Networks that tell the subject from its background: ONNX, one picture in, how much each pixel belongs to it out.

The ports say that a file is one. How its maker feeds it is told by its name, or by what only one family has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.errors import UnsupportedModel
from webui.images.reading import flatten
from webui.library.onnx_file import Graph, Shape
from webui.training.assistants.network import HINT, Network
from webui.training.data.subjects import Soft

Colours = tuple[float, float, float]
Size = tuple[int, int]

IMAGENET_MEAN: Colours = (0.485, 0.456, 0.406)
IMAGENET_STD: Colours = (0.229, 0.224, 0.225)
HALF: Colours = (0.5, 0.5, 0.5)
ONE: Colours = (1.0, 1.0, 1.0)
U2NET_OUTPUTS = 7
U2NET_SIDE = 320
FLAT = 1e-6
"""A map that differs by less shows nothing."""
BEYOND = 0.01
"""Values that far outside of 0 to 1 are logits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What goes in is (picture / white - mean) / std. `words` are looked for in a file's name, in lower case.

    `by_brightest`: white is the brightest value of the picture, not 255. `spread`: what comes out is spread to 0 to 1,
    as its maker does it. `side`: of the square that it was trained with, for files that take any size.
    """

    name: str
    words: tuple[str, ...]
    mean: Colours
    std: Colours
    side: int
    spread: bool = False
    by_brightest: bool = False


FAMILIES: tuple[Family, ...] = (
    Family(
        name="BiRefNet",
        words=("birefnet", "rmbg-2", "rmbg2", "rmbg_2"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        side=1024,
    ),
    Family(
        name="IS-Net of anime-segmentation",
        words=("isnet-anime", "isnet_anime", "isnetis"),
        mean=(0.0, 0.0, 0.0),
        std=ONE,
        side=1024,
    ),
    Family(name="IS-Net", words=("isnet", "is-net", "rmbg"), mean=HALF, std=ONE, side=1024, spread=True),
    Family(name="MODNet", words=("modnet",), mean=HALF, std=HALF, side=512),
    Family(
        name="U2-Net",
        words=("u2net", "u-2-net", "u2-net", "silueta"),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        side=U2NET_SIDE,
        spread=True,
        by_brightest=True,
    ),
)
"""The first whose word is in the name. Sources: the inference scripts of xuebinqin/U-2-Net and xuebinqin/DIS,
ZhengPeng7/BiRefNet, SkyTNT/anime-segmentation, ZHKKKe/MODNet."""


def is_masker(graph: Graph) -> bool:
    """Whether it takes one picture of floats and its first output is one map."""
    if len(graph.inputs) != 1 or not graph.outputs:
        return False
    takes, gives = graph.inputs[0], graph.outputs[0]
    return takes.dtype in {"float32", "float16"} and _has_planes(takes.shape, 3) and _has_planes(gives.shape, 1)


def _has_planes(shape: Shape | None, planes: int) -> bool:
    return shape is not None and len(shape) == 4 and shape[0] in {None, 1} and shape[1] in {planes, None}


def family_of(name: str, graph: Graph) -> Family | None:
    """By `name`, or by U2-Net's own number of outputs or size; None where nothing tells."""
    lower = name.lower()
    named = next((family for family in FAMILIES if any(word in lower for word in family.words)), None)
    if named is not None:
        return named
    shape = graph.inputs[0].shape or ()
    if len(graph.outputs) == U2NET_OUTPUTS or shape[2:] == (U2NET_SIDE, U2NET_SIDE):
        return FAMILIES[-1]
    return None


def pixels_for(image: Image.Image, size: Size, family: Family) -> NDArray[np.float32]:
    """(1, 3, height, width), RGB, as the family takes it; stretched to `size` (width, height)."""
    pixels = np.asarray(flatten(image).resize(size, Image.Resampling.BILINEAR), np.float32)
    white = max(float(pixels.max()), 1.0) if family.by_brightest else 255.0
    mean, std = np.array(family.mean, np.float32), np.array(family.std, np.float32)
    return ((pixels / white - mean) / std).transpose(2, 0, 1)[None]


def soft_of(values: NDArray[np.float32], family: Family) -> Soft:
    """A map of probabilities or logits as 0 to 1."""
    if values.min() < -BEYOND or values.max() > 1 + BEYOND:
        values = np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), np.float32)
    if family.spread:
        low, high = float(values.min()), float(values.max())
        values = (values - low) / (high - low) if high - low > FLAT else np.zeros_like(values)
    return np.clip(values, 0, 1).astype(np.float32)


class NetworkMasker:
    """A network of `family`."""

    def __init__(self, path: Path, graph: Graph, family: Family) -> None:
        """Raises UnsupportedModel."""
        takes = graph.inputs[0]
        _, _, height, width = takes.shape or (None,) * 4
        self._path = path
        self._family = family
        self._size = (width or family.side, height or family.side)
        self._network = Network(path, takes)

    def mask(self, image: Image.Image) -> Soft:
        """In the picture's size. Raises UnsupportedModel."""
        output = self._network.run(pixels_for(image, self._size, self._family))
        if output.ndim != 4 or output.shape[:2] != (1, 1):
            raise UnsupportedModel(self._path, f"it gives {'x'.join(map(str, output.shape))}, no map", hint=HINT)
        soft = soft_of(output[0, 0], self._family)
        return np.asarray(cv2.resize(soft, image.size, interpolation=cv2.INTER_LINEAR), np.float32)


class PixelMasker:
    """What an extension tells of the pixels of a picture."""

    def __init__(self, mask: Callable[[NDArray[np.uint8]], Soft]) -> None:
        self._mask = mask

    def mask(self, image: Image.Image) -> Soft:
        """In the picture's size. Raises what the extension raises."""
        return self._mask(np.asarray(flatten(image)))
