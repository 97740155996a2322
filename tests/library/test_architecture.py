"""Configs read off the shapes of a file's weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig

from tests.model_files import (
    FAMILY_IDS,
    component_configs,
    diffusers_shapes,
    sizes_of,
    text_shapes,
    unet_shapes,
    vae_shapes,
    write_diffusers_file,
    write_original_layout,
    write_sparse,
)
from webui.errors import WebUIError
from webui.library import architecture
from webui.library.header import read_header


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs, apart from the size of the training pictures, which no shape tells."""
    names = (wanted.keys() & found.keys()) - {"sample_size"}
    return {name: (found[name], wanted[name]) for name in names if found[name] != wanted[name]}


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_a_full_size_file_has_the_facts_of_its_family(family: str, tmp_path: Path) -> None:
    header = read_header(write_original_layout(tmp_path / "a.safetensors", family, small=False))
    found = architecture.component_configs(header, family)
    assert set(found) == {"scheduler", *architecture.family_components(family)}
    for component, config in found.items():
        assert config == architecture.component_config(family, component)


@pytest.mark.parametrize("family", ["sd15", "sd20", "sdxl", "sdxl-refiner"])
def test_the_facts_of_a_family_build_the_networks_whose_weights_its_files_hold(family: str) -> None:
    wanted = sizes_of(family, small=False)
    for component in architecture.family_components(family):
        config = architecture.component_config(family, component)
        arguments = {name: value for name, value in config.items() if not name.startswith("_")}
        if component.startswith("text_encoder"):
            assert CLIPTextConfig(**arguments).hidden_size == component_configs(wanted)[component]["hidden_size"]
            continue
        with torch.device("meta"):
            kind = UNet2DConditionModel if component == "unet" else AutoencoderKL
            shapes = {name: tuple(tensor.shape) for name, tensor in kind(**arguments).state_dict().items()}
        assert shapes == diffusers_shapes(wanted, component)


@pytest.mark.parametrize("ema", ["none", "only"])
@pytest.mark.parametrize("family", FAMILY_IDS)
def test_sizes_of_a_small_file_are_read_off_its_shapes(family: str, ema: str, tmp_path: Path) -> None:
    sizes = sizes_of(family)
    prefix = {"none": "model.diffusion_model.", "only": "model_ema.diffusion_model"}[ema]
    shapes = {
        prefix + (name if ema == "none" else name.replace(".", "")): shape for name, shape in unet_shapes(sizes).items()
    }
    shapes |= {f"first_stage_model.{name}": shape for name, shape in vae_shapes(sizes).items()} | text_shapes(sizes)
    found = architecture.component_configs(read_header(write_sparse(tmp_path / "a.safetensors", shapes)), family)
    for component, wanted in component_configs(sizes).items():
        assert differences(found[component], wanted) == {}


@pytest.mark.parametrize("family", ["sd15-inpaint", "sd20", "sdxl", "sdxl-refiner"])
def test_names_of_diffusers_tell_the_same_sizes(family: str, tmp_path: Path) -> None:
    header = read_header(write_diffusers_file(tmp_path / "a.safetensors", family))
    found = architecture.component_configs(header, family)
    for component, wanted in component_configs(sizes_of(family)).items():
        assert differences(found[component], wanted) == {}


@pytest.mark.parametrize("component", ["unet", "vae"])
def test_a_file_may_hold_one_component_alone_without_a_prefix(component: str, tmp_path: Path) -> None:
    header = read_header(write_diffusers_file(tmp_path / "a.safetensors", components=(component,), bare=True))
    found = architecture.component_configs(header, "sd15")
    assert set(found) == {"scheduler", component}
    assert differences(found[component], component_configs(sizes_of("sd15"))[component]) == {}


def test_a_config_in_the_metadata_wins(tmp_path: Path) -> None:
    own = {"unet": {"norm_num_groups": 8}, "scheduler": {"prediction_type": "v_prediction"}}
    path = write_original_layout(tmp_path / "a.safetensors", metadata={"atelier.config": json.dumps(own)})
    found = architecture.component_configs(read_header(path), "sd15")
    assert (found["unet"], found["scheduler"]) == (own["unet"], own["scheduler"])
    assert found["vae"]["block_out_channels"] == list(sizes_of("sd15").vae)


@pytest.mark.parametrize("text", ["[]", "{", '{"unet": 3}'])
def test_a_damaged_config_in_the_metadata_is_an_error(text: str, tmp_path: Path) -> None:
    header = read_header(write_original_layout(tmp_path / "a.safetensors", metadata={"atelier.config": text}))
    with pytest.raises(WebUIError, match=r"atelier\.config"):
        architecture.component_configs(header, "sd15")


def test_the_guidance_embedding_of_a_distilled_network_is_in_its_config(tmp_path: Path) -> None:
    header = read_header(write_original_layout(tmp_path / "a.safetensors", lcm=True))
    assert architecture.component_configs(header, "sd15")["unet"]["time_cond_proj_dim"] == 256


def test_a_network_with_missing_blocks_is_an_error(tmp_path: Path) -> None:
    shapes = unet_shapes(sizes_of("sd15"))
    halves = {f"model.diffusion_model.{name}": shape for name, shape in shapes.items() if "middle" not in name}
    header = read_header(write_sparse(tmp_path / "a.safetensors", halves))
    with pytest.raises(WebUIError, match="parts are missing"):
        architecture.unet_structure(header)
