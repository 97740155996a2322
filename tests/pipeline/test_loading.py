"""Checkpoint folders: read as diffusers reads them, refused with the reason, and read again when they change."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.conftest import CPU
from tests.models import write_checkpoint
from webui.errors import ModelNotFound, UnsupportedModel
from webui.library.catalog import Library
from webui.pipeline.manager import PipelineManager
from webui.prompt.grammar import parse_prompt


@pytest.fixture
def models(tiny_models_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may damage."""
    shutil.copytree(tiny_models_dir / "checkpoints" / "tiny", tmp_path / "checkpoints" / "tiny")
    return tmp_path


def library_of(*models_dirs: Path) -> Library:
    """As a program that has just started sees them."""
    return Library(models_dirs, models_dirs[0] / "cache")


def test_networks_equal_those_that_diffusers_loads(manager: PipelineManager, tiny_models_dir: Path) -> None:
    ours = manager.load("tiny")
    theirs = StableDiffusionPipeline.from_pretrained(
        tiny_models_dir / "checkpoints" / "tiny", torch_dtype=torch.float32, safety_checker=None
    )
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    ids = theirs.tokenizer("a red cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.inference_mode():
        assert torch.allclose(
            ours.unet(x, 10.0, encoder_hidden_states=context)[0],
            theirs.unet(x, 10.0, encoder_hidden_states=context)[0],
            atol=1e-5,
        )
        encoded = ours.text_encoder.encode(parse_prompt("a red cat"), clip_skip=0).context
        assert torch.allclose(encoded, theirs.text_encoder(ids)[0], atol=1e-5)
        latents = torch.randn(1, 4, 8, 8)
        assert torch.allclose(ours.codec.vae.decode(latents)[0], theirs.vae.decode(latents)[0], atol=1e-5)


def test_a_text_encoder_with_the_older_names_is_read(models: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = models / "checkpoints" / "tiny" / "text_encoder" / "model.safetensors"
    old = {f"text_model.{key}": value for key, value in load_file(path).items()}
    save_file(old | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, path)
    PipelineManager(library_of(models), CPU).load("tiny")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_file_that_is_cut_off_is_named(models: Path, part: str) -> None:
    path = next((models / "checkpoints" / "tiny" / part).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UnsupportedModel, match=f"{part}.*cut off"):
        PipelineManager(library_of(models), CPU).load("tiny")


def test_weights_that_do_not_fit_their_config_are_named(models: Path) -> None:
    config = models / "checkpoints" / "tiny" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"cross_attention_dim": 48}))
    with pytest.raises(UnsupportedModel, match="do not fit"):
        PipelineManager(library_of(models), CPU).load("tiny")


def test_what_cannot_be_run_is_listed_with_the_reason(models: Path) -> None:
    config = models / "checkpoints" / "tiny" / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "UNet1DModel"}))
    (info,) = library_of(models).checkpoints()
    assert "UNet1DModel" in info.problem
    with pytest.raises(UnsupportedModel, match="UNet1DModel"):
        library_of(models).find_checkpoint("tiny")


def test_single_files_and_broken_descriptions_are_listed_not_raised(models: Path) -> None:
    (models / "checkpoints" / "v1-5.safetensors").write_bytes(b"")
    (models / "checkpoints" / "tiny" / "unet" / "config.json").write_text("[not json")
    assert all(info.problem for info in library_of(models).checkpoints())


def test_an_unknown_name_brings_close_matches(models: Path) -> None:
    with pytest.raises(ModelNotFound, match="Did you mean tiny"):
        library_of(models).find_checkpoint("tinny")


def test_the_users_checkpoint_comes_before_a_shipped_one_of_the_same_name(models: Path, tmp_path: Path) -> None:
    other = tmp_path / "shipped"
    shutil.copytree(models / "checkpoints" / "tiny", other / "checkpoints" / "tiny")
    assert library_of(models, other).find_checkpoint("tiny").path == models / "checkpoints" / "tiny"


def test_a_checkpoint_that_was_replaced_is_read_again(models: Path) -> None:
    manager = PipelineManager(library_of(models), CPU)
    first = manager.load("tiny")
    assert manager.load("tiny") is first
    write_checkpoint(models / "checkpoints" / "tiny", seed=5)
    second = manager.load("tiny")
    assert not torch.equal(first.unet.conv_in.weight, second.unet.conv_in.weight)


def test_the_native_size_is_the_metadatas_or_the_networks(models: Path) -> None:
    folder = models / "checkpoints" / "tiny"
    assert library_of(models).find_checkpoint("tiny").native_size == 64
    (folder / "atelier.json").write_text('{"native_size": 96, "example_prompts": ["a cat"]}')
    info = library_of(models).find_checkpoint("tiny")
    assert (info.native_size, info.example_prompts) == (96, ("a cat",))
