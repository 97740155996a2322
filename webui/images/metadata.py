"""Encodes pictures with the text of how they were made, and finds that text again, also in other programs' files.

| | infotext | our request, as JSON |
|---|---|---|
| PNG | text chunk "parameters" | text chunk "atelier" |
| JPEG, WebP | EXIF UserComment, in UTF-16 | EXIF DeviceSettingDescription, in UTF-8 |
"""

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

from PIL import ExifTags, Image, PngImagePlugin

from webui.images.reading import READABLE_FORMATS, flatten

ImageFormat = Literal["png", "jpeg", "webp"]

PNG_COMPRESSION = 1
"""zlib's level: 6, the usual one, makes a photo a tenth smaller and takes two to three times as long."""

QUALITY = 95
"""Of JPEG and WebP, in per cent."""

WEBP_METHOD = 2
"""Effort of 0 to 6: 4 takes three times as long for the same size at this quality."""

JPEG_EXIF_BYTES = 65_533
"""What fits into a JPEG segment."""

MAX_LOADED_PIXELS = 64_000_000
"""A PNG larger than this isn't decoded in search of text behind its pixels."""

_UNICODE = b"UNICODE\0"
_JSON = b"atelier\0"

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """`infotext` is the field's text (see infotext.py), `request_json` our own and exact; "" is none."""

    infotext: str
    request_json: str


def encode_image(image: Image.Image, metadata: ImageMetadata, fmt: ImageFormat) -> bytes:
    """The file of `image` with `metadata` inside. PNG is lossless; JPEG has no transparency, so it is put on white.

    JPEG holds 64 KB of metadata: of longer ones the JSON is left out, then the infotext, with a warning in the log.
    """
    file = io.BytesIO()
    match fmt:
        case "png":
            image.save(file, "PNG", pnginfo=_png_chunks(metadata), compress_level=PNG_COMPRESSION)
        case "jpeg":
            flatten(image).save(file, "JPEG", quality=QUALITY, subsampling="4:4:4", exif=_jpeg_exif(metadata))
        case "webp":
            image.save(file, "WEBP", quality=QUALITY, method=WEBP_METHOD, exif=_exif(metadata))
        case _:
            assert_never(fmt)
    return file.getvalue()


def read_metadata(source: Path | bytes) -> ImageMetadata | None:
    """What `source` says about how it was made; None if it says nothing, is damaged, or isn't a picture."""
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=READABLE_FORMATS) as file:
            metadata = _from_png(file) if isinstance(file, PngImagePlugin.PngImageFile) else _from_exif(file)
    # As in open_image, but here a file without a readable text is nothing wrong.
    except Exception:
        LOG.debug("No metadata can be read.", exc_info=True)
        return None
    return metadata if metadata.infotext or metadata.request_json else None


def _png_chunks(metadata: ImageMetadata) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for keyword, text in (("parameters", metadata.infotext), ("atelier", metadata.request_json)):
        if text:
            # tEXt, or iTXt where the text isn't Latin-1.
            chunks.add_text(keyword, _without_surrogates(text))
    return chunks


def _jpeg_exif(metadata: ImageMetadata) -> bytes:
    for kept in (metadata, ImageMetadata(infotext=metadata.infotext, request_json="")):
        exif = _exif(kept)
        if len(exif) <= JPEG_EXIF_BYTES:
            return exif
        LOG.warning("The metadata of a JPEG file takes %d bytes, too many to be saved in full.", len(exif))
    return b""


def _exif(metadata: ImageMetadata) -> bytes:
    exif = Image.Exif()
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    if metadata.infotext:
        # Big-endian, whatever the byte order of the block: that is what the field writes and reads.
        tags[ExifTags.Base.UserComment] = _UNICODE + _without_surrogates(metadata.infotext).encode("utf-16-be")
    if metadata.request_json:
        tags[ExifTags.Base.DeviceSettingDescription] = _JSON + _without_surrogates(metadata.request_json).encode()
    return exif.tobytes()


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _from_png(file: PngImagePlugin.PngImageFile) -> ImageMetadata:
    if "parameters" not in file.info and file.width * file.height <= MAX_LOADED_PIXELS:
        # Some programs write the text behind the pixels.
        file.load()
    return ImageMetadata(infotext=str(file.info.get("parameters", "")), request_json=str(file.info.get("atelier", "")))


def _from_exif(file: Image.Image) -> ImageMetadata:
    tags = file.getexif().get_ifd(ExifTags.IFD.Exif)
    infotext = _decode_comment(tags.get(ExifTags.Base.UserComment, b""))
    if not infotext and file.format == "GIF":
        infotext = _decode_comment(file.info.get("comment", b""))
    description = tags.get(ExifTags.Base.DeviceSettingDescription, b"")
    ours = isinstance(description, bytes) and description.startswith(_JSON)
    return ImageMetadata(infotext=infotext, request_json=description[len(_JSON) :].decode() if ours else "")


def _decode_comment(comment: bytes | str) -> str:
    """The text of an EXIF comment: 8 bytes name its encoding, but not the byte order; some programs leave them out."""
    if isinstance(comment, str):
        return comment.strip("\0 ")
    code, text = comment[:8], comment[8:]
    if code == _UNICODE:
        # In either order most texts have mostly zeros in the high bytes.
        big_endian = text[0::2].count(0) >= text[1::2].count(0)
        decoded = text.decode("utf-16-be" if big_endian else "utf-16-le", "replace").removeprefix("\ufeff")
    elif code in (b"ASCII\0\0\0", bytes(8)):
        decoded = text.decode("utf-8", "replace")
    else:
        decoded = comment.decode("utf-8", "replace")
    return decoded.strip("\0 ")
