"""Tool requests from names to files that the program itself can use."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adapter_files import write_adapter
from tests.model_files import write_original_layout
from webui.errors import InvalidRequest, ModelNotFound, StorageError, UnsupportedModel
from webui.library.catalog import Library
from webui.library.header import read_header
from webui.library.identify import identify
from webui.library.tool_models import ToolModels
from webui.library.tool_requests import (
    Bake,
    Convert,
    Extract,
    Merge,
    MergeLoras,
    Resize,
    ToolRequest,
    WeightedLora,
)
from webui.pipeline.sources import open_checkpoint
from webui.pipeline.tools.run import run_tool

Run = Callable[[ToolRequest], Path]
LAYER = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    for folder in ("checkpoints", "loras"):
        (models / folder).mkdir()
    for seed, name in enumerate(("first", "second", "third")):
        write_original_layout(models / "checkpoints" / f"{name}.safetensors", seed=seed)
    width = read_header(models / "checkpoints" / "first.safetensors").tensors[
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    ]
    for seed, name in enumerate(("ink", "wash")):
        metadata = {"ss_base_model_version": "sd_v1", "ss_v2": "False"}
        write_adapter(
            models / "loras" / f"{name}.safetensors", {LAYER: width.shape}, seed=seed, rank=8, metadata=metadata
        )
    return models


@pytest.fixture
def library(models: Path, tmp_path: Path) -> Iterator[Library]:
    library = Library([models], tmp_path)
    yield library
    library.close()


@pytest.fixture
def run(library: Library) -> Run:
    """As on the command line, where paths are names too."""
    return lambda request: run_tool(request, ToolModels(library=library, anywhere=True))


def test_a_merged_checkpoint_is_in_the_list_and_says_how_it_was_made(run: Run, library: Library) -> None:
    path = run(Merge(a="first", b="second", destination="mixed.safetensors", multiplier=0.25))
    assert identify(path).dtype == "F16"
    library.refresh()
    info = library.find_checkpoint("mixed")
    assert open_checkpoint(info).component("unet") is not None
    metadata = read_header(path).metadata
    recipe, models = json.loads(metadata["sd_merge_recipe"]), json.loads(metadata["sd_merge_models"])
    assert (recipe["interp_method"], recipe["multiplier"]) == ("Weighted sum", 0.25)
    assert models[recipe["primary_model_hash"]]["name"] == "first.safetensors"
    assert models[recipe["secondary_model_hash"]]["name"] == "second.safetensors"


def test_a_checkpoint_is_converted_by_its_path_too(run: Run, library: Library, models: Path, tmp_path: Path) -> None:
    source = str(models / "checkpoints" / "first.safetensors")
    folder = run(Convert(source=source, destination=str(tmp_path / "out"), to="diffusers"))
    assert folder == tmp_path / "out"
    assert identify(folder).family == identify(Path(source)).family


def test_a_converted_model_still_says_how_it_was_made(run: Run, tmp_path: Path) -> None:
    merged = run(Merge(a="first", b="second", destination=str(tmp_path / "m.safetensors")))
    folder = run(Convert(source=str(merged), destination=str(tmp_path / "folder"), to="diffusers"))
    again = run(Convert(source=str(folder), destination=str(tmp_path / "again.safetensors")))
    before, after = read_header(merged).metadata, read_header(again).metadata
    assert after["sd_merge_recipe"] == before["sd_merge_recipe"]
    assert after["sd_merge_models"] == before["sd_merge_models"]


def test_another_autoencoder_is_put_in(run: Run, library: Library, models: Path, tmp_path: Path) -> None:
    other = str(models / "checkpoints" / "second.safetensors")
    path = run(Convert(source="first", destination=str(tmp_path / "a.safetensors"), vae=other))
    parts = {info.name: open_checkpoint(info) for info in library.checkpoints()}
    name = "decoder.conv_in.weight"
    wanted = parts["second"].component("vae")
    ours = open_checkpoint(library.find_checkpoint("first").__class__(name="a", title="a", path=path)).component("vae")
    assert wanted is not None and ours is not None
    assert ours.tensor(name).equal(wanted.tensor(name))


def test_what_was_baked_can_be_extracted_and_found_by_its_name(run: Run, library: Library, tmp_path: Path) -> None:
    baked = run(
        Bake(
            checkpoint="first",
            loras=(WeightedLora(name="ink", unet_weight=0.5),),
            destination=str(tmp_path / "b.safetensors"),
            precision="fp32",
        )
    )
    assert "<lora:ink:0.5:0.5>" in read_header(baked).metadata["atelier.baked"]
    run(Extract(base="first", tuned=str(baked), destination="found.safetensors", rank=8))
    library.refresh()
    facts = library.find_adapter("found").facts
    assert (facts.adapter_types, facts.rank, facts.adapter_base) == (("lora",), 8, "sd1")


def test_loras_are_resized_and_merged_with_their_metadata(run: Run, library: Library, tmp_path: Path) -> None:
    small = run(Resize(lora="ink", destination=str(tmp_path / "s.safetensors"), rank=2))
    both = run(
        MergeLoras(
            loras=(WeightedLora(name="ink"), WeightedLora(name="wash", unet_weight=-0.5)),
            destination=str(tmp_path / "m.safetensors"),
        )
    )
    assert read_header(small).metadata["ss_network_dim"] == "2"
    assert read_header(small).metadata["ss_base_model_version"] == "sd_v1"
    assert identify(both).rank == 16


def test_wrong_requests_say_what_is_wrong_and_leave_nothing(
    run: Run, library: Library, models: Path, tmp_path: Path
) -> None:
    before = sorted(models.rglob("*"))
    with pytest.raises(ModelNotFound, match="'frist'") as caught:
        run(Merge(a="frist", b="second", destination="x.safetensors"))
    assert "first" in caught.value.close_matches
    with pytest.raises(StorageError, match="there already"):
        run(Convert(source="first", destination="second.safetensors"))
    with pytest.raises(InvalidRequest, match=r"\.safetensors"):
        run(Resize(lora="ink", destination="small"))
    with pytest.raises(UnsupportedModel):
        run(Convert(source=str(models / "loras" / "ink.safetensors"), destination="y.safetensors"))
    assert sorted(models.rglob("*")) == before
