"""Adapters and other small files: type, rank, base and trigger words from the header alone."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model_files import Shapes, sizes_of, text_shapes, vae_shapes, write_sparse
from webui.library.adapter_facts import trigger_words
from webui.library.facts import ModelFacts
from webui.library.identify import identify

TO_K = "mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
JSON = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
LORA = f"lora_unet_{TO_K}"


def facts_of(path: Path, shapes: Shapes, **metadata: str) -> ModelFacts:
    return identify(write_sparse(path / "model.safetensors", shapes, metadata=metadata))


def lora(width: int, name: str = LORA, rank: int = 8) -> Shapes:
    return {f"{name}.lora_down.weight": (rank, width), f"{name}.lora_up.weight": (1280, rank), f"{name}.alpha": ()}


@pytest.mark.parametrize(
    ("width", "base"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl"), (1280, "sdxl-refiner"), (160, "sd-custom")]
)
def test_the_width_of_the_text_tells_the_base(width: int, base: str, tmp_path: Path) -> None:
    facts = facts_of(tmp_path, lora(width), ss_base_model_version="sd_v1")
    assert (facts.kind, facts.adapter_base, facts.rank, facts.problems) == ("adapter", base, 8, ())


@pytest.mark.parametrize(
    ("shapes", "types", "rank"),
    [
        ({"x.lora_down.weight": (4, 9), "x.lora_up.weight": (9, 4)}, ("lora",), 4),
        ({"unet.x.attn2.to_k.lora_A.weight": (4, 768), "unet.x.attn2.to_k.lora_B.weight": (9, 4)}, ("lora",), 4),
        ({"unet.x.lora_A.default.weight": (4, 9), "unet.x.lora_B.default.weight": (9, 4)}, ("lora",), 4),
        ({"x.processor.to_q_lora.down.weight": (4, 9), "x.processor.to_q_lora.up.weight": (9, 4)}, ("lora",), 4),
        ({"x.lora_down.weight": (4, 9, 1, 1), "x.lora_mid.weight": (4, 4, 3, 3), "x.lora_up.weight": (9, 4, 1, 1)},
         ("lora-tucker",), 4),
        ({"x.lora_down.weight": (4, 9), "x.lora_up.weight": (9, 4), "x.dora_scale": (9, 1)}, ("lora", "dora"), 4),
        ({"x.hada_w1_a": (9, 4), "x.hada_w1_b": (4, 9), "x.hada_w2_a": (9, 4), "x.hada_w2_b": (4, 9)}, ("loha",), 4),
        ({"x.lokr_w1": (3, 3), "x.lokr_w2_a": (3, 4), "x.lokr_w2_b": (4, 3)}, ("lokr",), 4),
        ({"x.lokr_w1": (3, 3), "x.lokr_w2": (3, 3)}, ("lokr",), None),
        ({"x.weight": (9,), "x.on_input": ()}, ("ia3",), None),
        ({"x.oft_blocks": (3, 3, 3), "x.alpha": ()}, ("oft",), None),
        ({"x.oft_blocks": (2, 3, 3, 3), "x.alpha": ()}, ("boft",), None),
        ({"x.a1.weight": (9, 4), "x.a2.weight": (4, 9), "x.b1.weight": (9, 4), "x.b2.weight": (4, 9)}, ("glora",), 4),
        ({"x.diff": (9, 9), "x.diff_b": (9,)}, ("full",), None),
        ({"x.w_norm": (9,), "x.b_norm": (9,)}, ("norm",), None),
        ({"x.diff_b": (9,)}, ("bias",), None),
        ({"x.oft_R.weight": (3, 6)}, ("oft-input",), None),
    ],
)  # fmt: skip
def test_the_names_of_the_tensors_tell_the_type(
    shapes: Shapes, types: tuple[str, ...], rank: int | None, tmp_path: Path
) -> None:
    facts = facts_of(tmp_path, shapes)
    assert (facts.kind, facts.adapter_types, facts.rank, facts.problems) == ("adapter", types, rank, ())


def test_the_second_text_encoder_tells_sdxl(tmp_path: Path) -> None:
    assert facts_of(tmp_path, lora(1280, "lora_te2_text_model_encoder_layers_0_mlp_fc1")).adapter_base == "sdxl"


def test_where_no_shape_tells_the_metadata_does(tmp_path: Path) -> None:
    shapes = lora(320, "lora_unet_down_blocks_0_attentions_0_proj_in")
    assert facts_of(tmp_path, shapes, ss_base_model_version="sd_v2_768_v").adapter_base == "sd2"
    spec = {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    assert facts_of(tmp_path, shapes, **spec).adapter_base == "sdxl"
    assert facts_of(tmp_path, shapes, ss_v2="False", ss_network_alpha="4.0").alpha == 4
    assert facts_of(tmp_path, shapes).adapter_base == ""


@pytest.mark.parametrize(
    "name",
    ["lora_unet_double_blocks_0_img_attn_proj", "transformer.single_transformer_blocks.0.attn.to_q",
     "lora_unet_joint_blocks_0_x_block_attn_qkv", "diffusion_model.blocks.0.self_attn.q"],
)  # fmt: skip
def test_an_adapter_for_another_network_is_said_to_be_one(name: str, tmp_path: Path) -> None:
    facts = facts_of(tmp_path, lora(3072, name))
    assert facts.kind == "adapter"
    assert "does not run" in facts.problems[0]


def test_the_makers_trigger_words_count_first() -> None:
    tags = json.dumps({"10_img": {"1girl": 20, "hat": 3}})
    said = {"modelspec.trigger_phrase": "ohwx man, , red hat", "ss_tag_frequency": tags}
    assert trigger_words(said) == ("ohwx man", "red hat")


def test_tags_of_nearly_all_pictures_are_trigger_words() -> None:
    tags = json.dumps({"10_img": {"ohwx": 20, "hat": 3, "smile": 19}})
    dirs = json.dumps({"10_img": {"n_repeats": 10, "img_count": 20}})
    assert trigger_words({"ss_tag_frequency": tags, "ss_dataset_dirs": dirs}) == ("ohwx", "smile")


def test_else_the_folders_name_is_one_unless_it_says_nothing() -> None:
    dirs = json.dumps({"10_ohwx man": {"img_count": 20}, "5_images": {"img_count": 3}})
    assert trigger_words({"ss_dataset_dirs": dirs}) == ("ohwx man",)


@given(st.text(max_size=40) | JSON.map(json.dumps))
def test_notes_of_any_content_do_no_harm(text: str) -> None:
    assert len(trigger_words({"ss_tag_frequency": text, "ss_dataset_dirs": text})) <= 8


@pytest.mark.parametrize(
    ("shapes", "kind", "base"),
    [
        ({"emb_params": (4, 768)}, "embedding", "sd1"),
        ({"emb_params": (4, 1024)}, "embedding", "sd2"),
        ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "embedding", "sdxl"),
        ({"<token>": (768,)}, "embedding", "sd1"),
        ({"768.0.linear.0.weight": (8, 768), "768.1.linear.0.weight": (8, 768)}, "hypernetwork", "sd1"),
        ({"1.weight": (64, 4, 3, 3), "3.conv.0.weight": (64, 64, 3, 3)}, "tiny_decoder", ""),
        (vae_shapes(sizes_of("sd15")), "vae", ""),
        ({f"first_stage_model.{name}": shape for name, shape in vae_shapes(sizes_of("sdxl")).items()}, "vae", ""),
        (text_shapes(sizes_of("sd15")), "text_encoder", ""),
        (text_shapes(sizes_of("sd20")), "text_encoder", ""),
        ({"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)}, "upscaler", ""),
        ({"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}, "upscaler", ""),
    ],
)
def test_other_kinds_are_told_apart(shapes: Shapes, kind: str, base: str, tmp_path: Path) -> None:
    facts = facts_of(tmp_path, shapes)
    assert (facts.kind, facts.adapter_base, facts.problems) == (kind, base, ())
