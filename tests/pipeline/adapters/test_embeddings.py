"""Textual inversions in every form they are passed around in."""

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file
from torch import Tensor

from webui.errors import UnsupportedModel
from webui.pipeline.adapters.embeddings import Embedding, EmbeddingTable, read_embedding
from webui.prompt.chunks import Chunk, EmbeddingUse

VECTORS = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
OTHER = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))
SD, SDXL, REFINER = ("text_encoder",), ("text_encoder", "text_encoder_2"), ("text_encoder_2",)


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def as_json(vectors: Tensor) -> bytes:
    content = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": {"TORCHTENSOR": vectors.tolist()}},
        "name": "inner name",
        "step": 100,
    }
    return json.dumps(content).encode()


def write_png_text(path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("sd-ti-embedding", base64.b64encode(as_json(VECTORS)).decode())
    Image.new("RGB", (64, 96), (200, 10, 10)).save(path, pnginfo=info)


def write_card(path: Path, *, frame_px: int = 0) -> None:
    """A picture between two strips, as the field's programs save it, with noise in the bits that carry nothing."""
    rng = np.random.default_rng(0)
    height = 96
    data = np.frombuffer(zlib.compress(as_json(VECTORS), 9), np.uint8)
    size = -(-len(data) // (height * 3)) * height * 3
    whole = np.resize(data, size).reshape(height, -1, 3)
    state, mixed = 0, []
    for _ in range(size):
        state = (1664525 * state + 1013904223) & 0xFFFFFFFF
        mixed.append((state % 255) & 15)
    stream = np.array(mixed, np.uint8).reshape(whole.shape)
    noise = rng.integers(1, 16, (2, *whole.shape), dtype=np.uint8) << 4
    low, high = (whole & 15) ^ stream | noise[0], (whole >> 4) ^ stream | noise[1]
    card = rng.integers(1, 256, (height, 50, 3), dtype=np.uint8)
    card[:, 20:30] = 0
    black = np.zeros((height, 1, 3), np.uint8)
    pixels = np.concatenate([low, black, card, black, high], axis=1)
    pixels = np.pad(pixels, ((frame_px, frame_px), (frame_px, frame_px), (0, 0)))
    Image.fromarray(pixels).save(path, lossless=True)


WRITERS: dict[str, Callable[[Path], None]] = {
    "kohya.safetensors": lambda path: save_file({"emb_params": VECTORS}, path),
    "half.safetensors": lambda path: save_file({"emb_params": VECTORS.half()}, path),
    "diffusers.safetensors": lambda path: save_file({"<cat>": VECTORS}, path),
    "diffusers.bin": lambda path: torch.save({"<cat>": VECTORS}, path),
    "a1111.pt": lambda path: torch.save(
        {"string_to_param": {"*": VECTORS}, "name": "x", "step": 9, "sd_checkpoint": None}, path
    ),
    "parameter.pt": lambda path: torch.save({"string_to_param": {"*": torch.nn.Parameter(VECTORS)}}, path),
    "old.pt": lambda path: torch.save(
        {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": torch.nn.ParameterDict({"*": VECTORS})}, path
    ),
    "text.png": write_png_text,
    "card.png": write_card,
    "card.webp": write_card,
    "framed.png": lambda path: write_card(path, frame_px=5),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_holds_the_same_vectors(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    embedding = read_embedding(tmp_path / name)
    assert embedding.name == Path(name).stem
    assert embedding.num_vectors == 3
    assert torch.allclose(embedding.parts["*"], VECTORS, atol=1e-3 if name.startswith("half") else 0)


def test_one_vector_may_come_without_its_first_axis(tmp_path: Path) -> None:
    torch.save({"<cat>": VECTORS[0]}, tmp_path / "cat.bin")
    assert torch.equal(read_embedding(tmp_path / "cat.bin").parts["*"], VECTORS[:1])


def test_pairs_of_sdxl_keep_their_parts(tmp_path: Path) -> None:
    save_file({"clip_l": VECTORS, "clip_g": OTHER}, tmp_path / "pair.safetensors")
    embedding = read_embedding(tmp_path / "pair.safetensors")
    assert torch.equal(embedding.parts["clip_l"], VECTORS)
    assert torch.equal(embedding.parts["clip_g"], OTHER)


def write_picture_with(noise: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        info = PngImagePlugin.PngInfo()
        if noise:
            info.add_text("sd-ti-embedding", noise)
        Image.effect_noise((64, 64), 90).convert("RGB").save(path, pnginfo=info)

    return write


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "code.pt": (lambda path: torch.save({"string_to_param": RunsCode()}, path), "more than weights"),
    "empty.pt": (lambda path: torch.save({"string_to_param": {}}, path), "no textual inversion"),
    "list.pt": (lambda path: torch.save([VECTORS], path), "holds a list"),
    "two.safetensors": (lambda path: save_file({"<a>": VECTORS, "<b>": VECTORS.clone()}, path), "holds 2 sets"),
    "nan.safetensors": (lambda path: save_file({"emb_params": VECTORS * torch.nan}, path), "NaN"),
    "shape.safetensors": (lambda path: save_file({"emb_params": torch.zeros(2, 2, 2)}, path), r"shape \[2, 2, 2\]"),
    "uneven.safetensors": (
        lambda path: save_file({"clip_l": VECTORS, "clip_g": OTHER[:2]}, path),
        "parts have 3 and 2 vectors",
    ),
    "text.pt": (lambda path: torch.save({"clip_g": "x", "clip_l": VECTORS}, path), "clip_g is a str"),
    "cut.safetensors": (lambda path: path.write_bytes(b"\x00" * 20), "cannot be read"),
    "photo.png": (write_picture_with(""), "without a textual inversion"),
    "garbage.png": (write_picture_with("no base64!"), "without a textual inversion"),
    "wrong.png": (write_picture_with(base64.b64encode(b"[1").decode()), "damaged"),
    "list.png": (write_picture_with(base64.b64encode(b"[1]").decode()), "damaged"),
    "text.webp": (lambda path: path.write_text("hello"), "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_file_is_said(name: str, tmp_path: Path) -> None:
    write, message = BROKEN[name]
    write(tmp_path / name)
    with pytest.raises(UnsupportedModel, match=message):
        read_embedding(tmp_path / name)


def test_an_embedding_fits_only_encoders_of_its_widths() -> None:
    single = Embedding(name="a", key="a", parts={"*": VECTORS})
    pair = Embedding(name="b", key="b", parts={"clip_l": VECTORS, "clip_g": OTHER})
    sd, sdxl, refiner = {"text_encoder": 8}, {"text_encoder": 8, "text_encoder_2": 12}, {"text_encoder_2": 12}
    assert single.problem_with(sd) == ""
    assert pair.problem_with(sdxl) == ""
    assert pair.problem_with(refiner) == ""
    assert single.problem_with({"text_encoder": 16}) == "it has vectors of width 8, and this checkpoint takes 16"
    assert "width 8 and 12" in pair.problem_with(sd), "an SDXL pair is not for SD, though its first half would fit"
    assert "width 8, and this checkpoint takes 8 and 12" in single.problem_with(sdxl)
    long = Embedding(name="c", key="c", parts={"*": torch.zeros(76, 8)})
    assert "76 vectors" in long.problem_with(sd)


def test_vectors_take_the_places_of_their_tokens_and_no_others() -> None:
    embeddings = [
        Embedding(name="a", key="a", parts={"clip_l": VECTORS, "clip_g": OTHER}),
        Embedding(name="b", key="b", parts={"clip_l": VECTORS[:1] * 2, "clip_g": OTHER[:1] * 2}),
    ]
    table = EmbeddingTable(embeddings, SDXL)
    chunk = Chunk((5, 0, 0, 0, 7, 0), (1.0,) * 6, (EmbeddingUse(1, "a", 3), EmbeddingUse(5, "b", 1)))
    embedded = torch.randn(1, 77, 12, generator=torch.Generator().manual_seed(3))
    replaced = table.insert("text_encoder_2", chunk, embedded)
    expected = embedded.clone()
    expected[0, 2:5] = OTHER
    expected[0, 6:7] = OTHER[:1] * 2
    assert torch.equal(replaced, expected)
    plain = Chunk((5,), (1.0,))
    assert table.insert("text_encoder", plain, embedded) is embedded
