"""New LoRAs from old ones and from checkpoints, by the change that they make: float64 products are the oracle."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.adapter_files import write_adapter as write_adapter_file
from tests.model_files import info_of, write_original_layout
from webui.errors import AdapterMismatch, InvalidRequest, UnsupportedModel
from webui.pipeline.adapters.deltas import low_rank
from webui.pipeline.adapters.reading import AdapterFile, read_adapter
from webui.pipeline.adapters.targets import Target
from webui.pipeline.adapters.writing import write_adapter
from webui.pipeline.sources import open_checkpoint
from webui.pipeline.tools.baking import WeightedAdapter, bake
from webui.pipeline.tools.checkpoints import CheckpointParts, parts_of, write_checkpoint
from webui.pipeline.tools.loras import AdapterNaming, Modules, Ranks, extract, merge, resize
from webui.pipeline.tools.low_rank import RankChoice

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"
TEXT = "encoder.layers.0.self_attn.q_proj"
SHAPES = {("unet", ATTENTION): (32, 32), ("unet", CONV): (32, 32, 3, 3), ("text_encoder", TEXT): (32, 32)}
KOHYA = {
    ("unet", ATTENTION): "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
    ("unet", CONV): "lora_unet_down_blocks_0_resnets_0_conv1",
    ("text_encoder", TEXT): "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
}
NAMING = AdapterNaming.of_base("sd1")
FULL_RANK = Ranks(linear=RankChoice(rank=64), conv=RankChoice(rank=64))


def opened(path: Path) -> CheckpointParts:
    return parts_of(open_checkpoint(info_of(path)))


def lora(path: Path, *, seed: int = 0, rank: int = 8, naming: str = "kohya", variant: str = "lora") -> AdapterFile:
    return read_adapter(write_adapter_file(path, SHAPES, seed=seed, rank=rank, naming=naming, variant=variant))


def weighted(file: AdapterFile, weight: float) -> WeightedAdapter:
    return WeightedAdapter(file=file, unet_weight=weight, text_encoder_weight=weight)


def changes(file: AdapterFile) -> dict[Target, torch.Tensor]:
    """What the file adds to each weight, in float64."""
    found = {}
    for prefix, group in file.groups.items():
        target = NAMING.find(prefix)
        assert target is not None
        factors = low_rank(group, SHAPES[target.component, target.path], dtype=torch.float64)
        assert factors is not None
        found[target] = factors.up @ factors.down * factors.scale
    return found


def written(path: Path, modules: Modules, dtype: torch.dtype = torch.float32) -> AdapterFile:
    write_adapter(path, modules, NAMING.kohya, dtype=dtype, metadata={"ss_network_module": "networks.lora"})
    return read_adapter(path)


def distance(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((ours - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_a_smaller_rank_is_the_best_of_that_rank_in_every_layer(tmp_path: Path, naming: str) -> None:
    file = lora(tmp_path / "a.safetensors", naming=naming)
    ranks = Ranks(linear=RankChoice(rank=3), conv=RankChoice(rank=2))
    small = written(tmp_path / "b.safetensors", resize(file, NAMING, ranks))
    before, after = changes(file), changes(small)
    assert before.keys() == after.keys()
    for target, change in before.items():
        rank = 2 if target.path == CONV else 3
        u, s, vh = torch.linalg.svd(change, full_matrices=False)
        best = u[:, :rank] * s[:rank] @ vh[:rank]
        assert distance(after[target], best) < 1e-4
    assert sorted(small.groups) == sorted(KOHYA.values())


def test_a_larger_rank_changes_nothing(tmp_path: Path) -> None:
    file = lora(tmp_path / "a.safetensors", rank=4)
    same = written(tmp_path / "b.safetensors", resize(file, NAMING, FULL_RANK))
    for target, change in changes(file).items():
        assert distance(changes(same)[target], change) < 1e-5
    assert {group.shapes["lora_down"][0] for group in same.groups.values()} == {4}


def test_merged_loras_are_their_weighted_sum_exactly(tmp_path: Path) -> None:
    a, b = lora(tmp_path / "a.safetensors", rank=4), lora(tmp_path / "b.safetensors", seed=1, rank=6)
    one = written(tmp_path / "c.safetensors", merge([weighted(a, 0.8), weighted(b, -0.5)], NAMING, None))
    for target, change in changes(one).items():
        assert distance(change, 0.8 * changes(a)[target] - 0.5 * changes(b)[target]) < 1e-5
    assert {group.shapes["lora_down"][0] for group in one.groups.values()} == {10}


def test_other_types_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="is no LoRA"):
        resize(lora(tmp_path / "a.safetensors", variant="loha"), NAMING, FULL_RANK)
    with pytest.raises(InvalidRequest, match="sd-custom"):
        AdapterNaming.of_base("sd-custom")


def test_a_baked_lora_can_be_extracted_again(tmp_path: Path) -> None:
    base = write_original_layout(tmp_path / "base.safetensors", dtype="F32")
    wanted = changes_of_model(tmp_path, base)
    parts = bake(opened(base), [WeightedAdapter(file=wanted, unet_weight=0.7, text_encoder_weight=0.4)])
    write_checkpoint(parts, tmp_path / "baked.safetensors", layout="single-file", precision="keep", metadata={})
    ranks = Ranks(linear=RankChoice(rank=4), conv=RankChoice(rank=4))
    found = extract(opened(base), opened(tmp_path / "baked.safetensors"), ranks)
    after = read_back(tmp_path / "found.safetensors", found)
    before = dense(wanted, base)
    assert after.keys() == before.keys()
    for target, change in before.items():
        weight = 0.7 if target.component == "unet" else 0.4
        assert distance(after[target], change * weight) < 1e-4


def test_what_is_baked_is_what_the_formula_says_and_the_rest_is_untouched(tmp_path: Path) -> None:
    base = write_original_layout(tmp_path / "base.safetensors", dtype="F32")
    file = changes_of_model(tmp_path, base)
    parts = bake(opened(base), [WeightedAdapter(file=file, unet_weight=0.5, text_encoder_weight=0.5)] * 2)
    write_checkpoint(parts, tmp_path / "baked.safetensors", layout="single-file", precision="keep", metadata={})
    before, after = load_file(base), load_file(tmp_path / "baked.safetensors")
    touched = {name for name in after if not torch.equal(after[name], before[name])}
    assert touched == {
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
        "model.diffusion_model.input_blocks.1.0.in_layers.2.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
    }
    name = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    change = dense(file, base)[Target("unet", ATTENTION)]
    assert distance(after[name].double() - before[name].double(), change) < 1e-4


def test_an_adapter_of_another_family_is_not_baked(tmp_path: Path) -> None:
    base = write_original_layout(tmp_path / "base.safetensors")
    other = write_adapter_file(tmp_path / "other.safetensors", {("unet", "no.such.layer"): (8, 8)})
    with pytest.raises(AdapterMismatch, match="'other'"):
        bake(opened(base), [WeightedAdapter(file=read_adapter(other), unet_weight=1.0, text_encoder_weight=1.0)])


def test_equal_checkpoints_give_no_lora(tmp_path: Path) -> None:
    base = write_original_layout(tmp_path / "base.safetensors")
    with pytest.raises(InvalidRequest, match="do not differ"):
        extract(opened(base), opened(base), FULL_RANK)


def test_noise_in_the_text_encoder_can_be_left_out(tmp_path: Path) -> None:
    base = write_original_layout(tmp_path / "base.safetensors", dtype="F32")
    tensors = load_file(base)
    noisy = {
        name: value + (1e-4 if name.startswith("cond_stage") else 1e-2 if ".attn1.to_q" in name else 0.0)
        for name, value in tensors.items()
    }
    save_file(noisy, tmp_path / "tuned.safetensors")
    found = extract(opened(base), opened(tmp_path / "tuned.safetensors"), FULL_RANK, min_difference=1e-3)
    assert {target.component for target in found} == {"unet"}


def changes_of_model(tmp_path: Path, base: Path) -> AdapterFile:
    """A LoRA of three layers with the shapes that they have in `base`."""
    components = opened(base).components
    shapes = {key: components[key[0]].source.info(f"{key[1]}.weight").shape for key in SHAPES}  # type: ignore[index]
    return read_adapter(write_adapter_file(tmp_path / "lora.safetensors", shapes, rank=4))


def dense(file: AdapterFile, base: Path) -> dict[Target, torch.Tensor]:
    components = opened(base).components
    found = {}
    for prefix, group in file.groups.items():
        target = NAMING.find(prefix)
        assert target is not None
        shape = components[target.component].source.info(f"{target.path}.weight").shape
        factors = low_rank(group, shape, dtype=torch.float64)
        assert factors is not None
        found[target] = (factors.up @ factors.down * factors.scale).reshape(shape)
    return found


def read_back(path: Path, modules: Modules) -> dict[Target, torch.Tensor]:
    shapes = {target: (g["lora_up"].shape[0], *g["lora_down"].shape[1:]) for target, g in modules.items()}
    file = written(path, modules)
    found = {}
    for prefix, group in file.groups.items():
        target = NAMING.find(prefix)
        assert target is not None
        factors = low_rank(group, tuple(shapes[target]), dtype=torch.float64)
        assert factors is not None
        found[target] = (factors.up @ factors.down * factors.scale).reshape(shapes[target])
    return found
