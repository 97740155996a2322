"""The pages' behaviour in a real browser, with real queue, worker and files; only the drawing is simple and fast."""

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from tests.ui.fake_engine import Gate, fake_runner
from tests.ui.studio import CAPTION, EXAMPLES, SIZE_PX, Server, User, drop_file, serve, write_paper_checkpoint
from webui.services import GENERATE

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, gate: Gate) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("studio")
    write_paper_checkpoint(data_dir)
    pictures = tmp_path_factory.mktemp("pictures")
    with serve(data_dir, lambda services: {GENERATE: fake_runner(services, pictures, gate)}) as running:
        yield running


@pytest.fixture(autouse=True)
def open_gate(server: Server, gate: Gate) -> Iterator[None]:
    yield
    gate.release()
    for job in server.services.queue.jobs():
        if not job.state.ended:
            server.services.queue.interrupt(job.id)
            server.services.queue.handle(job.id).wait(timeout_s=10)


@pytest.fixture
def user(warm_page: Page, server: Server) -> User:
    """Somebody whose browser has never been here: own identity, nothing remembered."""
    warm_page.context.set_offline(False)
    if warm_page.url.startswith(server.url):
        warm_page.evaluate("localStorage.clear()")
        warm_page.goto("about:blank")
    warm_page.context.clear_cookies()
    return User(warm_page, server.url).visit()


def test_the_first_click_on_generate_makes_a_picture(user: User) -> None:
    expect(user.prompt()).to_have_value(EXAMPLES[0])
    user.finish()
    picture = user.results.locator(".at-stage img")
    expect(picture).to_have_js_property("naturalWidth", SIZE_PX)
    expect(user.results.locator(".at-info")).to_contain_text(re.compile(rf"Seed \d+ · {SIZE_PX} × {SIZE_PX}"))


def test_the_downloaded_picture_is_the_original_file(user: User, server: Server) -> None:
    job = user.finish()
    with user.page.expect_download() as download:
        user.tool("download").click()
    original = next(event for _, event in server.services.queue.handle(job).events() if hasattr(event, "path"))
    assert Path(download.value.path()).read_bytes() == Path(original.path).read_bytes()
    assert download.value.suggested_filename == Path(original.path).name


def test_a_running_job_shows_its_preview_and_progress(user: User, gate: Gate) -> None:
    gate.hold(after_steps=7)
    user.generate()
    progress = user.results.get_by_role("progressbar")
    expect(progress).to_have_attribute("aria-valuenow", "7")
    expect(progress).to_have_attribute("aria-valuemax", "20")
    expect(user.results.locator("img.at-preview")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    expect(user.results.get_by_role("status")).to_contain_text("Step 7 of 20")
    gate.release()
    user.expect_state("finished")
    expect(progress).to_be_hidden()


def test_interrupting_keeps_the_finished_picture(user: User, gate: Gate) -> None:
    user.set_number("batch_count", 2)
    gate.hold(after_steps=25)
    user.generate()
    expect(user.results).to_have_attribute("data-pictures", "1")
    user.press("interrupt")
    user.expect_state("cancelled", pictures="1")
    expect(user.results.get_by_role("status")).to_have_text("Interrupted")
    gate.release()
    user.finish()


def heard(user: User, action: str) -> AbstractContextManager[object]:
    """Until the server has answered `action`: only then may the job get on."""
    return user.page.expect_response(lambda response: response.url.endswith(f"/{action}"))


def test_skipping_goes_on_with_the_next_picture(user: User, gate: Gate) -> None:
    user.set_number("batch_count", 2)
    gate.hold(after_steps=5)
    user.generate()
    expect(user.results.get_by_role("status")).to_contain_text("Step 5 of 40")
    with heard(user, "skip"):
        user.press("skip")
    gate.release()
    user.expect_state("finished", pictures="1", index="1")


def test_a_reloaded_page_finds_its_running_job_again(user: User, gate: Gate) -> None:
    gate.hold(after_steps=3)
    job = user.generate()
    user.reload()
    user.expect_state("running", job=job)
    gate.release()
    user.expect_state("finished", job=job, pictures="1")


def test_a_lost_connection_does_not_lose_the_job(user: User, gate: Gate, expected_errors: list[str]) -> None:
    expected_errors.append("ERR_INTERNET_DISCONNECTED")
    gate.hold(after_steps=3)
    job = user.generate()
    user.page.context.set_offline(True)
    expect(user.page.locator("body.at-lost")).to_be_attached()
    gate.release()
    user.page.context.set_offline(False)
    user.expect_state("finished", job=job)


def test_two_users_see_their_own_jobs_and_their_true_place(user: User, gate: Gate, open_page, server: Server) -> None:
    gate.hold(after_steps=1)
    user.generate()
    other = User(open_page(), server.url).visit()
    other.write("somebody else's idea")
    job = other.generate()
    other.expect_state("queued", job=job)
    expect(other.results.get_by_role("status")).to_have_text("Next in the queue")
    other.press("generate")
    expect(other.jobs).to_have_count(2)
    expect(other.jobs.last).to_contain_text("Place 2")
    expect(user.jobs).to_have_count(1)
    expect(user.page.locator("#queue")).not_to_contain_text("somebody else's idea")
    assert user.page.request.post(f"{server.url}/jobs/{job}/interrupt").status == 404
    gate.release()
    other.expect_state("finished")
    assert other.page.request.get(f"{server.url}/pictures/{job}/0").status == 200
    assert user.page.request.get(f"{server.url}/pictures/{job}/0").status == 404


def test_a_waiting_job_can_be_cancelled_from_the_list(user: User, gate: Gate) -> None:
    gate.hold(after_steps=1)
    running = user.generate()
    user.write("never mind")
    user.press("generate")
    expect(user.jobs).to_have_count(2)
    user.page.get_by_role("button", name="Cancel: never mind").click()
    expect(user.jobs).to_have_count(1)
    gate.release()
    user.expect_state("finished", job=running)


def test_a_failed_job_says_what_to_do_and_the_next_one_works(user: User) -> None:
    user.write("please fail")
    user.generate()
    user.expect_state("failed")
    expect(user.results.get_by_role("alert")).to_contain_text("Use a smaller size.")
    user.write("a boat")
    user.finish()
    expect(user.results.get_by_role("alert")).to_be_hidden()


def test_a_bug_is_told_by_an_id_and_not_by_its_traceback(user: User) -> None:
    user.write("please crash")
    user.generate()
    user.expect_state("failed")
    expect(user.results.get_by_role("alert")).to_contain_text("Internal error, id")
    expect(user.results).not_to_contain_text("on purpose")


def test_notes_of_the_engine_are_shown(user: User) -> None:
    user.write("a boat <lora:nowhere:1>")
    user.finish()
    expect(user.results.locator(".at-notes")).to_contain_text("The LoRA 'nowhere' was not found.")


def test_a_width_of_513_names_the_field_and_the_way_out(user: User) -> None:
    user.set_number("width", 513)
    user.press("generate")
    expect(user.toast).to_contain_text("Use 512 or 520.")
    expect(user.number("width")).to_have_attribute("aria-invalid", "true")
    user.set_number("width", 72)
    user.finish()
    expect(user.number("width")).not_to_have_attribute("aria-invalid", "true")


@pytest.mark.parametrize(("control", "value"), [("height", ""), ("batch_count", "0"), ("seed", "-7")])
def test_a_value_that_cannot_be_run_marks_its_field(user: User, control: str, value: str) -> None:
    user.number(control).fill(value)
    user.number(control).press("Tab")
    user.press("generate")
    expect(user.toast).to_be_visible()
    expect(user.number(control)).to_have_attribute("aria-invalid", "true")


def test_an_empty_prompt_is_fine(user: User) -> None:
    user.write("")
    user.finish()


def test_two_hundred_batches_are_accepted_and_can_be_interrupted(user: User, gate: Gate) -> None:
    user.set_number("batch_count", 200)
    user.set_number("steps", 1)
    gate.hold(after_steps=3)
    user.generate()
    user.expect_state("running", pictures="3")
    user.press("interrupt")
    user.expect_state("cancelled", pictures="3")


def test_the_form_is_remembered_over_a_reload(user: User) -> None:
    user.write("remember me")
    user.set_number("steps", 33)
    user.set_number("width", 128)
    inpaint = user.tab("Inpaint")
    inpaint.set_number("strength", 0.4)
    inpaint.reload()
    expect(inpaint.number("strength")).to_have_value("0.4")
    user.tab("txt2img")
    expect(user.prompt()).to_have_value("remember me")
    expect(user.number("steps")).to_have_value("33")
    expect(user.number("width")).to_have_value("128")


def test_send_to_img2img_and_on_to_inpaint(user: User) -> None:
    user.write("a boat to send")
    user.finish()
    user.tool("send_img2img").click()
    img2img = User(user.page, user.url, "img2img")
    expect(img2img.at("picture").locator(f"[data-ready='{SIZE_PX}x{SIZE_PX}']")).to_be_visible()
    expect(img2img.prompt()).to_have_value("a boat to send")
    img2img.finish()
    img2img.tool("send_inpaint").click()
    inpaint = User(user.page, user.url, "inpaint")
    expect(inpaint.at("picture").locator("[data-ready]")).to_be_visible()
    expect(inpaint.prompt()).to_have_value("a boat to send")


def test_before_and_after_can_be_compared(user: User) -> None:
    img2img = user.tab("img2img")
    img2img.finish()
    img2img.tool("compare").click()
    slider = img2img.results.get_by_label("Before and after")
    slider.focus()
    slider.press("Home")
    expect(img2img.results.locator(".at-compare")).to_have_attribute("style", re.compile("--split: 0%"))
    expect(img2img.results.locator(".at-before")).to_have_js_property("naturalWidth", SIZE_PX)


def test_the_full_size_view_opens_and_closes_by_keyboard(user: User) -> None:
    user.set_number("batch_count", 2)
    user.finish()
    user.page.get_by_role("button", name="View full size").press("Enter")
    dialog = user.page.get_by_role("dialog", name="Full size")
    expect(dialog).to_be_visible()
    user.page.keyboard.press("ArrowRight")
    user.expect_state("finished", index="1")
    user.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_reuse_all_settings_brings_them_back_with_the_pictures_own_seed(user: User) -> None:
    user.write("reuse me")
    user.set_number("steps", 4)
    user.set_number("seed", 1000)
    user.set_number("batch_count", 2)
    user.finish()
    user.results.get_by_role("button", name="Picture 2, seed 1001").click()
    user.write("something else")
    user.set_number("steps", 9)
    user.tool("reuse").click()
    expect(user.prompt()).to_have_value("reuse me")
    expect(user.number("steps")).to_have_value("4")
    expect(user.number("seed")).to_have_value("1001")


def saved_picture(user: User, server: Server, folder: Path) -> Path:
    user.write("keep this, (please:1.2)")
    user.set_number("steps", 7)
    user.set_number("seed", 4242)
    job = user.finish()
    path = folder / "kept.png"
    path.write_bytes(user.page.request.get(f"{server.url}/pictures/{job}/0").body())
    user.write("gone")
    user.set_number("steps", 20)
    user.press("random_seed")
    return path


def test_a_picture_restores_the_settings_it_was_made_with(user: User, server: Server, tmp_path: Path) -> None:
    picture = saved_picture(user, server, tmp_path)
    with user.page.expect_file_chooser() as chooser:
        user.press("restore")
    chooser.value.set_files(picture)
    expect(user.prompt()).to_have_value("keep this, (please:1.2)")
    expect(user.number("steps")).to_have_value("7")
    expect(user.number("seed")).to_have_value("4242")


def test_a_picture_dropped_on_the_prompt_restores_its_settings(user: User, server: Server, tmp_path: Path) -> None:
    picture = saved_picture(user, server, tmp_path)
    drop_file(user, picture.read_bytes(), "kept.png")
    expect(user.prompt()).to_have_value("keep this, (please:1.2)")
    expect(user.number("steps")).to_have_value("7")


def test_a_picture_without_settings_says_so(user: User, tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    drop_file(user, data.getvalue(), "plain.png")
    expect(user.toast).to_contain_text("does not say how it was made")


def test_a_text_file_dropped_as_a_picture_is_refused_kindly(user: User) -> None:
    drop_file(user, b"just some text", "notes.png")
    expect(user.toast).to_contain_text("does not say how it was made")


def test_a_broken_input_picture_is_refused_by_name(user: User, server: Server, tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(whole, "PNG")
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole.getvalue()[:300])
    img2img = user.tab("img2img")
    expect(img2img.at("picture").locator("[data-ready]")).to_be_visible()
    img2img.at("picture").locator("input[type=file]").first.set_input_files(broken)
    img2img.press("generate")
    expect(user.toast.or_(img2img.at("picture").get_by_role("alert")).first).to_contain_text("broken.png")
    img2img.expect_state("empty")


def test_an_empty_mask_asks_for_one(user: User) -> None:
    inpaint = user.tab("Inpaint")
    expect(inpaint.prompt()).to_have_value(CAPTION)
    expect(inpaint.at("picture").locator("[data-ready]")).to_be_visible()
    inpaint.press("generate")
    expect(user.toast).to_contain_text("Paint over what should change")
    inpaint.expect_state("empty")


def test_keys_generate_skip_and_interrupt(user: User, gate: Gate) -> None:
    user.set_number("batch_count", 2)
    gate.hold(after_steps=2)
    user.prompt().press("Control+Enter")
    user.expect_state("running")
    expect(user.results.get_by_role("status")).to_contain_text("Step 2 of 40")
    with heard(user, "skip"):
        user.prompt().press("Alt+Enter")
    gate.hold(after_steps=3)
    expect(user.results.get_by_role("status")).to_contain_text("Step 23 of 40")
    user.prompt().press("Escape")
    user.expect_state("cancelled")


def test_the_token_counter_follows_the_typing(user: User, server: Server) -> None:
    for text in ("red, red, red", "red, " * 40):
        user.write(text)
        tokens, limit = server.services.count_tokens(text, "paper")
        expect(user.at("prompt_tokens")).to_have_text(f"{tokens}/{limit}")


def test_an_example_prompt_is_one_click(user: User) -> None:
    user.page.get_by_role("button", name=EXAMPLES[1], exact=True).click()
    expect(user.prompt()).to_have_value(EXAMPLES[1])


def test_swap_exchanges_width_and_height(user: User) -> None:
    user.set_number("width", 128)
    user.press("swap")
    expect(user.number("height")).to_have_value("128")
    expect(user.number("width")).to_have_value(str(SIZE_PX))


def test_reuse_takes_the_seed_of_the_shown_picture(user: User) -> None:
    user.finish()
    seed = user.results.get_attribute("data-seed") or ""
    expect(user.number("seed")).to_have_value("-1")
    user.press("reuse_seed")
    expect(user.number("seed")).to_have_value(seed)


def test_a_checkpoint_that_cannot_be_used_says_why(user: User) -> None:
    expect(user.page.get_by_label("Checkpoint", exact=True)).to_have_value("Paper")
    expect(user.page.locator("#problems")).to_contain_text("broken: it is empty")


def test_an_opened_picture_sets_the_size_in_its_own_shape(user: User, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("RGB", (96, 64)).save(wide)
    img2img = user.tab("img2img")
    img2img.at("picture").locator("input[type=file]").first.set_input_files(wide)
    expect(img2img.number("width")).to_have_value("96")
    expect(img2img.number("height")).to_have_value("64")


def test_a_size_that_is_typed_while_a_picture_is_sent_stays(user: User, tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("RGB", (96, 64)).save(wide)
    img2img = user.tab("img2img")
    held: list[Route] = []
    user.page.evaluate(
        """() => { const fitted = atelier.fitted;
        atelier.fitted = (task) => (...values) => { const size = fitted(task)(...values);
            document.body.dataset.fitted = `${values[0]} ${size}`; return size; }; }"""
    )

    def hold(route: Route) -> None:
        held.append(route)

    user.page.route("**/upload*", hold)
    with user.page.expect_request("**/upload*"):
        img2img.at("picture").locator("input[type=file]").first.set_input_files(wide)
    img2img.set_number("width", 48)
    held[0].continue_()
    expect(user.page.locator("body[data-fitted='96,64 48,64']")).to_be_attached()
    user.page.unroute("**/upload*")
    expect(img2img.number("width")).to_have_value("48")
    img2img.press("fit")
    expect(img2img.number("width")).to_have_value("96")


def test_earlier_results_stay_at_hand(user: User) -> None:
    user.write("the first one")
    first = user.finish()
    user.write("the second one")
    user.finish()
    user.results.get_by_role("button", name="Show 1 picture: the first one").click()
    user.expect_state("finished", job=first)


@pytest.mark.parametrize("tab", ["txt2img", "img2img", "Inpaint", "Extras", "Training"])
def test_every_control_has_a_name(user: User, tab: str) -> None:
    button = user.page.get_by_role("tab", name=tab, exact=True)
    button.click()
    expect(button).to_have_attribute("aria-selected", "true")
    nameless = user.page.evaluate(
        """() => [...document.querySelectorAll('button, input, textarea, select, a[href]')]
            .filter((node) => node.offsetParent !== null && node.type !== 'file')
            .filter((node) => !(node.getAttribute('aria-label') || node.title || node.textContent.trim()
                || node.labels?.[0]?.textContent.trim() || node.placeholder))
            .map((node) => node.outerHTML.slice(0, 160))"""
    )
    assert nameless == []


def test_on_a_phone_every_tab_is_in_reach_and_none_needs_sideways_scrolling(open_page, server: Server) -> None:
    phone = User(open_page(**PHONE), server.url).visit("?tab=training")
    for tab in ("Training", "txt2img", "img2img", "Inpaint", "Extras", "Models"):
        button = phone.page.get_by_role("tab", name=tab, exact=True)
        button.tap()
        expect(button).to_have_attribute("aria-selected", "true")
        expect(button).to_be_in_viewport(ratio=1)
        assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
        if tab not in {"Training", "Models"}:
            expect(phone.page.locator(f"#{tab.lower()}_generate")).to_be_in_viewport()


def test_dark_mode_follows_the_system_and_the_button_is_remembered(open_page, server: Server) -> None:
    user = User(open_page(color_scheme="dark"), server.url).visit()
    expect(user.page.locator("body")).to_have_class(re.compile(r"\bdark\b"))
    user.page.get_by_role("button", name="Light or dark").click()
    expect(user.page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))
    user.reload()
    expect(user.page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))
