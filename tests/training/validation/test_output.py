"""What a file says of itself, read back as the library reads files of others."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from webui.library.cards import metadata_of as metadata_in
from webui.library.cards import tag_frequencies, thumbnail_of
from webui.library.catalog import CheckpointInfo
from webui.library.families import AdapterBase, PredictionType
from webui.library.sidecars import read_sidecars, write_notes
from webui.training.config import TrainingConfig
from webui.training.validation.choosing import Row, choose
from webui.training.validation.output import VALIDATION, WEIGHT, Made, metadata_of, notes_of, thumbnail


def made(
    base: AdapterBase = "sd1", prediction_type: PredictionType = "epsilon", *, method: str = "lora", **more: Any
) -> Made:
    config = TrainingConfig.model_validate(
        {
            "name": "zorble v2",
            "data": {"photos": "photos", "trigger": "zorble", "class_word": "monster", "repeats": 4},
            "network": {"method": method, "rank": 8, "alpha": 4},
        }
    )
    rows = [
        Row(step=step, weight=weight, gains=(0.01 * step / 100, 0.02)) for step in (100, 200) for weight in (0.8, 1)
    ]
    return Made(
        config=config,
        base=CheckpointInfo(name="base", title="Base", path=Path("base.safetensors"), prediction_type=prediction_type),
        adapter_base=base,
        num_photos=22,
        num_held_out=3,
        num_prior=0,
        started_at=1_700_000_000.0,
        finished_at=1_700_000_600.0,
        captions={"photos": ["zorble, beach", "zorble, snow"]},
        choice=choose(rows, None),
        **more,
    )


def test_everything_is_text_and_comes_back_from_a_file(tmp_path: Path) -> None:
    said = metadata_of(made(thumbnail=thumbnail(Image.new("RGB", (640, 320), (200, 30, 60)))))
    path = tmp_path / "zorble.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata=said)
    found = metadata_in(path)
    assert dict(found) == said
    assert tag_frequencies(found)[0] == ("zorble", 2)
    small = Image.open(io.BytesIO(thumbnail_of(path) or b""))
    assert small.size == (256, 128)
    assert json.loads(found[VALIDATION])["step"] == int(found["ss_steps"])
    assert found[WEIGHT] == f"{json.loads(found[VALIDATION])['weight']:g}"


def test_what_other_programs_look_for_is_there() -> None:
    said = metadata_of(made())
    assert said["ss_base_model_version"] == "sd_v1"
    assert (said["ss_v2"], said["ss_network_module"]) == ("False", "networks.lora")
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("8", "4.0")
    assert json.loads(said["ss_dataset_dirs"]) == {"photos": {"n_repeats": 4, "img_count": 2}}
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert said["modelspec.trigger_phrase"] == "zorble"
    assert said["modelspec.prediction_type"] == "epsilon"
    assert said["modelspec.date"] == "2023-11-14T22:23:20+00:00"


@pytest.mark.parametrize(
    ("base", "prediction_type", "version", "architecture"),
    [
        ("sd2", "v_prediction", "sd_v2_v", "stable-diffusion-v2-768-v/lora"),
        ("sd2", "epsilon", "sd_v2", "stable-diffusion-v2-512/lora"),
        ("sdxl", "epsilon", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    ],
)
def test_families_have_the_names_that_others_give_them(
    base: AdapterBase, prediction_type: PredictionType, version: str, architecture: str
) -> None:
    said = metadata_of(made(base, prediction_type))
    assert (said["ss_base_model_version"], said["modelspec.architecture"]) == (version, architecture)
    assert said["modelspec.prediction_type"] == ("v" if prediction_type == "v_prediction" else "epsilon")


def test_a_model_of_its_own_size_is_passed_off_as_no_other() -> None:
    said = metadata_of(made("sd-custom", "v_prediction"))
    assert not {"ss_v2", "ss_base_model_version", "modelspec.architecture"} & said.keys()


@pytest.mark.parametrize(
    ("method", "module", "algo"),
    [("loha", "lycoris.kohya", "loha"), ("lokr", "lycoris.kohya", "lokr"), ("oft", "lycoris.kohya", "diag-oft")],
)
def test_methods_of_lycoris_say_so(method: str, module: str, algo: str) -> None:
    said = metadata_of(made(method=method))
    assert said["ss_network_module"] == module
    assert json.loads(said["ss_network_args"])["algo"] == algo


def test_what_has_no_network_says_nothing_of_one() -> None:
    for method, architecture in {
        "embedding": "stable-diffusion-v1/textual-inversion",
        "full": "stable-diffusion-v1",
    }.items():
        said = metadata_of(made(method=method))
        assert "ss_network_dim" not in said
        assert said["modelspec.architecture"] == architecture


def test_the_notes_beside_the_file_are_understood_by_the_library(tmp_path: Path) -> None:
    path = tmp_path / "zorble.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    one = made()
    beside = write_notes(path, notes_of(one))
    notes = read_sidecars([beside])
    assert notes.activation_text == "zorble"
    assert notes.preferred_weight == one.choice.weight
    assert "below the base's" in notes.notes


def test_a_thumbnail_is_small_and_carries_nothing_else() -> None:
    picture = Image.new("RGBA", (300, 900), (1, 2, 3, 128))
    picture.info["comment"] = b"secret prompt"
    data = base64.b64decode(thumbnail(picture).partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (85, 256)
    assert b"secret" not in data
