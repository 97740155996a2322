"""Making models of models with the page: fill in a form, watch, find the result."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.adapter_files import write_adapter
from tests.held_tools import hold_tools
from tests.model_files import write_original_layout
from tests.ui.studio import Server, User, serve, write_paper_checkpoint
from webui.errors import InvalidRequest
from webui.library.header import read_header
from webui.library.tool_requests import TOOL_REQUESTS, Convert, Merge
from webui.ui.tabs.model_tools import FORMS
from webui.ui.tool_routes import request_of
from webui.ui.tools import DOING

OpenPage = Callable[..., Page]
LAYER = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q")
ABOUT = {"ss_base_model_version": "sd_v1", "ss_v2": "False"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("tools")
    write_paper_checkpoint(data_dir)
    checkpoints, loras = data_dir / "models" / "checkpoints", data_dir / "models" / "loras"
    loras.mkdir()
    for seed, name in enumerate(("first", "second")):
        write_original_layout(checkpoints / f"{name}.safetensors", seed=seed)
        write_adapter(loras / f"lora-{name}.safetensors", {LAYER: (32, 32)}, seed=seed, rank=4, metadata=ABOUT)
    with serve(data_dir, lambda services: {}) as running:
        yield running


@pytest.fixture
def user(warm_page: Page, server: Server) -> Iterator[User]:
    user = User(warm_page, server.url).visit("?tab=models")
    tools(user).locator("summary").click()
    yield user
    for record in server.services.queue.jobs():
        server.services.queue.interrupt(record.id)
        server.services.queue.handle(record.id).wait(60)


def tools(user: User) -> Locator:
    return user.page.get_by_role("region", name="Tools")


def form(user: User, title: str) -> Locator:
    tools(user).get_by_role("button", name=title, exact=True).click()
    return tools(user).locator("form:visible")


def made(user: User, name: str) -> Locator:
    return tools(user).locator(".at-made li").filter(has_text=name).first


def choose(field: Locator, name: str) -> None:
    field.select_option(name)


def test_two_checkpoints_are_merged_and_the_result_can_be_chosen(user: User, server: Server) -> None:
    box = form(user, "Merge checkpoints")
    choose(box.get_by_label("A", exact=True), "first")
    choose(box.get_by_label("B", exact=True), "second")
    box.get_by_label("Multiplier", exact=True).fill("0.3")
    box.get_by_label("Other multipliers for single blocks").fill("in00=0.1, MID=1")
    box.get_by_label("Name of the new model").fill("mixed")
    box.get_by_role("button", name="Merge", exact=True).click()
    expect(made(user, "mixed.safetensors")).to_have_attribute("data-state", "finished")
    expect(made(user, "mixed.safetensors")).to_contain_text("In checkpoints")
    expect(tools(user).get_by_role("status")).to_contain_text("mixed.safetensors")
    metadata = read_header(server.services.settings.models_dir / "checkpoints" / "mixed.safetensors").metadata
    recipe = json.loads(metadata["sd_merge_recipe"])
    assert (recipe["multiplier"], recipe["blocks"]) == (0.3, {"IN00": 0.1, "M00": 1.0})
    user.page.locator("#checkpoint input").click()
    user.page.get_by_role("option", name="mixed", exact=True).click()
    expect(user.page.locator("#checkpoint input")).to_have_value("mixed")
    expect(box.get_by_label("A", exact=True).locator("option", has_text="mixed")).to_have_count(1)


def test_wrong_input_is_said_in_its_place_and_the_form_stays_filled(user: User, expected_errors: list[str]) -> None:
    expected_errors.append("422")
    box = form(user, "Merge checkpoints")
    first, second, name = (box.get_by_label(label, exact=True) for label in ("A", "B", "Name of the new model"))
    choose(first, "first")
    name.fill("../out")
    box.get_by_role("button", name="Merge", exact=True).click()
    expect(box.get_by_role("alert")).to_have_text("No checkpoint is chosen. Choose one.")
    expect(second).to_have_attribute("aria-invalid", "true")
    expect(second).to_be_focused()
    choose(second, "second")
    name.press("Enter")
    expect(box.get_by_role("alert")).to_contain_text("'../out.safetensors'")
    expect(name).to_be_focused()
    expect(second).not_to_have_attribute("aria-invalid", "true")
    name.fill("first")
    name.press("Enter")
    expect(box.get_by_role("alert")).to_contain_text("there already")
    expect(first).to_have_value("first")
    expect(user.jobs).to_have_count(0)


def test_what_goes_wrong_later_is_said_at_the_job(user: User) -> None:
    box = form(user, "Merge checkpoints")
    choose(box.get_by_label("A", exact=True), "first")
    choose(box.get_by_label("B", exact=True), "paper")
    box.get_by_label("Name of the new model").fill("misfit")
    box.get_by_role("button", name="Merge", exact=True).click()
    expect(made(user, "misfit.safetensors")).to_have_attribute("data-state", "failed")
    expect(made(user, "misfit.safetensors")).to_contain_text("Merge checkpoints of the same family")


def test_loras_are_listed_weighed_and_merged(user: User, server: Server, expected_errors: list[str]) -> None:
    expected_errors.append("422")
    box = form(user, "Merge LoRAs")
    choose(box.get_by_label("LoRA 1", exact=True), "lora-first")
    box.get_by_role("button", name="Add a LoRA").click()
    box.get_by_role("button", name="Add a LoRA").click()
    expect(box.get_by_label("LoRA 3", exact=True)).to_be_focused()
    box.get_by_role("button", name="Remove LoRA 2").click()
    box.get_by_label("Weight of LoRA 2", exact=True).fill("-0.5")
    box.get_by_label("Name of the new model").fill("both")
    box.get_by_role("button", name="Merge", exact=True).click()
    expect(box.get_by_label("LoRA 2", exact=True)).to_be_focused()
    expect(box.get_by_role("alert")).to_have_text("No LoRA is chosen. Choose one.")
    choose(box.get_by_label("LoRA 2", exact=True), "lora-second")
    box.get_by_role("button", name="Merge", exact=True).click()
    expect(made(user, "both.safetensors")).to_have_attribute("data-state", "finished")
    metadata = read_header(server.services.settings.models_dir / "loras" / "both.safetensors").metadata
    assert metadata["ss_training_comment"] == "merged from lora-first x 1, lora-second x -0.5"
    assert metadata["ss_network_dim"] == "8"


def test_a_tool_is_watched_and_stopped(user: User, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_tools(monkeypatch)
    box = form(user, "Convert")
    choose(box.get_by_label("Checkpoint"), "first")
    box.get_by_label("Layout").select_option("diffusers")
    box.get_by_label("Name of the new model").fill("folder")
    box.get_by_role("button", name="Convert", exact=True).click()
    expect(made(user, "folder").locator(".at-download-status")).to_have_text(re.compile(r"Converting · \d+ of \d+ MB"))
    expect(user.jobs).to_have_count(1)
    expect(user.jobs.first).to_contain_text("folder")
    expect(user.jobs.first).to_contain_text("MB written")
    made(user, "folder").get_by_role("button", name="Stop: folder").click()
    expect(made(user, "folder")).to_have_attribute("data-state", "cancelled")
    expect(made(user, "folder")).to_contain_text("Stopped")
    expect(user.jobs).to_have_count(0)
    folder = server.services.settings.models_dir / "checkpoints"
    assert not [path for path in folder.iterdir() if "folder" in path.name]


def test_others_do_not_see_my_tools(user: User, server: Server, open_page: OpenPage) -> None:
    box = form(user, "Convert")
    choose(box.get_by_label("Checkpoint"), "first")
    box.get_by_label("Name of the new model").fill("mine")
    box.get_by_label("Name of the new model").press("Enter")
    expect(made(user, "mine.safetensors")).to_have_attribute("data-state", "finished")
    stranger = User(open_page(), server.url).visit("?tab=models")
    assert stranger.page.request.get(f"{server.url}/tools").json()["tools"] == []


def test_they_can_be_switched_off(open_page: OpenPage, tmp_path: Path, expected_errors: list[str]) -> None:
    expected_errors.append("422")
    with serve(tmp_path, lambda services: {}, tools=False) as server:
        user = User(open_page(), server.url).visit("?tab=models")
        expect(user.page.locator(".at-make-told")).to_contain_text("switched off")
        expect(user.page.locator(".at-make-more")).to_be_hidden()
        wish = {"tool": "convert", "source": "first", "destination": "x"}
        assert user.page.request.post(f"{server.url}/tools", data=wish).json()["message"].endswith("switched off here.")


def test_a_threshold_is_asked_for_where_a_rule_needs_it(user: User) -> None:
    box = form(user, "Resize a LoRA")
    expect(box.get_by_label("Threshold")).to_be_hidden()
    box.get_by_label("Fewer where that is enough").select_option("sv_fro")
    expect(box.get_by_label("Threshold")).to_be_visible()


def test_on_a_phone_the_forms_fit_and_every_control_has_a_name(open_page: OpenPage, server: Server) -> None:
    page = open_page(viewport={"width": 390, "height": 780}, has_touch=True)
    user = User(page, server.url).visit("?tab=models&__theme=dark")
    tools(user).locator("summary").tap()
    for shown in FORMS:
        box = form(user, shown.title)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), shown.title
        for control in box.locator("input, select").all():
            name = control.evaluate("node => node.getAttribute('aria-label') || node.labels[0]?.textContent || ''")
            assert name.strip(), shown.title


def test_every_tool_has_a_form_with_a_control_for_every_field() -> None:
    kinds = {kind.model_fields["tool"].default: kind for kind in TOOL_REQUESTS}
    assert {form.tool for form in FORMS} == set(kinds) == set(DOING)
    for form in FORMS:
        fields = kinds[form.tool].model_fields
        assert {field.name for field in form.fields} == set(fields) - {"tool"}
        for field in form.fields:
            if field.start:
                assert str(fields[field.name].default) == field.start, f"{form.tool} {field.name}"


def test_a_form_becomes_a_request() -> None:
    merge = {"tool": "merge", "a": "x", "b": "y", "destination": " mixed ", "blocks": " BASE=0 "}
    assert request_of(merge) == Merge(a="x", b="y", destination="mixed.safetensors", blocks={"BASE": 0})
    folder = {"tool": "convert", "source": "x", "destination": "mixed.safetensors", "to": "diffusers"}
    assert request_of(folder) == Convert(source="x", destination="mixed", to="diffusers")
    for wrong, field in (
        ({**merge, "multiplier": "1e999"}, "multiplier"),
        ({**merge, "blocks": "IN00"}, "blocks"),
        ({**merge, "blocks": "IN00=nan"}, "blocks"),
        ({**merge, "more": 1}, "more"),
        ({"tool": "resize", "lora": "x", "destination": "y", "method": "sv_fro"}, "threshold"),
        ({"tool": "rm", "destination": "y"}, "tool"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            request_of(wrong)
        assert caught.value.field.partition(".")[0] == field
