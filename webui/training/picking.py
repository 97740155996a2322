"""The user overrules the choice: another candidate, or another weight, becomes what came out of a run."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

from webui.errors import InvalidRequest, StorageError
from webui.jobs.events import JobEvent, Progress
from webui.library.catalog import Library
from webui.pipeline.device import Device
from webui.training.alone import alone
from webui.training.base import attached, computing, load_base, sources_of
from webui.training.config import TrainingConfig
from webui.training.config_file import read_config
from webui.training.events import TrainingFinished
from webui.training.facts import made_of, read_facts
from webui.training.folders import RunFolder
from webui.training.publishing import put_out, read_finished
from webui.training.state import base_digest
from webui.training.validation.choosing import Choice, picked
from webui.training.validation.output import WITHOUT_WEIGHT
from webui.training.validation.records import Records

MAX_WEIGHT = 4.0


def pick(
    run_dir: Path,
    step: int,
    weight: float | None,
    library: Library,
    device: Device,
    *,
    report: Callable[[JobEvent], None],
    cache_dir: Path | None = None,
) -> TrainingFinished:
    """Makes the candidate of `step` the result of the run in `run_dir`, recommended at `weight`; None: at the best one.

    It takes the place of what the run put among the user's models, if that is still as it was; else it lies beside it.
    Needs the base, but no photos. Raises InvalidRequest or StorageError.
    """
    folder = RunFolder(run_dir)
    with alone(folder.path):
        config, records = read_config(folder.config), Records.latest(folder.path)
        candidate = _candidate(folder, config, step)
        automatic = records.choose()
        choice = picked(automatic, step, _weight(config, automatic, step, weight))
        facts = read_facts(folder)
        report(Progress(step=0, num_steps=2, label=f"loading {config.base}"))
        whole_model = config.network.method == "full"
        computed = computing(device, config.resources.precision, whole_model=whole_model)
        model = load_base(library, config.base, computed.device, cache_dir=cache_dir or folder.path)
        if base_digest(sources_of(model)) != facts.base_digest:
            raise InvalidRequest(
                "base", f"'{config.base}' is not the file that this run was trained on.", hint="Put that one back."
            )
        network = attached(model, config)
        network.load_state(load_file(candidate, device=str(computed.device.torch_device)))
        report(Progress(step=1, num_steps=2, label="writing the result"))
        picture = records.best_picture(choice.step, choice.weight)
        before = read_finished(folder)
        finished = put_out(
            network,
            made_of(facts, config, model, choice, picture),
            folder,
            library,
            picture=picture,
            settings=before.settings if before is not None else None,
            before=before,
        )
        report(finished)
        return finished


def _candidate(folder: RunFolder, config: TrainingConfig, step: int) -> Path:
    path = folder.candidate(step)
    if path.is_file():
        return path
    there = sorted(int(other.stem) for other in folder.candidates.glob("[0-9]*.safetensors"))
    if not there:
        raise StorageError(f"There are no candidates in {folder.candidates}.", hint="Train the run again.")
    listed = ", ".join(str(other) for other in there)
    if config.network.method == "full":
        reason = "A whole model is kept only of the best step and the last one"
        raise InvalidRequest("step", f"{reason}, so step {step} is gone.", hint=f"Choose one of: {listed}.")
    raise InvalidRequest("step", f"Step {step} was not kept.", hint=f"Choose one of: {listed}.")


def _weight(config: TrainingConfig, automatic: Choice | None, step: int, weight: float | None) -> float:
    if config.network.method in WITHOUT_WEIGHT:
        if weight not in (None, 1.0):
            kind = "A whole model" if config.network.method == "full" else "An embedding"
            raise InvalidRequest("weight", f"{kind} is used as it is, not at weight {weight:g}.", hint="Leave it at 1.")
        return 1.0
    if weight is None:
        rows = automatic.rows if automatic is not None else ()
        return next((row.weight for row in rows if row.step == step), 1.0)
    if not 0 < weight <= MAX_WEIGHT:
        raise InvalidRequest("weight", f"The weight {weight:g} is not above 0 and at most {MAX_WEIGHT:g}.")
    return weight
