"""The composition root: the only place that builds things and passes them on."""

import logging
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from webui.assisting import ASSIST
from webui.command_generate import CommandReport
from webui.command_train import Pick, Train
from webui.errors import InvalidRequest, StorageError, WebUIError
from webui.generation.events import ImageReady
from webui.generation.postprocess import NO_ADDITIONS, Additions, Processed
from webui.generation.request import GenerationRequest
from webui.generation.steps import checked_steps
from webui.hooks import CommandContext
from webui.images.store import HeldPictures, ImageStore, KeptPictures
from webui.jobs.cancel import CancelToken
from webui.jobs.events import JobEvent
from webui.jobs.worker import JobContext, Runner, Worker
from webui.library.catalog import STARTER, Library
from webui.library.downloads.download import DownloadRequest
from webui.library.events import ModelSaved
from webui.library.tool_models import saved_model
from webui.library.tool_progress import ToolReport
from webui.library.tool_requests import parse_tool_request
from webui.plugins.host import PluginHost
from webui.plugins.models import ModelRequest, get_model
from webui.plugins.training import faces_for_training
from webui.services import (
    DOWNLOAD,
    EXTENSION_MODEL,
    GENERATE,
    NETWORK_LANE,
    TOOL,
    TOOL_LANE,
    Services,
    build_library,
    with_seed,
)
from webui.settings import Settings
from webui.training.config_file import read_config
from webui.training.data.faces import FaceReader
from webui.training.events import TrainingFinished, TrainingNote
from webui.training.folders import RunFolder
from webui.trainings import PICK, TRAIN

if TYPE_CHECKING:
    from fastapi import FastAPI

    from webui.generation.run import Generator

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 10.0


def build_host(settings: Settings) -> PluginHost:
    """The extensions that are on, loaded."""
    host = PluginHost(settings)
    host.load()
    return host


def build_generator(
    settings: Settings,
    library: Library,
    store: ImageStore,
    additions: Additions = NO_ADDITIONS,
    inputs: KeptPictures | None = None,
) -> "Generator":
    """The engine, which runs models of `library` and saves into `store`; `inputs` has what postprocess steps name.

    Imports torch, so it is called where the device is used: on the worker, or by the command line.
    """
    from webui.generation.run import Generator
    from webui.pipeline.allocator import keep_freed_memory
    from webui.pipeline.device import choose_device
    from webui.pipeline.manager import PipelineManager

    device = choose_device(settings.device, settings.dtype)
    if device.is_cpu:
        keep_freed_memory()
    manager = PipelineManager(
        library,
        device,
        cache_bytes=int(settings.cache_gb * 1e9),
        device_bytes=int(settings.device_memory_gb * 1e9),
        cache_dir=settings.cache_dir,
    )
    return Generator(manager, store, additions, inputs=inputs)


def build_command_context(settings: Settings, host: PluginHost) -> CommandContext:
    """What the command of an extension may use. The engine is built when it is first asked for."""
    pictures = HeldPictures()
    engines: list[Generator] = []

    def process(request: GenerationRequest) -> Sequence[Processed]:
        if not engines:
            library, store = build_library(settings), ImageStore(settings.outputs_dir)
            engines.append(build_generator(settings, library, store, host, pictures))
        checked = replace(request, postprocess=checked_steps(request, host, pictures.__contains__))
        report = CommandReport(sys.stderr)
        try:
            return engines[0].process(with_seed(checked), report=report, cancel=CancelToken())
        finally:
            report.close()

    return CommandContext(settings=settings, process=process, keep=pictures.put)


def build_runners(services: Services) -> Mapping[str, Runner]:
    """What the worker can run, by kind of job."""
    generator = build_generator(services.settings, services.library, services.outputs, services.host, services.inputs)
    preload_starter(generator, services)

    def run_generation(context: JobContext) -> None:
        finished = {event.index: event for event in context.previous if isinstance(event, ImageReady)}
        request = services.from_payload(context.job.payload)
        generator.generate(request, report=context.report, cancel=context.cancel, finished=finished)

    def run_training(context: JobContext) -> None:
        generator.free_device()
        services.trainings.work(context)

    return {GENERATE: run_generation, TRAIN: run_training, PICK: run_training}


def build_download_worker(services: Services) -> Worker:
    """Fetches models beside whatever the device does."""

    def run_download(context: JobContext) -> None:
        request = DownloadRequest.model_validate(context.job.payload)
        services.downloads.get(request, report=context.report, check=context.cancel.check)

    def run_extension_model(context: JobContext) -> None:
        request = ModelRequest.model_validate(context.job.payload)
        get_model(request, services.downloads, report=context.report, check=context.cancel.check)

    runners = {DOWNLOAD: run_download, EXTENSION_MODEL: run_extension_model}
    return Worker(services.queue, lambda: runners, lane=NETWORK_LANE)


def build_tool_worker(services: Services) -> Worker:
    """Makes new models of those that are there, and captions and masks of photos, beside whatever the device does."""

    def run(context: JobContext) -> None:
        from webui.pipeline.tools.run import run_tool  # here, as most runs of the program use no tool

        if any(isinstance(event, ModelSaved) for event in context.previous):
            return
        request = parse_tool_request(context.job.payload)
        report = ToolReport(request, context.report, check=context.cancel.check)
        path = run_tool(request, services.tool_models, report=report)
        services.library.refresh()
        context.report(saved_model(path))

    return Worker(services.queue, lambda: {TOOL: run, ASSIST: services.assisting.work}, lane=TOOL_LANE)


def preload_starter(generator: "Generator", services: Services) -> None:
    """Reads the small model that most first pictures are made with, so that they need not wait for it."""
    if not any(info.name == STARTER and not info.problem for info in services.checkpoints()):
        return
    try:
        generator.preload(STARTER)
    except WebUIError as error:  # other checkpoints still run; a job that asks for this one fails with the same words
        logger.warning("The starter model could not be loaded: %s", error)


def build_training(settings: Settings) -> Train:
    """What runs a training's folder. It imports torch, and the extensions where there are faces to be read."""

    def train(run_dir: Path, *, report: Callable[[JobEvent], None], check: Callable[[], None]) -> TrainingFinished:
        from webui.pipeline.allocator import keep_freed_memory
        from webui.pipeline.device import choose_device
        from webui.training.run import run_training

        device = choose_device(settings.device, "fp32")
        if device.is_cpu:
            keep_freed_memory()
        with closing(build_library(settings)) as library, faces_of(run_dir, report) as faces:
            return run_training(
                run_dir, library, device, report=report, check=check, faces=faces, cache_dir=settings.cache_dir
            )

    def faces_of(run_dir: Path, report: Callable[[JobEvent], None]) -> AbstractContextManager[FaceReader | None]:
        if read_config(RunFolder(run_dir).config).subject != "person":
            return nullcontext()
        return faces_for_training(settings, lambda text: report(TrainingNote(text=text, kind="warning")))

    return train


def build_picking(settings: Settings) -> Pick:
    """What makes another candidate of a run its result. torch is imported when it does."""

    def pick(run_dir: Path, step: int, weight: float | None, *, report: Callable[[JobEvent], None]) -> TrainingFinished:
        from webui.pipeline.device import choose_device
        from webui.training.picking import pick as picked

        device = choose_device(settings.device, "fp32")
        with closing(build_library(settings)) as library:
            return picked(run_dir, step, weight, library, device, report=report, cache_dir=settings.cache_dir)

    return pick


def prepare_data_dir(settings: Settings) -> None:
    """Makes the folders the program writes to. Raises StorageError if it may not."""
    for folder in (settings.data_dir, settings.outputs_dir, settings.inputs_dir, settings.models_dir / "checkpoints"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / ".write-test"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise StorageError(
                f"The folder {folder} cannot be written to ({error.strerror}).",
                hint="Choose another one with --data-dir, or change its permissions.",
            ) from error


def serve(settings: Settings) -> None:
    """Runs the program until it is told to stop. The page answers before torch is imported."""
    listener = open_port(settings)
    prepare_data_dir(settings)
    host = build_host(settings)
    services = Services(settings, host)
    services.discard_unused_inputs()
    workers = (
        Worker(services.queue, lambda: build_runners(services)),
        build_download_worker(services),
        build_tool_worker(services),
    )
    config = uvicorn.Config(_build_page(services), log_level="warning", timeout_graceful_shutdown=2)

    def when_ready() -> None:
        _announce(settings, listener.getsockname()[1])
        for worker in workers:
            worker.start()
        services.start_hashing()

    try:
        _Server(config, when_ready).run(sockets=[listener])
    finally:
        for worker in workers:
            worker.stop(STOP_TIMEOUT_S)
        host.close()
        services.close()


def _build_page(services: Services) -> "FastAPI":
    """Imports Gradio, for which the command line has no use."""
    from webui.ui.server import build_app

    return build_app(services)


def open_port(settings: Settings) -> socket.socket:
    """A listening socket. Raises InvalidRequest in one clear line if the port is taken or the address is not ours."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise InvalidRequest(
            "port",
            f"Cannot serve on {settings.host}:{settings.port} ({error.strerror}).",
            hint="Another program may be using it: try --port 7861, or --port 0 for any free one.",
        ) from error
    return listener


class _Server(uvicorn.Server):
    """Calls `when_ready` once it answers."""

    def __init__(self, config: uvicorn.Config, when_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._when_ready()


def _announce(settings: Settings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else host
    url = f"http://{shown}:{port}/"
    logger.info("Atelier is ready at %s  (Ctrl+C stops it)", url)
    if settings.browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
