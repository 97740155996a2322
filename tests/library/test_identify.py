"""Every family, layout and precision is told apart from the header alone."""

from pathlib import Path

import pytest

from tests.model_files import (
    FAMILY_IDS,
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
    facts = identify(write_original_layout(named(tmp_path, family), family, dtype=dtype, small=small))
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
