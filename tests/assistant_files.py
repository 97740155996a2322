"""Captioners and maskers as their makers lay them out: small networks whose result is easily computed otherwise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import helper

from tests.onnx_files import Dims, port, write

TAGS = (
    ("general", 9),
    ("explicit", 9),
    ("1girl", 0),
    ("long_hair", 0),
    ("o_o", 0),
    ("red_background", 0),
    ("hatsune_miku", 4),
    ("saber_(fate)", 4),
)
"""Names and categories of a tagger's list."""
WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]"),
    *("a", "the", "photo", "of", "red", "blue", "dog", "cat", "on", "grass", "sky", "with", "hat"),
)
POOL = 64
"""The tagger sees the means of squares of so many pixels."""


def tagger_weights(num_tags: int, side: int, seed: int = 5) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(values, tags) and (tags,), so that the probabilities of pictures lie between 0 and 1 and differ."""
    random = np.random.default_rng(seed)
    num_values = 3 * (side // POOL) ** 2
    return (
        (random.normal(0, 1, (num_values, num_tags)) / 255).astype(np.float32),
        random.normal(0, 0.5, num_tags).astype(np.float32),
    )


def write_tags(path: Path, tags: Sequence[tuple[str, int]] = TAGS) -> Path:
    lines = ["tag_id,name,category,count", *(f"{i},{name},{category},9" for i, (name, category) in enumerate(tags))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_tagger(
    path: Path, *, num_tags: int = len(TAGS), side: int = 448, batch: Any = "N", logits: bool = False
) -> Path:
    """wd-vit-tagger-v3's ports: (N, 448, 448, 3), colours last, to (N, tags)."""
    weights, bias = tagger_weights(num_tags, side)
    nodes = [
        helper.make_node("Transpose", ["input"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["pooled"], kernel_shape=[POOL] * 2, strides=[POOL] * 2),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["output" if logits else "logits"]),
    ]
    nodes += [] if logits else [helper.make_node("Sigmoid", ["logits"], ["output"])]
    outputs = [port("output", [batch, num_tags])]
    return write(path, nodes, [port("input", [batch, side, side, 3])], outputs, {"w": weights, "b": bias})


def write_masker(
    path: Path,
    *,
    dims: Dims = (1, 3, 320, 320),
    num_outputs: int = 7,
    logits: bool = False,
    gain: float = 8.0,
    offset: float = 0.0,
) -> Path:
    """U2-Net's ports: a picture to seven maps, the first of which counts. What is redder than green is the subject."""
    weights = {
        "w": (gain * np.array([1, -1, 0], np.float32)).reshape(1, 3, 1, 1),
        "b": np.array([offset - gain * 0.7], np.float32),
        "nothing": np.array(0, np.float32),
    }
    map_dims = [1, 1, *dims[2:]]
    nodes = [helper.make_node("Conv", ["img", "w", "b"], ["d0" if logits else "logits"])]
    nodes += [] if logits else [helper.make_node("Sigmoid", ["logits"], ["d0"])]
    nodes += [helper.make_node("Mul", ["d0", "nothing"], [f"d{i}"]) for i in range(1, num_outputs)]
    outputs = [port(f"d{i}", map_dims) for i in range(num_outputs)]
    return write(path, nodes, [port("img", dims)], outputs, weights)


def write_blip(folder: Path, *, seed: int = 6) -> Path:
    """Salesforce/blip-image-captioning-base in small, with random weights, as save_pretrained writes it."""
    import transformers
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS), encoding="utf-8")
    transformers.logging.disable_progress_bar()
    tokenizer = BertTokenizer(vocab=str(vocabulary), additional_special_tokens=["[DEC]", "[ENC]"])
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 64,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
        "initializer_range": 1.0,
    }
    vision = {"image_size": 32, "patch_size": 8, "initializer_range": 1.0}
    config = BlipConfig(text_config={**sizes, **text}, vision_config={**sizes, **vision}, initializer_range=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder
