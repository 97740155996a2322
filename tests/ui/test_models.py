"""The browser of models in a real browser: finding, using, describing. The files are real, the drawing is simple."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.library_files import write_checkpoint, write_embedding, write_lora, write_notes, write_preview, write_vae
from tests.ui.fake_engine import Gate, fake_runner
from tests.ui.studio import Server, User, serve, write_paper_checkpoint
from webui.services import GENERATE
from webui.settings import CHECKOUT

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
EVIL = "<img src=x onerror=hacked=1>"
TAGS = {"5_ink": {"ink wash": 40, "brush": 12, EVIL: 3}}
NUM_SHIPPED = len(list((CHECKOUT / "models" / "loras").rglob("*.safetensors")))
"""LoRAs that come with the program."""
QUICK = "Steps: 4-8, Sampler: LCM, CFG scale: 1"
NOTES = {"activation text": "ink wash, brush", "preferred weight": 0.7, "negative text": "photo", "civitai id": 7}


def write_models(models: Path) -> None:
    write_checkpoint(models / "checkpoints" / "a-photo.safetensors")
    write_checkpoint(models / "checkpoints" / "large.safetensors", "sdxl")
    ink = write_lora(models / "loras" / "ink.safetensors", rank=16, ss_tag_frequency=json.dumps(TAGS), ss_comment=EVIL)
    write_notes(ink, **NOTES, description=f"<b>Brush</b> {EVIL}")
    write_preview(ink)
    write_lora(models / "loras" / "styles" / "neon.safetensors")
    write_lora(models / "loras" / "styles" / "huge.safetensors", base="sdxl")
    write_lora(models / "loras" / f"{EVIL}.safetensors")
    (models / "loras" / "broken.safetensors").write_bytes(b"x")
    write_embedding(models / "embeddings" / "bad-hands.safetensors")
    write_vae(models / "vae" / "mse.safetensors")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("studio")
    write_paper_checkpoint(data_dir)
    write_models(data_dir / "models")
    pictures = tmp_path_factory.mktemp("pictures")
    with serve(data_dir, lambda services: {GENERATE: fake_runner(services, pictures, Gate())}) as running:
        yield running


@pytest.fixture
def models(server: Server) -> Path:
    return server.services.settings.models_dir


@pytest.fixture
def quick(models: Path) -> Iterator[str]:
    """The name of a LoRA that is made for certain settings."""
    path = write_lora(models / "loras" / "quick.safetensors")
    notes = write_notes(path, **{"recommended settings": QUICK})
    yield path.stem
    path.unlink()
    notes.unlink()


@pytest.fixture
def user(warm_page: Page, server: Server) -> User:
    """Somebody new who has opened the panel."""
    if warm_page.url.startswith(server.url):
        warm_page.evaluate("localStorage.clear(); sessionStorage.clear()")
        warm_page.goto("about:blank")
    user = User(warm_page, server.url).visit()
    open_panel(user)
    return user


def open_panel(user: User) -> None:
    user.page.locator(f"#{user.task}_models").get_by_role("button", name="Models", exact=True).click()
    panel(user).locator(".at-card").first.wait_for()


def panel(user: User) -> Locator:
    return user.page.get_by_role("region", name="Models", exact=True)


def cards(user: User) -> Locator:
    return panel(user).get_by_role("listitem")


def card(user: User, name: str) -> Locator:
    return cards(user).filter(has=user.page.get_by_role("button", name=f"Details of {name}", exact=True))


def use(user: User, name: str) -> Locator:
    return card(user, name).get_by_role("button").first


def note(user: User) -> Locator:
    return panel(user).get_by_role("status")


def offers(user: User) -> Locator:
    """What models in the prompt are made for."""
    return user.page.locator(f"#{user.task}_models .at-offers")


def sampling(server: Server, job: str) -> tuple[object, ...]:
    """Sampler, steps and CFG scale that `job` was asked for with."""
    parameters = server.services.queue.record(job).payload["parameters"]
    return tuple(parameters[name] for name in ("sampler", "num_inference_steps", "guidance_scale"))


def kind(user: User, name: str) -> None:
    panel(user).get_by_role("group", name="Kind of model").get_by_role("button", name=re.compile(f"^{name}")).click()


def details(user: User, name: str) -> Locator:
    card(user, name).hover()
    card(user, name).get_by_role("button", name=f"Details of {name}", exact=True).click()
    dialog = user.page.get_by_role("dialog", name=f"Details of {name}", exact=True)
    dialog.wait_for()
    return dialog


def test_a_click_puts_the_tag_and_its_words_into_the_prompt_and_a_second_one_takes_them_out(user: User) -> None:
    user.write("a cat")
    use(user, "ink").click()
    expect(user.prompt()).to_have_value("a cat, ink wash, brush <lora:ink:0.7>")
    expect(user.prompt("negative_prompt")).to_have_value("photo")
    expect(use(user, "ink")).to_have_attribute("aria-pressed", "true")
    expect(user.at("prompt_tokens")).to_contain_text("7/75")
    use(user, "ink").click()
    expect(user.prompt()).to_have_value("a cat")
    expect(user.prompt("negative_prompt")).to_have_value("")
    expect(use(user, "ink")).to_have_attribute("aria-pressed", "false")


def test_a_tag_that_was_typed_is_shown_and_taken_out_whatever_its_weights(user: User) -> None:
    user.write("<lora:neon:0.4:0.6:lbw=ALL> a street, <lora:nothing:1>")
    expect(use(user, "neon")).to_have_attribute("aria-pressed", "true")
    use(user, "neon").click()
    expect(user.prompt()).to_have_value("a street, <lora:nothing:1>")


def test_the_prompt_that_is_sent_has_the_tag(user: User, server: Server) -> None:
    use(user, "neon").click()
    job = user.finish()
    assert server.services.queue.record(job).payload["parameters"]["prompt"].endswith("<lora:neon:1>")


def test_settings_that_a_model_is_made_for_are_offered_used_and_taken_back(
    user: User, server: Server, quick: str
) -> None:
    use(user, quick).click()
    expect(offers(user)).to_contain_text("quick is made for LCM, 4 to 8 steps, CFG 1.")
    before = sampling(server, user.finish())
    assert before == ("Euler a", 20, 7), "nothing is set without a click"
    offers(user).get_by_role("button", name="Use LCM, 4 steps, CFG 1").click()
    expect(user.number("steps")).to_have_value("4")
    expect(offers(user)).to_contain_text("Set for quick.")
    assert sampling(server, user.finish()) == ("LCM", 4, 1)
    use(user, quick).click()
    expect(offers(user)).to_contain_text("quick is not in the prompt any more.")
    offers(user).get_by_role("button", name="Back to Euler a, 20 steps, CFG 7").click()
    expect(user.number("steps")).to_have_value("20")
    expect(offers(user)).to_be_empty()
    assert sampling(server, user.finish()) == before


def test_a_typed_tag_gets_the_offer_by_keys_and_the_way_back_outlives_a_reload(user: User, quick: str) -> None:
    user.page.locator("#txt2img_models").get_by_role("button", name="Models", exact=True).click()
    user = user.tab("img2img")
    user.write("a street <lora:quick:0.5>")
    offer = offers(user).get_by_role("button", name="Use LCM, 4 steps, CFG 1")
    offer.press("Enter")
    back = offers(user).get_by_role("button", name="Back to Euler a, 20 steps, CFG 7")
    expect(back).to_be_focused()
    user.set_number("steps", 7)
    expect(back).to_be_visible()
    expect(offer).to_have_count(0)
    user.settle()
    user.reload()
    back.click()
    expect(user.number("steps")).to_have_value("20")
    expect(user.at("sampler").locator("input")).to_have_value("Euler a")
    expect(offer).to_be_visible()


def test_settings_that_were_changed_since_are_left_alone(user: User, quick: str) -> None:
    user = user.tab("Inpaint")
    user.write("<lora:quick:1>")
    offers(user).get_by_role("button", name="Use LCM, 4 steps, CFG 1").click()
    expect(offers(user)).to_contain_text("Set for quick.")
    user.set_number("steps", 30)
    expect(offers(user)).to_contain_text("quick is made for")
    expect(offers(user).get_by_role("button")).to_have_count(1)
    user.write("a street")
    expect(offers(user)).to_be_empty()
    expect(user.number("steps")).to_have_value("30")


def test_search_and_folder_narrow_the_cards(user: User) -> None:
    panel(user).get_by_label("Made for").select_option("all")
    expect(cards(user)).to_have_count(5 + NUM_SHIPPED)
    panel(user).get_by_label("Search models").fill("NEO")
    expect(cards(user)).to_have_count(1)
    panel(user).get_by_label("Search models").fill("brush ink")  # a trigger word and a name
    expect(card(user, "ink")).to_be_visible()
    panel(user).get_by_label("Search models").fill("none of them")
    expect(note(user)).to_have_text("Nothing matches.")
    panel(user).get_by_label("Search models").fill("")
    panel(user).get_by_label("Folder").select_option("styles")
    expect(cards(user)).to_have_count(2)


def test_only_models_for_the_checkpoint_are_shown_and_the_others_say_why_not(user: User) -> None:
    expect(card(user, "huge")).to_have_count(0)
    expect(note(user)).to_have_text(f"{1 + NUM_SHIPPED} made for other checkpoints are not shown.")
    panel(user).get_by_label("Made for").select_option("all")
    expect(card(user, "huge")).to_contain_text("Made for SDXL; a-photo is SD 1.x")
    use(user, "huge").click()
    expect(user.prompt()).to_have_value("")
    expect(card(user, "broken")).to_contain_text("Cannot be used: it has only 1 bytes")
    panel(user).get_by_label("Made for").select_option("sdxl")
    expect(cards(user)).to_have_count(1)


def test_a_checkpoints_card_chooses_it_with_its_own_size(user: User) -> None:
    kind(user, "Checkpoints")
    expect(use(user, "a-photo")).to_have_attribute("aria-pressed", "true")
    use(user, "large").click()
    expect(user.page.get_by_label("Checkpoint", exact=True)).to_have_value("large")
    expect(user.number("width")).to_have_value("1024")
    expect(use(user, "large")).to_have_attribute("aria-pressed", "true")
    kind(user, "LoRAs")
    expect(card(user, "huge")).to_be_visible()
    expect(card(user, "neon")).to_have_count(0)


def test_a_checkpoint_that_just_came_can_be_chosen(user: User, models: Path) -> None:
    kind(user, "Checkpoints")
    path = write_checkpoint(models / "checkpoints" / "sub" / "z-new.safetensors", "sdxl")
    use(user, "z-new").click()
    expect(user.page.get_by_label("Checkpoint", exact=True)).to_have_value("z-new")
    path.unlink()


def test_a_vaes_card_chooses_it_and_a_second_click_leaves_the_choice_to_the_program(user: User) -> None:
    kind(user, "VAEs")
    use(user, "mse").click()
    expect(use(user, "mse")).to_have_attribute("aria-pressed", "true")
    user.page.get_by_role("button", name="Advanced").first.click()
    expect(user.at("vae").locator("input")).to_have_value("mse")
    use(user, "mse").click()
    expect(user.at("vae").locator("input")).to_have_value("Automatic")
    expect(use(user, "mse")).to_have_attribute("aria-pressed", "false")


def test_an_embedding_goes_to_the_prompt_that_was_used_last(user: User) -> None:
    kind(user, "Embeddings")
    user.prompt("negative_prompt").fill("blurry")
    use(user, "bad-hands").click()
    expect(user.prompt("negative_prompt")).to_have_value("blurry, bad-hands")
    use(user, "bad-hands").click()
    expect(user.prompt("negative_prompt")).to_have_value("blurry")
    user.prompt().fill("")
    use(user, "bad-hands").click()
    expect(user.prompt()).to_have_value("bad-hands")


def test_details_show_facts_words_tags_and_metadata(user: User) -> None:
    dialog = details(user, "ink")
    expect(dialog).to_contain_text("loras/ink.safetensors")
    expect(dialog).to_contain_text("SD 1.x")
    expect(dialog.get_by_role("img", name="Preview of ink")).to_have_js_property("naturalWidth", 96)
    dialog.get_by_role("button", name="Add to the prompt: brush", exact=True).click()
    expect(user.prompt()).to_have_value("brush")
    dialog.get_by_text("Metadata (").click()
    expect(dialog.get_by_text(EVIL, exact=True).last).to_be_visible()
    user.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_names_and_descriptions_are_text_and_never_run(user: User) -> None:
    dialog = details(user, EVIL)
    expect(dialog.get_by_role("heading", level=2)).to_have_text(EVIL)
    user.page.keyboard.press("Escape")
    details(user, "ink")
    user.page.keyboard.press("Escape")
    assert user.page.evaluate("typeof hacked") == "undefined"


def test_notes_are_saved_beside_the_model_and_used_at_once(user: User, models: Path) -> None:
    dialog = details(user, "neon")
    dialog.get_by_label("Preferred weight").fill("0.55")
    dialog.get_by_label("Words that come with its tag").fill("neon lights")
    dialog.get_by_label("Recommended settings").fill(QUICK)
    dialog.get_by_label("Notes", exact=True).fill('Say "rain" <too>.')
    dialog.get_by_role("button", name="Save notes").click()
    expect(dialog.get_by_role("status")).to_have_text("Saved.")
    notes = models / "loras" / "styles" / "neon.json"
    saved = {"preferred weight": 0.55, "activation text": "neon lights", "notes": 'Say "rain" <too>.'}
    saved["recommended settings"] = QUICK
    assert json.loads(notes.read_text(encoding="utf-8")) == saved
    user.page.keyboard.press("Escape")
    use(user, "neon").click()
    expect(user.prompt()).to_have_value("neon lights <lora:neon:0.55>")
    expect(offers(user)).to_contain_text("neon is made for LCM, 4 to 8 steps, CFG 1.")
    notes.unlink()


def test_notes_that_cannot_be_saved_say_so(user: User, expected_errors: list[str]) -> None:
    expected_errors.append("400")
    dialog = details(user, "neon")
    dialog.get_by_label("Preferred weight").fill("99")
    dialog.locator("form").evaluate("form => form.noValidate = true")
    dialog.get_by_role("button", name="Save notes").click()
    expect(dialog.get_by_role("status")).to_contain_text("preferred weight of 99")
    dialog.get_by_label("Recommended settings").fill("Steps: 0")
    dialog.get_by_role("button", name="Save notes").click()
    expect(dialog.get_by_role("status")).to_contain_text("Steps is 0, outside 1 to 150.")


def test_the_shown_picture_becomes_the_preview(user: User, models: Path) -> None:
    user.finish()
    dialog = details(user, "neon")
    dialog.get_by_role("button", name="Use the shown picture as preview").click()
    expect(dialog.get_by_role("status")).to_have_text("This picture is its preview now.")
    user.page.keyboard.press("Escape")
    expect(card(user, "neon").locator("img")).to_have_js_property("complete", True)
    path = models / "loras" / "styles" / "neon.png"
    with Image.open(path) as preview:
        assert preview.size == (512, 512)
    path.unlink()


def test_a_new_file_appears_by_itself(user: User, models: Path) -> None:
    path = write_lora(models / "loras" / "just-came.safetensors")
    expect(card(user, "just-came")).to_be_visible()
    path.unlink()
    expect(card(user, "just-came")).to_have_count(0)


def test_the_cards_are_used_by_keys_alone(user: User) -> None:
    panel(user).get_by_label("Sort by").focus()
    user.page.keyboard.press("Tab")
    user.page.keyboard.press("Tab")
    names = cards(user).evaluate_all("nodes => nodes.map(node => node.dataset.name)")
    focused = "document.activeElement.closest('.at-card')?.dataset.name"
    assert user.page.evaluate(focused) == names[0]
    user.page.keyboard.press("ArrowRight")
    assert user.page.evaluate(focused) == names[1]
    user.page.keyboard.press("End")
    assert user.page.evaluate(focused) == names[-1]
    user.page.keyboard.press("Home")
    user.page.keyboard.press("ArrowRight")
    user.page.keyboard.press("Enter")
    expect(user.prompt()).to_have_value(re.compile(f"<lora:{re.escape(names[1])}:"))
    user.page.keyboard.press("Tab")
    user.page.keyboard.press("Enter")
    expect(user.page.get_by_role("dialog", name=f"Details of {names[1]}", exact=True)).to_be_visible()


def test_the_panel_moves_with_the_tab_and_its_clicks_too(user: User) -> None:
    other = user.tab("img2img")
    expect(panel(user).locator("xpath=ancestor::*[@id='img2img_models']")).to_have_count(1)
    use(other, "neon").click()
    expect(other.prompt()).to_have_value(re.compile("<lora:neon:1>$"))
    user.page.get_by_role("tab", name="Models", exact=True).click()
    expect(panel(user)).to_contain_text("Clicks change the prompts of img2img.")
    use(user, "neon").click()
    user.tab("img2img")
    expect(other.prompt()).not_to_have_value(re.compile("<lora:neon"))


def test_a_folded_panel_stays_folded_after_a_reload(user: User) -> None:
    user.reload()
    expect(panel(user)).to_be_visible()
    user.page.locator("#txt2img_models").get_by_role("button", name="Models", exact=True).click()
    expect(panel(user)).to_have_count(0)
    user.reload()
    expect(user.page.locator("#txt2img_models").get_by_role("button", name="Models")).to_have_attribute(
        "aria-expanded", "false"
    )


def test_on_a_phone_cards_offers_and_details_fit(open_page, server: Server, quick: str) -> None:  # type: ignore[no-untyped-def]
    user = User(open_page(**PHONE), server.url).visit()
    open_panel(user)
    use(user, "ink").tap()
    expect(user.prompt()).to_have_value(re.compile("<lora:ink:0.7>"))
    use(user, quick).tap()
    offers(user).get_by_role("button", name="Use LCM, 4 steps, CFG 1").tap()
    expect(offers(user)).to_contain_text("Set for quick.")
    assert user.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    card(user, "ink").get_by_role("button", name="Details of ink").tap()
    dialog = user.page.get_by_role("dialog", name="Details of ink")
    box = dialog.bounding_box()
    assert box is not None
    assert box["width"] <= 390


def test_a_thousand_cards_can_be_searched_and_scrolled(
    open_page,
    tmp_path_factory: pytest.TempPathFactory,  # type: ignore[no-untyped-def]
) -> None:
    data_dir = tmp_path_factory.mktemp("many")
    write_paper_checkpoint(data_dir)
    write_checkpoint(data_dir / "models" / "checkpoints" / "a-photo.safetensors")
    for number in range(1000):
        path = write_lora(data_dir / "models" / "loras" / f"{number % 10}" / f"model-{number:04}.safetensors")
        if number % 50 == 0:
            write_preview(path)
    with serve(data_dir, lambda services: {}) as running:
        user = User(open_page(), running.url).visit()
        open_panel(user)
        expect(cards(user)).to_have_count(1000)
        loaded = panel(user).locator("img").evaluate_all("images => images.filter(image => image.complete).length")
        assert loaded < 20, "previews far below are not loaded yet"
        card(user, "model-0999").scroll_into_view_if_needed()
        use(user, "model-0999").click()
        expect(user.prompt()).to_have_value("<lora:model-0999:1>")
        panel(user).get_by_label("Search models").fill("model-05")
        expect(cards(user)).to_have_count(100)
        user.page.goto("about:blank")  # or it asks a server that is gone
