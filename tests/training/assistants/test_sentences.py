"""Networks that write sentences: what transformers itself says of a picture, and nothing where a weight is missing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.assistant_files import write_blip
from tests.training.assistants.conftest import noisy_picture
from webui.errors import UnsupportedModel
from webui.training.assistants.sentences import BEAMS, MAX_TOKENS, SentenceWriter


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blip(tmp_path_factory.mktemp("captioners") / "blip")


def test_it_says_what_transformers_says_and_the_same_each_time(blip: Path) -> None:
    from transformers import BlipForConditionalGeneration, BlipProcessor

    writer = SentenceWriter(blip)
    processor = BlipProcessor.from_pretrained(blip)
    model = BlipForConditionalGeneration.from_pretrained(blip).eval()
    said = []
    for seed in range(2):
        image = noisy_picture(seed)
        with torch.no_grad():
            inputs = processor(image, return_tensors="pt")
            tokens = model.generate(**inputs, num_beams=BEAMS, max_new_tokens=MAX_TOKENS)
        wanted = " ".join(processor.decode(tokens[0], skip_special_tokens=True).split())
        assert writer.caption(image) == wanted != ""
        said.append(wanted)
    assert said[0] != said[1], "pictures differ in what is said of them"
    assert writer.caption(noisy_picture(1)) == said[1]


def test_a_folder_that_lacks_a_weight_is_refused_instead_of_filled_with_chance(blip: Path, tmp_path: Path) -> None:
    folder = write_blip(tmp_path / "blip")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("query.weight"))
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModel, match=f"1 of its weights are missing or of another shape, such as {name}"):
        SentenceWriter(folder)


def test_a_folder_that_transformers_cannot_open_is_named_without_its_path(tmp_path: Path) -> None:
    folder = write_blip(tmp_path / "blip")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "vocab.txt").unlink()
    with pytest.raises(UnsupportedModel, match="'blip' cannot be used: transformers cannot open it") as caught:
        SentenceWriter(folder)
    assert str(tmp_path) not in caught.value.message
