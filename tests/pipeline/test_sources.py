"""Files to networks: every family, layout and precision gives what diffusers' and transformers' own loaders give."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tests.model_files import (
    FAMILY_IDS,
    component_configs,
    info_of,
    load_network,
    original_tensors,
    sizes_of,
    write_diffusers_file,
    write_folder,
    write_original_layout,
)
from webui.errors import UnsupportedModel
from webui.library.entries import CLIP_VOCABULARY, tokenizer_folder
from webui.library.families import FAMILIES
from webui.pipeline.component_source import ComponentSource, same_content, to_original
from webui.pipeline.layouts import original_weights
from webui.pipeline.sources import CheckpointSource, open_checkpoint, open_vae

THEIRS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel,
          "text_encoder_2": CLIPTextModelWithProjection}  # fmt: skip


def opened(path: Path, family: str = "sd15") -> CheckpointSource:
    return open_checkpoint(info_of(path, family))


def part(path: Path, name: str, family: str = "sd15") -> ComponentSource:
    source = opened(path, family).component(name)
    assert source is not None
    return source


def outputs(name: str, module: nn.Module, config: Mapping[str, object]) -> Tensor:
    """What the network makes of fixed random input."""
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        if name == "unet":
            x = torch.randn(2, int(str(config["in_channels"])), 8, 8, generator=generator)
            context = torch.randn(2, 5, int(str(config["cross_attention_dim"])), generator=generator)
            added = None
            if config.get("addition_embed_type"):
                num_ids = 5 if int(str(config["projection_class_embeddings_input_dim"])) == 32 + 1280 else 6
                added = {"text_embeds": torch.randn(2, 32, generator=generator), "time_ids": torch.ones(2, num_ids)}
            return module(x, 500, context, added_cond_kwargs=added, return_dict=False)[0]  # type: ignore[no-any-return]
        if name == "vae":
            pixels = torch.randn(1, 3, 16, 16, generator=generator)
            mean = module.encode(pixels).latent_dist.mean  # type: ignore[operator]
            return torch.cat([mean.flatten(), module.decode(mean).sample.flatten()])  # type: ignore[operator]
        ids = torch.tensor([[49406, 320, 2368, 7, 49407, 0]])
        given = module(ids, output_hidden_states=True)
        pooled = given.text_embeds if name == "text_encoder_2" else given.pooler_output
        return torch.cat([given.last_hidden_state.flatten(), given.hidden_states[-2].flatten(), pooled.flatten()])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By family: the folder that diffusers reads, of the same weights as the single files."""
    root = tmp_path_factory.mktemp("folders")
    return {family: write_folder(root / family, family) for family in FAMILY_IDS}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file of the original layout, to read from."""
    return write_original_layout(tmp_path_factory.mktemp("plain") / "plain.safetensors")


@pytest.mark.parametrize("family", FAMILY_IDS)
def test_networks_of_every_layout_equal_those_that_diffusers_loads(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    original = opened(write_original_layout(tmp_path / "original.safetensors", family), family)
    others = [
        opened(path, family)
        for path in (folders[family], write_diffusers_file(tmp_path / "diffusers.safetensors", family))
    ]
    configs = component_configs(sizes_of(family))
    has_own_parts = sizes_of(family).in_channels == 4  # those with more channels have the other parts of their base
    for name in configs if has_own_parts else ("unet",):
        config = configs[name]
        theirs = THEIRS[name].from_pretrained(folders[family] / name, torch_dtype=torch.float32).eval()
        expected = outputs(name, theirs, config)
        assert torch.isfinite(expected).all()
        source = original.component(name)
        assert source is not None
        assert torch.allclose(outputs(name, load_network(source, torch.float32), config), expected, atol=1e-5), name
        for other in others:
            same = other.component(name)
            assert same is not None and same_content(source, same), (other.info.path.name, name)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("component", ["unet", "vae"])
def test_networks_equal_diffusers_own_single_file_loader(
    family: str, component: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    path = write_original_layout(tmp_path / "original.safetensors", family, dtype="F32")
    theirs = THEIRS[component].from_single_file(
        str(path), config=str(folders[family]), subfolder=component, local_files_only=True, torch_dtype=torch.float32
    )
    config = component_configs(sizes_of(family))[component]
    ours = load_network(part(path, component, family), torch.float32)
    assert torch.allclose(outputs(component, ours, config), outputs(component, theirs.eval(), config), atol=1e-5)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_weights_of_every_precision_are_converted_to_the_working_one(dtype: str, tmp_path: Path) -> None:
    path = write_original_layout(tmp_path / "a.safetensors", dtype=dtype)
    source = part(path, "vae")
    stored = load_file(path)["first_stage_model.encoder.down.0.block.0.conv1.weight"]
    for working in (torch.float32, torch.float16, torch.bfloat16):
        weight = load_network(source, working).get_parameter("encoder.down_blocks.0.resnets.0.conv1.weight")
        assert weight.dtype == working
        assert torch.equal(weight, stored.to(working))


def test_the_plain_weights_are_used_where_a_file_has_averages_too(plain: Path, tmp_path: Path) -> None:
    both = part(write_original_layout(tmp_path / "both.safetensors", ema="both"), "unet")
    assert same_content(part(plain, "unet"), both)


def test_the_averages_are_used_where_there_is_nothing_else(tmp_path: Path) -> None:
    path = write_original_layout(tmp_path / "a.safetensors", ema="only")
    module = load_network(part(path, "unet"), torch.float16)
    stored = load_file(path)["model_ema.diffusion_modelinput_blocks00weight"]
    assert torch.equal(module.get_parameter("conv_in.weight"), stored)


def test_pickled_checkpoints_hold_the_same_networks(plain: Path, tmp_path: Path) -> None:
    old = tmp_path / "b.ckpt"
    torch.save({"state_dict": load_file(plain), "epoch": 3}, old)
    for name in ("unet", "vae", "text_encoder"):
        assert same_content(part(plain, name), part(old, name))


def test_a_folder_may_have_shards_half_precision_or_pickles(folders: dict[str, Path], tmp_path: Path) -> None:
    original = folders["sd15"] / "unet"
    tensors = load_file(original / "diffusion_pytorch_model.safetensors")
    names = sorted(tensors)
    halves = {"a.safetensors": names[:100], "b.safetensors": names[100:]}

    def folder(name: str) -> Path:
        target = tmp_path / name / "unet"
        target.mkdir(parents=True)
        (target / "config.json").write_text((original / "config.json").read_text())
        (tmp_path / name / "scheduler").mkdir()
        (tmp_path / name / "scheduler" / "scheduler_config.json").write_text("{}")
        return target

    sharded, variant, pickled = folder("sharded"), folder("variant"), folder("pickled")
    for file, keys in halves.items():
        save_file({key: tensors[key] for key in keys}, sharded / file)
    index = {"weight_map": {key: file for file, keys in halves.items() for key in keys}}
    (sharded / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    save_file(tensors, variant / "diffusion_pytorch_model.fp16.safetensors")
    torch.save(tensors, pickled / "diffusion_pytorch_model.bin")
    for target in (sharded, variant, pickled):
        assert same_content(part(original.parent, "unet"), part(target.parent, "unet"))


def test_old_names_in_folders_are_understood(folders: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "old"
    for name in ("vae", "text_encoder", "scheduler"):
        (target / name).mkdir(parents=True)
        for config in (folders["sd15"] / name).glob("*.json"):
            (target / name / config.name).write_text(config.read_text())
    vae = load_file(folders["sd15"] / "vae" / "diffusion_pytorch_model.safetensors")
    words = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in words.items():
        vae = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): value for key, value in vae.items()}
    save_file(vae, target / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(folders["sd15"] / "text_encoder" / "model.safetensors")
    text = {f"text_model.{key}": value for key, value in text.items()}
    save_file(
        text | {"text_model.embeddings.position_ids": torch.arange(77)[None]},
        target / "text_encoder" / "model.safetensors",
    )
    for name in ("vae", "text_encoder"):
        assert same_content(part(target, name), part(folders["sd15"], name))


def test_a_text_encoder_from_before_the_word_text_model_is_understood(plain: Path, tmp_path: Path) -> None:
    old = {key.replace("transformer.text_model.", "transformer."): value for key, value in load_file(plain).items()}
    save_file(old, tmp_path / "b.safetensors")
    assert same_content(part(plain, "text_encoder"), part(tmp_path / "b.safetensors", "text_encoder"))


def test_tensors_are_views_of_the_file_and_go_with_it(tmp_path: Path) -> None:
    path = write_original_layout(tmp_path / "mapped.safetensors")
    source = part(path, "unet")
    tensor = source.tensor("conv_in.weight")
    (span,) = mapped_spans(path)
    assert span[0] <= tensor.data_ptr() < span[1]
    module = load_network(source, torch.float16)
    assert not any(span[0] <= weight.data_ptr() < span[1] for weight in module.parameters())
    del tensor
    source.close()
    assert mapped_spans(path) == []


def mapped_spans(path: Path) -> list[tuple[int, int]]:
    """Where `path` is mapped into this process (Linux)."""
    maps = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(path.name)]
    return [(int(start, 16), int(end, 16)) for start, end in (span.split("-") for span in maps)]


def test_missing_and_unknown_weights_are_named(plain: Path, tmp_path: Path) -> None:
    tensors = load_file(plain)
    tensors["model.diffusion_model.extra.weight"] = tensors.pop("model.diffusion_model.time_embed.2.bias")
    save_file(tensors, tmp_path / "b.safetensors")
    with pytest.raises(UnsupportedModel, match=r"time_embedding.linear_2.bias is missing; extra.weight is unknown"):
        load_network(part(tmp_path / "b.safetensors", "unet"), torch.float32)


def test_weights_of_another_shape_are_named(folders: dict[str, Path]) -> None:
    source = part(folders["sd15"], "unet")
    narrow = ComponentSource("unet", source.path, {**source.config, "in_channels": 8}, source.origins)
    with pytest.raises(UnsupportedModel, match=r"conv_in.weight is of another shape"):
        load_network(narrow, torch.float32)


def test_a_file_that_changes_while_it_is_in_use_is_refused(tmp_path: Path) -> None:
    path = write_original_layout(tmp_path / "a.safetensors")
    source = part(path, "unet")
    write_original_layout(path, seed=1, buffers=True)
    with pytest.raises(UnsupportedModel, match="changed while it was in use"):
        source.tensor("conv_in.weight")


def test_absent_parts_are_absent(tmp_path: Path) -> None:
    source = opened(write_original_layout(tmp_path / "a.safetensors", vae=False, text_encoder=False))
    assert source.names() == ("unet",)
    assert source.component("vae") is None


@pytest.mark.parametrize("layout", ["original", "diffusers", "checkpoint", "folder", "pickle"])
def test_a_vae_of_its_own_is_read_from_any_file(layout: str, folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    tensors = original_tensors(sizes_of("sd15"))
    vae = {key.removeprefix("first_stage_model."): value for key, value in tensors.items() if key.startswith("first_")}
    if layout == "original":
        save_file(vae | {"loss.logvar": torch.zeros(1)}, path)
    elif layout == "diffusers":
        write_diffusers_file(path, components=("vae",), bare=True)
    elif layout == "checkpoint":
        write_original_layout(path)
    elif layout == "pickle":
        path = path.with_suffix(".pt")
        torch.save({"state_dict": vae}, path)
    else:
        path = folders["sd15"] / "vae"
    assert same_content(open_vae(path, "sd15"), part(folders["sd15"], "vae"))


def test_a_file_without_a_vae_is_not_taken_for_one(tmp_path: Path) -> None:
    path = write_original_layout(tmp_path / "a.safetensors", vae=False)
    with pytest.raises(UnsupportedModel, match="no autoencoder"):
        open_vae(path, "sd15")


@pytest.mark.parametrize("change", ["one value", "config", "none"])
def test_the_same_content_is_found_by_every_byte(change: str, plain: Path, tmp_path: Path) -> None:
    tensors = load_file(plain)
    if change == "one value":
        tensors["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"][30_000, 7] += 1
    save_file(tensors, tmp_path / "b.safetensors")
    one, other = part(plain, "text_encoder"), part(tmp_path / "b.safetensors", "text_encoder")
    if change == "config":
        other.config = {**other.config, "hidden_act": "gelu"}
    assert same_content(one, other) == (change == "none")


@pytest.mark.parametrize("family", ["sd15", "sd20", "sdxl", "sdxl-refiner"])
def test_networks_can_be_written_back_to_the_original_layout(family: str, tmp_path: Path) -> None:
    path = write_original_layout(tmp_path / "a.safetensors", family)
    stored = load_file(path)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        source = opened(path, family).component(name)
        if source is None:
            continue
        parts: dict[str, dict[str, Tensor]] = {}
        for weight in original_weights(name, source.config, FAMILIES[family].adapter_base):  # type: ignore[arg-type]
            parts.setdefault(weight.original, {})[weight.transform] = source.tensor(weight.name)
        for original, tensors in parts.items():
            assert torch.equal(to_original(tensors), stored[original])  # type: ignore[arg-type]
        assert math.prod(stored["model.diffusion_model.out.2.weight"].shape) > 0


@pytest.mark.parametrize(("files", "is_own"), [(["merges.txt", "vocab.json"], True), (["merges.txt"], True),
                                               (["vocab.json"], False), ([], False)])  # fmt: skip
def test_the_page_counts_with_the_vocabulary_that_the_model_reads_with(
    files: list[str], is_own: bool, tmp_path: Path
) -> None:
    path = write_folder(tmp_path / "model")
    folder = path / "tokenizer"
    for name in ("merges.txt", "vocab.json"):
        (folder / name).unlink(missing_ok=True)
    for name in files:
        (folder / name).write_bytes(b"")
    assert opened(path).tokenizer() == tokenizer_folder(info_of(path)) == (folder if is_own else CLIP_VOCABULARY)
