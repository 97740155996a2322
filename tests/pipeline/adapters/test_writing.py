"""Files that are written here are read back, by this program and by diffusers, as what they were."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from torch import Tensor, nn

from tests.adapter_files import ONLY_CONVOLUTIONS, VARIANTS, Shape, attention_of, modules_of, tensors_for
from tests.models import write_checkpoint
from webui.errors import StorageError
from webui.pipeline.adapters import deltas
from webui.pipeline.adapters.names import TargetNames, module_paths
from webui.pipeline.adapters.reading import read_adapter, split_key
from webui.pipeline.adapters.targets import AdapterGroup, Target
from webui.pipeline.adapters.writing import KohyaNames, write_adapter
from webui.settings import CHECKOUT

SDXL_UNET = json.loads((CHECKOUT / "webui/library/configs/sdxl/unet.json").read_text("utf-8"))
SD15_UNET = json.loads((CHECKOUT / "webui/library/configs/sd15/unet.json").read_text("utf-8"))


def ours(variant: str, shape: Shape, seed: int = 0, alpha: float | None = 3.0) -> dict[str, Tensor]:
    """A module's tensors under our names."""
    tensors = tensors_for(variant, shape, rank=4, alpha=alpha, seed=seed)
    named = {split_key(f"x.{end}"): tensor for end, tensor in tensors.items()}
    return {split[1]: tensor for split, tensor in named.items() if split}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_type_comes_back_from_a_file_as_it_was(variant: str, tmp_path: Path) -> None:
    shape = (16,) if variant == "norm" else (16, 12, 3, 3) if variant in ONLY_CONVOLUTIONS else (16, 12)
    target, tensors = Target("unet", "conv_in"), ours(variant, shape)
    path = tmp_path / "loras" / "x.safetensors"
    write_adapter(path, {target: tensors}, KohyaNames("sd1", SD15_UNET), dtype=torch.float32, metadata={})
    (group,) = read_adapter(path).groups.values()
    assert group.prefix == "lora_unet_conv_in"
    assert dict(group.tensors).keys() == tensors.keys()
    assert all(torch.equal(group.tensors[name], tensor) for name, tensor in tensors.items())


def test_names_are_kohyas() -> None:
    down = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    sd1, sdxl = KohyaNames("sd1", SD15_UNET), KohyaNames("sdxl", SDXL_UNET)
    refiner = KohyaNames("sdxl-refiner", SDXL_UNET)
    layer, projected = "encoder.layers.0.mlp.fc1", "text_model.encoder.layers.0.mlp.fc1"
    assert sd1.prefix(Target("unet", down)) == f"lora_unet_{down.replace('.', '_')}"
    assert sd1.prefix(Target("text_encoder", layer)) == "lora_te_text_model_encoder_layers_0_mlp_fc1"
    assert sdxl.prefix(Target("unet", down)) == "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    assert sdxl.prefix(Target("text_encoder", layer)) == "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    assert sdxl.prefix(Target("text_encoder_2", projected)) == "lora_te2_text_model_encoder_layers_0_mlp_fc1"
    assert sdxl.prefix(Target("text_encoder_2", "text_projection")) == "lora_te2_text_projection"
    assert refiner.prefix(Target("text_encoder_2", projected)) == "lora_te2_text_model_encoder_layers_0_mlp_fc1"


def test_half_precision_is_for_factors_and_alpha_keeps_its_value(tmp_path: Path) -> None:
    modules = {Target("unet", "conv_in"): ours("lora", (16, 12), alpha=92.3)}
    path = tmp_path / "x.safetensors"
    write_adapter(path, modules, KohyaNames("sd1", SD15_UNET), dtype=torch.bfloat16, metadata={})
    (group,) = read_adapter(path).groups.values()
    assert group.tensors["lora_up"].dtype == torch.bfloat16
    assert float(group.tensors["alpha"]) == pytest.approx(92.3, abs=1e-5)


def test_metadata_and_the_hash_of_the_weights_are_in_the_file(tmp_path: Path) -> None:
    modules = {Target("unet", "conv_in"): ours("lora", (16, 12))}
    names = KohyaNames("sd1", SD15_UNET)
    told = {"ss_network_dim": "4", "modelspec.title": "ink", "ss_tag_frequency": '{"a": {"b": 1}}'}
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    digest = write_adapter(first, modules, names, dtype=torch.float16, metadata=told)
    assert write_adapter(second, modules, names, dtype=torch.float16, metadata={"ss_x": "other"}) == digest
    assert read_adapter(first).metadata == {**told, "sshs_model_hash": digest}
    data = first.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert hashlib.sha256(data[start:]).hexdigest() == digest
    with safe_open(first, "pt") as file:
        assert file.metadata()["modelspec.title"] == "ink"


def test_what_is_no_adapter_is_not_written(tmp_path: Path) -> None:
    modules = {Target("unet", "conv_in"): {"lora_up": torch.zeros(16, 4)}}
    with pytest.raises(ValueError, match=r"lora_up of conv_in make none of LoRA"):
        write_adapter(
            tmp_path / "x.safetensors", modules, KohyaNames("sd1", SD15_UNET), dtype=torch.float16, metadata={}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_an_error_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    modules = {Target("unet", "conv_in"): ours("lora", (16, 12))}
    with pytest.raises(StorageError, match=r"'x.safetensors' could not be written"):
        write_adapter(
            tmp_path / "file" / "x.safetensors", modules, KohyaNames("sd1", SD15_UNET), dtype=torch.float16, metadata={}
        )


@pytest.mark.parametrize("alpha", [3.0, 4.0, None])
@pytest.mark.parametrize("with_convolutions", [False, True])
def test_diffusers_reads_a_written_file_as_the_same_change(
    alpha: float | None, with_convolutions: bool, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "tiny")
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    components: dict[str, nn.Module] = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    # diffusers has no name for the ends of the U-Net, so a LoCon of kohya leaves them out too.
    shapes = modules_of(
        components,
        lambda component, path: attention_of(component, path) or (with_convolutions and "resnets" in path),
    )
    modules = {Target(c, path): ours("lora", shape, n, alpha) for n, ((c, path), shape) in enumerate(shapes.items())}
    x, context, tokens = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32), torch.arange(8)[None]
    with torch.no_grad():
        plain = pipeline.unet(x, 10, context).sample, pipeline.text_encoder(tokens).last_hidden_state
        path = tmp_path / "x.safetensors"
        write_adapter(path, modules, KohyaNames("sd1", pipeline.unet.config), dtype=torch.float32, metadata={})
        pipeline.load_lora_weights(tmp_path, weight_name="x.safetensors")
        theirs = pipeline.unet(x, 10, context).sample, pipeline.text_encoder(tokens).last_hidden_state
        fresh = StableDiffusionPipeline.from_pretrained(folder)
        merge(path, {"unet": fresh.unet, "text_encoder": fresh.text_encoder}, len(modules))
        found = fresh.unet(x, 10, context).sample, fresh.text_encoder(tokens).last_hidden_state
    for before, there, here in zip(plain, theirs, found, strict=True):
        assert ((here - there).norm() / (there - before).norm()).item() < 1e-4


def merge(path: Path, components: Mapping[str, nn.Module], count: int) -> None:
    names = TargetNames(
        {name: module_paths(network.state_dict()) for name, network in components.items()},
        components["unet"].config,  # type: ignore[arg-type]
    )
    groups: Mapping[str, AdapterGroup] = read_adapter(path).groups
    assert len(groups) == count
    for prefix, group in groups.items():
        target = names.find(prefix)
        assert target is not None, prefix
        weight = components[target.component].get_submodule(target.path).get_parameter("weight")
        weight.data = deltas.patched(group, weight.data, 1.0)
