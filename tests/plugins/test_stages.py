"""Hooks around the stages of a generation: what they may change, and that none can harm it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.extension_files import load_host, settings_for, write_extension
from webui.generation.postprocess import STAGES, Moment, Stage
from webui.generation.request import GenerationRequest
from webui.jobs.cancel import ImageSkipped, JobInterrupted
from webui.plugins.host import PluginHost


def moment(stage: Stage) -> Moment:
    request = GenerationRequest(checkpoint="none", seed=1)
    path = Path("picture.png") if stage == "save" else None
    return Moment(stage=stage, request=request, indices=(0,), path=path)


def host_of(tmp_path: Path, body: str, *, before: bool = False) -> PluginHost:
    head = "before_stage(moment, context)" if before else "after_stage(moment, result, context)"
    write_extension(tmp_path / "extensions", "staged", f"@hookimpl\ndef {head}:\n    {body}\n")
    return load_host(tmp_path)


def results() -> dict[Stage, Any]:
    picture = Image.new("RGB", (8, 6), (10, 20, 30))
    return {
        "encode": None,
        "denoise": torch.zeros(2, 4, 8, 8),
        "decode": [picture, picture.copy()],
        "postprocess": picture,
        "save": None,
    }


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_text_before_a_stage_is_told_with_the_extensions_name(tmp_path: Path) -> None:
    host = host_of(tmp_path, 'return f"now {moment.stage}"', before=True)
    assert host.before_stage(moment("denoise")) == ["Staged: now denoise"]


@pytest.mark.parametrize("stage", STAGES)
def test_without_an_answer_the_result_stays(tmp_path: Path, stage: Stage) -> None:
    host, result = host_of(tmp_path, "return None"), results()[stage]
    made, notes = host.after_stage(moment(stage), result)
    assert made is result
    assert notes == []


def test_latents_pictures_and_the_finished_picture_can_be_replaced(tmp_path: Path) -> None:
    body = 'return {"denoise": lambda: result + 1, "decode": lambda: [p.transpose(1) for p in result], ' \
        '"postprocess": lambda: result.resize((4, 3))}.get(moment.stage, lambda: None)()'  # fmt: skip
    host, before = host_of(tmp_path, body), results()
    after = {stage: host.after_stage(moment(stage), before[stage]) for stage in STAGES}
    assert torch.equal(after["denoise"][0], torch.ones(2, 4, 8, 8))
    assert after["decode"][0] == [picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) for picture in before["decode"]]
    assert after["postprocess"][0].size == (4, 3)
    assert all(notes == [] for _, notes in after.values())


def test_one_extension_gets_what_the_other_made(tmp_path: Path) -> None:
    for id in ("one", "two"):
        code = "@hookimpl\ndef after_stage(result):\n    return result * 2 + 1\n"
        write_extension(tmp_path / "extensions", id, code)
    made, _ = load_host(tmp_path).after_stage(moment("denoise"), torch.zeros(1, 4, 8, 8))
    assert made.unique().tolist() == [3.0]


WRONG: dict[Stage, list[str]] = {
    "encode": ["1"],
    "denoise": ["result[:1]", "result.double()", "result.numpy()", "[result]"],
    "decode": ["result[:1]", "result[0]", "[p.resize((4, 4)) for p in result]", "[p.convert('L') for p in result]"],
    "postprocess": ["result.convert('RGBA')", "'picture.png'", "[result]"],
    "save": ["moment.path"],
}


@pytest.mark.parametrize(("stage", "answer"), [(stage, answer) for stage in WRONG for answer in WRONG[stage]])
def test_what_cannot_take_the_results_place_is_refused_and_the_hooks_are_off(
    tmp_path: Path, stage: Stage, answer: str
) -> None:
    host, result = host_of(tmp_path, f"return {answer}"), results()[stage]
    made, (note,) = host.after_stage(moment(stage), result)
    assert made is result
    assert "it returned" in note
    assert host.extension("staged").state == "on"
    assert f"`after_stage`, {stage}" in host.extension("staged").problems[0]
    assert host.after_stage(moment(stage), result) == (result, [])


@pytest.mark.parametrize("stage", ["denoise", "decode", "postprocess"])
def test_what_was_changed_in_place_before_a_failure_does_not_count(tmp_path: Path, stage: Stage) -> None:
    body = '(result.fill_(7) if moment.stage == "denoise" else [p.paste(0, (0, 0, 8, 6)) for p in ' \
        '(result if isinstance(result, list) else [result])]); 1 / 0'  # fmt: skip
    host, result = host_of(tmp_path, body), results()[stage]
    made, (note,) = host.after_stage(moment(stage), result)
    assert "ZeroDivisionError" in note
    assert made is result
    assert same(result, results()[stage])


@pytest.mark.parametrize("raised", ["ValueError('x')", "SystemExit(1)"])
def test_what_raises_before_a_stage_is_told_once_and_switched_off(tmp_path: Path, raised: str) -> None:
    host = host_of(tmp_path, f"raise {raised}", before=True)
    (note,) = host.before_stage(moment("encode"))
    assert note.startswith("Staged: Its hooks around the stages are off: ")
    assert host.before_stage(moment("encode")) == []
    host.enable("staged")
    assert len(host.before_stage(moment("encode"))) == 1, "switched on again, it gets another chance"


@pytest.mark.parametrize("error", [JobInterrupted, ImageSkipped])
def test_an_interruption_goes_through(tmp_path: Path, error: type[Exception]) -> None:
    host = host_of(tmp_path, f"from webui.jobs.cancel import {error.__name__}; raise {error.__name__}")
    with pytest.raises(error):
        host.after_stage(moment("save"), None)
    assert host.extension("staged").problems == ()


def test_a_hook_that_takes_too_long_for_the_third_time_is_switched_off(tmp_path: Path) -> None:
    write_extension(tmp_path / "extensions", "slow", '@hookimpl\ndef before_stage():\n    return "done"\n')
    now = [0.0]

    def clock() -> float:
        now[0] += 6.0
        return now[0]

    host = PluginHost(settings_for(tmp_path, extension_hook_s=5.0), folders=[tmp_path / "extensions"], clock=clock)
    host.load()
    assert [host.before_stage(moment("encode")) for _ in range(2)] == [["Slow: done"], ["Slow: done"]]
    (note,) = host.before_stage(moment("encode"))
    assert "longer than 5 s for the third time, now 6.0 s" in note
    assert host.before_stage(moment("encode")) == []
    assert "extension_hook_s" in host.extension("slow").problems[0]
