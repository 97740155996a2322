"""What the program offers to its front ends: submit, follow, list, restore. Imports no torch."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from webui.assisting import ASSIST, Assisting
from webui.errors import InvalidRequest, WebUIError
from webui.generation.events import GENERATION_EVENTS
from webui.generation.infotext import RestoredSettings, restore_settings
from webui.generation.parameters import build_request, parameters_of, parse_parameters
from webui.generation.postprocess import PostprocessStep
from webui.generation.request import MAX_SEED, Extras, GenerationRequest, Inpaint
from webui.generation.scripts import picture_of, steps_of_scripts
from webui.generation.steps import checked_steps
from webui.images.metadata import read_metadata
from webui.images.store import ImageStore, InputStore
from webui.jobs.queue import JobHandle, JobQueue
from webui.jobs.record import JobState
from webui.library.catalog import AUTOMATIC_VAE, OWN_VAE, CheckpointInfo, Library, tokenizer_folder
from webui.library.downloads.addresses import Url, parse_url
from webui.library.downloads.client import Access
from webui.library.downloads.download import DownloadRequest, Downloads
from webui.library.downloads.events import DOWNLOAD_EVENTS
from webui.library.downloads.sources import Sites
from webui.library.tool_models import ToolModels
from webui.library.tool_requests import ToolRequest
from webui.plugins.host import PluginHost
from webui.plugins.models import ModelRequest
from webui.prompt.chunks import CHUNK_TOKENS, EmbeddingNames, KnownEmbedding, count_tokens
from webui.prompt.grammar import parse_prompt
from webui.prompt.tokenizer import ClipTokenizer
from webui.settings import CHECKOUT, Settings
from webui.training.assistants.catalog import Assistants
from webui.training.assistants.events import ASSIST_EVENTS
from webui.training.data.sets import PhotoSets
from webui.training.events import TRAINING_EVENTS
from webui.trainings import TRAIN, Trainings

GENERATE = "generate"
"""The kind of a generation job."""
DOWNLOAD = "download"
"""The kind of a job that fetches a model."""
TOOL = "tool"
"""The kind of a job that makes a new model of others."""
EXTENSION_MODEL = "extension_model"
"""The kind of a job that fetches a model that an extension names."""
NETWORK_LANE = "network"
TOOL_LANE = "tools"
ALL_JOBS = 1_000_000


class Services:
    """One per program. Everything here may be called from any thread."""

    def __init__(self, settings: Settings, host: PluginHost | None = None) -> None:
        """`host` has the extensions; without one there are none that run."""
        self.settings = settings
        self.host = PluginHost(settings) if host is None else host
        self.library = build_library(settings)
        self.outputs = ImageStore(settings.outputs_dir)
        self.inputs = InputStore(settings.inputs_dir)
        self.queue = JobQueue(
            settings.database,
            event_types=(*GENERATION_EVENTS, *DOWNLOAD_EVENTS, *TRAINING_EVENTS, *ASSIST_EVENTS),
            lanes={DOWNLOAD: NETWORK_LANE, EXTENSION_MODEL: NETWORK_LANE, TOOL: TOOL_LANE, ASSIST: TOOL_LANE},
        )
        self.downloads = downloads_of(settings)
        self.tool_models = ToolModels(library=self.library)
        self.photo_sets = PhotoSets(
            settings.photos_dir,
            settings.cache_dir,
            faces=self.host.face_reader,
            why_no_faces=self.host.why_no_faces,
            in_use=self._photo_sets_in_use,
        )
        self.trainings = Trainings(settings, self.queue, self.library, self.photo_sets)
        assistants = Assistants(models_dirs(settings), self.host.subject_maskers)
        self.assisting = Assisting(self.queue, self.photo_sets, assistants)
        self._tokenizers: dict[Path, ClipTokenizer] = {}

    def checkpoints(self) -> list[CheckpointInfo]:
        """All checkpoints, the unusable ones last with their problem."""
        return self.library.checkpoints()

    def vaes(self) -> list[str]:
        """Names of the autoencoders that can be used."""
        return [file.name for file in self.library.vaes() if not file.problem]

    def generate(self, request: GenerationRequest, *, owner: str) -> JobHandle:
        """Queues `request`; a missing seed is drawn here, and the steps' parameters get their defaults.

        Raises ModelNotFound or UnsupportedModel at once, and InvalidRequest ("ID.field") for a step that cannot run.
        """
        if isinstance(request.init, Extras):
            _check_extras(request)
        else:
            self.library.find_checkpoint(request.checkpoint)
            if request.vae not in (AUTOMATIC_VAE, OWN_VAE):
                self.library.find_vae(request.vae)
        checked = replace(request, postprocess=checked_steps(request, self.host, self.inputs.__contains__))
        return self.queue.submit(GENERATE, self._to_payload(with_seed(checked)), owner=owner)

    def steps_of_scripts(self, alwayson_scripts: Mapping[str, Any]) -> tuple[PostprocessStep, ...]:
        """The steps that clients of A1111's HTTP API ask for by title, with pictures in base64.

        Raises InvalidRequest or UnreadableImage.
        """

        def keep(text: str) -> str:
            if not text or text in self.inputs:
                return text
            return self.inputs.put(picture_of(text, max_pixels=self.settings.max_image_pixels))

        return steps_of_scripts(alwayson_scripts, self.host.postprocessors(), keep)

    def download(self, request: DownloadRequest, *, owner: str) -> JobHandle:
        """Queues a download, or gives the one that the owner has asked for already. Raises InvalidRequest at once."""
        self._require_downloads()
        self.downloads.source_of(request)
        payload = request.model_dump()
        return self._waiting(DOWNLOAD, payload, owner) or self.queue.submit(DOWNLOAD, payload, owner=owner)

    def get_extension_model(self, extension: str, file: str, *, licence: str, owner: str) -> JobHandle:
        """Queues the download of one of the extension's models, after the owner has agreed to `licence`.

        Gives the job that the owner has asked for already. Raises InvalidRequest, also if the licence is another one.
        """
        self._require_downloads()
        manifest = self.host.extension(extension).manifest
        models = () if manifest is None else manifest.models
        model = next((model for model in models if model.file == file and not model.shipped), None)
        if model is None:
            raise InvalidRequest("file", f"The extension '{extension}' names no model '{file}' that could be got.")
        if licence != model.licence:
            raise InvalidRequest(
                "licence", f"The licence of {file} is '{model.licence}'.", hint="Read it, then agree to it."
            )
        payload = ModelRequest(extension=extension, model=model).model_dump(mode="json")
        mine = self._waiting(EXTENSION_MODEL, payload, owner)
        return mine or self.queue.submit(EXTENSION_MODEL, payload, owner=owner)

    def _require_downloads(self) -> None:
        if not self.settings.downloads:
            raise InvalidRequest(
                "source", "Getting models is switched off here.", hint="The setting is `downloads` (WEBUI_DOWNLOADS)."
            )

    def discard_download(self, request: DownloadRequest) -> None:
        """Forgets what was fetched for `request`. Raises WebUIError while anybody fetches the same, or waits."""
        part = self.downloads.part_of(request)
        waiting = self.queue.jobs(states={JobState.QUEUED, JobState.RUNNING}, limit=ALL_JOBS)
        requests = [DownloadRequest.model_validate(job.payload) for job in waiting if job.kind == DOWNLOAD]
        if any(self.downloads.part_of(other) == part for other in requests):
            raise WebUIError(
                "The same model is being fetched, or waits for it.", hint="Throw it away after that download."
            )
        self.downloads.discard(request)

    def run_tool(self, request: ToolRequest, *, owner: str) -> JobHandle:
        """Queues a tool, or gives the job that the owner has asked for already.

        Raises InvalidRequest for names that are not in the library, and for a new one that is taken or no plain name.
        """
        if not self.settings.tools:
            raise InvalidRequest(
                "tool", "Making models is switched off here.", hint="The setting is `tools` (WEBUI_TOOLS)."
            )
        payload = request.model_dump(mode="json")
        if (mine := self._waiting(TOOL, payload, owner)) is not None:
            return mine
        waiting = self.queue.jobs(states={JobState.QUEUED, JobState.RUNNING}, limit=ALL_JOBS)
        if any(job.kind == TOOL and job.payload["destination"] == request.destination for job in waiting):
            raise InvalidRequest(
                "destination", f"Another tool makes '{request.destination}' already.", hint="Choose another name."
            )
        self.tool_models.check(request)
        return self.queue.submit(TOOL, payload, owner=owner)

    def _waiting(self, kind: str, payload: Mapping[str, Any], owner: str) -> JobHandle | None:
        """The owner's job with this payload that has not ended."""
        waiting = self.queue.jobs(owner=owner, states={JobState.QUEUED, JobState.RUNNING}, limit=ALL_JOBS)
        same = (job for job in waiting if job.kind == kind and job.payload == payload)
        return next((self.queue.handle(job.id) for job in same), None)

    def request_of(self, job_id: str) -> GenerationRequest:
        """The request of a generation job, with its seed and pictures."""
        return self.from_payload(self.queue.handle(job_id).record().payload)

    def from_payload(self, payload: Mapping[str, Any]) -> GenerationRequest:
        """The inverse of what `generate` stores."""
        image, mask = payload.get("image"), payload.get("mask")
        return build_request(
            parse_parameters(payload["parameters"]),
            image=self.inputs.get(image) if image else None,
            mask=self.inputs.get(mask) if mask else None,
        )

    def count_tokens(self, text: str, checkpoint: str) -> tuple[int, int]:
        """(tokens of `text`, tokens at which the next chunk starts), by the checkpoint's tokenizer."""
        info = self.library.find_checkpoint(checkpoint)
        folder = tokenizer_folder(info)
        if folder not in self._tokenizers:
            self._tokenizers[folder] = ClipTokenizer(folder)
        return count_tokens(parse_prompt(text), self._tokenizers[folder], self._embeddings())

    def _embeddings(self) -> EmbeddingNames:
        files = [
            file for file in self.library.embeddings() if not file.problem and 0 < file.num_vectors <= CHUNK_TOKENS
        ]
        return EmbeddingNames({file.name: KnownEmbedding(file.id, file.num_vectors) for file in files})

    def restore(self, source: Path | bytes) -> RestoredSettings:
        """The settings a picture was made with. Raises InvalidRequest if it carries none."""
        metadata = read_metadata(source)
        if metadata is None:
            raise InvalidRequest(
                "picture",
                "This picture does not say how it was made.",
                hint="Use an original file: many programs and websites remove the text when they save a copy.",
            )
        return restore_settings(metadata, self.host, has_picture=self.inputs.__contains__)

    def discard_unused_inputs(self) -> None:
        """Removes stored pictures that no kept job needs: to start from, as a mask, or for a step.

        Of steps any text counts that could name one: their extension may be switched off, and on again later.
        """
        self.inputs.discard_unused({name for job in self.queue.jobs(limit=ALL_JOBS) for name in _texts(job.payload)})

    def start_hashing(self) -> None:
        """Hashes model files in the background, while no job waits for the device or runs on it."""

        def busy() -> bool:
            waiting = self.queue.jobs(states={JobState.QUEUED, JobState.RUNNING})
            return any(job.kind not in (DOWNLOAD, EXTENSION_MODEL) for job in waiting)

        self.library.start_hashing(busy)

    def _photo_sets_in_use(self) -> set[str]:
        """Those that queued and running trainings and assistants need."""
        waiting = self.queue.jobs(states={JobState.QUEUED, JobState.RUNNING}, limit=ALL_JOBS)
        payloads = [job.payload for job in waiting if job.kind in (TRAIN, ASSIST)]
        return {str(payload.get(name, "")) for payload in payloads for name in ("set", "prior")}

    def close(self) -> None:
        self.photo_sets.close()
        self.library.close()
        self.queue.close()

    def _to_payload(self, request: GenerationRequest) -> dict[str, Any]:
        payload: dict[str, Any] = {"parameters": parameters_of(request).model_dump()}
        if request.init is not None:
            payload["image"] = self.inputs.put(request.init.image)
        if isinstance(request.init, Inpaint):
            payload["mask"] = self.inputs.put(request.init.mask.image)
        return payload


def _check_extras(request: GenerationRequest) -> None:
    if not request.postprocess:
        raise InvalidRequest(
            "postprocess", "No step is switched on: the picture would stay as it is.", hint="Switch one on."
        )


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def build_library(settings: Settings) -> Library:
    """All models that this program can use."""
    return Library(models_dirs(settings), settings.cache_dir)


def models_dirs(settings: Settings) -> tuple[Path, ...]:
    """The user's models first, then those that ship with the program."""
    shipped = CHECKOUT / "models"
    return (settings.models_dir,) if settings.models_dir == shipped else (settings.models_dir, shipped)


def downloads_of(settings: Settings, *, anywhere: bool = False) -> Downloads:
    """Fetching as the settings have it. Raises InvalidRequest for addresses of sites that are none."""
    sites = Sites(hugging_face=_site(settings, "hf_endpoint"), civitai=_site(settings, "civitai_endpoint"))
    tokens = {
        sites.hugging_face.origin: settings.hf_token.get_secret_value(),
        sites.civitai.origin: settings.civitai_token.get_secret_value(),
    }
    access = Access(
        tokens={origin: token for origin, token in tokens.items() if token},
        private=settings.private_downloads,
        proxy=settings.download_proxy,
    )
    return Downloads(models_dir=settings.models_dir, sites=sites, access=access, anywhere=anywhere)


def _site(settings: Settings, name: str) -> Url:
    try:
        return parse_url(getattr(settings, name), plain_http=settings.private_downloads)
    except InvalidRequest as error:
        raise InvalidRequest(name, f"Setting '{name}': {error.message}", hint=error.hint) from error


def with_seed(request: GenerationRequest) -> GenerationRequest:
    """`request` with a seed; drawn so that seed + k stays in range for all its pictures."""
    if request.seed is not None:
        return request
    return replace(request, seed=secrets.randbelow(MAX_SEED + 1 - request.num_images))
