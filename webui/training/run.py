"""A training run from its folder to the file that comes out: the story, each step of which is told elsewhere.

Whatever ends it, the folder has all that is needed to go on; a run that is over only says again what came out.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file

from webui.errors import InvalidRequest, StorageError
from webui.jobs.events import JobEvent, Progress
from webui.library.catalog import Library
from webui.pipeline.device import Device
from webui.pipeline.model import Model
from webui.training.alone import alone
from webui.training.base import Computing, attached, computing, load_base, make_light, sources_of
from webui.training.caching import TensorCache
from webui.training.class_pictures import draw_class_pictures
from webui.training.config import FINDS_RATE, TrainingConfig
from webui.training.config_file import read_config
from webui.training.data.faces import FaceReader
from webui.training.data.photos import PhotoReader
from webui.training.data.prepared import prepare
from webui.training.data.training_set import TrainingSet, gather
from webui.training.encoded import EncodedPhotos, encoded_set
from webui.training.events import CandidateSaved, Estimated, TrainingFinished, TrainingNote
from webui.training.facts import Facts, made_of, read_facts, write_facts
from webui.training.feed import Feed
from webui.training.folders import RunFolder
from webui.training.loop import Trainer, candidate_steps
from webui.training.networks.trainable import Trainable
from webui.training.optimizers import check_optimizer
from webui.training.preflight import Trial, plan
from webui.training.publishing import put_out, read_finished
from webui.training.ranks import Ranks, this_rank
from webui.training.state import Identity, StateFile, identity_of
from webui.training.stepping import Denoising, denoising_of
from webui.training.texts import CACHED_CAPTIONS, Captions
from webui.training.validation.examining import Examiner
from webui.training.validation.photos import MeasuredPhoto

Report = Callable[[JobEvent], None]
Check = Callable[[], None]

NAMED_PHOTOS = 10
"""How many of the photos that were left out are told one by one."""


def run_training(
    run_dir: Path,
    library: Library,
    device: Device,
    *,
    report: Report,
    check: Check,
    faces: FaceReader | None = None,
    cache_dir: Path | None = None,
) -> TrainingFinished:
    """Runs or resumes what `run_dir` describes; what comes out is also put where the library finds it.

    `check` raises JobInterrupted to pause. `cache_dir` keeps what was measured of the machine, so that a resumed run
    computes in the same order; by default that is the run's folder. Raises WebUIError with what to do about it.
    """
    folder = RunFolder(run_dir)
    ranks = this_rank(cpu=device.is_cpu)
    with alone(folder.path) if ranks.is_first else nullcontext():
        return _run(folder, library, device, ranks, report=report, check=check, faces=faces, cache_dir=cache_dir)


def _run(
    folder: RunFolder,
    library: Library,
    device: Device,
    ranks: Ranks,
    *,
    report: Report,
    check: Check,
    faces: FaceReader | None,
    cache_dir: Path | None,
) -> TrainingFinished:
    config = read_config(folder.config)
    if (before := _finished_before(folder, config)) is not None:
        report(before)
        return before
    telling = report if ranks.is_first else _nobody
    started = time.time()
    check_optimizer(config.optimizer.name, device.torch_device)
    reader = PhotoReader()
    found = gather(config, unpack_to=folder.unpacked, faces=faces, reader=reader, check=check)
    whole_model = config.network.method == "full"
    computed = computing(device, config.resources.precision, whole_model=whole_model)
    model = load_base(library, config.base, computed.device, cache_dir=cache_dir or folder.path)
    _check_fits(config, model)
    if config.data.num_prior_images:
        pictures = config.data.prior_photos or folder.class_pictures
        if ranks.is_first:
            draw_class_pictures(model, config, pictures, report=telling, check=check)
        ranks.wait()
        config = _with(config, "data", prior_photos=pictures)
        found = gather(config, unpack_to=folder.unpacked, faces=faces, reader=reader, check=check)
    _tell(found, config, telling)
    run = _prepared(config, model, found, folder, ranks, computed, report=telling, check=check)
    facts = Facts(
        base_digest=run.identity.base_digest,
        num_photos=len(found.train),
        num_held_out=len(found.held_out),
        num_prior=len(found.prior),
        started_at=started,
        captions=tuple(run.trained.plain_caption(i) for i in range(len(found.train))),
    )
    examiner = _examiner(run, found, folder, faces, report=telling, check=check)
    if ranks.is_first:
        write_facts(folder, facts)
        examiner.prepare()
    if examiner.candidate_s is not None:
        telling(replace(run.estimate, seconds_per_candidate=examiner.candidate_s))
    ranks.wait()
    trainer = Trainer(
        run.network, run.denoising, run.feed, run.config, ranks, run.states, candidate_s=examiner.candidate_s
    )
    if trainer.resume():
        telling(TrainingNote(text=f"Resumed after step {trainer.step}."))
    trainer.train(
        report=telling, check=check, on_candidate=lambda step: _candidate(run, folder, examiner, step, telling)
    )
    if not ranks.is_first:
        return TrainingFinished(adapter="", best_step=0, best_weight=0.0, run_dir=str(folder.path))
    finished, warning = _finish(run, folder, examiner, library)
    if warning:
        telling(TrainingNote(text=warning, kind="warning"))
    telling(finished)
    return finished


def _finished_before(folder: RunFolder, config: TrainingConfig) -> TrainingFinished | None:
    """What came out of these very settings before, if it is still there."""
    before = read_finished(folder)
    if before is None or before.settings != config.model_dump(mode="json"):
        return None
    return before.told if Path(before.told.adapter).exists() else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    config: TrainingConfig
    """With what the ladder changed."""
    estimate: Estimated
    model: Model
    network: Trainable
    denoising: Denoising
    feed: Feed
    identity: Identity
    states: StateFile
    trained: EncodedPhotos
    held_out: EncodedPhotos


def _prepared(
    config: TrainingConfig,
    model: Model,
    found: TrainingSet,
    folder: RunFolder,
    ranks: Ranks,
    computed: Computing,
    *,
    report: Report,
    check: Check,
) -> _Run:
    """Everything that is there before the first step: photos encoded, network attached, the plan made to fit."""
    cache = TensorCache(config.data.cache, folder.encoded)
    trained, held_out = encoded_set(found, config, model, cache)
    for photos in (trained, held_out):
        photos.encode_all(
            report=lambda done, total: report(Progress(step=done, num_steps=total, label="encoding photos")),
            check=check,
        )
    identity = identity_of(config, sources_of(model), found.contents())
    network = attached(model, config)
    live = bool({"text_encoder", "embedding"} & set(network.parameter_groups()))
    captions = Captions(
        model.text_encoder,
        TensorCache(config.data.cache, folder.encoded, most=CACHED_CAPTIONS),
        clip_skip=config.schedule.clip_skip,
        live=live,
        lasting=trained.captions() | held_out.captions(),
        autocast=computed.autocast,
    )
    make_light(model)
    if config.data.cache == "disk" and not live:
        captions.encode_lasting(
            report=lambda done, total: report(Progress(step=done, num_steps=total, label="encoding captions")),
            check=check,
        )
    denoising = denoising_of(
        model,
        captions,
        config.loss,
        as_base=lambda: network.scaled(0.0),
        prior_weight=config.data.prior_weight,
        autocast=computed.autocast,
    )
    num_timesteps = len(denoising.alphas_cumprod)

    def trial(settings: TrainingConfig) -> Trial:
        if settings.resources.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        feed = Feed(trained, settings, ranks, num_timesteps=num_timesteps)
        parameters = [parameter for _, parameter in network.named_parameters()]
        return Trial(denoising=denoising, batch=feed.largest(), parameters=parameters)

    check()
    fitting, estimate = plan(config, computed.device, trial)
    report(estimate)
    for change in estimate.changes:
        report(TrainingNote(text=f"To fit into memory: {change}."))
    return _Run(
        config=fitting,
        estimate=estimate,
        model=model,
        network=network,
        denoising=denoising,
        feed=Feed(trained, fitting, ranks, num_timesteps=num_timesteps),
        identity=identity,
        states=StateFile(folder.state, identity),
        trained=trained,
        held_out=held_out,
    )


def _examiner(
    run: _Run, found: TrainingSet, folder: RunFolder, faces: FaceReader | None, *, report: Report, check: Check
) -> Examiner:
    return Examiner(
        run.model,
        run.network,
        run.denoising,
        run.config,
        train=[_measured(run.trained, i) for i in range(len(found.train))],
        held_out=[_measured(run.held_out, i) for i in range(len(found.held_out))],
        folder=folder.path,
        report=report,
        check=check,
        faces=faces,
    )


def _measured(photos: EncodedPhotos, item: int) -> MeasuredPhoto:
    return MeasuredPhoto(
        name=photos.name(item),
        sha256=photos.content(item),
        image=Image.fromarray(np.ascontiguousarray(prepare(photos.placed(item), masks=False).pixels)),
        latent=photos.latent(item, flipped=False),
        caption=photos.plain_caption(item),
        mask=photos.mask(item, flipped=False),
        time_ids=photos.time_ids(item),
        channels=photos.channels(item, sample=0, flipped=False),
    )


def _candidate(run: _Run, folder: RunFolder, examiner: Examiner, step: int, report: Report) -> None:
    """Saves the network as it is after `step` updates, and measures it. A whole model is kept only while it is best."""
    path = folder.candidate(step)
    if not path.is_file():
        _save(run.network, path)
        report(CandidateSaved(step=step, path=str(path)))
    examiner.examine(step)
    if run.config.network.method == "full":
        best = examiner.choose().step
        for other in folder.candidates.glob("*.safetensors"):
            if other not in (folder.candidate(best), path):
                other.unlink()


def _save(network: Trainable, path: Path) -> None:
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in network.state().items()}, part)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # safetensors has an error of its own for a full disk
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise StorageError(
            f"The candidate {path.name} could not be written to {path.parent}: {error}.",
            hint="Make room on the disk, then resume the run.",
        ) from error


def _finish(run: _Run, folder: RunFolder, examiner: Examiner, library: Library) -> tuple[TrainingFinished, str]:
    """Writes the best candidate as what others load, with how it was found; and what there is to warn of."""
    choice = examiner.choose()
    candidate = folder.candidate(choice.step)
    if not candidate.is_file():
        raise StorageError(
            f"The candidate of step {choice.step}, which is the best, is gone from {candidate.parent}.",
            hint="Put it back and resume, or take another one with --pick.",
        )
    run.network.load_state(load_file(candidate, device=str(run.denoising.device)))
    picture = examiner.best_picture(choice)
    made = made_of(read_facts(folder), run.config, run.model, choice, picture)
    settings = read_config(folder.config).model_dump(mode="json")
    finished = put_out(run.network, made, folder, library, picture=picture, settings=settings)
    return finished, choice.warning or ""


def _check_fits(config: TrainingConfig, model: Model) -> None:
    """Raises InvalidRequest for settings that make no sense for this base."""
    if config.loss.zero_terminal_snr and model.prediction_type != "v_prediction":
        raise InvalidRequest(
            "loss.zero_terminal_snr",
            f"'{config.base}' predicts {model.prediction_type}: there is nothing to learn from pure noise.",
            hint="Set loss.zero_terminal_snr to false, or choose a v-prediction checkpoint.",
        )


def _tell(found: TrainingSet, config: TrainingConfig, report: Report) -> None:
    for text in found.notes:
        report(TrainingNote(text=text))
    for left_out in found.left_out[:NAMED_PHOTOS]:
        report(TrainingNote(text=left_out.sentence, kind="warning"))
    if len(found.left_out) > NAMED_PHOTOS:
        report(TrainingNote(text=f"{len(found.left_out) - NAMED_PHOTOS} more files were left out.", kind="warning"))
    sizes, steps = len(found.plan.counts()), len(candidate_steps(config.schedule))
    kept = f"{len(found.held_out)} kept back to measure with" if found.held_out else "none kept back to measure with"
    report(TrainingNote(text=f"{len(found.train)} photos to train on, {kept}; {steps} candidates in {sizes} sizes."))
    if config.optimizer.name in FINDS_RATE and config.optimizer.rate < 0.1:
        text = f"{config.optimizer.name} finds the learning rate itself; optimizer.rate is a factor, and should be 1."
        report(TrainingNote(text=text, kind="warning"))


def _with(config: TrainingConfig, section: str, **values: object) -> TrainingConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def _nobody(event: JobEvent) -> None:
    """Only the first process tells."""
