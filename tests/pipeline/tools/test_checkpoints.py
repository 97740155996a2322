"""Converting and merging: the weights that come out, by what went in and by float64 formulas."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model_files import info_of, write_folder, write_original_layout
from webui.errors import InvalidRequest, StorageError, UnsupportedModel
from webui.library.header import read_header
from webui.library.identify import identify
from webui.pipeline.sources import open_checkpoint
from webui.pipeline.tools.checkpoints import CheckpointParts, parts_of, write_checkpoint
from webui.pipeline.tools.merging import MergeRecipe, blocks_in_order, merge, unet_blocks

WHOLE = ["sd15", "sd20", "sdxl", "sdxl-refiner"]
LOST = ("model.transformer.resblocks.2.", "logit_scale", "text_projection", "position_ids", "model_ema")
"""What networks run without and diffusers' folders do not have: of SD 2's text encoder, the last layer."""


def opened(path: Path, family: str) -> CheckpointParts:
    return parts_of(open_checkpoint(info_of(path, family)))


def convert(source: Path, family: str, destination: Path, layout: str, precision: str = "keep") -> Path:
    write_checkpoint(
        opened(source, family),
        destination,
        layout=layout,
        precision=precision,
        metadata={"made": "here"},  # type: ignore[arg-type]
    )
    return destination


@pytest.mark.parametrize("family", WHOLE)
def test_a_file_converted_to_a_folder_and_back_has_its_weights_to_the_bit(tmp_path: Path, family: str) -> None:
    original = write_original_layout(tmp_path / "a.safetensors", family)
    folder = convert(original, family, tmp_path / "folder", "diffusers")
    back = convert(folder, family, tmp_path / "b.safetensors", "single-file")
    before, after = load_file(original), load_file(back)
    missing = {name for name in before.keys() - after.keys() if not any(part in name for part in LOST)}
    assert missing == set()
    assert after.keys() <= before.keys()
    for name, value in after.items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_diffusers_opens_the_folder_with_the_same_weights(tmp_path: Path, family: str) -> None:
    from diffusers import DiffusionPipeline

    original = write_original_layout(tmp_path / "a.safetensors", family, dtype="F32")
    folder = convert(original, family, tmp_path / "folder", "diffusers")
    oracle = write_folder(tmp_path / "oracle", family, dtype="F32")
    pipe = DiffusionPipeline.from_pretrained(folder)
    assert type(pipe).__name__ == ("StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline")
    wanted = load_file(oracle / "unet" / "diffusion_pytorch_model.safetensors")
    state = pipe.unet.state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], value) for name, value in wanted.items())
    assert pipe.tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_a_converted_file_says_what_it_is(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", "sdxl", prediction_type="v_prediction")
    for name in ("tokenizer", "tokenizer_2"):  # CLIP's own then counts
        shutil.rmtree(folder / name)
    write_checkpoint(
        opened(folder, "sdxl"), tmp_path / "b.safetensors", layout="single-file", precision="fp16", metadata={}
    )
    facts = identify(tmp_path / "b.safetensors")
    assert (facts.family, facts.prediction_type, facts.dtype, facts.problems) == ("sdxl", "v_prediction", "F16", ())


def test_zero_terminal_snr_goes_from_a_file_to_a_folder_and_back(tmp_path: Path) -> None:
    original = write_original_layout(tmp_path / "a.safetensors", "sdxl", v_pred=True, ztsnr=True)
    folder = convert(original, "sdxl", tmp_path / "folder", "diffusers")
    back = convert(folder, "sdxl", tmp_path / "b.safetensors", "single-file")
    for path in (folder, back):
        facts = identify(path)
        assert (facts.prediction_type, facts.zero_terminal_snr) == ("v_prediction", True)
    assert {"v_pred", "ztsnr"} <= read_header(back).tensors.keys()


@pytest.mark.parametrize("family", ["sd15", "sd20"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_what_a_folder_predicts_is_found_in_its_single_file(family: str, prediction_type: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", family, prediction_type=prediction_type)
    shutil.rmtree(folder / "tokenizer")
    back = convert(folder, family, tmp_path / "b.safetensors", "single-file")
    assert identify(back).prediction_type == prediction_type


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_is_changed_on_the_way(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    original = write_original_layout(tmp_path / "a.safetensors")
    after = load_file(convert(original, "sd15", tmp_path / "b.safetensors", "single-file", precision))
    before = load_file(original)
    assert {value.dtype for value in after.values() if value.is_floating_point()} == {dtype}
    assert all(torch.equal(value, before[name].to(dtype)) for name, value in after.items())


def test_a_vocabulary_of_its_own_does_not_get_lost_in_a_single_file(starter_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="vocabulary of its own"):
        convert(starter_dir, "sd-custom", tmp_path / "b.safetensors", "single-file")
    folder = convert(starter_dir, "sd-custom", tmp_path / "copy", "diffusers")
    for name in ("vocab.json", "merges.txt"):
        assert (folder / "tokenizer" / name).read_bytes() == (starter_dir / "tokenizer" / name).read_bytes()
    weights = "unet/diffusion_pytorch_model.safetensors"
    before, after = load_file(next((starter_dir / "unet").glob("*.safetensors"))), load_file(folder / weights)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_nothing_is_overwritten_and_nothing_half_done_is_left(tmp_path: Path) -> None:
    original = write_original_layout(tmp_path / "a.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="there already"):
        convert(original, "sd15", tmp_path / "folder", "diffusers")
    with pytest.raises(InvalidRequest, match=r"\.safetensors"):
        convert(original, "sd15", tmp_path / "b.ckpt", "single-file")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(
            opened(original, "sd15"),
            tmp_path / "half",
            layout="diffusers",
            precision="keep",
            metadata={},
            report=stop,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "folder"]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("three")
    return [write_original_layout(folder / f"{seed}.safetensors", seed=seed) for seed in range(3)]


def merged(three: list[Path], tmp_path: Path, recipe: MergeRecipe) -> dict[str, torch.Tensor]:
    a, b, c = (opened(path, "sd15") for path in three)
    result = merge(a, b, c if recipe.method == "add_difference" else None, recipe)
    write_checkpoint(result, tmp_path / "m.safetensors", layout="single-file", precision="fp32", metadata={})
    return load_file(tmp_path / "m.safetensors")


@pytest.mark.parametrize("m", [0.0, 0.3, 1.0])
def test_a_weighted_sum_is_a_weighted_sum(three: list[Path], tmp_path: Path, m: float) -> None:
    ours = merged(three, tmp_path, MergeRecipe(method="weighted_sum", multiplier=m))
    a, b = (load_file(path) for path in three[:2])
    for name, value in ours.items():
        wanted = a[name].double() * (1 - m) + b[name].double() * m
        torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=1e-7)


def test_a_difference_is_added(three: list[Path], tmp_path: Path) -> None:
    ours = merged(three, tmp_path, MergeRecipe(method="add_difference", multiplier=0.7))
    a, b, c = (load_file(path) for path in three)
    for name, value in ours.items():
        wanted = a[name].double() + (b[name].double() - c[name].double()) * 0.7
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-6)


def test_a_block_of_its_own_multiplier_is_merged_with_that(three: list[Path], tmp_path: Path) -> None:
    recipe = MergeRecipe(method="weighted_sum", multiplier=0.0, blocks={"OUT03": 1.0, "BASE": 0.5})
    ours = merged(three, tmp_path, recipe)
    a, b = (load_file(path) for path in three[:2])
    for name, value in ours.items():
        m = 1.0 if ".output_blocks.3." in name else 0.0 if name.startswith("model.diffusion_model.") else 0.5
        wanted = a[name].double() * (1 - m) + b[name].double() * m
        torch.testing.assert_close(value.double(), wanted, rtol=1e-6, atol=1e-7)


def test_the_blocks_have_the_fields_names_and_number(three: list[Path]) -> None:
    parts = opened(three[0], "sd15")
    blocks = blocks_in_order(unet_blocks(parts.components["unet"].source, "sd1"))
    assert blocks[:3] == ["BASE", "IN00", "IN01"]
    assert len(blocks) == 26
    assert "M00" in blocks and blocks[-1] == "OUT11"


def test_an_inpainting_model_keeps_its_own_inputs(three: list[Path], tmp_path: Path) -> None:
    inpaint = write_original_layout(tmp_path / "inpaint.safetensors", "sd15-inpaint", seed=7)
    recipe = MergeRecipe(method="add_difference", multiplier=1.0)
    b, c = (opened(path, "sd15") for path in three[:2])
    result = merge(opened(inpaint, "sd15-inpaint"), b, c, recipe)
    write_checkpoint(result, tmp_path / "m.safetensors", layout="single-file", precision="fp32", metadata={})
    name = "model.diffusion_model.input_blocks.0.0.weight"
    ours, a = load_file(tmp_path / "m.safetensors")[name], load_file(inpaint)[name].float()
    difference = load_file(three[0])[name].float() - load_file(three[1])[name].float()
    assert torch.equal(ours[:, 4:], a[:, 4:])
    torch.testing.assert_close(ours[:, :4], a[:, :4] + difference, rtol=1e-6, atol=1e-7)


def test_models_that_do_not_fit_are_refused_by_name(three: list[Path], tmp_path: Path) -> None:
    other = write_original_layout(tmp_path / "xl.safetensors", "sdxl")
    recipe = MergeRecipe(method="weighted_sum", multiplier=0.5)
    with pytest.raises(UnsupportedModel, match=r"'xl\.safetensors' .* unet"):
        merge(opened(three[0], "sd15"), opened(other, "sdxl"), None, recipe)
    with pytest.raises(InvalidRequest, match="third checkpoint"):
        merge(*(opened(path, "sd15") for path in three[:2]), None, MergeRecipe(method="add_difference", multiplier=1))
    with pytest.raises(InvalidRequest, match="OUT99"):
        wrong = MergeRecipe(method="weighted_sum", multiplier=0, blocks={"OUT99": 1})
        merge(*(opened(path, "sd15") for path in three[:2]), None, wrong)
