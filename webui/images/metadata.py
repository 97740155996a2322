"""Encodes pictures with the text of how they were made, and finds that text again, also in other programs' files.

| | infotext | our request, as JSON |
|---|---|---|
| PNG | text chunk "parameters" | text chunk "atelier" |
| JPEG, WebP | EXIF UserComment, in UTF-16 | EXIF DeviceSettingDescription, in UTF-8 |

A picture that is put together of parts of others is marked as such in XMP, in all three; PNG also takes further texts.
"""

import io
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, assert_never

from PIL import ExifTags, Image, PngImagePlugin, TiffTags

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

COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's word for a picture that is put together of others, some of them made by a model."""

XMP_KEYWORD = "XML:com.adobe.xmp"
"""Of the PNG chunk that holds XMP."""

XMP_COMPOSITE = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<Iptc4xmpExt:DigitalSourceType>{COMPOSITE}</Iptc4xmpExt:DigitalSourceType>
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""

_UNICODE = b"UNICODE\0"
_JSON = b"atelier\0"

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMetadata:
    """`infotext` is the field's text (see infotext.py), `request_json` our own and exact; "" is none.

    `texts` are further ones by keyword, for people who look into a PNG. Neither they nor the mark are read back.
    """

    infotext: str
    request_json: str
    texts: Mapping[str, str] = field(default_factory=dict)
    is_composite: bool = False
    """Parts of other pictures are in it, as IPTC's DigitalSourceType says."""


def encode_image(image: Image.Image, metadata: ImageMetadata, fmt: ImageFormat) -> bytes:
    """The file of `image` with `metadata` inside. PNG is lossless; JPEG has no transparency, so it is put on white.

    JPEG holds 64 KB of metadata: of longer ones the JSON is left out, then the infotext, with a warning in the log.
    """
    file = io.BytesIO()
    match fmt:
        case "png":
            image.save(file, "PNG", pnginfo=_png_chunks(metadata), compress_level=PNG_COMPRESSION)
        case "jpeg":
            exif = _jpeg_exif(metadata)
            flatten(image).save(file, "JPEG", quality=QUALITY, subsampling="4:4:4", exif=exif, **_xmp(metadata))
        case "webp":
            image.save(file, "WEBP", quality=QUALITY, method=WEBP_METHOD, exif=_exif(metadata), **_xmp(metadata))
        case _:
            assert_never(fmt)
    return file.getvalue()


def read_metadata(source: Path | bytes) -> ImageMetadata | None:
    """What `source` says about how it was made; None if it says nothing, is damaged, or isn't a picture."""
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=READABLE_FORMATS) as file:
            metadata = _found(file)
    # As in open_image, but here a file without a readable text is nothing wrong.
    except Exception:
        LOG.debug("No metadata can be read.", exc_info=True)
        return None
    return metadata if metadata.infotext or metadata.request_json else None


def _png_chunks(metadata: ImageMetadata) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    texts = {**metadata.texts, "parameters": metadata.infotext, "atelier": metadata.request_json}
    for keyword in ("parameters", "atelier", *metadata.texts):
        if texts[keyword]:
            # tEXt, or iTXt where the text isn't Latin-1.
            chunks.add_text(keyword, _without_surrogates(texts[keyword]))
    if metadata.is_composite:
        chunks.add_itxt(XMP_KEYWORD, XMP_COMPOSITE)
    return chunks


def _xmp(metadata: ImageMetadata) -> dict[str, Any]:
    """The option of PIL's writers, left out where there is nothing to say."""
    return {"xmp": XMP_COMPOSITE.encode()} if metadata.is_composite else {}


def _jpeg_exif(metadata: ImageMetadata) -> bytes:
    for kept in (metadata, ImageMetadata(infotext=metadata.infotext, request_json="")):
        exif = _exif(kept)
        if len(exif) <= JPEG_EXIF_BYTES:
            return exif
        LOG.warning("The metadata of a JPEG file takes %d bytes, too many to be saved in full.", len(exif))
    return b""


def _exif(metadata: ImageMetadata) -> bytes:
    values: dict[int, bytes] = {}
    if metadata.infotext:
        # Big-endian, whatever the byte order of the block: that is what the field writes and reads.
        values[ExifTags.Base.UserComment] = _UNICODE + _without_surrogates(metadata.infotext).encode("utf-16-be")
    if metadata.request_json:
        values[ExifTags.Base.DeviceSettingDescription] = _JSON + _without_surrogates(metadata.request_json).encode()
    return _exif_block(values) if values else b""


def _exif_block(values: dict[int, bytes]) -> bytes:
    """An EXIF block of `values`, each of more than 4 bytes, by ascending tag.

    By hand, as PIL writes them with the type BYTE, and the readers of the field take nothing but UNDEFINED.
    """
    directory_at = 26
    block = struct.pack(">2sHI", b"MM", 42, 8)
    block += struct.pack(">HHHIII", 1, ExifTags.IFD.Exif, TiffTags.LONG, 1, directory_at, 0)
    block += struct.pack(">H", len(values))
    data_at = directory_at + 2 + 12 * len(values) + 4
    data = b""
    for tag, value in values.items():
        block += struct.pack(">HHII", tag, TiffTags.UNDEFINED, len(value), data_at + len(data))
        data += value + bytes(len(value) % 2)
    return b"Exif\0\0" + block + bytes(4) + data


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _found(file: Image.Image) -> ImageMetadata:
    if file.format == "PNG" and "parameters" not in file.info and file.width * file.height <= MAX_LOADED_PIXELS:
        # Some programs write the text behind the pixels.
        file.load()
    texts = file.info if file.format == "PNG" else {}
    # Asked for its EXIF block, a PNG without one is decoded to the end in search of it.
    has_exif = file.format != "PNG" or "exif" in file.info
    tags = file.getexif().get_ifd(ExifTags.IFD.Exif) if has_exif else {}
    comments = [tags.get(ExifTags.Base.UserComment, b"")]
    if file.format == "GIF":
        comments.append(file.info.get("comment", b""))
    infotexts = [str(texts.get("parameters", "")), *map(_decode_comment, comments)]
    request_json = str(texts.get("atelier", "")) or _decode_json(tags.get(ExifTags.Base.DeviceSettingDescription, b""))
    return ImageMetadata(infotext=next(filter(None, infotexts), ""), request_json=request_json)


def _decode_json(description: bytes | str) -> str:
    if isinstance(description, bytes) and description.startswith(_JSON):
        return description[len(_JSON) :].decode()
    return ""


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
