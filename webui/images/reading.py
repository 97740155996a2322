"""Opens what people upload: any common picture file becomes an upright, 8-bit sRGB picture, or an UnreadableImage.

Nothing else gets out, whatever the bytes are, and a picture that is too large is refused from its header.
"""

import io
import logging
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageOps, UnidentifiedImageError

from webui.errors import UnreadableImage

READABLE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Formats that are told apart by their first bytes and run no other program."""

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

SRGB_TOLERANCE = 1
"""A colour profile that moves no colour by more than this many of 255 steps is sRGB: the pixels stay as they are."""

SRGB = ImageCms.createProfile("sRGB")

LOG = logging.getLogger(__name__)


def open_image(source: Path | bytes, *, max_pixels: int, name: str = "") -> Image.Image:
    """The picture in `source`: upright, sRGB, mode "RGB", or "RGBA" where the file knows transparency; first frame.

    It is fully loaded, and carries nothing of the file's metadata. `name` is what an error calls the file.
    Raises UnreadableImage. PIL's own limit of 179 million pixels holds too.
    """
    name = name or (source.name if isinstance(source, Path) else "The file")
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=READABLE_FORMATS) as file:
            _check_size(file.size, max_pixels, name)
            return _upright_srgb(file)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(int(re.findall(r"\d+", str(error))[0]), max_pixels, name) from error
    except UnidentifiedImageError as error:
        raise _not_a_picture(source, name) from error
    except MemoryError as error:
        raise UnreadableImage(f"'{name}' needs more memory than there is.", hint="Use a smaller picture.") from error
    # Decoders raise nearly every exception there is on damaged files: zlib.error, struct.error, SyntaxError, ...
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImage(
            f"'{name}' cannot be read: {reason or type(error).__name__}.",
            hint="The file may be damaged or incomplete; open it in another program and save it again.",
        ) from error


def flatten(image: Image.Image, background: str = "#ffffff") -> Image.Image:
    """`image` as "RGB", its transparent parts over the colour `background`."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    canvas = Image.new("RGBA", image.size, ImageColor.getrgb(background))
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def _check_size(size: tuple[int, int], max_pixels: int, name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImage(f"'{name}' is {width} x {height} pixels: it has no picture.", hint="Use another file.")
    if width * height > max_pixels:
        raise _too_large(width * height, max_pixels, name)


def _too_large(num_pixels: int, max_pixels: int, name: str) -> UnreadableImage:
    return UnreadableImage(
        f"'{name}' has {num_pixels / 1e6:.1f} million pixels, more than the limit of {max_pixels / 1e6:.1f} million.",
        hint="Make it smaller, or raise the setting max_image_pixels.",
    )


def _not_a_picture(source: Path | bytes, name: str) -> UnreadableImage:
    start = source[:12] if isinstance(source, bytes) else _first_bytes(source)
    if start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS:
        return UnreadableImage(f"'{name}' is a HEIC photo, which cannot be read.", hint="Save it as JPEG or PNG first.")
    return UnreadableImage(
        f"'{name}' is not a picture, or is damaged.", hint="Use a PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF file."
    )


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)


def _upright_srgb(file: Image.Image) -> Image.Image:
    file.load()
    icc_profile = file.info.get("icc_profile")
    image = _eight_bit(_upright(file))
    if icc_profile:
        image = _in_srgb(image, icc_profile)
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    # Saving would embed the old profile and EXIF again.
    image.info.clear()
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        LOG.warning("The EXIF block is damaged; the picture is shown as it is stored.", exc_info=True)
        return image.copy()


def _eight_bit(image: Image.Image) -> Image.Image:
    """`image` in mode L, LA, RGB, RGBA or CMYK, with transparency as alpha."""
    if image.mode.startswith("I") or image.mode == "F":
        return _gray_from_deep(np.asarray(image))
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _gray_from_deep(values: np.ndarray) -> Image.Image:
    """16 or 32 bit gray or float (h, w) as "L". White is 65535, or 1.0 for floats, or the largest value above that."""
    levels = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    white = max(1.0 if values.dtype.kind == "f" else 65535.0, float(levels.max()))
    return Image.fromarray(np.rint(levels.clip(0, None) * (255.0 / white)).astype(np.uint8))


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    return _applied(ImageCms.buildTransform(ImageCms.createProfile("LAB"), SRGB, "LAB", "RGB"), image)


def _in_srgb(image: Image.Image, icc_profile: bytes) -> Image.Image:
    """`image` (L, LA, RGB, RGBA or CMYK) with its colours converted from `icc_profile`, its alpha kept."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        return _converted(image, profile)
    except Exception:
        LOG.warning("The colour profile is damaged; the colours are taken as sRGB.", exc_info=True)
        return image


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    space = profile.profile.xcolor_space.strip()
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colour = image.convert(image.mode[:-1]) if alpha else image
    if space == "RGB" and colour.mode == "L":
        colour = colour.convert("RGB")
    if colour.mode != {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}.get(space):
        LOG.warning("A colour profile for %s does not fit a picture in %s and is ignored.", space, colour.mode)
        return image
    match colour.mode:
        case "L":
            # The shortcut that lcms takes for gray is up to 10 levels off in the shadows.
            converted = _by_level(_transform(profile, "L", ImageCms.Flags.NOOPTIMIZE), colour)
        case "RGB":
            transform = _transform(profile, "RGB", ImageCms.Flags.NONE)
            if _is_srgb(transform):
                return image
            converted = _applied(transform, colour)
        case _:
            converted = _applied(_transform(profile, "CMYK", ImageCms.Flags.NONE), colour)
    if alpha:
        converted.putalpha(alpha)
    return converted


def _transform(profile: ImageCms.ImageCmsProfile, mode: str, flags: ImageCms.Flags) -> ImageCms.ImageCmsTransform:
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.buildTransform(profile, SRGB, mode, "RGB", intent, flags | ImageCms.Flags.BLACKPOINTCOMPENSATION)


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # As it is only for a conversion in place.
    return converted


def _by_level(transform: ImageCms.ImageCmsTransform, gray: Image.Image) -> Image.Image:
    levels = _applied(transform, Image.frombytes("L", (256, 1), bytes(range(256))))
    return gray.convert("RGB").point(np.asarray(levels)[0].T.ravel().tolist())


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether `transform` leaves a sample of all colours as they are."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    converted = np.asarray(_applied(transform, Image.fromarray(colours)))
    return int(np.abs(converted.astype(np.int16) - colours).max()) <= SRGB_TOLERANCE
