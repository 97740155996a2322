import dataclasses
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from webui.images.metadata import ImageFormat, ImageMetadata, encode_image, read_metadata

FORMATS: tuple[ImageFormat, ...] = get_args(ImageFormat)

INFOTEXT = """a cat, (red:1.2)
Negative prompt: dog
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 96x64, Lora hashes: "a: 1, b: 2\""""

SMALL = Image.new("RGB", (8, 8), (10, 200, 30))


def metadata(infotext: str = INFOTEXT, request_json: str = '{"seed": 1}') -> ImageMetadata:
    return ImageMetadata(infotext=infotext, request_json=request_json)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 8
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def user_comment(exif: bytes) -> bytes:
    """EXIF's UserComment by the TIFF and EXIF standards, without the library that wrote it."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"MM": ">", b"II": "<"}[tiff[:2]]
    assert struct.unpack(order + "H", tiff[2:4]) == (42,)

    def entries(offset: int) -> dict[int, tuple[int, int, int]]:
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        rows = (struct.unpack_from(order + "HHII", tiff, offset + 2 + 12 * row) for row in range(count))
        return {tag: (kind, length, value) for tag, kind, length, value in rows}

    (first,) = struct.unpack_from(order + "I", tiff, 4)
    kind, length, offset = entries(entries(first)[0x8769][2])[0x9286]
    assert kind == 7
    return tiff[offset : offset + length]


def exif_with_comment(comment: bytes, order: str = ">") -> bytes:
    """An EXIF block with nothing but a UserComment, as other programs write it."""
    tiff = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    tiff += struct.pack(order + "HHHIII", 1, 0x8769, 4, 1, 26, 0)
    tiff += struct.pack(order + "HHHIII", 1, 0x9286, 7, len(comment), 44, 0)
    return b"Exif\0\0" + tiff + comment


@pytest.mark.parametrize("fmt", FORMATS)
def test_metadata_reads_back_equal_from_every_format(fmt: ImageFormat, photo: Image.Image, tmp_path: Path) -> None:
    data = encode_image(photo, metadata(), fmt)
    path = tmp_path / "picture"
    path.write_bytes(data)
    assert read_metadata(data) == metadata()
    assert read_metadata(path) == metadata()
    assert Image.open(path).format == fmt.upper()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda text: text == text.strip(" ") and not text.startswith("\ufeff")
)


@pytest.mark.parametrize("fmt", FORMATS)
@given(infotext=TEXT, request_json=TEXT)
def test_any_text_in_any_language_reads_back_equal(fmt: ImageFormat, infotext: str, request_json: str) -> None:
    # A text in the wrong byte order is told by its blanks and Latin letters, which all texts of the field have.
    infotext += "\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 123456789, Size: 512x512, Model: something" * 4
    written = metadata(infotext, request_json)
    assert read_metadata(encode_image(SMALL, written, fmt)) == written


def test_png_is_lossless(photo: Image.Image) -> None:
    for image in (photo, photo.convert("L"), photo.convert("RGBA")):
        decoded = Image.open(io.BytesIO(encode_image(image, metadata(), "png")))
        assert (decoded.mode, decoded.tobytes()) == (image.mode, image.tobytes())


@pytest.mark.parametrize("fmt", ["jpeg", "webp"])
def test_lossy_formats_stay_close_to_the_picture(fmt: ImageFormat, photo: Image.Image) -> None:
    decoded = Image.open(io.BytesIO(encode_image(photo, metadata(), fmt))).convert("RGB")
    assert np.abs(np.asarray(decoded).astype(int) - np.asarray(photo)).mean() < 2


def test_a_transparent_picture_becomes_a_jpeg_on_white() -> None:
    data = encode_image(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), metadata(), "jpeg")
    assert Image.open(io.BytesIO(data)).getpixel((4, 4)) == (255, 255, 255)


def test_the_infotext_is_where_other_programs_look_in_a_png() -> None:
    chunks = list(png_chunks(encode_image(SMALL, metadata(), "png")))
    assert (b"tEXt", b"parameters\0" + INFOTEXT.encode("latin-1")) in chunks
    assert [kind for kind, _ in chunks].index(b"tEXt") < [kind for kind, _ in chunks].index(b"IDAT")
    chunks = list(png_chunks(encode_image(SMALL, metadata("猫\nSteps: 1"), "png")))
    assert (b"iTXt", b"parameters\0\0\0\0\0" + "猫\nSteps: 1".encode()) in chunks


@pytest.mark.parametrize("fmt", ["jpeg", "webp"])
def test_the_infotext_is_where_other_programs_look_in_jpeg_and_webp(fmt: ImageFormat) -> None:
    data = encode_image(SMALL, metadata("a 猫\nSteps: 1"), fmt)
    exif = Image.open(io.BytesIO(data)).info["exif"]
    assert user_comment(exif) == b"UNICODE\0" + "a 猫\nSteps: 1".encode("utf-16-be")


DIGITAL_SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_composite_says_so_in_xmp_in_every_format(fmt: ImageFormat, photo: Image.Image) -> None:
    data = encode_image(photo, dataclasses.replace(metadata(), is_composite=True), fmt)
    image = Image.open(io.BytesIO(data))
    packet = image.info["XML:com.adobe.xmp"].encode() if fmt == "png" else image.info["xmp"]
    assert packet.startswith(b'<?xpacket begin="\xef\xbb\xbf"')
    (source_type,) = ElementTree.fromstring(packet.decode()).iter(DIGITAL_SOURCE_TYPE)
    assert source_type.text == ("http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia")
    assert read_metadata(data) == metadata(), "the other texts are there as ever"


def test_xmp_lies_where_the_standards_put_it() -> None:
    composite = dataclasses.replace(metadata(), is_composite=True)
    chunks = [data for kind, data in png_chunks(encode_image(SMALL, composite, "png")) if kind == b"iTXt"]
    assert [chunk[:22] for chunk in chunks] == [b"XML:com.adobe.xmp\0\0\0\0\0"]
    assert b"\xff\xe1" in encode_image(SMALL, composite, "jpeg").split(b"http://ns.adobe.com/xap/1.0/\0")[0][-4:]
    assert b"XMP " in encode_image(SMALL, composite, "webp")


def test_a_picture_that_is_no_composite_is_the_same_file_as_without_any_mark(photo: Image.Image) -> None:
    for fmt in FORMATS:
        plain = encode_image(photo, metadata(), fmt)
        assert b"DigitalSourceType" not in plain
        assert plain == encode_image(photo, dataclasses.replace(metadata(), is_composite=False, texts={}), fmt)
    kinds = [kind for kind, _ in png_chunks(encode_image(SMALL, metadata(), "png"))]
    assert kinds == [b"IHDR", b"tEXt", b"tEXt", b"IDAT", b"IEND"]


def test_further_texts_stand_in_a_png_by_their_keywords() -> None:
    texts = {"face_consistency": "similarity 0.31 → 0.84", "upscale": "", "plain": "x"}
    data = encode_image(SMALL, dataclasses.replace(metadata(), texts=texts), "png")
    info = Image.open(io.BytesIO(data)).info
    assert info["face_consistency"] == "similarity 0.31 → 0.84"
    assert info["plain"] == "x"
    assert "upscale" not in info
    assert read_metadata(data) == metadata()


def encoded(fmt: str, **options: object) -> bytes:
    file = io.BytesIO()
    SMALL.save(file, fmt, **options)
    return file.getvalue()


@pytest.mark.parametrize("fmt", ["JPEG", "WEBP", "PNG", "AVIF"])
@pytest.mark.parametrize(
    "exif",
    [
        exif_with_comment(b"UNICODE\0" + INFOTEXT.encode("utf-16-be")),
        exif_with_comment(b"UNICODE\0" + INFOTEXT.encode("utf-16-be"), "<"),
        exif_with_comment(b"UNICODE\0" + INFOTEXT.encode("utf-16-le"), "<"),
        exif_with_comment(b"UNICODE\0" + INFOTEXT.encode("utf-16")),
        exif_with_comment(b"ASCII\0\0\0" + INFOTEXT.encode()),
        exif_with_comment(bytes(8) + INFOTEXT.encode()),
        exif_with_comment(INFOTEXT.encode()),
    ],
)
def test_comments_of_other_programs_are_read_in_every_encoding(fmt: str, exif: bytes) -> None:
    assert read_metadata(encoded(fmt, exif=exif)) == metadata(request_json="")


def test_png_chunks_of_other_programs_are_read() -> None:
    for write in (PngInfo.add_text, PngInfo.add_itxt):
        for zipped in (False, True):
            chunks = PngInfo()
            write(chunks, "parameters", INFOTEXT, zip=zipped)
            assert read_metadata(encoded("PNG", pnginfo=chunks)) == metadata(request_json="")


def test_a_text_behind_the_pixels_of_a_png_is_found() -> None:
    data = encoded("PNG")
    text = b"tEXtparameters\0" + INFOTEXT.encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    assert read_metadata(data[:-12] + chunk + data[-12:]) == metadata(request_json="")


def test_the_comment_of_a_gif_is_read_but_not_that_of_a_jpeg() -> None:
    assert read_metadata(encoded("GIF", comment=INFOTEXT.encode())) == metadata(request_json="")
    assert read_metadata(encoded("JPEG", comment=b"CREATOR: some library")) is None


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_picture_without_metadata_says_nothing(fmt: str) -> None:
    assert read_metadata(encoded(fmt)) is None


@pytest.mark.parametrize("fmt", FORMATS)
def test_empty_metadata_says_nothing(fmt: ImageFormat) -> None:
    assert read_metadata(encode_image(SMALL, metadata("", ""), fmt)) is None


def test_a_camera_comment_of_blanks_says_nothing() -> None:
    assert read_metadata(encoded("JPEG", exif=exif_with_comment(b"ASCII\0\0\0" + b" " * 200))) is None


def test_half_a_surrogate_in_a_prompt_does_not_keep_a_picture_from_being_saved() -> None:
    for fmt in FORMATS:
        assert read_metadata(encode_image(SMALL, metadata("a \ud83d cat"), fmt)) == metadata("a ? cat")


@pytest.mark.parametrize(("prompt_length", "kept"), [(20_000, "both"), (31_000, "infotext"), (70_000, "nothing")])
def test_a_jpeg_with_too_long_a_prompt_is_saved_with_what_fits(
    prompt_length: int, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    long = metadata("x" * prompt_length, '{"prompt": "' + "x" * min(prompt_length, 25_000) + '"}')
    read = read_metadata(encode_image(SMALL, long, "jpeg"))
    expected = {"both": long, "infotext": metadata(long.infotext, ""), "nothing": None}[kept]
    assert read == expected
    assert bool(caplog.records) == (kept != "both")
    for fmt in ("png", "webp"):
        assert read_metadata(encode_image(SMALL, long, fmt)) == long


def test_odd_files_say_nothing(tmp_path: Path) -> None:
    for data in (b"", b"hello", b"\x89PNG\r\n\x1a\n", encoded("JPEG", exif=b"Exif\0\0garbage")):
        assert read_metadata(data) is None
    assert read_metadata(tmp_path) is None
    assert read_metadata(tmp_path / "gone.png") is None


@given(st.sampled_from(FORMATS), st.data())
def test_reading_damaged_files_never_raises(fmt: ImageFormat, data: st.DataObject) -> None:
    damaged = bytearray(encode_image(SMALL, metadata(), fmt))
    places = st.integers(0, len(damaged) - 1)
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)):
        damaged[place] = value
    end = data.draw(places)
    assert isinstance(read_metadata(bytes(damaged[:end])), ImageMetadata | None)
    assert isinstance(read_metadata(bytes(damaged)), ImageMetadata | None)
