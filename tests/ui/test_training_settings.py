"""Step 2 of the Training tab in a browser: a newcomer starts, numbers are refused and kept, files go out and in."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.ui.fake_engine import Gate
from tests.ui.studio import Server, User, serve
from webui.jobs.worker import JobContext
from webui.training.config import TrainingConfig
from webui.training.config_file import config_of_text
from webui.trainings import TRAIN

SET = "mia"
NUM_PHOTOS = 12
SIDE_PX = 128


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    """No training gets beyond its start."""
    gate = Gate()
    gate.hold()
    yield gate
    gate.release()


@pytest.fixture(scope="module")
def server(gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("settings")
    photos = data_dir / "photos" / SET
    photos.mkdir(parents=True)
    for i in range(NUM_PHOTOS):
        Image.frombytes("RGB", (4, 4), random.Random(i).randbytes(48)).resize((SIDE_PX, SIDE_PX)).save(
            photos / f"{i}.png"
        )
    (data_dir / "models" / "checkpoints").mkdir(parents=True)
    (data_dir / "models" / "checkpoints" / "broken.ckpt").write_bytes(b"")

    def wait(context: JobContext) -> None:
        gate.step(context.cancel.check)

    with serve(data_dir, lambda services: {TRAIN: wait}) as running:
        yield running
        for job in running.services.queue.jobs(limit=100):
            running.services.queue.interrupt(job.id)


class Step:
    """The Settings step, in the words of its user."""

    def __init__(self, page: Page, server: Server, *, query: str = "") -> None:
        self.page = page
        self.services = server.services
        self.user = User(page, server.url).visit(f"?tab=training{query}")
        self.box = page.locator("section[data-step=settings]")
        self.open()

    def open(self) -> None:
        self.page.locator("nav [data-step=settings]").click()
        expect(self.box.get_by_role("radio", name="Person, usual")).to_be_visible()

    def expect_in_front(self, name: str) -> None:
        expect(self.page.locator(f"nav [data-step={name}]")).to_have_attribute("aria-current", "step")

    def take_photos(self) -> None:
        self.page.evaluate("set => atelierTraining.change({ set })", SET)

    def pick(self, radio: str) -> None:
        self.box.get_by_role("radio", name=radio).check(force=True)

    def section(self, name: str) -> None:
        self.box.locator("details.at-tset-section > summary", has_text=name).click()

    def row(self, name: str) -> Locator:
        return self.box.locator(f"[data-name='{name}']")

    def control(self, name: str) -> Locator:
        return self.row(name).locator("input, select, textarea")

    @property
    def start(self) -> Locator:
        return self.box.get_by_role("button", name="Start training")

    @property
    def told(self) -> Locator:
        return self.box.locator(".at-tset-top .at-train-note[role=status]").first

    def config(self) -> TrainingConfig:
        return TrainingConfig.model_validate(self.page.evaluate("atelierTraining.state().config"))


@pytest.fixture
def step(warm_page: Page, server: Server) -> Iterator[Step]:
    yield Step(warm_page, server)
    warm_page.evaluate("localStorage.clear()")


def test_a_newcomer_chooses_a_preset_says_what_it_is_and_starts(step: Step) -> None:
    expect(step.box.get_by_text("First choose the photos.")).to_be_visible()
    expect(step.start).to_be_disabled()
    assert step.config().base == "starter"
    step.box.get_by_text("1 checkpoint cannot be trained").click()
    expect(step.box.get_by_text("it is empty")).to_be_visible()

    step.take_photos()
    step.pick("Object, quick")
    step.box.get_by_label("Trigger word", exact=True).fill("zwx")
    step.box.get_by_label("Class", exact=True).fill("vase")
    expect(step.box.get_by_text("learnt as “photo of zwx vase”")).to_be_visible()
    steps = step.config().schedule.num_steps
    expect(step.box.locator(".at-tset-summary")).to_contain_text(
        f"12 photos, 2 kept back to measure with. {steps} steps"
    )
    expect(step.box.locator(".at-tset-summary")).to_contain_text("passes per photo. A file of about")
    expect(step.page.locator("nav [data-step=settings]")).to_contain_text(f"LoRA, {steps} steps")
    expect(step.start).to_be_enabled()
    step.start.press("Enter")

    step.expect_in_front("run")
    run = step.services.trainings.run("zwx")
    assert (run.config.subject, run.config.data.class_word, run.config.schedule.num_steps) == ("object", "vase", steps)
    assert run.config.data.photos.name == SET
    assert run.config.validation.prompts[0] == "{trigger} {class} at the beach"

    for place in ("Next in the queue", "Place 2 in the queue"):
        step.open()
        expect(step.start).to_be_enabled()
        step.start.click()
        step.expect_in_front("run")
        step.open()
        expect(step.box.locator(".at-tset-queue")).to_contain_text(place)
    step.box.get_by_role("button", name="Watch zwx-3").click()
    step.expect_in_front("run")
    assert step.page.evaluate("atelierTraining.state().run") == "zwx-3"


def test_numbers_are_changed_refused_kept_and_set_back(step: Step) -> None:
    step.take_photos()
    expect(step.start).to_be_enabled()
    usual = step.config()
    step.section("What is trained")
    step.section("How it learns")
    step.control("network.rank").fill("24")
    step.control("optimizer.rate").fill("20")
    rate = step.row("optimizer.rate")
    expect(rate.get_by_role("alert")).to_have_text("Input should be less than or equal to 10, not 20.")
    expect(step.control("optimizer.rate")).to_have_attribute("aria-invalid", "true")
    expect(step.start).to_be_disabled()
    step.section("How it learns")
    step.box.get_by_role("list", name="What has to be put right").get_by_role("button", name="Learning rate").click()
    expect(step.control("optimizer.rate")).to_be_focused()
    step.control("optimizer.rate").fill("1")
    expect(step.box.get_by_text("times the usual")).to_be_visible()
    step.control("optimizer.rate").fill("")
    expect(rate.get_by_role("alert")).to_have_text("A value is missing here.")
    rate.get_by_role("button", name="Learning rate back to the preset's").click()
    expect(step.control("optimizer.rate")).to_have_value(f"{usual.optimizer.rate:g}")
    step.control("optimizer.name").select_option("adamw8bit")
    expect(step.row("optimizer.name").get_by_role("alert")).to_contain_text("pip install bitsandbytes")
    step.row("optimizer.name").get_by_role("button", name="back to the preset's").click()
    expect(step.start).to_be_enabled()

    step.pick("Style, thorough")
    expect(step.told).to_have_text("Kept what you changed: Rank.")
    changed = step.config()
    assert (changed.subject, changed.network.rank) == ("style", 24)
    assert changed.schedule.num_steps > usual.schedule.num_steps
    expect(step.row("network.conv_rank")).to_contain_text("Not used: No 3 x 3 convolutions")
    step.box.locator(".at-tset-method > summary").click()
    step.pick("LoHa")
    expect(step.told).to_have_text("Taken from LoHa: Rank.")
    assert step.config().network.rank == 8
    step.pick("LoCon")
    expect(step.row("network.conv_rank")).not_to_contain_text("Not used")
    step.pick("Word (textual inversion)")
    expect(step.box.locator("#tset-top-trigger-problem")).to_contain_text("An embedding needs “Trigger word”")
    expect(step.row("network.rank")).to_contain_text("Not used: This method has no rank.")

    step.user.reload()
    expect(step.box.get_by_role("radio", name="Style, thorough")).to_be_checked()
    search = step.box.get_by_role("searchbox")
    search.fill("mirror")
    expect(step.row("data.flip")).to_be_visible()
    expect(step.row("network.rank")).to_be_hidden()
    step.control("data.flip").uncheck()
    search.fill("")
    step.box.get_by_label("Changed ones only").check()
    expect(step.box.locator(".at-tset-row:visible")).to_have_count(1)
    step.box.get_by_role("button", name="Set all back to the preset").click()
    expect(step.box.get_by_text("All is as the preset has it.")).to_be_visible()
    assert step.page.evaluate("atelierTraining.state().config.data.flip")


def test_settings_go_out_as_a_file_and_come_in_again(step: Step, tmp_path: Path, expected_errors: list[str]) -> None:
    expected_errors.append("422")
    step.take_photos()
    step.box.get_by_label("Trigger word", exact=True).fill("ohwx")
    step.section("Measuring and samples")
    step.control("validation.prompts").fill("{trigger} on the moon\na {class}")
    expect(step.box.get_by_role("list", name="What is drawn")).to_contain_text("ohwx on the moon")
    expect(step.start).to_be_enabled()
    with step.page.expect_download() as download:
        step.box.get_by_role("button", name="Save as a file").click()
    path = tmp_path / "settings.toml"
    download.value.save_as(path)
    assert download.value.suggested_filename == "ohwx.toml"
    text = path.read_text("utf-8")
    config = config_of_text(text)
    assert config.validation.prompts == ("{trigger} on the moon", "a {class}")
    assert str(config.data.photos) == SET, "where the photos lie stays here"

    step.box.get_by_role("button", name="Set all back to the preset").click()
    path.write_text(text.replace('name = "ohwx"', 'name = "moon"').replace("rank = 16", "rank = 20"))
    load = step.box.locator("input[type=file]")
    load.set_input_files(path)
    expect(step.told).to_contain_text("The settings are those of settings.toml")
    expect(step.box.get_by_label("Name", exact=True)).to_have_value("moon")
    expect(step.control("validation.prompts")).to_have_value("{trigger} on the moon\na {class}")
    assert step.config().network.rank == 20
    path.write_text("rank = ")
    load.set_input_files(path)
    expect(step.box.get_by_text("no valid TOML")).to_be_visible()


def test_on_a_phone_all_fits_and_every_control_has_a_name(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True)
    step = Step(page, server, query="&__theme=dark")
    for summary in step.box.locator("details > summary").all():
        summary.tap()
    names = step.box.evaluate(
        """box => [...box.querySelectorAll("input:not([type=file]), select, textarea")]
            .map(node => node.getAttribute("aria-label") || node.labels[0]?.textContent || node.outerHTML)"""
    )
    assert len(names) > len(TrainingConfig.model_fields)
    assert not [name for name in names if not name.strip() or name.startswith("<")]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
