"""Puts what was generated back into the picture it was made for."""

from PIL import Image

from webui.images.geometry import resize


def paste_back(
    original: Image.Image, generated: Image.Image, mask: Image.Image, box: tuple[int, int, int, int] | None
) -> Image.Image:
    """`original` with `generated` blended in by `mask`, a new picture; all but `mask` ("L") are "RGB".

    `mask` has the size of `original`: where it is 0 the pixels are bit-identical to `original`, where it is 255 they
    are `generated`, linear between. `generated` covers `box` of `original`, or all of it for None, and is
    resized to it if need be; outside `box` nothing changes.
    """
    if mask.size != original.size:
        raise ValueError(f"The mask is {mask.size}, the picture {original.size}.")
    box = box or (0, 0, *original.size)
    patch = resize(generated, box[2] - box[0], box[3] - box[1], "crop")
    result = original.copy()
    result.paste(patch, box, mask.crop(box))
    return result
