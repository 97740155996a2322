"""Masked content "fill": paints the masked part with the colours around it, as a start for the model."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from webui.images.masks import padded_box

Layer = npt.NDArray[np.float32]
"""(4, height, width): red, green and blue from 0 to 255 times alpha, then alpha from 0 to 1."""

Plane = npt.NDArray[np.float32]

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

COARSE_BLURS = ((256, 1), (64, 1), (16, 2))
"""(sigma in pixels, how often it is laid over what is there): wide washes, done at a quarter of the size."""

FINE_BLURS = ((4, 4), (2, 2))

COARSE_SHRINK = 4

FINE_REACH_PX = 16
"""Four sigmas of the widest fine blur: what lies farther from the mask does not touch the fill."""

BAND_PX = 256
"""Rows that are filled at a time, so that the layers of a large picture stay in the processor's cache."""

SIGMA_CELLS = 4
MIN_CELLS = 32
"""Wide blurs work on cells of a quarter sigma, unless that leaves fewer than this along a side."""

WASH = 1e-4
"""Opacity of the average colour under all blurs; it shows only where even the widest has nothing to spread."""


def fill_masked(image: Image.Image, mask: Image.Image) -> Image.Image:
    """`image` ("RGB") with blurs of what isn't masked laid over each other where `mask` ("L") is more than 0.

    Where the mask is 0 the pixels stay as they are; where it is between, picture and fill are blended.
    """
    bbox = mask.getbbox()
    if bbox is None:
        return image.copy()
    washes = _washes(image, mask)
    result = image.copy()
    left, first, right, last = bbox
    for top in range(first, last, BAND_PX):
        band = (left, top, right, min(top + BAND_PX, last))
        result.paste(_filled(image, mask, washes, band), band, mask.crop(band).point([0] + [255] * 255))
    return result


def _filled(image: Image.Image, mask: Image.Image, washes: Layer, band: Box) -> Image.Image:
    """The part `band` of the fill: the `washes`, the fine blurs over them, what is kept on top."""
    area = padded_box(band, FINE_REACH_PX, image.size)
    kept = _kept(image.crop(area), mask.crop(area), 1)
    layers = _enlarged(washes, area, image.size)
    for sigma_px, num_layers in FINE_BLURS:
        _lay_over(layers, _blurred(kept, sigma_px), num_layers)
    _lay_over(layers, kept, 1)
    left, top, right, bottom = band
    return _as_image(layers[:, top - area[1] : bottom - area[1], left - area[0] : right - area[0]])


def _kept(image: Image.Image, mask: Image.Image, shrink: int) -> Layer:
    """What isn't masked, `shrink` times smaller. Plane by plane: a large picture as one float array is slow."""
    alpha = 1.0 - np.asarray(mask, dtype=np.float32) / np.float32(255)
    height, width = (max(1, round(side / shrink)) for side in alpha.shape)
    layer = np.empty((4, height, width), dtype=np.float32)
    for plane, channel in zip(layer, image.split(), strict=False):
        plane[:] = _resized(np.multiply(np.asarray(channel), alpha), height, width, cv2.INTER_AREA)
    layer[3] = _resized(alpha, height, width, cv2.INTER_AREA)
    return layer


def _washes(image: Image.Image, mask: Image.Image) -> Layer:
    """The wide blurs over each other and over the average colour, `COARSE_SHRINK` times smaller than `image`."""
    kept = _kept(image, mask, COARSE_SHRINK)
    washes = np.empty_like(kept)
    washes[:] = (_average(kept, image) * WASH)[:, None, None]
    for sigma_px, num_layers in COARSE_BLURS:
        _lay_over(washes, _blurred(kept, sigma_px / COARSE_SHRINK), num_layers)
    return washes


def _average(kept: Layer, image: Image.Image) -> npt.NDArray[np.float64]:
    """The average of what is kept, or of all of `image` if nothing is, as one opaque pixel of a layer."""
    total = kept.sum(axis=(1, 2), dtype=np.float64)
    return total / total[3] if total[3] else np.array([*np.asarray(image).mean(axis=(0, 1)), 1.0])


def _lay_over(below: Layer, layer: Layer, num_layers: int) -> None:
    """Lays `layer` over `below`, in place: Porter and Duff's "over" for premultiplied alpha."""
    see_through = 1.0 - layer[3]
    for _ in range(num_layers):
        below *= see_through
        below += layer


def _blurred(layer: Layer, sigma: float) -> Layer:
    """`layer` under a Gaussian. A wide one is done on fewer, larger cells, which differs by less than can be seen."""
    _, height, width = layer.shape
    shrink = max(1.0, min(sigma / SIGMA_CELLS, height / MIN_CELLS, width / MIN_CELLS))
    cells_high, cells_wide = round(height / shrink), round(width / shrink)
    sigma_x, sigma_y = sigma * cells_wide / width, sigma * cells_high / height
    result = np.empty_like(layer)
    for plane, blurred in zip(layer, result, strict=True):
        small = _resized(plane, cells_high, cells_wide, cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_REPLICATE)
        blurred[:] = _resized(small, height, width, cv2.INTER_LINEAR)
    return result


def _resized(plane: Plane, height: int, width: int, interpolation: int) -> Plane:
    if plane.shape == (height, width):
        return plane
    return np.asarray(cv2.resize(plane, (width, height), interpolation=interpolation), dtype=np.float32)


def _enlarged(layer: Layer, area: Box, size: tuple[int, int]) -> Layer:
    """The part `area` of `layer` after it is enlarged to `size`."""
    left, top, right, bottom = area
    zoom_x, zoom_y = size[0] / layer.shape[2], size[1] / layer.shape[1]
    # Pixel centres: x in the picture is (x + 0.5) / zoom - 0.5 in the layer.
    to_layer = np.array([[1 / zoom_x, 0, (left + 0.5) / zoom_x - 0.5], [0, 1 / zoom_y, (top + 0.5) / zoom_y - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    box = (right - left, bottom - top)
    return np.stack(
        [cv2.warpAffine(plane, to_layer, box, flags=flags, borderMode=cv2.BORDER_REPLICATE) for plane in layer]
    )


def _as_image(layer: Layer) -> Image.Image:
    colours = layer[:3] / layer[3]
    np.rint(colours, out=colours)
    return Image.merge("RGB", [Image.fromarray(plane) for plane in colours.clip(0, 255).astype(np.uint8)])
