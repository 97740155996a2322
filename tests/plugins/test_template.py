"""The template of the documents is a whole extension: it loads, runs and does what it says, hook by hook."""

import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from tests.extension_files import settings_for
from webui.cli import main
from webui.errors import InvalidRequest
from webui.generation.postprocess import Moment, PostprocessContext, PostprocessStep, Processed
from webui.generation.request import Extras, GenerationRequest
from webui.hooks import Hooks
from webui.plugins.host import PluginHost
from webui.plugins.routes import ExtensionRoutes
from webui.settings import CHECKOUT

TEMPLATE = CHECKOUT / "docs" / "extension-template" / "film_grain"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PluginHost]:
    shutil.copytree(TEMPLATE, tmp_path / "extensions" / "film_grain", ignore=shutil.ignore_patterns("__pycache__"))
    host = PluginHost(settings_for(tmp_path), folders=[tmp_path / "extensions"])
    host.load()
    assert host.extension("film_grain").problems == ()
    yield host
    assert host.extension("film_grain").problems == ()
    host.close()


def photo() -> Image.Image:
    return Image.effect_noise((96, 64), 60).convert("RGB")


def request(steps: tuple[PostprocessStep, ...] = (), **changes: Any) -> GenerationRequest:
    return GenerationRequest(checkpoint="", init=Extras(image=photo()), seed=3, postprocess=steps, **changes)


def grainy(host: PluginHost, image: Image.Image, *, seed: int = 3, **params: object) -> Processed:
    postprocessor = host.postprocessor("film_grain")
    assert postprocessor is not None

    def nothing(*_: object, **__: object) -> Any:
        return None

    context = PostprocessContext(
        request=request(),
        index=0,
        seed=seed,
        source=None,
        picture=nothing,
        redraw=nothing,
        report=nothing,
        check=nothing,
    )
    return postprocessor(image, postprocessor.params_model(**params), context)


def test_it_uses_every_hook(host: PluginHost) -> None:
    loaded = host.loaded("film_grain")
    assert loaded is not None
    hooks = [name for name, function in vars(Hooks).items() if inspect.isfunction(function)]
    assert [hook for hook in hooks if not loaded.has(hook)] == []


def test_its_grain_depends_on_the_seed_and_on_nothing_else(host: PluginHost) -> None:
    image = photo()
    first, again, other = (grainy(host, image, seed=seed).image for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert first.size == image.size


def test_more_of_it_changes_more_and_none_changes_nothing(host: PluginHost) -> None:
    image = photo()
    changes = []
    for amount in (0.0, 0.1, 0.5):
        processed = grainy(host, image, amount=amount, colored=True)
        change = np.abs(np.asarray(processed.image, dtype=np.int16) - np.asarray(image)).mean()
        assert processed.fields == {"Film grain mean change": f"{change:.2f}"}
        changes.append(change)
    assert changes[0] == 0
    assert changes[0] < changes[1] < changes[2]


def test_its_check_refuses_before_anything_runs(host: PluginHost) -> None:
    postprocessor = host.postprocessor("film_grain")
    assert postprocessor is not None
    with pytest.raises(InvalidRequest) as caught:
        postprocessor.check(postprocessor.params_model(size_px=12), request())
    assert caught.value.field == "size_px"


def test_its_command_grains_a_picture(host: PluginHost, tmp_path: Path) -> None:
    original = photo()
    original.save(tmp_path / "photo.png")
    arguments = ["grain", "--data-dir", str(tmp_path), "--device", "cpu", str(tmp_path / "photo.png")]
    assert main([*arguments, "--output", str(tmp_path / "made.png"), "--amount", "0.4"]) == 0
    with Image.open(tmp_path / "made.png") as made:
        assert made.size == original.size
        assert made.convert("RGB") != original


def test_its_diary_is_kept_when_the_setting_says_so_and_shown_by_route_and_tab(host: PluginHost) -> None:
    app = FastAPI()
    app.mount("/extensions", ExtensionRoutes(host))
    saved = Moment(stage="save", request=request(), indices=(0,), path=Path("00001-3.png"))
    with TestClient(app) as client:
        host.after_stage(saved, None)
        assert client.get("/extensions/film_grain/diary").json() == {"lines": ["started"]}
        host.change_settings("film_grain", {"keep_diary": True})
        host.after_stage(saved, None)
        assert client.get("/extensions/film_grain/diary").json() == {"lines": ["started", "saved 00001-3.png"]}
    with gr.Blocks() as blocks:
        (tab,) = host.tabs()
        assert tab.build() == ""
    assert any(isinstance(block, gr.Textbox) and block.label == "Diary" for block in blocks.blocks.values())


def test_it_says_that_grainy_jpegs_are_large(host: PluginHost) -> None:
    step = (PostprocessStep(id="film_grain"),)
    told = [
        host.before_stage(Moment(stage="encode", request=request(steps, image_format=fmt), indices=(0,)))
        for steps in ((), step)
        for fmt in ("png", "jpeg")
    ]
    assert told == [[], [], [], ["Film grain: JPEG files of grainy pictures are large."]]
