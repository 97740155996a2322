"""Settings survive the way into a picture and back, in our JSON and in the words that other programs write."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from webui.errors import InvalidRequest
from webui.generation.infotext import metadata_of, restore_settings
from webui.generation.parameters import Parameters, build_request, parameters_of, parse_parameters
from webui.images.metadata import ImageMetadata
from webui.pipeline.samplers import SAMPLERS
from webui.pipeline.schedules import SCHEDULES

IMAGE = Image.new("RGB", (64, 64), "red")
MASK = Image.new("L", (64, 64), 255)

prompts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=60).map(str.strip)
parameters = st.builds(
    Parameters,
    checkpoint=st.sampled_from(["starter", "v1-5, pruned: best"]),
    prompt=prompts,
    negative_prompt=prompts,
    width=st.integers(8, 128).map(lambda n: n * 8),
    height=st.integers(8, 128).map(lambda n: n * 8),
    seed=st.integers(0, 2**32 - 1),
    clip_skip=st.integers(0, 3),
    vae=st.sampled_from(["Automatic", "None", "kl-f8: ft, mse"]),
    sampler=st.sampled_from(list(SAMPLERS)),
    schedule=st.sampled_from(list(SCHEDULES)),
    num_inference_steps=st.integers(1, 150),
    guidance_scale=st.integers(2, 60).map(lambda n: n / 2),
    image_guidance_scale=st.integers(0, 60).map(lambda n: n / 20),
    task=st.sampled_from(["txt2img", "img2img", "inpaint", "extras"]),
    strength=st.integers(0, 100).map(lambda n: n / 100),
    resize_mode=st.sampled_from(["stretch", "crop", "fill"]),
    mask_blur_px=st.integers(0, 64),
    mask_area=st.sampled_from(["whole", "masked"]),
    mask_padding_px=st.integers(0, 64),
    mask_content=st.sampled_from(["fill", "original", "latent noise", "latent nothing"]),
)


@given(parameters)
def test_parameters_and_requests_are_two_forms_of_one_thing(given_: Parameters) -> None:
    request = build_request(given_, image=IMAGE, mask=MASK)
    assert build_request(parameters_of(request), image=IMAGE, mask=MASK) == request


@given(parameters)
def test_a_picture_restores_the_request_it_was_made_with(given_: Parameters) -> None:
    request = build_request(given_, image=IMAGE, mask=MASK)
    metadata = metadata_of(request, seed=given_.seed or 0, size=(64, 64))
    restored = restore_settings(metadata)
    assert restored.notes == ()
    assert build_request(parse_parameters(dict(restored.values)), image=IMAGE, mask=MASK) == request


@given(parameters)
def test_the_text_for_other_programs_says_the_same(given_: Parameters) -> None:
    request = build_request(given_, image=IMAGE, mask=MASK)
    text = metadata_of(request, seed=given_.seed or 0, size=(64, 64)).infotext
    if "Negative prompt:" in given_.prompt + given_.negative_prompt or "Steps:" in given_.prompt:
        return  # a prompt that imitates the form cannot be told from it
    restored = restore_settings(ImageMetadata(infotext=text, request_json=""))
    assert (
        build_request(
            parse_parameters({**parameters_of(request).model_dump(), **restored.values}), image=IMAGE, mask=MASK
        )
        == request
    )


A1111_TEXT = """a red (apple:1.2),
on a table
Negative prompt: blurry, (low quality:1.5)
Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 123456, Size: 512x768, \
Model hash: abc123, Model: dreamy_v3, Denoising strength: 0.45, Clip skip: 2, Mask blur: 8, Inpaint area: Only masked, \
Masked area padding: 48, Version: v1.5.1"""


def test_a_picture_of_the_de_facto_standard_restores_its_settings() -> None:
    restored = restore_settings(ImageMetadata(infotext=A1111_TEXT, request_json=""))
    expected: dict[str, Any] = {
        "prompt": "a red (apple:1.2),\non a table",
        "negative_prompt": "blurry, (low quality:1.5)",
        "num_inference_steps": 25,
        "sampler": "DPM++ 2M",
        "schedule": "Karras",
        "guidance_scale": 6.5,
        "seed": 123456,
        "width": 512,
        "height": 768,
        "checkpoint": "dreamy_v3",
        "strength": 0.45,
        "clip_skip": 1,
        "mask_blur_px": 8,
        "mask_area": "masked",
        "mask_padding_px": 48,
    }
    assert {name: restored.values[name] for name in expected} == expected
    assert restored.notes == ()


def test_what_is_not_known_here_is_noted_and_left_as_it_is() -> None:
    text = "x\nSteps: 20, Sampler: DPM adaptive, Seed: 1, CFG scale: seven"
    restored = restore_settings(ImageMetadata(infotext=text, request_json=""))
    assert "sampler" not in restored.values
    assert "guidance_scale" not in restored.values
    assert len(restored.notes) == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"width": 513}, "width"),
        ({"height": 0}, "height"),
        ({"width": "wide"}, "width"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"sampler": "Eular"}, "sampler"),
        ({"schedule": "Caras"}, "schedule"),
        ({"strength": 1.5, "task": "img2img"}, "strength"),
        ({"seed": -1}, "seed"),
        ({"num_batches": 1001}, "num_batches"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
    ],
)
def test_a_wrong_value_names_its_field_and_what_would_be_right(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build_request(parse_parameters({"checkpoint": "starter", **change}), image=IMAGE)
    assert caught.value.field == field


def test_an_empty_mask_says_what_to_do() -> None:
    empty = Image.new("L", (64, 64), 0)
    with pytest.raises(InvalidRequest, match=r"empty.*Paint"):
        build_request(Parameters(checkpoint="starter", task="inpaint"), image=IMAGE, mask=empty)
    build_request(Parameters(checkpoint="starter", task="inpaint", mask_inverted=True), image=IMAGE, mask=empty)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="32 x 32"):
        build_request(Parameters(checkpoint="starter", task="inpaint"), image=IMAGE, mask=Image.new("L", (32, 32), 255))


def test_what_the_run_knows_stands_where_other_programs_look_for_it() -> None:
    request = build_request(parse_parameters({"checkpoint": "dreamy", "seed": 1, "vae": "kl", "clip_skip": 1}))
    made_with = {"VAE": "kl.safetensors", "VAE hash": "22", "Model hash": "11", "Lora hashes": "ink: 33"}
    text = metadata_of(request, seed=1, size=(512, 512), made_with=made_with).infotext
    ends = text.splitlines()[-1].split("Size: 512x512, ")[1].split(", Version")[0]
    assert (
        ends == 'Model hash: 11, Model: dreamy, VAE hash: 22, VAE: kl.safetensors, Clip skip: 2, Lora hashes: "ink: 33"'
    )


def test_what_only_some_models_use_is_not_told_of_others() -> None:
    request = build_request(parse_parameters({"checkpoint": "dreamy", "seed": 1}))
    text = metadata_of(request, seed=1, size=(512, 512)).infotext
    assert "Image CFG scale" not in text
    assert "VAE" not in text
    text = metadata_of(request, seed=1, size=(512, 512), made_with={"Image CFG scale": "1.2"}).infotext
    assert restore_settings(ImageMetadata(infotext=text, request_json="")).values["image_guidance_scale"] == 1.2
