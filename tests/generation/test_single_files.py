"""From a single file of any family to a picture: found in its folder, told apart, loaded and run."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import CPU
from tests.model_files import write_original_layout
from webui.generation.request import GenerationRequest, Img2Img, Inpaint, MaskSpec, Sampling
from webui.generation.run import Generator
from webui.images.store import ImageStore
from webui.jobs.cancel import CancelToken
from webui.library.catalog import Library
from webui.pipeline.manager import PipelineManager

PHOTO = Image.effect_noise((64, 64), 80).convert("RGB")
MASK = Image.new("L", (64, 64), 0)
MASK.paste(255, (16, 16, 40, 40))


@pytest.mark.parametrize(
    ("family", "init"),
    [
        ("sd15-ip2p", Img2Img(image=PHOTO, strength=1.0)),
        ("sd20-inpaint", Inpaint(image=PHOTO, mask=MaskSpec(image=MASK, blur_px=0), strength=1.0)),
        ("sdxl", None),
        ("sdxl-refiner", Img2Img(image=PHOTO, strength=0.3)),
    ],
)
def test_a_file_in_its_folder_makes_pictures(tmp_path: Path, family: str, init: Img2Img | Inpaint | None) -> None:
    (tmp_path / "checkpoints").mkdir()
    write_original_layout(tmp_path / "checkpoints" / "mine.safetensors", family)
    library = Library([tmp_path], tmp_path / "cache")
    assert library.find_checkpoint("mine").family == family
    request = GenerationRequest(
        checkpoint="mine",
        prompt="a (red:1.2) cat, " * 30,
        negative_prompt="a dog",
        width=64,
        height=64,
        seed=1,
        init=init,
        sampling=Sampling(num_inference_steps=2),
    )
    generator = Generator(PipelineManager(library, CPU), ImageStore(tmp_path / "outputs"))
    (ready,) = generator.generate(request, report=lambda event: None, cancel=CancelToken())
    with Image.open(ready.path) as image:
        made = np.array(image)
    assert made.std() > 1
    if isinstance(init, Inpaint):
        outside = np.array(MASK) == 0
        assert np.array_equal(made[outside], np.array(PHOTO)[outside])
        assert not np.array_equal(made[~outside], np.array(PHOTO)[~outside])
