"""The VAE is a choice: the checkpoint's own, the one beside it, or a file; and every picture says which."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CPU
from tests.model_files import write_diffusers_file, write_original_layout
from webui.errors import ModelNotFound, UnsupportedModel
from webui.generation.events import ImageReady
from webui.generation.request import GenerationRequest, Sampling
from webui.generation.run import Generator
from webui.images.store import ImageStore
from webui.jobs.cancel import CancelToken
from webui.library.catalog import Library
from webui.pipeline.manager import PipelineManager

Make = Callable[..., ImageReady]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, one without an autoencoder, and an autoencoder."""
    models = tmp_path_factory.mktemp("models")
    for folder in ("checkpoints", "vae"):
        (models / folder).mkdir()
    write_original_layout(models / "checkpoints" / "whole.safetensors", dtype="F32")
    write_original_layout(models / "checkpoints" / "bare.safetensors", dtype="F32", vae=False)
    write_diffusers_file(models / "vae" / "other.safetensors", components=("vae",), bare=True, dtype="F32", seed=5)
    return models


@pytest.fixture
def models(shipped: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shipped, tmp_path / "models")


@pytest.fixture
def make(models: Path, tmp_path: Path) -> Make:
    library = Library([models], tmp_path / "cache")
    sums = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in models.rglob("*.safetensors")}
    library.sha256_of = sums.get  # type: ignore[method-assign]
    generator = Generator(PipelineManager(library, CPU), ImageStore(tmp_path / "outputs"))

    def make(checkpoint: str, vae: str) -> ImageReady:
        library.refresh()
        request = GenerationRequest(
            checkpoint=checkpoint,
            vae=vae,
            width=64,
            height=64,
            seed=1,
            sampling=Sampling(num_inference_steps=1, guidance_scale=1.0),
        )
        return generator.generate(request, report=lambda event: None, cancel=CancelToken(), previews=False)[0]

    return make


def pixels(ready: ImageReady) -> np.ndarray:
    with Image.open(ready.path) as image:
        return np.array(image)


def test_a_chosen_vae_decodes_the_picture_and_is_named_in_it(make: Make, models: Path) -> None:
    own, other = make("whole", "None"), make("whole", "other")
    assert np.array_equal(pixels(own), pixels(make("whole", "Automatic")))
    assert not np.array_equal(pixels(own), pixels(other))
    short = hashlib.sha256((models / "vae" / "other.safetensors").read_bytes()).hexdigest()[:10]
    assert f"VAE hash: {short}, VAE: other.safetensors" in other.infotext
    whole = hashlib.sha256((models / "checkpoints" / "whole.safetensors").read_bytes()).hexdigest()[:10]
    assert f"Model hash: {whole}, Model: whole" in own.infotext
    assert "VAE hash" not in own.infotext


def test_automatic_takes_the_vae_beside_the_checkpoint(make: Make, models: Path) -> None:
    chosen = make("whole", "other")
    shutil.copy(models / "vae" / "other.safetensors", models / "checkpoints" / "whole.vae.safetensors")
    automatic = make("whole", "Automatic")
    assert np.array_equal(pixels(automatic), pixels(chosen))
    assert "VAE: whole.vae.safetensors" in automatic.infotext
    assert not np.array_equal(pixels(make("whole", "None")), pixels(chosen))


def test_a_checkpoint_without_an_autoencoder_runs_with_a_chosen_one(make: Make) -> None:
    with pytest.raises(UnsupportedModel, match="Choose a VAE"):
        make("bare", "Automatic")
    assert "VAE: other.safetensors" in make("bare", "other").infotext


def test_a_vae_that_is_not_there_brings_close_matches(make: Make) -> None:
    with pytest.raises(ModelNotFound, match="Did you mean other"):
        make("whole", "othr")
