"""Every family, layout and precision is told apart from the header alone."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.model_files import (
    FAMILY_IDS,
    sizes_of,
    write_diffusers_file,
    write_folder,
    write_original_layout,
)
from webui.library.families import FAMILIES
from webui.library.identify import identify

NAMES = {"sd20": "v2-1_512-ema-pruned", "sd20-v": "v2-1_768-ema-pruned"}
SMALL_FAMILY = {"sd15": "sd-custom"}
"""SD 1.x of another size is its own: no SD 1.x adapter fits it."""


def named(folder: Path, family: str) -> Path:
    return folder / f"{NAMES.get(family, 'model')}.safetensors"


@pytest.mark.parametrize("small", [True, False], ids=["small", "full"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("family", FAMILY_IDS)
def test_an_original_single_file_is_of_its_family(family: str, dtype: str, small: bool, tmp_path: Path) -> None:
    sizes = sizes_of(family, small=small)
    facts = identify(write_original_layout(named(tmp_path, family), family, dtype=dtype, small=False, sizes=sizes))
    expected = FAMILIES[SMALL_FAMILY.get(family, family) if small else family]
    assert (facts.kind, facts.layout, facts.problems) == ("checkpoint", "original", ())
    assert (facts.family, facts.dtype, facts.prediction_type) == (expected.id, dtype, expected.prediction_type)
    assert (facts.native_size, facts.guidance_scale) == (expected.native_size, expected.default_guidance_scale)
    assert facts.has_vae and facts.has_text_encoder and not facts.ema_only


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("family", FAMILY_IDS)
def test_a_folder_is_of_its_family(family: str, dtype: str, tmp_path: Path) -> None:
    prediction_type = FAMILIES[family].prediction_type
    folder = tmp_path / "model"
    facts = identify(write_folder(folder, family, dtype=dtype, small=False, prediction_type=prediction_type))
    assert (facts.kind, facts.layout, facts.problems) == ("checkpoint", "folder", ())
    assert (facts.family, facts.dtype, facts.prediction_type) == (family, dtype, prediction_type)
    assert facts.has_vae and facts.has_text_encoder


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_a_single_file_with_names_of_diffusers_is_of_its_family(family: str, tmp_path: Path) -> None:
    facts = identify(write_diffusers_file(named(tmp_path, family), family, small=False))
    assert (facts.kind, facts.layout, facts.family, facts.problems) == ("checkpoint", "diffusers", family, ())


@pytest.mark.parametrize(
    ("name", "family", "steps", "guidance_scale"),
    [
        ("sd_xl_turbo_1.0_fp16", "sdxl", 4, 1.0),
        ("dreamshaperXL_v21TurboDPMSDE", "sdxl", 6, 2.0),
        ("sdxl_lightning_8step", "sdxl", 8, 1.0),
        ("juggernautXL_v9Rdphoto2Lightning", "sdxl", 6, 1.5),
        ("Hyper-SDXL-1step", "sdxl", 1, 1.0),
        ("dreamshaper_8LCM", "sd15", 6, 1.5),
        ("hyperrealism_v2", "sd15", 20, 7.0),
    ],
)
def test_distillates_start_with_few_steps_and_little_guidance(
    name: str, family: str, steps: int, guidance_scale: float, tmp_path: Path
) -> None:
    facts = identify(write_original_layout(tmp_path / f"{name}.safetensors", family, small=False))
    assert (facts.family, facts.num_inference_steps, facts.guidance_scale) == (family, steps, guidance_scale)


def test_a_network_with_a_guidance_input_is_an_lcm_by_its_weights(tmp_path: Path) -> None:
    facts = identify(write_original_layout(tmp_path / "model.safetensors", small=False, lcm=True))
    assert (facts.num_inference_steps, facts.guidance_scale) == (4, 8.0)


@pytest.mark.parametrize(
    ("name", "metadata", "family"),
    [
        ("model", {}, "sd20-v"),
        ("v2-1_512-ema-pruned", {}, "sd20"),
        ("sd_turbo", {}, "sd20"),
        ("model", {"modelspec.prediction_type": "epsilon"}, "sd20"),
        ("model", {"modelspec.architecture": "stable-diffusion-v2-512"}, "sd20"),
        ("some-512-mix", {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "sd20-v"),
        ("model", {"modelspec.resolution": "512x512"}, "sd20"),
    ],
)
def test_sd2_is_768_v_unless_something_says_base(
    name: str, metadata: dict[str, str], family: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.safetensors"
    assert identify(write_original_layout(path, "sd20", small=False, metadata=metadata)).family == family


def test_marker_weights_tell_v_prediction_and_zero_terminal_snr(tmp_path: Path) -> None:
    facts = identify(write_original_layout(tmp_path / "a.safetensors", "sdxl", small=False, v_pred=True, ztsnr=True))
    assert (facts.prediction_type, facts.zero_terminal_snr) == ("v_prediction", True)
    facts = identify(write_original_layout(tmp_path / "b.safetensors", "sdxl", small=False, v_pred=True))
    assert (facts.prediction_type, facts.zero_terminal_snr) == ("v_prediction", False)
    facts = identify(write_original_layout(tmp_path / "noobaiXL_vPred10.safetensors", "sdxl", small=False))
    assert (facts.prediction_type, facts.zero_terminal_snr) == ("v_prediction", False)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_only_the_averaged_network_is_enough(family: str, tmp_path: Path) -> None:
    facts = identify(write_original_layout(tmp_path / "a.safetensors", family, small=False, ema="only"))
    assert (facts.family, facts.ema_only, facts.problems) == (family, True, ())
    facts = identify(write_original_layout(tmp_path / "b.safetensors", family, small=False, ema="both", buffers=True))
    assert (facts.family, facts.ema_only, facts.problems) == (family, False, ())


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_missing_parts_are_told_and_do_not_hide_the_family(family: str, tmp_path: Path) -> None:
    path = write_original_layout(named(tmp_path, family), family, small=False, vae=False, text_encoder=False)
    facts = identify(path)
    assert (facts.family, facts.has_vae, facts.has_text_encoder, facts.problems) == (family, False, False, ())


def test_the_metadata_names_the_line_of_a_network_of_unusual_width(tmp_path: Path) -> None:
    metadata = {"modelspec.architecture": "stable-diffusion-v1"}
    assert identify(write_original_layout(tmp_path / "a.safetensors", metadata=metadata)).family == "sd15"


@pytest.mark.parametrize("channels", [5, 7])
def test_a_network_with_other_inputs_is_described(channels: int, tmp_path: Path) -> None:
    sizes = replace(sizes_of("sd20", small=False), in_channels=channels)
    facts = identify(write_original_layout(tmp_path / "a.safetensors", sizes=sizes, small=False))
    assert (facts.kind, facts.family) == ("checkpoint", "")
    assert f"takes {channels} channels" in facts.problems[0]


def test_unclip_is_described(tmp_path: Path) -> None:
    sizes = replace(sizes_of("sd20", small=False), adm=2048)
    facts = identify(write_original_layout(tmp_path / "a.safetensors", sizes=sizes, small=False))
    assert "unCLIP" in facts.problems[0]


@pytest.mark.parametrize("part", ["vae", "text_encoder", "scheduler"])
def test_a_folder_without_a_part_names_it(part: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", small=False)
    shutil.rmtree(folder / part)
    assert identify(folder).problems == (f"the folder has no {part}",)


def test_a_folder_with_a_damaged_file_names_it(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", small=False)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"<html>")
    assert identify(folder).problems[0].startswith("vae/diffusion_pytorch_model.safetensors: it is a web page")
    (folder / "unet" / "config.json").write_text("{")
    assert "cannot be read" in identify(folder).problems[0]


def test_the_starter_is_of_its_own_size(starter_dir: Path) -> None:
    facts = identify(starter_dir)
    assert (facts.family, facts.adapter_base, facts.prediction_type) == ("sd-custom", "sd-custom", "v_prediction")
    assert (facts.native_size, facts.problems) == (192, ())


def test_a_folder_that_predicts_something_unknown_says_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", small=False, prediction_type="flow_prediction")
    assert identify(folder).problems == ("its prediction type 'flow_prediction' is unknown",)
