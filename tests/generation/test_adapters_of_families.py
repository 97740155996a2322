"""Adapters on single files in half precision: found, applied to all encoders of a family, and gone to the bit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.adapter_files import attention_of, modules_of, write_adapter
from tests.conftest import CPU
from tests.model_files import write_original_layout
from webui.errors import AdapterMismatch
from webui.generation.events import Note
from webui.generation.request import GenerationRequest, Sampling
from webui.generation.run import Generator
from webui.images.store import ImageStore
from webui.jobs.cancel import CancelToken
from webui.jobs.events import JobEvent
from webui.library.catalog import Library
from webui.library.hashes import hash_file
from webui.pipeline.manager import PipelineManager

ADAPTED = ("unet", "text_encoder", "text_encoder_2")
FAMILIES = ("sd15", "sdxl")
NAMING = {"sd15": "kohya", "sdxl": "kohya-sdxl"}


class Families:
    """One small single file per family, with a LoRA for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        checkpoints = folder / "models" / "checkpoints"
        checkpoints.mkdir(parents=True)
        for family in FAMILIES:
            write_original_layout(checkpoints / f"{family}.safetensors", family)
        self.library = Library([folder / "models"], folder / "cache")
        self.managers = {
            dtype: PipelineManager(self.library, replace(CPU, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)
        }
        for seed, family in enumerate(FAMILIES):
            networks = {name: part.module for name, part in self.parts(family).items()}
            write_adapter(
                folder / "models" / "loras" / f"for-{family}.safetensors",
                modules_of(networks, attention_of),
                naming=NAMING[family],
                seed=seed,
                dtype=torch.float16,
            )

    def parts(self, family: str, dtype: torch.dtype = torch.float32) -> dict[str, object]:
        components = self.managers[dtype].load(family).components
        return {name: components[name] for name in ADAPTED if name in components}

    def weights(self, family: str, dtype: torch.dtype) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value.clone()
            for name, part in self.parts(family, dtype).items()
            for key, value in part.module.state_dict().items()  # type: ignore[attr-defined]
        }

    def make(self, family: str, prompt: str, dtype: torch.dtype = torch.float32) -> tuple[np.ndarray, str, list[str]]:
        events: list[JobEvent] = []
        request = GenerationRequest(
            checkpoint=family, prompt=prompt, width=64, height=64, seed=1, sampling=Sampling(num_inference_steps=2)
        )
        generator = Generator(self.managers[dtype], ImageStore(self.folder / "outputs"))
        (ready,) = generator.generate(request, report=events.append, cancel=CancelToken(), previews=False)
        with Image.open(ready.path) as image:
            return np.array(image), ready.infotext, [event.message for event in events if isinstance(event, Note)]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Families]:
    made = Families(tmp_path_factory.mktemp("families"))
    yield made
    made.library.close()


@pytest.mark.parametrize(("family", "dtype"), [("sd15", torch.bfloat16), ("sdxl", torch.float32)])
def test_a_lora_changes_every_network_and_leaves_no_trace(families: Families, family: str, dtype: torch.dtype) -> None:
    base, _, _ = families.make(family, "a red cat", dtype)
    before = families.weights(family, dtype)
    changed, infotext, notes = families.make(family, f"a red cat<lora:for-{family}:0.7>", dtype)
    assert not np.array_equal(changed, base)
    assert notes == []
    after = families.weights(family, dtype)
    touched = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert touched == set(families.parts(family, dtype))
    count = sum(part.patches.num_writes for part in families.parts(family, dtype).values())  # type: ignore[attr-defined]
    assert f"Lora layers: for-{family} {count}/{count}" in infotext
    again, _, _ = families.make(family, "a red cat", dtype)
    assert np.array_equal(again, base)
    assert all(torch.equal(value, before[name]) for name, value in families.weights(family, dtype).items())


@pytest.mark.parametrize(("checkpoint", "adapter"), [("sd15", "sdxl"), ("sdxl", "sd15")])
def test_a_lora_for_another_family_is_refused_by_name(families: Families, checkpoint: str, adapter: str) -> None:
    before = families.weights(checkpoint, torch.float32)
    with pytest.raises(AdapterMismatch, match=f"'for-{adapter}'"):
        families.make(checkpoint, f"a red cat<lora:for-{checkpoint}:1><lora:for-{adapter}:1>")
    assert all(torch.equal(value, before[name]) for name, value in families.weights(checkpoint, torch.float32).items())


def test_the_pair_of_an_sdxl_textual_inversion_enters_both_encoders(families: Families) -> None:
    encoders = families.managers[torch.float32].load("sdxl").text_encoder.encoders
    ids = encoders[0].tokenizer.encode("red cat")
    rows = [
        encoder.model.get_input_embeddings().weight[ids].clone().contiguous()  # type: ignore[operator]
        for encoder in encoders
    ]
    folder = families.folder / "models" / "embeddings"
    folder.mkdir()
    save_file({"clip_l": rows[0], "clip_g": rows[1]}, folder / "redcat.safetensors")
    save_file({"emb_params": rows[0].clone()}, folder / "half.safetensors")
    families.library.refresh()
    (file,) = [file for file in families.library.embeddings() if file.name == "redcat"]
    families.library._index.learn_hashes(file.stamp, hash_file(file.path))
    expected, _, _ = families.make("sdxl", "a red cat here")
    found, infotext, notes = families.make("sdxl", "a RedCat here")
    assert np.array_equal(found, expected)
    assert 'TI hashes: "redcat: ' in infotext
    assert notes == []
    _, _, notes = families.make("sdxl", "a half here")
    assert "'half' was left as text" in notes[0]
