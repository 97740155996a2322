from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from webui.errors import StorageError
from webui.prompt.chunks import Chunk, EmbeddingUse
from webui.training.caching import TensorCache, latent_key, text_key, weights_digest


class Maker:
    """Another number each time it is asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> dict[str, Tensor]:
        self.count += 1
        return {"latent": torch.full((2, 3), float(self.count)), "scalar": torch.tensor(1.5, dtype=torch.bfloat16)}


@pytest.mark.parametrize(("where", "made"), [("memory", 1), ("disk", 1), ("off", 2)])
def test_what_was_made_is_given_again(where: str, made: int, tmp_path: Path) -> None:
    cache, make = TensorCache(where, tmp_path), Maker()  # type: ignore[arg-type]
    first, second = cache.get("a", make), cache.get("a", make)
    assert make.count == made
    assert first["scalar"].dtype == torch.bfloat16
    assert torch.equal(second["latent"], torch.full((2, 3), float(made)))
    assert cache.get("b", make)["latent"][0, 0] == made + 1


def test_what_is_on_disk_is_there_for_the_next_run_and_in_memory_it_is_not(tmp_path: Path) -> None:
    make = Maker()
    TensorCache("disk", tmp_path).get("a", make)
    TensorCache("disk", tmp_path).get("a", make)
    assert make.count == 1
    TensorCache("memory", tmp_path).get("a", make)
    TensorCache("memory", tmp_path).get("a", make)
    assert make.count == 3
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".safetensors"]


@pytest.mark.parametrize("damage", ["empty", "cut off", "a flipped bit", "of another key", "no file of ours"])
def test_a_damaged_file_is_made_again(damage: str, tmp_path: Path) -> None:
    cache, make = TensorCache("disk", tmp_path), Maker()
    cache.get("a", make)
    cache.get("other", Maker())
    path = cache.path("a")
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(
        {
            "empty": b"",
            "cut off": path.read_bytes()[:-5],
            "a flipped bit": bytes(data),
            "of another key": cache.path("other").read_bytes(),
            "no file of ours": b"hello" * 40,
        }[damage]
    )
    assert cache.get("a", make)["latent"][0, 0] == 2.0
    assert TensorCache("disk", tmp_path).get("a", make)["latent"][0, 0] == 2.0
    assert make.count == 2


def test_a_folder_that_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"data\.cache to memory"):
        TensorCache("disk", tmp_path / "file").get("a", Maker())


@pytest.mark.parametrize("where", ["memory", "disk", "off"])
def test_what_was_made_in_inference_mode_can_be_trained_with(where: str, tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(3))

    def make() -> dict[str, Tensor]:
        return {"latent": torch.ones(3) * 2}

    with torch.inference_mode():
        cached = TensorCache(where, tmp_path).get("a", make)  # type: ignore[arg-type]
    (cached["latent"] * weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [2.0, 2.0, 2.0]


def test_keys_tell_everything_apart_that_changes_what_is_encoded() -> None:
    def key(**more: object) -> str:
        said = {"content": "c", "area": (0.0, 0.0, 8.0, 8.0), "size": (8, 8), "flipped": False, "encoder": "v", **more}
        return latent_key(**said)  # type: ignore[arg-type]

    others = [{"content": "d"}, {"area": (0.0, 0.5, 8.0, 8.5)}, {"size": (8, 16)}, {"flipped": True}, {"encoder": "w"}]
    assert len({key(), *(key(**other) for other in others)}) == 6

    def text(*token_ids: int, **more: object) -> str:
        said = {"clip_skip": 0, "encoders": "e", "computed_in": "float32", **more}
        return text_key([Chunk(token_ids, (1.0,) * len(token_ids))], **said)  # type: ignore[arg-type]

    other_texts = [{"clip_skip": 1}, {"encoders": "f"}, {"computed_in": "bfloat16"}]
    word = Chunk((0,), (1.0,), (EmbeddingUse(0, "a word", 1),))
    with_word = text_key([word], clip_skip=0, encoders="e", computed_in="float32")
    assert len({text(1, 2), text(12), text(0), with_word, *(text(1, 2, **other) for other in other_texts)}) == 7


def test_no_more_than_asked_for_stays_in_memory_and_what_is_passing_makes_no_file(tmp_path: Path) -> None:
    cache, make = TensorCache("disk", tmp_path, most=2), Maker()
    for key in ("a", "b", "a", "c", "a"):
        cache.get(key, make, passing=True)
    assert make.count == 3
    cache.get("b", make, passing=True)
    assert make.count == 4, "it was used least lately"
    assert list(tmp_path.iterdir()) == []
    off = TensorCache("off", tmp_path, most=2)
    assert [off.get("a", make, passing=True)["latent"][0, 0] for _ in range(2)] == [5.0, 6.0]


def test_the_digest_of_weights_tells_each_of_them() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    before = weights_digest(module)
    assert weights_digest(module) == before
    with torch.no_grad():
        module[1].bias[1] += 1e-6
    assert weights_digest(module) != before
    assert weights_digest(module.half()) != weights_digest(module.float())
