import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from webui.errors import UnreadableImage
from webui.images.reading import flatten, open_image

LIMIT = 1_000_000


def encoded(image: Image.Image, fmt: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    return open_image(data, max_pixels=LIMIT)


def solid(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (8, 6), colour)


def palette_picture(transparency: bytes | int | None) -> bytes:
    """Left half index 0 (red), right half index 1 (blue)."""
    image = Image.new("P", (8, 6), 1)
    image.paste(0, (0, 0, 4, 6))
    image.putpalette([255, 0, 0, 0, 0, 255])
    options = {} if transparency is None else {"transparency": transparency}
    return encoded(image, "PNG", **options)


def opencv_png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


# Every kind of pixel that files hold: the file, then mode and value of its first and last pixel.
KINDS: dict[str, tuple[Callable[[], bytes], str, tuple[int, ...], tuple[int, ...]]] = {
    "1 bit": (lambda: encoded(solid("1", 1), "PNG"), "RGB", (255, 255, 255), (255, 255, 255)),
    "gray": (lambda: encoded(solid("L", 77), "PNG"), "RGB", (77, 77, 77), (77, 77, 77)),
    "gray with alpha": (lambda: encoded(solid("LA", (77, 30)), "PNG"), "RGBA", (77, 77, 77, 30), (77, 77, 77, 30)),
    "gray with a transparent level": (
        lambda: encoded(solid("L", 77), "PNG", transparency=77),
        "RGBA",
        (77, 77, 77, 0),
        (77, 77, 77, 0),
    ),
    "RGB with a transparent colour": (
        lambda: encoded(solid("RGB", (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        "RGBA",
        (1, 2, 3, 0),
        (1, 2, 3, 0),
    ),
    "palette": (lambda: palette_picture(None), "RGB", (255, 0, 0), (0, 0, 255)),
    "palette with a transparent index": (lambda: palette_picture(0), "RGBA", (255, 0, 0, 0), (0, 0, 255, 255)),
    "palette with alpha": (
        lambda: palette_picture(b"\x40\x80"),
        "RGBA",
        (255, 0, 0, 64),
        (0, 0, 255, 128),
    ),
    "RGBA": (lambda: encoded(solid("RGBA", (9, 8, 7, 6)), "PNG"), "RGBA", (9, 8, 7, 6), (9, 8, 7, 6)),
    "16 bit gray": (
        lambda: opencv_png(np.full((6, 8), 200 * 257, np.uint16)),
        "RGB",
        (200, 200, 200),
        (200, 200, 200),
    ),
    "16 bit RGB": (
        lambda: opencv_png(np.full((6, 8, 3), (30 * 257, 20 * 257, 10 * 257), np.uint16)),
        "RGB",
        (10, 20, 30),
        (10, 20, 30),
    ),
    "16 bit RGBA": (
        lambda: opencv_png(np.full((6, 8, 4), (30 * 257, 20 * 257, 10 * 257, 40 * 257), np.uint16)),
        "RGBA",
        (10, 20, 30, 40),
        (10, 20, 30, 40),
    ),
    "16 bit gray TIFF": (lambda: encoded(solid("I;16", 65535), "TIFF"), "RGB", (255, 255, 255), (255, 255, 255)),
    "16 bit PGM": (
        lambda: b"P5 8 6 65535\n" + np.full((6, 8), 100 * 257, ">u2").tobytes(),
        "RGB",
        (100, 100, 100),
        (100, 100, 100),
    ),
    "float TIFF": (lambda: encoded(solid("F", 0.2), "TIFF"), "RGB", (51, 51, 51), (51, 51, 51)),
    "CMYK JPEG": (lambda: encoded(solid("CMYK", (0, 255, 255, 0)), "JPEG"), "RGB", (255, 0, 0), (255, 0, 0)),
    "CMYK TIFF": (lambda: encoded(solid("CMYK", (255, 0, 255, 0)), "TIFF"), "RGB", (0, 255, 0), (0, 255, 0)),
    "BMP": (lambda: encoded(solid("RGB", (1, 2, 3)), "BMP"), "RGB", (1, 2, 3), (1, 2, 3)),
    "GIF": (lambda: encoded(solid("RGB", (0, 0, 255)), "GIF"), "RGB", (0, 0, 255), (0, 0, 255)),
    "WebP": (lambda: encoded(solid("RGB", (1, 2, 3)), "WEBP", lossless=True), "RGB", (1, 2, 3), (1, 2, 3)),
    "WebP with alpha": (
        lambda: encoded(solid("RGBA", (1, 2, 3, 4)), "WEBP", lossless=True, exact=True),
        "RGBA",
        (1, 2, 3, 4),
        (1, 2, 3, 4),
    ),
    "AVIF": (lambda: encoded(solid("RGB", (255, 255, 255)), "AVIF"), "RGB", (255, 255, 255), (255, 255, 255)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pixel_becomes_8_bit_rgb_or_rgba(kind: str) -> None:
    make, mode, first, last = KINDS[kind]
    image = opened(make())
    assert (image.mode, image.size) == (mode, (8, 6))
    assert image.getpixel((0, 0)) == first
    assert image.getpixel((7, 5)) == last


def test_a_picture_in_lab_colours_can_be_read() -> None:
    # Red of sRGB under D50: L* 54.29, a* 80.81, b* 69.89.
    red = opened(encoded(solid("LAB", (138, 209, 198)), "TIFF"))
    assert np.abs(np.asarray(red).astype(int) - (255, 0, 0)).max() <= 6


def test_all_16_bits_count_when_a_deep_gray_picture_is_rounded() -> None:
    levels = np.arange(0, 65536, 37, dtype=np.uint16)[None, :]
    expected = np.floor(levels / 65535 * 255 + 0.5)
    assert np.array_equal(np.asarray(opened(opencv_png(levels)))[..., 0], expected)


def test_a_float_picture_with_holes_and_highlights_can_be_read() -> None:
    values = np.array([[np.nan, -1.0, 0.0, 2.0, 4.0]], dtype=np.float32)
    image = opened(encoded(Image.fromarray(values), "TIFF"))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 0, 128, 255]


# EXIF 2.3, 4.6.4: which side of the scene the stored picture's first row and first column show.
FIRST_ROW_AND_COLUMN = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    row_side, column_side = FIRST_ROW_AND_COLUMN[orientation]
    stored = upright if row_side in ("top", "bottom") else upright.swapaxes(0, 1)
    stored = stored[::-1] if row_side in ("bottom", "right") else stored
    return stored[:, ::-1] if column_side in ("bottom", "right") else stored


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", FIRST_ROW_AND_COLUMN)
def test_a_photo_taken_in_any_orientation_stands_upright(orientation: int, fmt: str, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if fmt == "WEBP" else {}
    stored = Image.fromarray(np.ascontiguousarray(as_stored(np.asarray(photo), orientation)))
    image = opened(encoded(stored, fmt, exif=exif, **options))
    assert np.array_equal(np.asarray(image), np.asarray(photo))


def test_a_sideways_jpeg_from_a_phone_stands_upright(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(as_stored(np.asarray(photo), 6)))
    image = opened(encoded(stored, "JPEG", exif=exif, quality=100, subsampling=0))
    assert image.size == photo.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(photo)).max() <= 4


def test_a_damaged_exif_block_does_not_keep_a_picture_from_being_read(photo: Image.Image) -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        assert opened(encoded(photo, "JPEG", exif=exif)).size == photo.size
        assert opened(encoded(photo, "PNG", exif=exif)).size == photo.size


def icc_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 display profile with the least that makes it one."""
    header_bytes, directory = 128, struct.pack(">I", len(tags))
    offset, body = header_bytes + 4 + 12 * len(tags), b""
    for name, data in tags.items():
        directory += struct.pack(">4sII", name, offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", space, b"XYZ ").ljust(36, b"\0")
    header = (header + b"acsp").ljust(68, b"\0") + xyz(0.9642, 1.0, 0.8249)[8:]
    return header.ljust(header_bytes, b"\0") + directory + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


WHITE_D50 = xyz(0.9642, 1.0, 0.8249)

# Columns: X, Y, Z of red, green and blue, adapted to D50.
DISPLAY_P3_TO_XYZ = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB_TO_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def srgb_encoded(linear: np.ndarray) -> np.ndarray:
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def wide_gamut_profile() -> bytes:
    """Display P3's primaries with a plain gamma of 2.2."""
    columns = {
        name: xyz(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), DISPLAY_P3_TO_XYZ.T, strict=True)
    }
    curves = {name: gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")}
    return icc_profile(b"RGB ", {b"wtpt": WHITE_D50, **columns, **curves})


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_colours_of_a_wide_gamut_photo_are_converted_to_srgb(mode: str, photo: Image.Image) -> None:
    tagged = photo.convert(mode)
    if mode == "RGBA":
        tagged.putalpha(100)
    image = opened(encoded(tagged, "PNG", icc_profile=wide_gamut_profile()))
    linear = (np.asarray(photo) / 255.0) ** (round(2.2 * 256) / 256)
    expected = srgb_encoded(linear @ (np.linalg.inv(SRGB_TO_XYZ) @ DISPLAY_P3_TO_XYZ).T)
    assert image.mode == mode
    assert np.abs(np.asarray(image)[..., :3] - expected).max() < 2.5
    assert np.abs(np.asarray(image)[..., :3].astype(int) - np.asarray(photo)).max() > 20
    if mode == "RGBA":
        assert image.getchannel("A").getextrema() == (100, 100)


def test_a_palette_picture_is_converted_too() -> None:
    palette = Image.new("P", (4, 4))
    palette.putpalette([0, 255, 0])
    image = opened(encoded(palette, "PNG", icc_profile=wide_gamut_profile(), transparency=b"\x50"))
    assert image.getpixel((0, 0)) == (0, 255, 0, 0x50)
    palette.putpalette([128, 255, 128])
    red, green, _ = opened(encoded(palette, "PNG", icc_profile=wide_gamut_profile())).getpixel((0, 0))
    assert red < 110
    assert green == 255


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_gray_profile_is_honoured_in_every_depth(mode: str) -> None:
    profile = icc_profile(b"GRAY", {b"wtpt": WHITE_D50, b"kTRC": gamma(1.0)})
    ramp = np.arange(256, dtype=np.uint8)[None, :]
    image = {
        "L": lambda: Image.fromarray(ramp),
        "LA": lambda: Image.merge("LA", [Image.fromarray(ramp), Image.new("L", (256, 1), 9)]),
        "I;16": lambda: Image.fromarray(ramp.astype(np.uint16) * 257),
    }[mode]()
    result = np.asarray(opened(encoded(image, "PNG", icc_profile=profile)))
    assert np.abs(result[0, :, 0] - srgb_encoded(ramp[0] / 255.0)).max() < 1.5
    assert result.shape[2] == (4 if mode == "LA" else 3)


def test_pixels_tagged_as_srgb_are_unchanged(photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert opened(encoded(photo, "PNG", icc_profile=profile)).tobytes() == photo.tobytes()


@pytest.mark.parametrize("profile", [b"garbage", b"\0" * 200, wide_gamut_profile()[:200]])
def test_a_damaged_colour_profile_does_not_keep_a_picture_from_being_read(profile: bytes, photo: Image.Image) -> None:
    assert opened(encoded(photo, "PNG", icc_profile=profile)).tobytes() == photo.tobytes()


def test_a_profile_of_another_kind_of_colour_is_ignored() -> None:
    cmyk = encoded(solid("CMYK", (0, 255, 255, 0)), "TIFF", icc_profile=wide_gamut_profile())
    assert opened(cmyk).getpixel((0, 0)) == (255, 0, 0)


def test_no_metadata_of_the_file_is_carried_into_files_saved_later(photo: Image.Image) -> None:
    image = opened(encoded(photo, "PNG", icc_profile=wide_gamut_profile(), dpi=(300, 300)))
    again = Image.open(io.BytesIO(encoded(image, "PNG")))
    assert "icc_profile" not in again.info
    assert image.info == {}


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(fmt: str) -> None:
    frames = [solid("RGB", colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if fmt == "WEBP" else {}
    image = opened(encoded(frames[0], fmt, save_all=True, append_images=frames[1:], **options))
    assert image.getpixel((3, 3)) == (255, 0, 0)


def test_a_file_on_disk_is_read_and_can_then_be_deleted(tmp_path: Path, photo: Image.Image) -> None:
    path = tmp_path / "photo.png"
    photo.save(path)
    image = open_image(path, max_pixels=LIMIT)
    path.unlink()
    assert image.tobytes() == photo.tobytes()
    assert not hasattr(image, "fp")


def png_header(width: int, height: int) -> bytes:
    """A PNG that ends where its pixels should begin."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I4s", 1000, b"IDAT")


@pytest.mark.parametrize(("side", "million"), [(20_000, "400.0"), (9_000, "81.0"), (65_500, "4290.2")])
def test_a_huge_picture_is_refused_from_its_header(side: int, million: str) -> None:
    with pytest.raises(UnreadableImage, match=rf"'huge.png' has {million} million pixels, more than the limit of 64.0"):
        open_image(png_header(side, side), max_pixels=64_000_000, name="huge.png")


def test_a_huge_picture_is_refused_in_every_format(photo: Image.Image) -> None:
    jpeg = bytearray(encoded(photo, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 20_000, 20_000)
    bmp = bytearray(encoded(photo, "BMP"))
    bmp[18:26] = struct.pack("<ii", 20_000, 20_000)
    gif = bytearray(encoded(photo, "GIF"))
    gif[6:10] = struct.pack("<HH", 20_000, 20_000)
    webp = bytearray(encoded(photo, "WEBP", lossless=True))
    size = webp.index(b"VP8L") + 9
    # 14 bits each of width - 1 and height - 1.
    webp[size : size + 4] = struct.pack("<I", struct.unpack("<I", webp[size : size + 4])[0] | 0x0FFFFFFF)
    for data in (bytes(jpeg), bytes(bmp), bytes(gif), bytes(webp)):
        with pytest.raises(UnreadableImage, match="million pixels"):
            open_image(data, max_pixels=64_000_000)


def test_the_limit_itself_is_allowed(photo: Image.Image) -> None:
    data = encoded(photo, "PNG")
    assert open_image(data, max_pixels=96 * 64).size == photo.size
    with pytest.raises(UnreadableImage):
        open_image(data, max_pixels=96 * 64 - 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, I am a text file\n" * 50,
        b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"%PDF-1.7",
        b"PK\x03\x04",
    ],
)
def test_what_is_not_a_picture_is_named_in_the_error(data: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"'notes\.txt' is not a picture") as caught:
        open_image(data, max_pixels=LIMIT, name="notes.txt")
    assert "PNG" in caught.value.hint


def test_a_heic_photo_is_named_as_such() -> None:
    with pytest.raises(UnreadableImage, match="HEIC"):
        opened(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


def test_a_missing_file_and_a_folder_are_named_in_the_error(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(UnreadableImage, match=f"'{path.name}' cannot be read"):
            open_image(path, max_pixels=LIMIT)


def test_a_picture_without_pixels_is_refused() -> None:
    for data in (png_header(0, 10), b"P6 0 5 255\n", b"GIF89a" + bytes(7) + b";"):
        with pytest.raises(UnreadableImage):
            opened(data)


FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]


def sample_file(fmt: str) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), fmt)


SAMPLES = {fmt: sample_file(fmt) for fmt in FORMATS}


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_file_cut_off_in_its_pixels_is_refused(fmt: str) -> None:
    data = SAMPLES[fmt]
    for length in range(len(data) // 4, len(data) * 3 // 4, max(1, len(data) // 40)):
        with pytest.raises(UnreadableImage, match=r"'cut' (cannot be read|is not a picture)"):
            open_image(data[:length], max_pixels=LIMIT, name="cut")


def opened_or_refused(data: bytes) -> None:
    try:
        image = opened(data)
    except UnreadableImage as error:
        assert error.message
        assert error.hint
    else:
        assert image.mode in ("RGB", "RGBA")
        assert image.width * image.height <= LIMIT


@given(st.sampled_from(FORMATS), st.data())
def test_a_file_cut_off_anywhere_is_opened_or_refused(fmt: str, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(SAMPLES[fmt]) - 1))
    opened_or_refused(SAMPLES[fmt][:length])


@given(st.sampled_from(FORMATS), st.data())
def test_a_file_with_damaged_bytes_is_opened_or_refused(fmt: str, data: st.DataObject) -> None:
    damaged = bytearray(SAMPLES[fmt])
    # Half of the damage in the headers, where it confuses most.
    places = st.integers(0, len(damaged) - 1) | st.integers(0, min(200, len(damaged) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)):
        damaged[place] = value
    opened_or_refused(bytes(damaged))


MAGIC = [
    b"",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"P6 ",
    b"RIFF\x24\0\0\0WEBPVP8 ",
]


@given(st.sampled_from(MAGIC), st.binary(max_size=300))
def test_arbitrary_bytes_are_opened_or_refused(start: bytes, rest: bytes) -> None:
    opened_or_refused(start + rest)


def test_flatten_puts_transparent_parts_over_the_background() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (20, 20, 4), dtype=np.uint8)
    alpha = pixels[..., 3:] / 255.0
    background = np.array([0x20, 0x80, 0xFF])
    expected = pixels[..., :3] * alpha + background * (1 - alpha)
    flat = flatten(Image.fromarray(pixels), "#2080ff")
    assert flat.mode == "RGB"
    assert np.abs(np.asarray(flat) - expected).max() <= 1.0


def test_flatten_is_on_white_unless_told_and_leaves_opaque_pictures_alone(photo: Image.Image) -> None:
    assert flatten(Image.new("RGBA", (2, 2), (9, 9, 9, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert flatten(photo).tobytes() == photo.tobytes()
    assert flatten(photo.convert("RGBA")).tobytes() == photo.tobytes()
