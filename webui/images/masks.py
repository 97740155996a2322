"""Masks as mode "L" pictures, 255 where something new is painted: intake, blur, crop box, latent size."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

ALPHA_THRESHOLD = 128
"""A mask drawn as transparency repaints where its alpha is above this."""


def load_mask(image: Image.Image) -> Image.Image:
    """A mask from any picture: from its alpha, cut at half, where any of it is transparent; else its luminance."""
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return alpha.point([255 if value > ALPHA_THRESHOLD else 0 for value in range(256)])
    return image.convert("L")


def blur_mask(mask: Image.Image, blur_px: int) -> Image.Image:
    """`mask` under a Gaussian of sigma `blur_px`, cut off at 2.5 sigma, so it reaches int(2.5 * blur_px + 0.5) pixels.

    Rounded to whole steps after each of the two directions, as the field's masks are.
    """
    bbox = mask.getbbox()
    if blur_px == 0 or bbox is None:
        return mask.copy()
    reach_px = int(2.5 * blur_px + 0.5)
    kernel_px = 2 * reach_px + 1
    # One pixel more than the kernel reaches: what cv2 mirrors at the edge of the cut-out is then still black.
    area = padded_box(bbox, reach_px + 1, mask.size)
    pixels = np.asarray(mask.crop(area))
    pixels = cv2.GaussianBlur(pixels, (kernel_px, 1), blur_px)
    pixels = cv2.GaussianBlur(pixels, (1, kernel_px), blur_px)
    blurred = Image.new("L", mask.size)
    blurred.paste(Image.fromarray(pixels), area)
    return blurred


def overlay_mask_whole(mask: Image.Image) -> Image.Image:
    """The compositing mask for "Whole picture": twice the blurred `mask`, so its half-way line is fully repainted."""
    return mask.point([min(2 * value, 255) for value in range(256)])


def crop_box(
    mask: Image.Image, padding_px: int, width: int, height: int, image_size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """The part (left, top, right, bottom) that "Only masked" works on; None if nothing is masked.

    It holds everything of `mask` that isn't 0 with `padding_px` around it, and has the aspect `width`:`height`
    as far as the picture of `image_size` is large enough. It never leaves the picture.
    """
    bbox = mask.getbbox()
    if bbox is None:
        return None
    left, top, right, bottom = padded_box(bbox, padding_px, image_size)
    image_width, image_height = image_size
    if (right - left) * height > width * (bottom - top):
        top, bottom = _grown(top, bottom, (right - left) * height // width, image_height)
    else:
        left, right = _grown(left, right, (bottom - top) * width // height, image_width)
    return left, top, right, bottom


def latent_mask(mask: Image.Image, latent_width: int, latent_height: int) -> npt.NDArray[np.float32]:
    """`mask` in latent cells, (latent_height, latent_width) of 0 and 1; 1 is repainted."""
    small = np.asarray(mask.resize((latent_width, latent_height), Image.Resampling.BICUBIC))
    return (small >= 128).astype(np.float32)


def latent_cover(mask: Image.Image, latent_width: int, latent_height: int) -> npt.NDArray[np.float32]:
    """How much of each latent cell `mask` covers, (latent_height, latent_width) in 0..1; a blurred edge stays soft."""
    small = mask.resize((latent_width, latent_height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def padded_box(box: tuple[int, int, int, int], padding_px: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """`box` (left, top, right, bottom) grown by `padding_px` on each side, as far as a picture of `size` goes."""
    left, top, right, bottom = box
    width, height = size
    return (
        max(left - padding_px, 0),
        max(top - padding_px, 0),
        min(right + padding_px, width),
        min(bottom + padding_px, height),
    )


def _grown(start: int, stop: int, length: int, limit: int) -> tuple[int, int]:
    """`start`..`stop` grown to `length` about its middle, then moved inside 0..`limit`."""
    length = min(max(length, stop - start), limit)
    start = min(max(start - (length - (stop - start)) // 2, 0), limit - length)
    return start, start + length
