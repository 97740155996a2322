"""`inspect model FILE` prints what the file is."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.model_files import write_folder, write_original_layout
from webui.cli import main


def inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["inspect", "model", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def write_lora(path: Path, alphas: list[float], dtype: torch.dtype = torch.float32) -> Path:
    name = "lora_te_text_model_encoder_layers_{}_self_attn_q_proj"
    tensors = {}
    for layer, alpha in enumerate(alphas):
        tensors[f"{name.format(layer)}.lora_down.weight"] = torch.zeros(8, 768, dtype=dtype)
        tensors[f"{name.format(layer)}.lora_up.weight"] = torch.zeros(768, 8, dtype=dtype)
        tensors[f"{name.format(layer)}.alpha"] = torch.tensor(alpha, dtype=dtype)
    save_file(tensors, path, metadata={"ss_network_alpha": "3", "modelspec.trigger_phrase": "ohwx man"})
    return path


def test_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_original_layout(tmp_path / "model.safetensors", "sdxl")
    found = inspect(path, capsys)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found["family"], found["kind"], found["prediction_type"], found["dtype"]) == (
        "sdxl", "checkpoint", "epsilon", "F16")  # fmt: skip
    assert (found["sha256"], found["hash_short"], found["hash_adapter"]) == (sha256, sha256[:10], "")
    assert (found["rank"], found["alpha"], found["trigger_words"], found["problems"]) == (None, None, [], [])


def test_an_adapter_has_the_hash_that_others_show_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lora(tmp_path / "a.safetensors", [4, 4])
    found = inspect(path, capsys)
    content = path.read_bytes()
    weights = content[8 + struct.unpack("<Q", content[:8])[0] :]
    assert found["hash_adapter"] == hashlib.sha256(weights).hexdigest()[:12]
    assert found["hash_short"] == hashlib.sha256(content).hexdigest()[:10]
    assert (found["kind"], found["adapter_base"], found["rank"]) == ("adapter", "sd1", 8)
    assert (found["adapter_types"], found["trigger_words"]) == (["lora"], ["ohwx man"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_alpha_is_read_from_the_weights(dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(write_lora(tmp_path / "a.safetensors", [6, 6], dtype), capsys)["alpha"] == 6
    assert inspect(write_lora(tmp_path / "b.safetensors", [6, 4], dtype), capsys)["alpha"] == "mixed"


def test_an_alpha_of_several_values_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{layer}.lora_down.weight": torch.zeros(8, 768), f"{layer}.lora_up.weight": torch.zeros(320, 8)}
    for name, alpha in (("a", torch.zeros(2)), ("b", torch.zeros(0))):
        save_file({**tensors, f"{layer}.alpha": alpha}, tmp_path / f"{name}.safetensors")
        assert inspect(tmp_path / f"{name}.safetensors", capsys)["alpha"] is None


def test_an_old_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"string_to_param": {"*": torch.zeros(2, 1024)}}, tmp_path / "a.pt")
    found = inspect(tmp_path / "a.pt", capsys)
    assert (found["kind"], found["adapter_base"], found["problems"]) == ("embedding", "sd2", [])


def test_a_folder_has_no_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = inspect(write_folder(tmp_path / "model", "sd20", small=False), capsys)
    assert (found["family"], found["layout"], found["sha256"]) == ("sd20", "folder", "")


def test_a_broken_file_is_described_and_hashed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.safetensors").write_text("<html>")
    found = inspect(tmp_path / "a.safetensors", capsys)
    assert found["kind"] == "unknown"
    assert found["problems"] and found["sha256"] == hashlib.sha256(b"<html>").hexdigest()


def test_a_missing_file_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "model", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors" in capsys.readouterr().err
