"""Whole runs on small models of the families that are told more than a prompt, by every method: the file that comes out
is one that the program puts on the model it was trained on, layer by layer."""

from pathlib import Path

import pytest
from PIL import Image

from tests.model_files import write_original_layout
from tests.training.networks.parts import SmallModel, equal, few_blocks
from tests.training.run_helpers import make_photos, run, settings
from webui.library.catalog import Library
from webui.pipeline.adapters.reading import read_adapter
from webui.pipeline.sources import open_checkpoint

RUNS = (
    ("sd20-v", "locon"),
    ("sd20-v", "dora"),
    ("sd20-v", "loha"),
    ("sdxl", "lora"),
    ("sdxl", "pivotal"),
    ("sdxl", "oft"),
    ("sd15-inpaint", "lokr"),
    ("sd15-inpaint", "ia3"),
    ("sd15-inpaint", "embedding"),
    ("sd15-inpaint", "full"),
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("bases")
    (models / "checkpoints").mkdir()
    for family in {family for family, _ in RUNS}:
        write_original_layout(models / "checkpoints" / f"{family}.safetensors", family, sizes=few_blocks(family))
    return models


@pytest.mark.parametrize(("family", "method"), RUNS)
def test_what_comes_out_fits_the_model_that_it_was_trained_on(
    tmp_path: Path, bases: Path, family: str, method: str
) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    Image.new("L", (64, 64), 255).save(photos / "0-masklabel.png")
    library = Library([tmp_path / "models", bases], tmp_path / "cache")
    config = settings(
        photos,
        data={"trigger": "zrk", "class_word": "red", "holdout": None},
        schedule={"num_steps": 2, "save_every": 2},
        network={"method": method, "num_vectors": 2, "layers": "all", "rank": 2, "alpha": 1.0, "conv_rank": 2},
        validation={"samples": family == "sdxl" and method == "lora"},
    ).model_copy(update={"base": family})
    path = Path(run(tmp_path / "run", config, library).adapter)
    library.refresh()
    if method == "full":
        assert library.find_checkpoint(path.stem).problem == ""
        return
    (entry,) = library.files("embedding" if method == "embedding" else "adapter")
    assert entry.problem == ""
    if method == "embedding":
        return
    model = SmallModel.of(open_checkpoint(library.find_checkpoint(family)))
    assert not equal(model.with_file(path), model.answers()), "it finds all of its layers, and changes something"
    if method == "pivotal":
        (word,) = library.files("embedding")
        assert word.problem == ""
        assert {tensor.shape[0] for tensor in read_adapter(path).embeddings["zrk"].values()} == {2}
