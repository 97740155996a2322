"""The Training tab's run and list of runs: read from folders on the disk, and one that trains while it is looked at."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.conftest import CPU
from tests.models import write_checkpoint
from tests.training_runs import PROMPTS, Story, write_story
from tests.ui.studio import CAPTION, EXAMPLES, Server, User, serve, write_paper_checkpoint
from webui.jobs.events import Failed, JobEvent
from webui.jobs.worker import JobContext, Runner
from webui.services import Services
from webui.training.config import TrainingConfig
from webui.training.events import EventLines, LossReported, TrainingFinished
from webui.training.folders import RunFolder
from webui.training.run import run_training
from webui.training.validation.choosing import picked
from webui.training.validation.records import Records
from webui.trainings import PICK, TRAIN

NOT_A_NUMBER = "The gradient of down_blocks.0.attentions.1.proj_in holds NaN at step 23."
LIVE = "live boat"
HELD_AT = 2
"""The step after which the first sitting of the live run waits to be paused."""
PATIENCE_S = 120.0


def write_live_run(data_dir: Path) -> None:
    """Settings of a run of a few steps, its photos and its base."""
    write_checkpoint(data_dir / "models" / "checkpoints" / "tiny")
    photos = data_dir / "photos" / "live"
    photos.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for i in range(4):
        tiles = draws.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(np.kron(tiles, np.ones((16, 16, 1), dtype=np.uint8))).save(photos / f"{i}.png")
    measuring = {"num_timesteps": 1, "num_train_photos": 1, "num_inference_steps": 1, "weights": [1.0]}
    config = {
        "name": LIVE,
        "base": "tiny",
        "subject": "object",
        "data": {"photos": str(photos), "resolution": 64, "trigger": "ruby", "holdout": 1},
        "network": {"rank": 2, "text_encoder": False},
        "schedule": {"num_steps": 4, "save_every": 100},
        "validation": {**measuring, "prompts": ["{trigger}"]},
    }
    RunFolder(data_dir / "training" / LIVE).write_config(TrainingConfig.model_validate(config))


def runners_for(services: Services) -> Mapping[str, Runner]:
    """What does the jobs here: training in this process, and a pick that only says what it would have written."""
    sittings: list[str] = []

    def train(context: JobContext) -> None:
        folder = services.trainings.folder(str(context.job.payload["run"]))
        told = EventLines(folder.events)
        sittings.append(folder.path.name)

        def report(event: JobEvent) -> None:
            told(event)
            context.report(event)
            if len(sittings) == 1 and isinstance(event, LossReported) and event.step == HELD_AT:
                wait_for_pause(context)

        run_training(folder.path, services.library, CPU, report=report, check=context.cancel.check)
        services.library.refresh()

    def pick(context: JobContext) -> None:
        payload = context.job.payload
        folder = services.trainings.folder(str(payload["run"]))
        choice = picked(Records.latest(folder.path).choose(), int(payload["step"]), float(payload["weight"]))
        EventLines(folder.events)(
            TrainingFinished(
                adapter=str(services.settings.models_dir / "loras" / f"{folder.path.name}.safetensors"),
                best_step=choice.step,
                best_weight=choice.weight,
                run_dir=str(folder.path),
                validation=choice.as_json(),
            )
        )

    return {TRAIN: train, PICK: pick}


def wait_for_pause(context: JobContext) -> None:
    until, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not context.cancel.interrupted and time.monotonic() < until:
        pause.wait(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("runs")
    write_paper_checkpoint(data_dir)
    write_story(data_dir, Story(name="long boat", num_steps=80, last=40, every=20, rank=16))
    failed = Failed(message=NOT_A_NUMBER, hint="Resume it with a lower learning rate.")
    broken = write_story(data_dir, Story(name="torn boat", last=23, error=failed, warnings=("boat 7.png is small.",)))
    broken.log.write_text("The last words of the process\n")
    write_story(data_dir, Story(name="ruby boat"))
    write_live_run(data_dir)
    with serve(data_dir, runners_for) as running:
        yield running


@pytest.fixture
def user(warm_page: Page, server: Server) -> User:
    return User(warm_page, server.url).visit("?tab=training")


def step(user: User, name: str) -> Locator:
    """The panel of a step of the Training tab, brought to the front."""
    user.page.locator(f".at-train-steps [data-step={name}]").click()
    return user.page.locator(f"section[data-step={name}]")


def opened(user: User, run: str) -> Locator:
    step(user, "runs").get_by_role("button", name=run, exact=True).click()
    panel = user.page.locator("section[data-step=run]")
    expect(panel.get_by_role("heading", name=run, exact=True)).to_be_visible()
    return panel


def test_a_finished_run_is_read_overruled_and_tried(user: User) -> None:
    run = opened(user, "ruby boat")
    expect(run.get_by_label("State of the run")).to_contain_text("about 5.4 GB of 8.0 GB free")
    expect(run.get_by_label("State of the run")).to_contain_text("Changed to fit: gradient checkpointing.")

    loss = run.get_by_role("slider", name="Loss by step")
    loss.focus()
    loss.press("Home")
    expect(loss).to_have_attribute("aria-valuetext", re.compile(r"^Step 1, Each report 0\.1\d+, Smoothed 0\.1\d+$"))
    loss.press("PageUp")
    loss.press("ArrowRight")
    expect(run.locator(".at-chart-told").first).to_contain_text("Step 12")
    errors = run.locator("figure", has_text="Error on photos")
    errors.get_by_label("Noise levels").select_option("0-332")
    errors.locator("summary").click()
    expect(errors.locator("tbody tr").last).to_have_text(re.compile(r"^400\.14"))
    likeness = run.get_by_role("slider", name="Likeness by step")
    expect(likeness).to_have_attribute("aria-valuetext", re.compile("Weight 0.8 92%, Weight 1 92%$"))
    expect(run.get_by_label("Which step")).to_contain_text("Chosen: Step 40 at weight 0.8")

    samples = run.get_by_role("region", name="Samples")
    samples.get_by_label("Next prompt").click()
    expect(samples.get_by_label("Prompt", exact=True)).to_have_value(f"1 {PROMPTS[1]}")
    expect(samples.locator("tbody tr")).to_have_count(5)
    expect(samples.locator("[data-step='40'][data-weight='1']")).to_contain_text("Repeats a photo")
    samples.get_by_role("button", name="Step 40 at weight 0.8: view full size").press("ArrowUp")
    open_one = samples.get_by_role("button", name="Step 30 at weight 0.8: view full size")
    expect(open_one).to_be_focused()
    open_one.press("Enter")
    full = user.page.get_by_role("dialog", name="Sample in full size")
    expect(full).to_contain_text(re.compile("likeness 7[12]%"))
    user.page.keyboard.press("ArrowRight")
    expect(full).to_contain_text("Step 30 at weight 1")
    full.get_by_role("button", name="Use this one").click()
    result = run.get_by_role("region", name="Result")
    expect(result).to_contain_text("Chosen by hand. The measures found step 40 at weight 0.8.")
    expect(result).to_contain_text("<lora:ruby boat:1>")
    expect(samples.locator("td[data-used]")).to_contain_text("In use, by hand")
    result.get_by_role("button", name="Use the one that was found").click()
    expect(result).to_contain_text("<lora:ruby boat:0.8>")
    expect(result).not_to_contain_text("Chosen by hand")

    txt2img = User(user.page, user.url)
    user.page.get_by_role("tab", name="txt2img", exact=True).click()
    txt2img.write("a lake at night")
    user.page.get_by_role("tab", name="Training", exact=True).click()
    for _ in range(2):
        result.get_by_role("button", name="Try it in txt2img").click()
        expect(txt2img.prompt()).to_be_visible()
        expect(txt2img.prompt()).to_have_value("a lake at night, ruby <lora:ruby boat:0.8>")
        user.page.get_by_role("tab", name="Training", exact=True).click()
    result.get_by_role("button", name="Try it in img2img").click()
    expect(User(user.page, user.url, "img2img").prompt()).to_have_value(f"{CAPTION}, ruby <lora:ruby boat:0.8>")


def test_runs_are_found_compared_begun_again_and_removed(user: User, server: Server) -> None:
    torn = opened(user, "torn boat")
    expect(torn.get_by_role("alert").filter(has_text=NOT_A_NUMBER)).to_contain_text("lower learning rate")
    expect(torn.locator(".at-run-notes")).to_contain_text("Warning: boat 7.png is small.")
    expect(torn.get_by_text("The last words of the process")).to_be_visible()

    runs = step(user, "runs")
    rows = runs.locator("li[data-run]")
    expect(rows).to_have_count(4)
    runs.get_by_label("Which runs").select_option("failed")
    expect(rows).to_have_text([re.compile("torn boat")])
    runs.get_by_label("Which runs").select_option("")
    runs.get_by_label("Search runs").fill("boat finished")
    expect(rows).to_have_text([re.compile("ruby boat.*92%", re.DOTALL)])
    runs.get_by_label("Search runs").fill("")
    runs.get_by_label("Compare ruby boat").check()
    runs.get_by_label("Compare long boat").check()
    runs.get_by_role("button", name="Compare", exact=True).click()
    expect(runs.get_by_label("Settings that differ").locator("tbody tr").nth(1)).to_have_text("network.rank416")
    expect(runs.locator("figure", has_text="Loss, smoothed")).to_contain_text("long boat")
    beside = runs.get_by_label("Samples of the same prompt")
    beside.get_by_label("Step and weight of long boat").select_option("Step 20, weight 0.6")
    expect(beside.get_by_role("img")).to_have_count(2)
    runs.get_by_role("button", name="All runs").click()

    runs.get_by_label("Start from the settings of long boat").click()
    expect(user.page.locator("section[data-step=settings]")).to_be_visible()
    assert user.page.evaluate("atelierTraining.state().config.network.rank") == 16
    step(user, "runs")
    runs.get_by_label("Remove torn boat").click()
    question = user.page.get_by_role("dialog")
    expect(question).to_contain_text("Its folder torn boat")
    question.get_by_role("button", name="Remove").click()
    expect(rows).to_have_count(3)
    assert not (server.services.trainings.runs_dir / "torn boat").exists()


def test_a_run_is_watched_paused_resumed_made_longer_and_tried(user: User, server: Server) -> None:
    run = opened(user, LIVE)
    state = run.get_by_label("State of the run")
    expect(state).to_contain_text("Paused")
    state.get_by_role("button", name="Start again").click()
    expect(run.get_by_role("slider", name="Loss by step")).to_have_attribute("aria-valuemax", str(HELD_AT))
    expect(state).to_contain_text(f"Step {HELD_AT} of 4")
    state.get_by_role("button", name="Pause").click()
    expect(state).to_contain_text(f"Paused after step {HELD_AT} of 4")
    state.get_by_role("button", name="Continue longer").click()
    question = user.page.get_by_role("dialog", name="Continue longer")
    question.get_by_label("Steps in all").fill("1")
    question.get_by_role("button", name="Continue").click()
    expect(question.get_by_role("alert")).to_contain_text("from 3 on")
    question.get_by_label("Steps in all").fill("6")
    question.get_by_role("button", name="Continue").click()
    expect(state).to_contain_text("Finished: 6 steps", timeout=PATIENCE_S * 1000)
    result = run.get_by_role("region", name="Result")
    expect(result).to_contain_text(f"{LIVE} (LoRA, trained on tiny)")
    expect(run.get_by_text("Resumed after step 2.")).to_be_visible()
    expect(run.locator(".at-samples tbody tr")).to_have_text(
        [re.compile("^Base"), re.compile("^Step 6.*In use", re.DOTALL)]
    )
    txt2img = User(user.page, user.url)
    user.page.get_by_role("tab", name="txt2img", exact=True).click()
    txt2img.write(EXAMPLES[0])
    user.page.get_by_role("tab", name="Training", exact=True).click()
    result.get_by_role("button", name="Try it in txt2img").click()
    expect(txt2img.prompt()).to_have_value(f"ruby <lora:{LIVE}:1>")
    expect(user.page.locator("#checkpoint input")).to_have_value(re.compile("tiny", re.IGNORECASE))
    expect(user.page.locator(".at-chips button")).to_have_count(0)
    user.settle()
    expect(txt2img.prompt()).to_have_value(f"ruby <lora:{LIVE}:1>")
    assert [file.name for file in server.services.library.files("adapter") if file.name == LIVE] == [LIVE]


def test_on_a_phone_all_fits_and_has_a_name(open_page: Callable[..., Page], server: Server) -> None:
    page = open_page(viewport={"width": 390, "height": 780}, has_touch=True)
    user = User(page, server.url).visit("?tab=training&__theme=dark")
    run = opened(user, "ruby boat")
    expect(run.locator("[data-step='40'] img").first).to_be_visible()
    for summary in run.locator("summary:visible").all():
        summary.tap()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    runs = step(user, "runs")
    expect(runs.locator("li[data-run]").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for control in page.locator(".at-training :is(button, input, select):visible").all():
        name = control.evaluate(
            "node => node.getAttribute('aria-label') || node.labels?.[0]?.textContent || node.textContent"
        )
        assert name.strip(), control.evaluate("node => node.outerHTML")
