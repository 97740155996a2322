"""A TAESD in `models/vae_approx` decodes the previews of the checkpoints whose latents it knows."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from tests.conftest import CPU
from tests.model_files import write_original_layout
from webui.library.catalog import Library
from webui.library.families import FAMILIES
from webui.pipeline import manager as manager_module
from webui.pipeline.manager import TINY_DECODERS, PipelineManager


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkpoint, which for this test counts as one with Stable Diffusion's latents."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "vae_approx").mkdir()
    write_original_layout(tmp_path / "checkpoints" / "one.safetensors")
    monkeypatch.setattr(manager_module, "TINY_DECODERS", {"sd-custom": "taesd"})
    return tmp_path


def test_previews_are_decoded_by_the_tiny_decoder_as_soon_as_it_is_there(models: Path) -> None:
    manager = PipelineManager(Library([models], models / "cache"), CPU)
    assert "tiny_decoder" not in manager.load("one").components
    torch.manual_seed(0)
    tiny = AutoencoderTiny().eval()
    save_file(tiny.state_dict(), models / "vae_approx" / "taesd.safetensors")
    module = manager.load("one").components["tiny_decoder"].module
    latents = torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        assert torch.equal(module.decode(latents).sample, tiny.decode(latents).sample)


@pytest.mark.parametrize("body", [b"<html>", b""])
def test_a_damaged_tiny_decoder_keeps_no_checkpoint_from_running(
    models: Path, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    (models / "vae_approx" / "taesd.safetensors").write_bytes(body)
    model = PipelineManager(Library([models], models / "cache"), CPU).load("one")
    assert "tiny_decoder" not in model.components
    assert "without the tiny decoder" in caplog.text


def test_each_family_gets_the_decoder_of_its_latents() -> None:
    names = {family.id: TINY_DECODERS.get(family.adapter_base) for family in FAMILIES.values()}
    assert names["sd15-inpaint"] == names["sd20-v"] == "taesd"
    assert names["sdxl"] == names["sdxl-refiner"] == "taesdxl"
    assert names["sd-custom"] is None
