"""What a click answers with, asked without a browser: what depends on the models there are."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from tests.model_files import sizes_of, vae_shapes, write_original_layout, write_sparse
from webui.generation.infotext import metadata_of
from webui.generation.parameters import build_request, parse_parameters
from webui.images.metadata import encode_image
from webui.services import Services
from webui.settings import load_settings
from webui.ui.controls import Task
from webui.ui.form import Form
from webui.ui.handlers import Handlers
from webui.ui.tabs.img2img import build_img2img
from webui.ui.tabs.txt2img import build_txt2img

Updates = dict[Any, Any]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """With an ordinary checkpoint, one that edits pictures, an SDXL, and an autoencoder."""
    models = tmp_path / "models"
    for folder in ("checkpoints", "vae"):
        (models / folder).mkdir(parents=True)
    for name, family in (("plain", "sd15"), ("editing", "sd15-ip2p"), ("large", "sdxl")):
        write_original_layout(models / "checkpoints" / f"{name}.safetensors", family, small=False)
    write_sparse(models / "vae" / "kl-mse.safetensors", vae_shapes(sizes_of("sd15", small=False)))
    services = Services(load_settings(data_dir=tmp_path))
    yield services
    services.close()


@pytest.fixture
def forms() -> dict[Task, Form]:
    with gr.Blocks():
        return {"txt2img": build_txt2img(None, 512), "img2img": build_img2img(None, 512, max_pixels=10**6)}


@pytest.fixture
def handlers(services: Services, forms: dict[Task, Form]) -> Handlers:
    shell = SimpleNamespace(checkpoint="checkpoint", problems="problems", models="models", tabs="tabs", tab_names={})
    return Handlers(services, None, shell, forms)  # type: ignore[arg-type]


def visible(updates: Updates, form: Form) -> bool:
    return bool(updates[form.controls["image_cfg_scale"]].visible)


def test_the_image_cfg_scale_is_there_for_checkpoints_that_edit(handlers: Handlers, forms: dict[Task, Form]) -> None:
    assert "image_cfg_scale" not in forms["txt2img"].controls
    assert visible(handlers.choose_checkpoint("editing"), forms["img2img"])
    assert not visible(handlers.choose_checkpoint("plain"), forms["img2img"])
    assert visible(handlers.refresh_checkpoints("editing"), forms["img2img"])


def test_a_checkpoint_brings_its_own_size(handlers: Handlers, forms: dict[Task, Form]) -> None:
    updates = handlers.choose_checkpoint("large")
    assert [updates[forms["txt2img"].controls[side]] for side in ("width", "height")] == [1024, 1024]


def test_the_vae_list_has_the_files_that_are_there(handlers: Handlers, forms: dict[Task, Form]) -> None:
    updates = handlers.refresh_checkpoints("plain")
    values = [value for _, value in updates[forms["txt2img"].controls["vae"]].choices]
    assert values == ["Automatic", "None", "kl-mse"]


@pytest.mark.parametrize(("remembered", "shown"), [("kl-mse", "kl-mse"), ("None", "None"), ("gone", "Automatic")])
def test_a_remembered_vae_is_shown_if_it_is_still_there(
    handlers: Handlers, forms: dict[Task, Form], remembered: str, shown: str
) -> None:
    memory = {"v": 1, "values": {"vae": remembered, "image_cfg_scale": 2.0}}
    asked = SimpleNamespace(query_params={})
    updates = handlers.open_page({"txt2img": memory, "img2img": memory}, "editing", asked)  # type: ignore[arg-type]
    assert updates[forms["txt2img"].controls["vae"]].value == shown
    slider = updates[forms["img2img"].controls["image_cfg_scale"]]
    assert (slider.value, slider.visible) == (2.0, True)


@pytest.mark.parametrize(("made_with", "expected"), [("kl-mse.safetensors", "kl-mse"), ("other.pt", None)])
def test_a_picture_restores_its_vae_by_the_name_it_has_here(
    handlers: Handlers, forms: dict[Task, Form], tmp_path: Path, made_with: str, expected: str | None
) -> None:
    request = build_request(parse_parameters({"checkpoint": "plain", "seed": 1, "vae": made_with}))
    metadata = metadata_of(request, seed=1, size=(512, 512))
    (tmp_path / "picture.png").write_bytes(encode_image(Image.new("RGB", (8, 8)), metadata, "png"))
    updates = handlers.restore("txt2img", str(tmp_path / "picture.png"))
    assert updates.get(forms["txt2img"].controls["vae"]) == expected
