"""What there is to say of a run before it starts: how long it is, and what is likely to go wrong. Imports no torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from webui.errors import InvalidRequest
from webui.library.entries import CheckpointInfo
from webui.library.families import FAMILIES
from webui.training.config import FINDS_RATE, OPTIMIZER_PACKAGES, TrainingConfig
from webui.training.data.split import FEWEST
from webui.training.presets import preset_config

RATES_APART = 20.0
"""A learning rate that is so many times the usual one of its method and base is told."""
PASSES_PER_PHOTO = 400
"""More make copies of the photos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`epochs` counts repeats; `passes_per_photo` is how often each photo is looked at; `num_small` photos have fewer
    pixels than the resolution."""

    num_photos: int
    num_held_out: int
    steps: int
    epochs: float
    passes_per_photo: float
    num_small: int = 0


def summary_of(
    config: TrainingConfig,
    repeats: Sequence[int],
    num_held_out: int,
    sizes: Sequence[tuple[int, int]] = (),
) -> Summary:
    """`repeats` and `sizes` (px) of each photo that is trained on."""
    shown = config.schedule.num_steps * config.schedule.batch_size * config.schedule.accumulation
    epoch = sum(repeats) * config.data.repeats
    return Summary(
        num_photos=len(repeats) + num_held_out,
        num_held_out=num_held_out,
        steps=config.schedule.num_steps,
        epochs=shown / max(epoch, 1),
        passes_per_photo=shown / max(len(repeats), 1),
        num_small=sum(width * height < config.data.resolution**2 for width, height in sizes),
    )


def base_problem(config: TrainingConfig, info: CheckpointInfo) -> InvalidRequest | None:
    """Why `info` is no base for this run."""
    if info.problem:
        return InvalidRequest("base", f"'{config.base}' cannot be used: {info.problem}", hint="Choose another one.")
    if FAMILIES[info.family].adapter_base == "sdxl-refiner":
        return InvalidRequest(
            "base", f"'{config.base}' is a refiner, which is not trained.", hint="Choose its main model."
        )
    if config.loss.zero_terminal_snr and info.prediction_type != "v_prediction":
        return InvalidRequest(
            "loss.zero_terminal_snr",
            f"'{config.base}' predicts {info.prediction_type}: there is nothing to learn from pure noise.",
            hint="Switch it off, or choose a v-prediction checkpoint.",
        )
    return None


def optimizer_problem(config: TrainingConfig, installed: Callable[[str], object] = find_spec) -> InvalidRequest | None:
    """Where the optimizer needs a package that is not installed."""
    package = OPTIMIZER_PACKAGES.get(config.optimizer.name)
    if package is None or installed(package):
        return None
    return InvalidRequest(
        "optimizer.name",
        f"The optimizer '{config.optimizer.name}' needs the package {package}, which is not installed.",
        hint=f"Install it with `pip install {package}` into this program's .venv, or choose adamw.",
    )


def warnings_of(config: TrainingConfig, info: CheckpointInfo, summary: Summary | None) -> list[str]:
    """Sentences about what is allowed and likely a mistake."""
    found = [*_rates(config, info), *_sizes(config, info)]
    if config.data.trigger == "" and config.subject != "style":
        found.append("There is no trigger word: nothing in a prompt will call the subject up.")
    if summary is not None:
        found += _photos(config, summary)
    return found


def _rates(config: TrainingConfig, info: CheckpointInfo) -> Iterator[str]:
    if config.optimizer.name in FINDS_RATE:
        if config.optimizer.rate < 0.1:
            yield f"{config.optimizer.name} finds the learning rate itself: set it to 1, not {config.optimizer.rate:g}."
        return
    usual = _usual(config, info)
    if usual is None:
        return
    named = (
        ("The learning rate", config.optimizer.rate, usual.optimizer.rate),
        ("The text encoder's learning rate", config.optimizer.text_rate, usual.optimizer.text_rate),
        ("The word's learning rate", config.optimizer.embedding_rate, usual.optimizer.embedding_rate),
    )
    for what, rate, normal in named:
        if rate and normal and rate > normal * RATES_APART:
            yield f"{what} {rate:g} is {rate / normal:,.0f} times the usual {normal:g}: pictures will fall apart."
        elif rate and normal and rate < normal / RATES_APART:
            yield f"{what} {rate:g} is {normal / rate:,.0f} times below the usual {normal:g}: little will be learnt."


def _usual(config: TrainingConfig, info: CheckpointInfo) -> TrainingConfig | None:
    """What the preset has."""
    try:
        return preset_config(
            f"{config.subject}-normal",
            name="usual",
            photos=config.data.photos,
            base=config.base,
            adapter_base=FAMILIES[info.family].adapter_base,
            native_size=info.native_size,
            method=config.network.method,
            trigger=config.data.trigger or "usual",
        )
    except InvalidRequest:
        return None


def _sizes(config: TrainingConfig, info: CheckpointInfo) -> Iterator[str]:
    side, native = config.data.resolution, info.native_size
    if side * 2 <= native or side >= native * 2:
        yield f"The resolution is {side} px, but '{config.base}' makes pictures of {native} px: it will learn badly."


def _photos(config: TrainingConfig, summary: Summary) -> Iterator[str]:
    trained = summary.num_photos - summary.num_held_out
    if summary.num_photos == 1:
        yield "There is one photo: what comes out will repeat it. Take ten or more."
    elif summary.num_photos < FEWEST:
        yield f"There are {summary.num_photos} photos, so none is kept back to measure with. Take ten or more."
    elif summary.num_held_out == 0:
        yield "No photo is kept back: nothing tells when it begins to learn by heart."
    if summary.num_small:
        learnt = "enlarged, which blurs them" if config.data.upscale else "learnt in smaller sizes"
        verb = "is" if summary.num_small == 1 else "are"
        small = f"{summary.num_small} of {trained} photos {verb} smaller than {config.data.resolution} px"
        yield f"{small}: they are {learnt}. A lower resolution may do."
    if config.schedule.batch_size > trained > 0:
        yield f"A batch has {config.schedule.batch_size} photos, but there are {trained} to train on: some come twice."
    if summary.passes_per_photo > PASSES_PER_PHOTO:
        yield f"Each photo is looked at {summary.passes_per_photo:.0f} times; more than {PASSES_PER_PHOTO} make copies."
