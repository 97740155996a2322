"""From a request to saved pictures: the recipe, on the worker's thread."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from webui.generation.canvas import Canvas, prepare_canvas
from webui.generation.events import ImageReady, Note, StepPreview
from webui.generation.infotext import metadata_of
from webui.generation.outcome import Outcome
from webui.generation.postprocess import NO_ADDITIONS, Additions, Processed
from webui.generation.postprocessing import Postprocessing
from webui.generation.progress import ProgressReport, Report, told_once
from webui.generation.recommended import notes_on
from webui.generation.request import Extras, GenerationRequest, Img2Img, Inpaint
from webui.generation.stages import Stages
from webui.images.metadata import encode_image
from webui.images.store import HeldPictures, ImageStore, KeptPictures, Kind
from webui.jobs.cancel import CancelToken, ImageSkipped
from webui.jobs.events import JobEvent, Progress
from webui.pipeline.adapters.opened import AdapterFiles
from webui.pipeline.adapters.prompted import PromptedNetworks, resolve_networks
from webui.pipeline.adapters.session import AdapterSession
from webui.pipeline.conditioning import Guidance, build_guidance, picture_channels
from webui.pipeline.denoiser import Denoiser, LatentBlend
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.pipeline.noise import NoiseSource
from webui.pipeline.samplers import find_sampler, num_model_calls
from webui.pipeline.schedules import Sigmas, find_schedule, img2img_sigmas
from webui.prompt.grammar import parse_prompt

SHORT_HASH = 10
"""Digits of a file's sha256 by which the field names it."""


class Generator:
    """Runs requests one after the other on the manager's device and saves their pictures."""

    def __init__(
        self,
        manager: PipelineManager,
        store: ImageStore,
        additions: Additions = NO_ADDITIONS,
        *,
        inputs: KeptPictures | None = None,
    ) -> None:
        """`inputs` has the pictures that postprocess steps name; None for a program where they can name none."""
        self._manager = manager
        self._store = store
        self._additions = additions
        self._inputs = HeldPictures() if inputs is None else inputs
        self._adapter_files = AdapterFiles()

    def preload(self, checkpoint: str) -> None:
        """Loads a checkpoint before it is asked for. Raises ModelNotFound or UnsupportedModel."""
        self._manager.load(checkpoint)

    def free_device(self) -> None:
        """Forgets all networks, for something else that needs the memory; the next request loads them again."""
        self._manager.unload()

    def generate(
        self,
        request: GenerationRequest,
        *,
        report: Report,
        cancel: CancelToken,
        finished: Mapping[int, ImageReady] | None = None,
        previews: bool = True,
    ) -> list[ImageReady]:
        """Makes and saves the pictures of `request`, whose seed is given; `previews` cost up to a tenth of the time.

        Pictures in `finished` (by index, from a run that was cut off) are not made again. Raises JobInterrupted when
        `cancel` says so; what was saved by then stays.
        """
        ready = dict(finished or {})
        job = self._job(request, report, cancel, previews=previews)
        with torch.inference_mode(), closing(job):
            for made in job.pictures(skip=ready):
                ready[made.index] = self._save(job, made)
                report(ready[made.index])
        return [ready[index] for index in sorted(ready)]

    def process(self, request: GenerationRequest, *, report: Report, cancel: CancelToken) -> list[Processed]:
        """The pictures of `request` after its steps, saved nowhere; what the steps say of a picture is joined."""
        job = self._job(request, report, cancel, previews=False)
        with torch.inference_mode(), closing(job):
            return [made.outcome.joined() for made in job.pictures(skip=())]

    def _job(self, request: GenerationRequest, report: Report, cancel: CancelToken, *, previews: bool) -> "_Job":
        return _Job(
            request,
            _Engine(manager=self._manager, adapter_files=self._adapter_files),
            self._additions,
            self._inputs,
            told_once(report),
            cancel,
            previews=previews,
        )

    def _save(self, job: "_Job", made: "_Made") -> ImageReady:
        request, outcome = job.request, made.outcome
        seed = request.seed_of(made.index)
        metadata = metadata_of(request, seed=seed, size=outcome.image.size, made_with=made.made_with, outcome=outcome)
        job.stages.before("save", [made.index])
        data = encode_image(outcome.image, metadata, request.image_format)
        path = self._store.save(data, kind=_kind_of(request), seed=seed, fmt=request.image_format)
        job.stages.after("save", [made.index], None, path=path)
        return ImageReady(
            index=made.index,
            path=str(path),
            seed=seed,
            infotext=metadata.infotext,
            badges=outcome.badges,
            details=outcome.details,
        )


def _kind_of(request: GenerationRequest) -> Kind:
    match request.init:
        case None:
            return "txt2img"
        case Extras():
            return "extras"
        case _:
            return "img2img"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """What runs need of the device."""

    manager: PipelineManager
    adapter_files: AdapterFiles

    def load(self, request: GenerationRequest) -> tuple[Model, PromptedNetworks]:
        """The request's checkpoint on the device, and the networks that its prompts name."""
        model = self.manager.load(request.checkpoint, vae=request.vae)
        prompt, negative = parse_prompt(request.prompt), parse_prompt(request.negative_prompt)
        return model, resolve_networks(prompt, negative, self.manager.library, self.adapter_files, model.adapters)

    def made_with(self, request: GenerationRequest, model: Model) -> dict[str, str]:
        """The files that are used, in the infotext's words; their hashes if they are known already."""
        words: dict[str, str] = {}
        if model.inputs.picture_channels == "edit" and request.init is not None:
            words["Image CFG scale"] = f"{request.sampling.image_guidance_scale:g}"
        if model.vae_path is not None:
            words["VAE"] = model.vae_path.name
        for key, path in (("Model hash", model.info.path), ("VAE hash", model.vae_path)):
            sha256 = None if path is None else self.manager.library.sha256_of(path)
            if sha256 is not None:
                words[key] = sha256[:SHORT_HASH]
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """Picture `index`; `made_with` as `metadata_of` takes it."""

    index: int
    outcome: Outcome
    made_with: Mapping[str, str] | None


class _Job:
    """One request: its pictures, each after its postprocess steps, and what those let the model repaint."""

    def __init__(
        self,
        request: GenerationRequest,
        engine: _Engine,
        additions: Additions,
        inputs: KeptPictures,
        report: Report,
        cancel: CancelToken,
        *,
        previews: bool,
    ) -> None:
        self.request = request
        self.stages = Stages(additions, request, self._tell)
        self._engine = engine
        self._report = report
        self._cancel = cancel
        self._previews = previews
        self._progress = ProgressReport(request.num_images, report)
        self._run: _Run | None = None
        self._made_with: dict[str, str] | None = None
        self._steps = Postprocessing(
            request=request,
            additions=additions,
            pictures=inputs,
            paint=self._paint,
            say=self._say,
            tell=self._tell,
            check=cancel.check,
        )

    def close(self) -> None:
        """Takes off what was put on the model for the time of the run."""
        if self._run is not None:
            self._run.close()

    def pictures(self, *, skip: Collection[int]) -> Iterator[_Made]:
        """All but those whose index is in `skip`, and those that the user skips."""
        indices = [index for index in range(self.request.num_images) if index not in skip]
        images = self._finished(indices) if isinstance(self.request.init, Extras) else self._generated(indices)
        for index, image in images:
            try:
                outcome = self._postprocessed(index, image)
            except ImageSkipped:
                continue
            yield _Made(index=index, outcome=outcome, made_with=self._made_with)

    def _finished(self, indices: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        assert isinstance(self.request.init, Extras)
        image = self.request.init.image
        return ((index, image) for index in indices)

    def _generated(self, indices: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        if not indices:
            return
        model, networks = self._load(self.request)
        for note in notes_on(self.request, self._engine.manager.library):
            self._tell(note)
        self._made_with = {**self._engine.made_with(self.request, model), **networks.fields}
        self._run = run = _Run(
            model,
            networks,
            self.request,
            self._report,
            self._cancel,
            stages=self.stages,
            progress=self._progress,
            indices=indices,
            previews=self._previews,
        )
        for batch in run.batches():
            yield from run.make(batch)

    def _postprocessed(self, index: int, image: Image.Image) -> Outcome:
        self.stages.before("postprocess", [index])
        outcome = self._steps.run(index, image)
        return replace(outcome, image=self.stages.after("postprocess", [index], outcome.image))

    def _paint(self, request: GenerationRequest, say: Callable[[str], None]) -> Image.Image:
        """The one picture of `request`, for a step. The present run takes its networks on again when it goes on."""
        self.close()
        model, networks = self._load(request)
        if self._made_with is None:
            self._made_with = {**self._engine.made_with(request, model), **networks.fields}

        def report(event: JobEvent) -> None:
            match event:
                case Progress():
                    say(f"redrawing {event.step}/{event.num_steps}")
                case Note():
                    self._report(event)

        run = _Run(
            model,
            networks,
            request,
            report,
            self._cancel,
            stages=Stages(NO_ADDITIONS, request, self._tell),
            progress=ProgressReport(1, report),
            indices=[0],
            previews=False,
        )
        with closing(run):
            return run.picture()

    def _load(self, request: GenerationRequest) -> tuple[Model, PromptedNetworks]:
        if not self._engine.manager.is_loaded(request.checkpoint):
            self._say("Loading model")
        return self._engine.load(request)

    def _say(self, text: str) -> None:
        self._report(self._progress.event(text))

    def _tell(self, text: str) -> None:
        self._report(Note(message=text))


def _painted(request: GenerationRequest) -> Img2Img | Inpaint | None:
    if isinstance(request.init, Extras):
        raise ValueError("Extras do not go through a model.")
    return request.init


class _Run:
    """One request on one model: what is the same for all its pictures, and the way through the steps."""

    def __init__(
        self,
        model: Model,
        networks: PromptedNetworks,
        request: GenerationRequest,
        report: Report,
        cancel: CancelToken,
        *,
        stages: Stages,
        progress: ProgressReport,
        indices: Sequence[int],
        previews: bool,
    ) -> None:
        self._stages = stages
        self._progress = progress
        self._indices = indices
        self._previews = previews
        self._networks_applied = ExitStack()
        self._is_applied = False
        self._model = model
        model.previewer.begin()
        self._request = request
        self._report = report
        self._cancel = cancel
        self._sampler = find_sampler(request.sampling.sampler)
        self._init = _painted(request)
        self._canvas = prepare_canvas(request)
        self._sigmas = self._plan()
        region = None if self._canvas is None else self._canvas.latent_region()
        self._session = AdapterSession(model, networks, num_steps=len(self._sigmas) - 1, region=region)
        for note in self._session.notes:
            report(Note(message=note))
        if model.inputs.guidance_dim and request.negative_prompt:
            report(Note(message="This checkpoint has no use for a negative prompt; it was left out."))
        stages.before("encode", indices)
        self._guidances = self._session.encoded(self._encode_prompts)
        stages.after("encode", indices, None)
        progress.plans(self._num_calls())

    def close(self) -> None:
        """Takes the networks off the model; `make` puts them on again."""
        self._networks_applied.close()
        self._is_applied = False

    def batches(self) -> Iterator[Sequence[int]]:
        """Indices of the pictures that go through the model together."""
        size = self._request.batch_size if self._model.device.images_at_once else 1
        for start in range(0, len(self._indices), size):
            yield self._indices[start : start + size]

    def make(self, indices: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """The pictures of `indices`; none where the user skipped them."""
        self._progress.starts(done=indices[0])
        try:
            images = self._pictures(indices)
        except ImageSkipped:
            self._progress.finishes(indices)
            return
        self._progress.finishes(indices)
        yield from zip(indices, images, strict=True)

    def picture(self) -> Image.Image:
        """The first one. Raises ImageSkipped where the user does without it."""
        self._progress.starts(done=0)
        return self._pictures([0])[0]

    def _pictures(self, indices: Sequence[int]) -> list[Image.Image]:
        self._cancel.check()
        if self._canvas is not None and self._init is not None and self._init.strength == 0:
            return [self._canvas.original or self._canvas.image] * len(indices)
        self._put_networks_on()
        return self._generate(indices)

    def _put_networks_on(self) -> None:
        if not self._is_applied:
            self._networks_applied.enter_context(self._session.running())
            self._is_applied = True

    def _generate(self, indices: Sequence[int]) -> list[Image.Image]:
        self._stages.before("denoise", indices)
        latents = self._denoise([self._request.seed_of(index) for index in indices])
        latents = self._stages.after("denoise", indices, latents)
        self._cancel.check()
        self._report(self._progress.event("Decoding"))
        self._stages.before("decode", indices)
        decoded = self._stages.after("decode", indices, self._decode(latents))
        return [self._canvas.finish(image) for image in decoded] if self._canvas else decoded

    def _decode(self, latents: Tensor) -> list[Image.Image]:
        codec = self._model.codec
        was_rescued = codec.was_rescued
        decoded = codec.decode(latents)
        if codec.was_rescued and not was_rescued:
            self._report(Note(message="The VAE gave NaN in half precision, so it works in float32 from now on."))
        return decoded

    def _denoise(self, seeds: Sequence[int]) -> Tensor:
        """(B, C, h, w) clean latents."""
        model, sampling = self._model, self._request.sampling
        shape = (model.codec.num_channels, self._request.height // 8, self._request.width // 8)
        noise = NoiseSource(seeds, shape, model.device.torch_device)
        x = noise() * self._sigmas[0]
        blend = None
        if self._canvas is not None:
            original = model.codec.encode(self._canvas.image)
            start, blend = self._masked(self._canvas, original, noise)
            x = x + start * self._share_of_start()
        guesses = {
            active: Denoiser(
                model.predict,
                model.device,
                model.levels,
                model.prediction_type,
                guidance,
                blend=blend,
                before_call=self._cancel.check,
            )
            for active, guidance in self._guidances.items()
        }
        denoiser = self._session.denoise(guesses, calls_per_step=self._sampler.calls_per_step)

        def denoise(x: Tensor, sigma: float) -> Tensor:
            denoised = denoiser(x, sigma)
            self._progress.step()
            if self._previews and model.previewer.due():
                self._report(StepPreview(jpeg=model.previewer.jpeg(denoised)))
            return denoised

        eta = self._sampler.default_eta if sampling.eta is None else sampling.eta
        return self._sampler.sample(denoise, x, self._sigmas, noise=noise, eta=eta)

    def _masked(self, canvas: Canvas, original: Tensor, noise: NoiseSource) -> tuple[Tensor, LatentBlend | None]:
        """What to start from instead of nothing, and what holds the rest of the picture still."""
        if canvas.latent_mask is None or not isinstance(self._init, Inpaint):
            return original, None
        mask = torch.from_numpy(canvas.latent_mask).to(original.device)
        start = original
        match self._init.mask.content:
            case "latent noise":
                start = original * (1 - mask) + noise() * mask
            case "latent nothing":
                start = original * (1 - mask)
        return start, LatentBlend(original=original, mask=mask)

    def _share_of_start(self) -> float:
        """0 where a model that edits pictures is asked to make all anew: it sees the picture all the same."""
        edits = self._model.inputs.picture_channels == "edit"
        return 0.0 if edits and self._init is not None and self._init.strength == 1 else 1.0

    def _plan(self) -> Sigmas:
        sampling = self._request.sampling
        schedule = find_schedule(sampling.schedule)
        function = schedule.sigmas or find_schedule(self._sampler.automatic_schedule).sigmas
        if function is None:
            raise ValueError(f"Sampler {self._sampler.label} has no schedule of its own.")
        sigmas = function(sampling.num_inference_steps, self._model.levels)
        return sigmas if self._init is None else img2img_sigmas(sigmas, self._init.strength)

    def _num_calls(self) -> int:
        num_steps = len(self._sigmas) - 1
        return num_model_calls(self._sampler, num_steps) if num_steps else 0

    def _encode_prompts(self) -> Guidance:
        request, encoder = self._request, self._model.text_encoder
        prompt, negative = parse_prompt(request.prompt), parse_prompt(request.negative_prompt)
        size, canvas = (request.width, request.height), self._canvas
        channels = picture_channels(
            self._model.inputs.picture_channels,
            self._model.codec,
            None if canvas is None else canvas.image,
            None if canvas is None else canvas.mask,
            size=size,
        )
        return build_guidance(
            self._model.inputs,
            encoder.encode(prompt, clip_skip=request.clip_skip),
            encoder.encode_negative(negative, clip_skip=request.clip_skip),
            size=size,
            scale=request.sampling.guidance_scale,
            image_scale=None if canvas is None else request.sampling.image_guidance_scale,
            channels=channels,
        )
