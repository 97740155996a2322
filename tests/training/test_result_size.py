"""The size that is told before a run, beside that of the file which is written."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from tests.model_files import info_of, write_folder
from tests.training.networks.parts import SmallModel, few_blocks
from webui.library.entries import CheckpointInfo
from webui.training.config import NETWORK_METHODS, Layers, Method, TrainingConfig
from webui.training.networks.attaching import attach
from webui.training.result_size import result_bytes

METHODS = tuple(method for method in NETWORK_METHODS if method != "pivotal")


def config(method: Method, layers: Layers = "attention", **more: object) -> TrainingConfig:
    network = {"method": method, "layers": layers, "rank": 4, "conv_rank": 2, "oft_block": 4, **more}
    return TrainingConfig.model_validate(
        {"name": "test", "network": network, "data": {"photos": "photos", "trigger": "sks"}}
    )


def written_bytes(model: SmallModel, settings: TrainingConfig, folder: Path) -> int:
    trained = attach(model.modules, settings.network, model.base)
    (path,) = trained.write(folder, "out", dtype=torch.float16, metadata={})
    trained.detach()
    return path.stat().st_size


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_a_file_is_as_large_as_was_told(family: str, tmp_path: Path) -> None:
    model = SmallModel.write(tmp_path / "base.safetensors", family)
    for method in METHODS:
        for layers in get_args(Layers) if family == "sd15" else ("all",):
            settings = config(method, layers)
            told = result_bytes(settings, model.source.info)
            assert told is not None
            assert told == pytest.approx(written_bytes(model, settings, tmp_path / method), rel=0.25), (method, layers)
    unet_alone = config("lora", text_encoder=False)
    assert result_bytes(unet_alone, model.source.info) < result_bytes(config("lora"), model.source.info)  # type: ignore[operator]


def test_a_folder_counts_as_its_file_does(tmp_path: Path) -> None:
    file = SmallModel.write(tmp_path / "base.safetensors", "sd15").source.info
    folder = info_of(write_folder(tmp_path / "base", "sd15", sizes=few_blocks("sd15")), "sd15")
    for method in METHODS:
        assert result_bytes(config(method, "all"), folder) == pytest.approx(
            result_bytes(config(method, "all"), file), rel=0.05
        )


def test_a_word_and_a_whole_model_have_sizes_of_their_own(tmp_path: Path) -> None:
    info = SmallModel.write(tmp_path / "base.safetensors", "sdxl").source.info
    word = result_bytes(config("embedding", num_vectors=4), info)
    assert word is not None
    assert word == 2 * result_bytes(config("embedding", num_vectors=2), info)  # type: ignore[operator]
    assert result_bytes(config("full"), info) == pytest.approx(info.path.stat().st_size, rel=0.05)


def test_of_files_that_do_not_say_nothing_is_told(tmp_path: Path) -> None:
    old = tmp_path / "old.ckpt"
    old.write_bytes(b"PK\x03\x04")
    assert result_bytes(config("lora"), CheckpointInfo(name="old", title="old", path=old)) is None
