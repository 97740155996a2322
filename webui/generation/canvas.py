"""What a request's picture becomes before and after the model: sizes, fills, masks, paste-back. Imports no torch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from webui.generation.request import GenerationRequest, Img2Img, Inpaint
from webui.images.compositing import paste_back
from webui.images.fill import fill_masked
from webui.images.geometry import resize
from webui.images.masks import blur_mask, crop_box, latent_cover, latent_mask, overlay_mask_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """`image` is what the model is fed, in the request's size.

    `mask` (mode "L", the same size) and `latent_mask` (h/8, w/8) float32 are 255 and 1 where something new is made;
    None for img2img. `original`, `overlay` and `box` say where and how
    the result is put back: only where `overlay` is not 0, into `box` of `original` if only the masked area was made.
    """

    image: Image.Image
    mask: Image.Image | None = None
    latent_mask: NDArray[np.float32] | None = None
    original: Image.Image | None = None
    overlay: Image.Image | None = None
    box: tuple[int, int, int, int] | None = None

    def latent_region(self) -> NDArray[np.float32] | None:
        """(h/8, w/8): how much each repainted latent cell lies under the mask, blur included; 0 where nothing is made.

        None for img2img.
        """
        if self.mask is None or self.latent_mask is None:
            return None
        height, width = self.latent_mask.shape
        return latent_cover(self.mask, width, height) * self.latent_mask

    def finish(self, generated: Image.Image) -> Image.Image:
        """The finished picture; pixels where `overlay` is 0 are the original's, bit for bit."""
        if self.original is None or self.overlay is None:
            return generated
        return paste_back(self.original, generated, self.overlay, self.box)


def prepare_canvas(request: GenerationRequest) -> Canvas | None:
    """None where no picture goes into the model: for txt2img and Extras."""
    match request.init:
        case Img2Img() as init:
            return Canvas(image=resize(init.image, request.width, request.height, init.resize_mode))
        case Inpaint() as init:
            return _inpaint_canvas(request, init)
        case _:
            return None


def _inpaint_canvas(request: GenerationRequest, init: Inpaint) -> Canvas:
    spec = init.mask
    mask = ImageOps.invert(spec.image) if spec.inverted else spec.image
    size = (request.width, request.height)
    if spec.area == "masked":
        original, mask = init.image, blur_mask(mask, spec.blur_px)
        box = crop_box(mask, spec.padding_px, *size, original.size)
        fed = resize(original.crop(box), *size, "fill")
        fed_mask = resize(mask.crop(box), *size, "fill")
        overlay = mask
    else:
        box = None
        original = fed = resize(init.image, *size, init.resize_mode)
        fed_mask = blur_mask(resize(mask, *size, init.resize_mode), spec.blur_px)
        overlay = overlay_mask_whole(fed_mask)
    if spec.content != "original":
        fed = fill_masked(fed, fed_mask)
    return Canvas(
        image=fed,
        mask=fed_mask,
        latent_mask=latent_mask(fed_mask, request.width // 8, request.height // 8),
        original=original,
        overlay=overlay,
        box=box,
    )
