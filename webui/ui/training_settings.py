"""What the Settings step shows besides the form: the numbers of presets, what a check found, the settings as a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from webui.errors import InvalidRequest, ModelNotFound
from webui.library.families import FAMILIES
from webui.services import Services
from webui.training.checking import Summary
from webui.training.config import Method, TrainingConfig
from webui.training.config_file import config_text
from webui.training.data.captions import base_caption
from webui.training.presets import PRESETS, preset_config
from webui.training.result_size import result_bytes
from webui.training.usage import unused
from webui.trainings import Checked

PLACEHOLDER = "word"
"""For presets of methods that need a trigger; their numbers do not depend on it."""


def numbers_of_presets(services: Services, base: str, method: Method) -> list[dict[str, Any]]:
    """What tells the presets apart, for this base and method. Raises ModelNotFound, InvalidRequest."""
    info = services.library.find_checkpoint(base)
    found = []
    for preset in PRESETS:
        config = preset_config(
            preset,
            name=PLACEHOLDER,
            photos=Path(PLACEHOLDER),
            base=base,
            adapter_base=FAMILIES[info.family].adapter_base,
            native_size=info.native_size,
            method=method,
            trigger=PLACEHOLDER,
        )
        has_rank = "network.rank" not in unused(config)
        found.append(
            {
                "id": preset,
                "num_steps": config.schedule.num_steps,
                "batch_size": config.schedule.batch_size,
                "rank": config.network.rank if has_rank else None,
                "rate": config.optimizer.embedding_rate if method == "embedding" else config.optimizer.rate,
                "resolution": config.data.resolution,
            }
        )
    return found


def checked_json(checked: Checked, services: Services, values: Mapping[str, Any]) -> dict[str, Any]:
    """`unused`: settings that count for nothing, with the reason; `caption`: of a photo that has none.

    Where `values` are no configuration, `unused` and the size are those without the wrong ones.
    """
    config = checked.config or _repaired(values, checked.problems)
    return {
        "problems": [_problem(problem) for problem in checked.problems],
        "warnings": list(checked.warnings),
        "summary": None if checked.summary is None else _summary(checked.summary),
        "result_bytes": None if config is None else _result_bytes(config, services),
        "unused": None if config is None else unused(config),
        "caption": None if checked.config is None else base_caption(None, checked.config.data, checked.config.subject),
    }


def toml_to_take_home(config: TrainingConfig) -> str:
    """Of folders the names alone: where they lie on this machine is nobody's business."""
    data = config.data
    prior = None if data.prior_photos is None else Path(data.prior_photos.name)
    own = data.model_copy(update={"photos": Path(data.photos.name), "prior_photos": prior})
    return config_text(config.model_copy(update={"data": own}))


def _repaired(values: Mapping[str, Any], problems: Sequence[InvalidRequest]) -> TrainingConfig | None:
    sections = {name: dict(part) if isinstance(part, Mapping) else part for name, part in values.items()}
    for problem in problems:
        section, _, rest = problem.field.partition(".")
        part = sections.get(section)
        if isinstance(part, dict):
            part.pop(rest.partition(".")[0], None)
        else:
            sections.pop(section, None)
    if not isinstance(data := sections.get("data"), dict):
        return None
    needed = {"photos": PLACEHOLDER, "trigger": data.get("trigger") or PLACEHOLDER}
    try:
        return TrainingConfig.model_validate({"name": PLACEHOLDER, **sections, "data": {**data, **needed}})
    except ValidationError:
        return None


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "num_photos": summary.num_photos,
        "num_held_out": summary.num_held_out,
        "steps": summary.steps,
        "epochs": round(summary.epochs, 2),
        "passes_per_photo": round(summary.passes_per_photo, 2),
    }


def _result_bytes(config: TrainingConfig, services: Services) -> int | None:
    try:
        return result_bytes(config, services.library.find_checkpoint(config.base))
    except ModelNotFound:
        return None


def _problem(problem: InvalidRequest) -> dict[str, str]:
    return {"field": problem.field, "message": problem.message, "hint": problem.hint}
