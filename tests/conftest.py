"""What all tests share: a tiny checkpoint with random weights, and an engine on it."""

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

if os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the others compute too; children inherit it

import torch

from tests.models import write_checkpoint
from webui.generation.events import ImageReady
from webui.generation.request import GenerationRequest
from webui.generation.run import Generator
from webui.images.store import ImageStore
from webui.jobs.cancel import CancelToken
from webui.jobs.events import JobEvent
from webui.library.catalog import Library
from webui.pipeline.device import Device
from webui.pipeline.manager import PipelineManager
from webui.settings import CHECKOUT

hypothesis.settings.register_profile(
    "atelier", database=None, deadline=None, max_examples=60, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("atelier")

CPU = Device(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False)


@pytest.fixture(scope="session")
def tiny_models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the checkpoints "tiny" (epsilon) and "tiny-v" (v-prediction)."""
    models = tmp_path_factory.mktemp("models")
    write_checkpoint(models / "checkpoints" / "tiny")
    write_checkpoint(models / "checkpoints" / "tiny-v", prediction_type="v_prediction", seed=1)
    return models


@pytest.fixture(scope="session")
def starter_dir() -> Path:
    """The starter model that ships with the program."""
    return CHECKOUT / "models" / "starter"


@pytest.fixture(scope="session")
def library(tiny_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library([tiny_models_dir, CHECKOUT / "models"], tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def manager(library: Library) -> PipelineManager:
    return PipelineManager(library, CPU)


Generate = Callable[..., list[ImageReady]]


@pytest.fixture
def generate(manager: PipelineManager, tmp_path: Path) -> Generate:
    """`generate(request, events=list, cancel=token)` on the CPU; pictures go below `tmp_path`."""
    generator = Generator(manager, ImageStore(tmp_path / "outputs"))

    def run(
        request: GenerationRequest,
        *,
        events: list[JobEvent] | None = None,
        cancel: CancelToken | None = None,
        **more: object,
    ) -> list[ImageReady]:
        report = events.append if events is not None else _ignore
        return generator.generate(request, report=report, cancel=cancel or CancelToken(), **more)  # type: ignore[arg-type]

    return run


def _ignore(event: JobEvent) -> None:
    """Nobody listens."""
