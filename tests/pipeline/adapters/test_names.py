"""Module names of every trainer find the module that they mean, in every family."""

import json
import re
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.adapter_files import NAMINGS, attention_of
from webui.library import families
from webui.pipeline.adapters.names import TargetNames, module_paths
from webui.pipeline.adapters.targets import ADAPTED_COMPONENTS, AdaptedComponent, Target
from webui.pipeline.adapters.writing import KohyaNames
from webui.pipeline.layouts import clip_weights, unet_weights
from webui.settings import CHECKOUT

CONFIGS = CHECKOUT / "webui" / "library" / "configs"
FAMILIES: Mapping[str, families.AdapterBase] = {
    "sd15": "sd1",
    "sd2": "sd2",
    "sdxl": "sdxl",
    "sdxl-refiner": "sdxl-refiner",
}


class Names:
    """A family's modules, from its configs."""

    def __init__(self, family: str) -> None:
        self.unet_config = json.loads((CONFIGS / family / "unet.json").read_text("utf-8"))
        weights = {"unet": unet_weights(self.unet_config)}
        for component in ("text_encoder", "text_encoder_2"):
            path = CONFIGS / family / f"{component}.json"
            if path.is_file():
                weights[component] = clip_weights(json.loads(path.read_text("utf-8")))
        self.modules = {c: list(module_paths(w.name for w in found)) for c, found in weights.items()}
        if "text_encoder_2" in self.modules:
            self.modules["text_encoder_2"].append("text_projection")
        self.names = TargetNames(self.modules, self.unet_config)
        self.kohya = KohyaNames(FAMILIES[family], self.unet_config)

    def targets(self) -> list[Target]:
        components: tuple[AdaptedComponent, ...] = ADAPTED_COMPONENTS
        return [Target(component, path) for component in components for path in self.modules.get(component, ())]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Names:
    return Names(request.param)


@pytest.fixture(scope="module")
def sd15() -> Names:
    return Names("sd15")


@pytest.fixture(scope="module")
def sdxl() -> Names:
    return Names("sdxl")


ATTENTION_ONLY = "processors"


@pytest.mark.parametrize("naming", sorted(NAMINGS.keys() - {ATTENTION_ONLY, "lycoris"}))
def test_every_module_is_found_by_its_name_in_every_style(family: Names, naming: str) -> None:
    for target in family.targets():
        prefix, _ = NAMINGS[naming](target.component, target.path)
        assert family.names.find(prefix) == target, prefix


def test_every_module_is_found_by_the_name_that_is_written(family: Names) -> None:
    names = [family.kohya.prefix(target) for target in family.targets()]
    assert len(set(names)) == len(names)
    assert [family.names.find(name) for name in names] == family.targets()


def test_every_u_net_module_is_found_by_its_original_name_dotted_or_not(family: Names) -> None:
    for weight in unet_weights(family.unet_config):
        if not weight.name.endswith(".weight"):
            continue
        original = weight.original.removesuffix(".weight")
        target = Target("unet", weight.name.removesuffix(".weight"))
        for prefix in (
            f"lora_unet_{original.replace('.', '_')}",
            f"lycoris_{original.replace('.', '_')}",
            f"diffusion_model.{original}",
            f"model.diffusion_model.{original}",
            f"lora_unet.{original}",
            original,
        ):
            assert family.names.find(prefix) == target, prefix


def test_attention_processors_of_old_diffusers_are_found(family: Names) -> None:
    attention = [t for t in family.targets() if t.component == "unet" and re.search(r"attn\d\.to_", t.path)]
    assert attention
    for target in attention:
        prefix, _ = NAMINGS[ATTENTION_ONLY](target.component, target.path)
        assert prefix.endswith("_lora")
        assert family.names.find(prefix) == target


@pytest.mark.parametrize(
    ("prefix", "component", "path"),
    [
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("lora_te_encoder_layers_0_mlp_fc1", "text_encoder", "encoder.layers.0.mlp.fc1"),
        ("lora_te1_text_model_encoder_layers_3_mlp_fc2", "text_encoder", "encoder.layers.3.mlp.fc2"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora", "text_encoder",
         "encoder.layers.0.self_attn.out_proj"),
        ("text_encoder.encoder.layers.0.self_attn.v_proj", "text_encoder", "encoder.layers.0.self_attn.v_proj"),
        ("clip_l.text_model.encoder.layers.1.mlp.fc1", "text_encoder", "encoder.layers.1.mlp.fc1"),
        ("cond_stage_model.transformer.text_model.final_layer_norm", "text_encoder", "final_layer_norm"),
        ("lora_te_text_model_embeddings_token_embedding", "text_encoder", "embeddings.token_embedding"),
        ("lycoris_text_model_encoder_layers_0_mlp_fc1", "text_encoder", "encoder.layers.0.mlp.fc1"),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", "unet", "down_blocks.0.attentions.0.proj_in"),
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj", "unet",
         "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"),
        ("lora_unet_conv_in", "unet", "conv_in"),
        ("lora_unet_time_embedding_linear_1", "unet", "time_embedding.linear_1"),
        ("lora_unet_input_blocks_0_0", "unet", "conv_in"),
        ("lora_unet_time_embed_2", "unet", "time_embedding.linear_2"),
        ("lora_unet_out_2", "unet", "conv_out"),
        ("lora_unet_input_blocks_3_0_op", "unet", "down_blocks.0.downsamplers.0.conv"),
        ("lora_unet_output_blocks_5_2_conv", "unet", "up_blocks.1.upsamplers.0.conv"),
        ("lora_unet_output_blocks_3_0_skip_connection", "unet", "up_blocks.1.resnets.0.conv_shortcut"),
        ("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.processor.to_out_lora", "unet",
         "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0"),
        ("unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out", "unet",
         "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0"),
        ("base_model.model.down_blocks.0.resnets.0.conv1", "unet", "down_blocks.0.resnets.0.conv1"),
        ("oft_unet_up_blocks_1_attentions_0_proj_out", "unet", "up_blocks.1.attentions.0.proj_out"),
    ],
)  # fmt: skip
def test_names_as_they_stand_in_sd15_files(sd15: Names, prefix: str, component: AdaptedComponent, path: str) -> None:
    assert sd15.names.find(prefix) == Target(component, path)


@pytest.mark.parametrize(
    ("prefix", "component", "path"),
    [
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", "unet",
         "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
        ("lora_unet_middle_block_1_transformer_blocks_9_ff_net_2", "unet",
         "mid_block.attentions.0.transformer_blocks.9.ff.net.2"),
        ("lora_unet_output_blocks_2_2_conv", "unet", "up_blocks.0.upsamplers.0.conv"),
        ("lora_unet_label_emb_0_0", "unet", "add_embedding.linear_1"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_k_proj", "text_encoder", "encoder.layers.0.self_attn.k_proj"),
        ("lora_te2_text_model_encoder_layers_31_mlp_fc1", "text_encoder_2", "text_model.encoder.layers.31.mlp.fc1"),
        ("lora_te2_text_projection", "text_encoder_2", "text_projection"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"),
        ("text_encoder_2.encoder.layers.0.mlp.fc1", "text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"),
        ("clip_g.text_model.encoder.layers.30.mlp.fc1", "text_encoder_2", "text_model.encoder.layers.30.mlp.fc1"),
        ("lycoris_text_model_encoder_layers_31_mlp_fc1", "text_encoder_2", "text_model.encoder.layers.31.mlp.fc1"),
    ],
)  # fmt: skip
def test_names_as_they_stand_in_sdxl_files(sdxl: Names, prefix: str, component: AdaptedComponent, path: str) -> None:
    assert sdxl.names.find(prefix) == Target(component, path)


def test_a_name_that_either_text_encoder_could_mean_finds_neither(sdxl: Names) -> None:
    assert sdxl.names.find("lycoris_text_model_encoder_layers_0_mlp_fc1") is None


def test_a_spelling_of_two_modules_finds_neither(sd15: Names) -> None:
    names = TargetNames({"unet": ["a.b_c", "a_b.c", "a.b"]}, sd15.unet_config)
    assert names.find("lora_unet_a_b_c") is None
    assert names.find("lora_unet_a_b") == Target("unet", "a.b")


@pytest.mark.parametrize(
    "prefix",
    [
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
        "lora_te_text_model_encoder_layers_12_mlp_fc1",
        "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q",
        "lora_unet_down_blocks_0_attentions_2_proj_in",
        "lora_unet_",
        "",
        "transformer.double_blocks.0.img_attn.qkv",
    ],
)
def test_a_module_that_sd15_does_not_have_is_not_found(sd15: Names, prefix: str) -> None:
    assert sd15.names.find(prefix) is None


@given(text=st.text(st.sampled_from("lora_unet_te12.downmidblocks0attn"), max_size=60))
def test_any_text_is_found_or_not_and_breaks_nothing(text: str) -> None:
    found = SD15.names.find(text)
    assert found is None or found in SD15.targets()


SD15 = Names("sd15")


def test_the_number_of_modules_that_a_plain_lora_trains(sd15: Names, sdxl: Names) -> None:
    """kohya's counts: linear layers and 1x1 convolutions of the attention blocks; attention and MLP of the text."""

    def count(names: Names, component: str) -> int:
        trained = (path for path in names.modules[component] if attention_of(component, path) and "norm" not in path)
        return len(list(trained))

    assert count(sd15, "unet") == 192
    assert count(sd15, "text_encoder") == 72
    assert [count(sdxl, component) for component in ADAPTED_COMPONENTS] == [722, 72, 192]


def test_sgm_names_are_the_ones_that_diffusers_reads(sdxl: Names) -> None:
    """Its own conversion of the names that we write ends at the modules that we mean."""
    targets = [
        t for t in sdxl.targets() if t.component == "unet" and attention_of("unet", t.path) and "norm" not in t.path
    ]
    tensors: dict[str, torch.Tensor] = {}
    for n, target in enumerate(targets):
        number = torch.full((1, 1), float(n))
        prefix = sdxl.kohya.prefix(target)
        tensors |= {f"{prefix}.lora_down.weight": number, f"{prefix}.lora_up.weight": number}
    mapped = _maybe_map_sgm_blocks_to_diffusers(tensors, SimpleNamespace(layers_per_block=2))
    converted, _ = _convert_non_diffusers_lora_to_diffusers(mapped)
    modules = {int(tensor): key.removeprefix("unet.").removesuffix(".up.weight") for key, tensor in converted.items()
               if key.endswith("up.weight")}  # fmt: skip
    # Attention layers come out in diffusers' older form.
    plain = {n: re.sub(r"processor\.(to_[qkv])_lora$", r"\1", module) for n, module in modules.items()}
    plain = {n: re.sub(r"processor\.to_out_lora$", "to_out.0", module) for n, module in plain.items()}
    assert {n: module.removesuffix(".lora") for n, module in plain.items()} == {
        n: target.path for n, target in enumerate(targets)
    }
