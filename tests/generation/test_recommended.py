"""Settings that a model is made for: read, refused with the value, and named where a picture is made with others."""

import json
from pathlib import Path

import pytest

from tests.library_files import write_lora, write_notes
from webui.errors import InvalidRequest
from webui.generation.recommended import FIELD, notes_on, parse_recommended
from webui.generation.request import GenerationRequest, Sampling
from webui.library.catalog import Library
from webui.settings import CHECKOUT

QUICK = "Steps: 4-8, Sampler: LCM, CFG scale: 1"
LCM = {"sampler": "LCM", "num_inference_steps": 6, "guidance_scale": 1.0}


@pytest.mark.parametrize(
    "text", [QUICK, "cfg scale: 1,sampler: k_lcm\nsteps: 4 to 8", "Steps: 4–8, Sampler: LCM, CFG scale: 1.0,"]
)
def test_settings_are_read_in_the_infotexts_words(text: str) -> None:
    assert parse_recommended(text).words() == "LCM, 4 to 8 steps, CFG scale 1"


def test_an_old_samplers_name_brings_its_schedule() -> None:
    assert parse_recommended("Sampler: DPM++ 2M Karras").words() == "DPM++ 2M, schedule Karras"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Sampler: LCMM", "'LCMM'"),
        ("Schedule type: Carras", "'Carras'"),
        ("Steps: 0", "Steps is 0"),
        ("Steps: 4-900", "Steps is 900"),
        ("Steps: 8-4", "8-4"),
        ("Steps: few", "'few'"),
        ("Steps:", "'Steps:'"),
        ("CFG scale: nan", "nan"),
        ("Steps: 4, Seed: 7", "'Seed: 7'"),
        ("four steps", "'four steps'"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_value(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_recommended(text)
    assert refused.value.field == FIELD
    assert said in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("changes", "fits"),
    [({}, True), ({"num_inference_steps": 4}, True), ({"num_inference_steps": 8}, True), ({"schedule": "Karras"}, True),
     ({"num_inference_steps": 9}, False), ({"sampler": "Euler"}, False), ({"guidance_scale": 1.5}, False)],
)  # fmt: skip
def test_only_what_is_named_has_to_fit(changes: dict[str, object], fits: bool) -> None:
    assert parse_recommended(QUICK).fits(Sampling(**{**LCM, **changes})) is fits  # type: ignore[arg-type]


def test_a_picture_with_other_settings_than_its_adapters_gets_a_sentence_for_each(tmp_path: Path) -> None:
    loras = tmp_path / "models" / "loras"
    write_notes(write_lora(loras / "quick.safetensors"), **{"recommended settings": QUICK})
    write_notes(write_lora(loras / "odd.safetensors"), **{"recommended settings": "Steps: 0"})
    write_lora(loras / "plain.safetensors")
    library = Library([tmp_path / "models"], tmp_path / "cache")
    prompt = "a cat <lora:quick:1> <lora:plain:1> <lora:nowhere:1>"
    used = GenerationRequest(checkpoint="any", prompt=prompt, sampling=Sampling(guidance_scale=3.0))
    assert list(notes_on(used, library)) == [
        "'quick' is made for LCM, 4 to 8 steps, CFG scale 1; here it is used with Euler a, 20 steps, CFG scale 3."
    ]
    right = GenerationRequest(checkpoint="any", prompt=prompt, sampling=Sampling(**LCM))  # type: ignore[arg-type]
    assert list(notes_on(right, library)) == []
    (said,) = notes_on(GenerationRequest(checkpoint="any", prompt="<lora:odd:1>"), library)
    assert "'odd' cannot be read" in said
    assert "Steps is 0" in said
    library.close()


def test_what_ships_recommends_settings_that_can_be_used() -> None:
    told = {
        path.stem: json.loads(path.read_text("utf-8")).get("recommended settings", "")
        for path in (CHECKOUT / "models" / "loras").rglob("*.json")
    }
    words = {name: parse_recommended(text).words() for name, text in told.items()}
    assert words["few-steps"] == "LCM, 4 to 8 steps, CFG scale 1"
