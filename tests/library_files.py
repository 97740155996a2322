"""Small model files of every kind, as the browser of models shows them."""

import json
from pathlib import Path

from PIL import Image

from tests.model_files import write_original_layout, write_sparse

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
CONTEXT = {"sd1": 768, "sdxl": 2048}
VERSION = {"sd1": "sd_v1", "sdxl": "sdxl_base_v1-0"}


def write_checkpoint(path: Path, family: str = "sd15") -> Path:
    """Real names and sizes, and no data: it can be identified and not run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_original_layout(path, family, small=False)


def write_lora(path: Path, *, base: str = "sd1", rank: int = 8, **metadata: str) -> Path:
    """An adapter of one layer, for "sd1" or "sdxl"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {
        f"{LAYER}.lora_down.weight": (rank, CONTEXT[base]),
        f"{LAYER}.lora_up.weight": (320 if base == "sd1" else 640, rank),
        f"{LAYER}.alpha": (),
    }
    return write_sparse(path, shapes, metadata={"ss_base_model_version": VERSION[base], **metadata})


def write_embedding(path: Path, *, width: int = 768) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_sparse(path, {"emb_params": (4, width)}, dtype="F32")


def write_vae(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {"decoder.conv_in.weight": (512, 4, 3, 3), "encoder.conv_in.weight": (128, 3, 3, 3)}
    return write_sparse(path, shapes)


def write_notes(model: Path, **notes: object) -> Path:
    path = model.with_suffix(".json")
    path.write_text(json.dumps(notes), encoding="utf-8")
    return path


def write_preview(model: Path, colour: str = "#c60") -> Path:
    path = model.with_name(f"{model.stem}.preview.png")
    Image.new("RGB", (96, 64), colour).save(path)
    return path
