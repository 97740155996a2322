"""From a request to saved pictures: the recipe, on the worker's thread."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from PIL import Image
from torch import Tensor

from webui.generation.canvas import Canvas, prepare_canvas
from webui.generation.events import ImageReady, Note, StepPreview
from webui.generation.infotext import metadata_of
from webui.generation.request import MAX_SEED, Extras, GenerationRequest, Img2Img, Inpaint
from webui.images.metadata import encode_image
from webui.images.store import ImageStore
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

Report = Callable[[JobEvent], None]

SHORT_HASH = 10
"""Digits of a file's sha256 by which the field names it."""


class Generator:
    """Runs requests one after the other on the manager's device and saves their pictures."""

    def __init__(self, manager: PipelineManager, store: ImageStore) -> None:
        self._manager = manager
        self._store = store
        self._adapter_files = AdapterFiles()

    def preload(self, checkpoint: str) -> None:
        """Loads a checkpoint before it is asked for. Raises ModelNotFound or UnsupportedModel."""
        self._manager.load(checkpoint)

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
        if not self._manager.is_loaded(request.checkpoint):
            report(Progress(step=0, num_steps=0, label="Loading model"))
        ready = dict(finished or {})
        with torch.inference_mode():
            model = self._manager.load(request.checkpoint, vae=request.vae)
            networks = resolve_networks(
                parse_prompt(request.prompt),
                parse_prompt(request.negative_prompt),
                self._manager.library,
                self._adapter_files,
                model.adapters,
            )
            run = _Run(model, networks, request, report, cancel, previews=previews)
            made_with = {**self._made_with(model, request), **networks.fields}
            with run.networks_applied():
                for indices in run.batches(skip=ready):
                    for index, image in run.make(indices):
                        ready[index] = self._save(request, index, image, made_with)
                        report(ready[index])
        return [ready[index] for index in sorted(ready)]

    def _made_with(self, model: Model, request: GenerationRequest) -> dict[str, str]:
        """The files that were used, in the infotext's words; their hashes if they are known already."""
        words: dict[str, str] = {}
        if model.inputs.picture_channels == "edit" and request.init is not None:
            words["Image CFG scale"] = f"{request.sampling.image_guidance_scale:g}"
        if model.vae_path is not None:
            words["VAE"] = model.vae_path.name
        for key, path in (("Model hash", model.info.path), ("VAE hash", model.vae_path)):
            sha256 = None if path is None else self._manager.library.sha256_of(path)
            if sha256 is not None:
                words[key] = sha256[:SHORT_HASH]
        return words

    def _save(
        self, request: GenerationRequest, index: int, image: Image.Image, made_with: Mapping[str, str]
    ) -> ImageReady:
        seed = seed_of(request, index)
        metadata = metadata_of(request, seed=seed, size=image.size, made_with=made_with)
        data = encode_image(image, metadata, request.image_format)
        path = self._store.save(
            data, kind="img2img" if request.init else "txt2img", seed=seed, fmt=request.image_format
        )
        return ImageReady(index=index, path=str(path), seed=seed, infotext=metadata.infotext)


def seed_of(request: GenerationRequest, index: int) -> int:
    """Seed of the request's picture `index`; a picture made alone with it is the same, bit for bit on the CPU."""
    if request.seed is None:
        raise ValueError("The request's seed must be drawn before it runs.")
    return (request.seed + index) % (MAX_SEED + 1)


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
        previews: bool,
    ) -> None:
        self._previews = previews
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
        self._guidances = self._session.encoded(self._encode_prompts)
        self._progress = _ProgressReport(request.num_images, self._num_calls(), report)

    def networks_applied(self) -> AbstractContextManager[None]:
        """Has to be entered while pictures are made."""
        return self._session.running()

    def batches(self, *, skip: Mapping[int, ImageReady]) -> Iterator[Sequence[int]]:
        """Indices of the pictures that go through the model together."""
        wanted = [index for index in range(self._request.num_images) if index not in skip]
        size = self._request.batch_size if self._model.device.images_at_once else 1
        for start in range(0, len(wanted), size):
            yield wanted[start : start + size]

    def make(self, indices: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        """The pictures of `indices`; none where the user skipped them."""
        self._progress.starts(done=indices[0])
        try:
            self._cancel.check()
            if self._canvas is not None and self._init is not None and self._init.strength == 0:
                images = [self._canvas.original or self._canvas.image] * len(indices)
            else:
                images = self._generate(indices)
        except ImageSkipped:
            self._progress.finishes(indices)
            return
        self._progress.finishes(indices)
        yield from zip(indices, images, strict=True)

    def _generate(self, indices: Sequence[int]) -> list[Image.Image]:
        latents = self._denoise([seed_of(self._request, index) for index in indices])
        self._cancel.check()
        self._report(self._progress.event("Decoding"))
        decoded = self._decode(latents)
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


class _ProgressReport:
    """Counts model calls over the whole job and estimates the time left from those of this run."""

    def __init__(self, num_images: int, calls_per_image: int, report: Report) -> None:
        self._calls_per_image = calls_per_image
        self._num_calls = num_images * calls_per_image
        self._calls = 0
        self._calls_here = 0
        self._report = report
        self._started_at = time.monotonic()

    def starts(self, *, done: int) -> None:
        self._calls = done * self._calls_per_image
        self._report(self.event("Denoising"))

    def step(self) -> None:
        self._calls += 1
        self._calls_here += 1
        self._report(self.event("Denoising"))

    def finishes(self, indices: Sequence[int]) -> None:
        self._calls = (indices[-1] + 1) * self._calls_per_image

    def event(self, label: str) -> Progress:
        left = None
        if self._calls_here:
            per_call = (time.monotonic() - self._started_at) / self._calls_here
            left = max(self._num_calls - self._calls, 0) * per_call
        return Progress(
            step=min(self._calls, self._num_calls), num_steps=self._num_calls, label=label, seconds_left=left
        )
