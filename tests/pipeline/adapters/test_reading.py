"""Adapter files of every type, format and state of damage."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.adapter_files import NAMINGS, ONLY_CONVOLUTIONS, VARIANTS, tensors_for, write_adapter
from tests.models import write_checkpoint
from webui.errors import UnsupportedModel
from webui.library.identify import identify
from webui.pipeline.adapters import deltas
from webui.pipeline.adapters.adapter_types import ADAPTER_TYPES
from webui.pipeline.adapters.names import TargetNames, module_paths
from webui.pipeline.adapters.reading import read_adapter, split_key

LINEAR = {("unet", "a.b"): (16, 12)}
CONVOLUTION = {("unet", "a.b"): (16, 12, 3, 3)}


def modules_for(variant: str) -> dict[tuple[str, str], tuple[int, ...]]:
    if variant == "norm":
        return {("unet", "a.b"): (16,)}
    return CONVOLUTION if variant in ONLY_CONVOLUTIONS else LINEAR


# What is in a file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_file_of_every_type_gives_back_its_tensors(variant: str, ending: str, tmp_path: Path) -> None:
    modules = modules_for(variant)
    file = read_adapter(write_adapter(tmp_path / f"x.{ending}", modules, variant=variant, seed=7))
    assert (file.name, file.num_modules, file.problems, file.dtype) == ("x", 1, (), "F32")
    (group,) = file.groups.values()
    expected = tensors_for(variant, next(iter(modules.values())), seed=70_000)
    for end, tensor in expected.items():
        split = split_key(f"{group.prefix}.{end}")
        assert split is not None
        assert torch.equal(group.tensors[split[1]], tensor)
        assert group.shapes[split[1]] == tensor.shape
    assert len(group.tensors) == len(expected)
    family = "dora" if variant.startswith("dora") else file.types[0]
    assert family in file.types and set(file.types) <= {row.id for row in ADAPTER_TYPES} | {"dora"}


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64]
)
def test_every_precision_is_read_as_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    (group,) = read_adapter(write_adapter(tmp_path / "x.safetensors", LINEAR, dtype=dtype)).groups.values()
    assert group.tensors["lora_up"].dtype == dtype
    expected = tensors_for("lora", (16, 12))["lora_up.weight"].to(dtype)
    assert torch.equal(group.tensors["lora_up"].double(), expected.double())


@pytest.mark.parametrize("naming", NAMINGS)
def test_every_style_of_keys_is_split_into_module_and_tensor(naming: str, tmp_path: Path) -> None:
    modules = {("unet", "down.attn1.to_q"): (16, 12), ("unet", "down.attn1.to_out.0"): (12, 16)}
    file = read_adapter(write_adapter(tmp_path / "x.safetensors", modules, naming=naming))
    assert sorted(file.groups) == sorted(NAMINGS[naming](*module)[0] for module in modules)
    assert all(group.shapes.keys() == {"lora_up", "lora_down", "alpha"} for group in file.groups.values())


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("unet.x.lora_A.default.weight", "lora_down"),
        ("unet.x.lora_B.default_0.weight", "lora_up"),
        ("unet.x.lora_magnitude_vector", "lora_magnitude_vector"),
        ("unet.x.lora_magnitude_vector.default.weight", "lora_magnitude_vector"),
        ("text_encoder.x.lora_linear_layer.up.weight", "lora_up"),
        ("lora_unet_x.w_norm", "w_norm"),
    ],
)
def test_less_common_ends_of_keys_are_known(key: str, name: str) -> None:
    split = split_key(key)
    assert split is not None and split[1] == name and split[0].endswith(".x" if "." in split[0] else "_x")


@given(text=st.text(st.sampled_from("abw.lora_updnweight"), max_size=40))
def test_splitting_any_text_loses_nothing_or_finds_nothing(text: str) -> None:
    split = split_key(text)
    assert split is None or text.startswith(f"{split[0]}.")


def test_embeddings_that_come_along_are_found_by_their_names(tmp_path: Path) -> None:
    star, clip_l, clip_g = torch.randn(3, 32), torch.randn(2, 32), torch.randn(2, 48)
    path = write_adapter(
        tmp_path / "x.safetensors",
        LINEAR,
        extra={
            "bundle_emb.my.token.string_to_param.*": star,
            "bundle_emb.pair.clip_l": clip_l,
            "bundle_emb.pair.clip_g": clip_g,
        },
    )
    embeddings = read_adapter(path).embeddings
    assert {name: set(parts) for name, parts in embeddings.items()} == {"my.token": {"*"}, "pair": {"clip_l", "clip_g"}}
    assert torch.equal(embeddings["my.token"]["*"], star)
    assert torch.equal(embeddings["pair"]["clip_g"], clip_g)


def test_a_file_of_embeddings_alone_is_read(tmp_path: Path) -> None:
    save_file({"bundle_emb.a.string_to_param.*": torch.randn(1, 32)}, tmp_path / "x.safetensors")
    file = read_adapter(tmp_path / "x.safetensors")
    assert (list(file.embeddings), file.num_modules, file.problems) == (["a"], 0, ())


def test_metadata_comes_as_it_is(tmp_path: Path) -> None:
    metadata = {"ss_network_dim": "4", "ss_output_name": "ink wash"}
    assert read_adapter(write_adapter(tmp_path / "x.safetensors", LINEAR, metadata=metadata)).metadata == metadata


def test_weights_are_not_read_until_they_are_asked_for(tmp_path: Path) -> None:
    """A sparse file of 3 GB opens at once: only its table of contents is there."""
    shapes = {f"lora_unet_m{i}.{half}": [20_000, 20_000] for i in range(2) for half in ("diff",)}
    header, at = {}, 0
    for key, shape in shapes.items():
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at := at + 1_600_000_000]}
    text = json.dumps(header).encode()
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    found = read_adapter(tmp_path / "x.safetensors")
    assert [group.shapes["diff"] for group in found.groups.values()] == [(20_000, 20_000)] * 2


@pytest.mark.parametrize("naming", ["kohya", "peft"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_is_identified_by_its_header_as_what_is_read(variant: str, naming: str, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "x.safetensors", modules_for(variant), variant=variant, naming=naming)
    facts = identify(path)
    assert (facts.kind, facts.adapter_types) == ("adapter", read_adapter(path).types)


# Settings that are not among the tensors -----------------------------------------------------------------------------


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_a_file_that_diffusers_saves_with_its_settings_has_the_strength_it_was_trained_with(
    rank_stabilised: bool, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "tiny")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32)
    plain = unet(x, 10, context).sample
    config = LoraConfig(
        r=4,
        lora_alpha=3,
        use_rslora=rank_stabilised,
        target_modules=["to_q", "to_out.0", "conv1"],
        rank_pattern={"attn1.to_q": 2},
        alpha_pattern={"conv1": 7},
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    unet.add_adapter(config)
    with torch.no_grad():
        expected = unet(x, 10, context).sample
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(unet),
        weight_name="x.safetensors",
        **_collate_lora_metadata({"unet": unet}),
    )
    fresh = UNet2DConditionModel.from_pretrained(folder / "unet")
    assert apply(fresh, tmp_path / "x.safetensors") > 10
    with torch.no_grad():
        found = fresh(x, 10, context).sample
    assert ((found - expected).norm() / (expected - plain).norm()).item() < 1e-4


def apply(unet: nn.Module, path: Path, strength: float = 1.0) -> int:
    """Merges a file into a U-Net and returns the number of modules; all have to match."""
    names = TargetNames({"unet": module_paths(unet.state_dict())}, unet.config)
    file = read_adapter(path)
    for prefix, group in file.groups.items():
        target = names.find(prefix)
        assert target is not None, prefix
        weight = unet.get_submodule(target.path).get_parameter("weight")
        weight.data = deltas.patched(group, weight.data, strength)
    return len(file.groups)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"r": 4, "lora_alpha": 8}, 2.0),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": {"to_q": 1}}, 0.25),
        ({"r": 16, "lora_alpha": 8, "rank_pattern": {"attn1.to_q": 4}}, 2.0),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": {"to_k": 1}}, 2.0),
        ({"r": 4, "alpha": 2}, 0.5),
        ({"r": 4}, 1.0),
    ],
)
def test_settings_in_metadata_give_the_scale(settings: dict[str, Any], scale: float, tmp_path: Path) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in settings.items()})}
    modules = {("unet", "down.attn1.to_q"): (16, 12)}
    path = write_adapter(tmp_path / "x.safetensors", modules, naming="peft", alpha=None, metadata=metadata)
    (group,) = read_adapter(path).groups.values()
    assert float(group.tensors["scale"]) == scale


def test_an_alpha_among_the_tensors_comes_before_the_settings(tmp_path: Path) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 8})}
    path = write_adapter(tmp_path / "x.safetensors", LINEAR, naming="peft", alpha=3.0, metadata=metadata)
    (group,) = read_adapter(path).groups.values()
    assert "scale" not in group.shapes and float(group.tensors["alpha"]) == 3.0


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', '{"unet.r": "four"}', '{"unet.r": 4, "unet.alpha_pattern": 3}'])
def test_damaged_settings_are_told_and_not_guessed(text: str, tmp_path: Path) -> None:
    metadata = {"lora_adapter_metadata": text}
    path = write_adapter(tmp_path / "x.safetensors", LINEAR, naming="peft", alpha=None, metadata=metadata)
    with pytest.raises(UnsupportedModel, match="settings of rank and alpha are damaged"):
        read_adapter(path)


# Damage --------------------------------------------------------------------------------------------------------------


def file_with(tmp_path: Path, change: Callable[[dict[str, Tensor]], object], **more: object) -> Path:
    """Two modules, of which `change` damages the first, "lora_unet_bad"."""
    tensors = {f"lora_unet_bad.{end}": tensor for end, tensor in tensors_for("lora", (16, 12)).items()}
    change(tensors)
    tensors |= {f"lora_unet_good.{end}": tensor for end, tensor in tensors_for("lora", (16, 12)).items()}
    save_file(tensors, tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.pop("lora_unet_bad.lora_up.weight"), "'lora_unet_bad': of a LoRA, lora_up is missing"),
        (lambda t: t.pop("lora_unet_bad.lora_down.weight"), "'lora_unet_bad': of a LoRA, lora_down is missing"),
        (
            lambda t: t.update({"lora_unet_bad.lora_up.weight": torch.zeros(16, 8)}),
            "'lora_unet_bad': lora_up [16, 8] and lora_down [4, 12] do not fit each other",
        ),
        (
            lambda t: t.update({"lora_unet_bad.hada_w1_a": torch.zeros(16, 8)}),
            "'lora_unet_bad': hada_w1_a, lora_down, lora_up alone make no adapter",
        ),
        (
            lambda t: t.update({"lora_unet_bad.weight": torch.zeros(16)}),
            "'lora_unet_bad': lora_down, lora_up, weight alone make no adapter",
        ),
        (
            lambda t: t.update({"lora_unet_bad.rescale": torch.zeros(16)}),
            "'lora_unet_bad': lora_down, lora_up, rescale alone make no adapter",
        ),
    ],
)
def test_a_damaged_module_is_named_and_the_others_stay_usable(
    change: Callable[[dict[str, Tensor]], object], problem: str, tmp_path: Path
) -> None:
    file = read_adapter(file_with(tmp_path, change))
    assert file.problems == (problem,)
    assert (list(file.groups), file.num_modules) == (["lora_unet_good"], 2)


def test_keys_of_no_known_type_are_counted_and_one_is_named(tmp_path: Path) -> None:
    extra = {"lora_unet_a_b.q_layer": torch.zeros(2), "something": torch.zeros(2)}
    file = read_adapter(write_adapter(tmp_path / "x.safetensors", LINEAR, extra=extra))
    (problem,) = file.problems
    assert problem.startswith("2 keys belong to no type of adapter that is known here, such as ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_module_with_numbers_that_are_none_is_refused_by_name_when_it_is_applied(
    value: float, ending: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    bad = tensors_for("lora", (16, 12))["lora_up.weight"].to(dtype)
    bad[3, 1] = value
    extra = {
        "lora_unet_bad.lora_up.weight": bad,
        "lora_unet_bad.lora_down.weight": torch.ones(4, 12, dtype=dtype),
    }
    path = write_adapter(tmp_path / f"x.{ending}", {("unet", "good"): (16, 12)}, dtype=dtype, extra=extra)
    group = read_adapter(path).groups["lora_unet_bad"]
    with pytest.raises(
        UnsupportedModel, match=rf"'x.{ending}'.*'lora_unet_bad.lora_up.weight' has values that are NaN"
    ):
        deltas.patched(group, torch.zeros(16, 12), 1.0)
    with pytest.raises(UnsupportedModel, match="lora_unet_bad"):
        deltas.low_rank(group, (16, 12))


def test_a_file_that_changes_while_it_is_open_is_told_and_not_misread(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "x.safetensors", LINEAR)
    (group,) = read_adapter(path).groups.values()
    write_adapter(path, {("unet", "other"): (8, 8)}, rank=2)
    with pytest.raises(UnsupportedModel, match="it was changed while it was in use"):
        deltas.patched(group, torch.zeros(16, 12), 1.0)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "x.safetensors", LINEAR)
    (group,) = read_adapter(path).groups.values()
    path.unlink()
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        deltas.patched(group, torch.zeros(16, 12), 1.0)


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty.safetensors": lambda path: path.write_bytes(b""),
    "cut.safetensors": lambda path: path.write_bytes(write_adapter(path, LINEAR).read_bytes()[:-50]),
    "cut-header.safetensors": lambda path: path.write_bytes(write_adapter(path, LINEAR).read_bytes()[:60]),
    "text.safetensors": lambda path: path.write_text("<html>404</html>"),
    "no-tensors.safetensors": lambda path: save_file({}, path),
    "checkpoint.safetensors": lambda path: save_file({"model.diffusion_model.out.2.weight": torch.zeros(4)}, path),
    "only-alpha.safetensors": lambda path: save_file({"lora_unet_x.alpha": torch.tensor(1.0)}, path),
    "strange-dtype.safetensors": lambda path: path.write_bytes(
        write_adapter(path, LINEAR).read_bytes().replace(b'"F32"', b'"F99"')
    ),
    "wrong-length.safetensors": lambda path: path.write_bytes(
        write_adapter(path, {("unet", "a"): (16, 12)}).read_bytes().replace(b"[4,12]", b"[4,99]")
    ),
    "empty.pt": lambda path: path.write_bytes(b""),
    "text.ckpt": lambda path: path.write_text("<html>404</html>"),
    "list.bin": lambda path: torch.save([torch.zeros(2)], path),
    "cut.pt": lambda path: path.write_bytes(write_adapter(path, LINEAR).read_bytes()[:-200]),
    "missing.safetensors": lambda path: None,
    "missing.pt": lambda path: None,
    "folder.safetensors": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_name_and_a_reason(name: str, tmp_path: Path) -> None:
    BROKEN[name](tmp_path / name)
    with pytest.raises(UnsupportedModel, match=rf"'{name}' cannot be used: .+"):
        file = read_adapter(tmp_path / name)
        for group in file.groups.values():
            deltas.patched(group, torch.zeros(16, 12), 1.0)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code from a file",))


def test_a_pickle_that_holds_code_is_refused_and_nothing_of_it_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"lora_unet_x.alpha": Evil()}, tmp_path / "x.pt")
    with pytest.raises(UnsupportedModel, match="it holds more than weights"):
        read_adapter(tmp_path / "x.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("ending", ["ckpt", "bin", "pt"])
def test_weights_below_state_dict_are_found(ending: str, tmp_path: Path) -> None:
    tensors = {f"lora_unet_x.{end}": tensor for end, tensor in tensors_for("lora", (16, 12)).items()}
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / f"x.{ending}")
    assert list(read_adapter(tmp_path / f"x.{ending}").groups) == ["lora_unet_x"]
