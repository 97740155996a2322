"""Where a run stands: one file from which it goes on to the bit, replaced as a whole, and what it may go on with.

All randomness follows from the step's number, so a state has none. A run that goes on may be longer, measured and
saved otherwise; on another base, other photos or another network it would be another run, and is refused by name.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from webui.errors import InvalidRequest, StorageError
from webui.pipeline.component_source import ComponentSource
from webui.pipeline.weight_files import byte_view
from webui.training.config import FREE_TO_CHANGE, TrainingConfig

VERSION = 1
SAMPLED_VALUES = 64
"""Of each weight of the base go into its digest."""
NAMED_PHOTOS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a run is a run of: `base` by name and digest, `photos` as name -> content hash, the settings that bind."""

    base: str
    base_digest: str
    photos: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """`step` updates were made in `seconds` of work. `average` holds the averaged weights, by name like `weights`;
    `taken` what the rest took so far (`Remaining.as_state`), empty in states of versions that did not measure it."""

    step: int
    seconds: float
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    average: Mapping[str, Tensor]
    scaler: Mapping[str, Any]
    taken: Mapping[str, Any] = field(default_factory=dict)


def identity_of(config: TrainingConfig, base: Mapping[str, ComponentSource], photos: Mapping[str, str]) -> Identity:
    """`base` are the checkpoint's parts by name, `photos` content hashes by name."""
    return Identity(base=config.base, base_digest=base_digest(base), photos=photos, settings=_binding(config))


def base_digest(sources: Mapping[str, ComponentSource]) -> str:
    """Tells one checkpoint from all others in a second: the first values of every weight, as the file has them."""
    digest = hashlib.sha256()
    for part in sorted(sources):
        source = sources[part]
        for name in sorted(source.names()):
            values = source.tensor(name).flatten()[:SAMPLED_VALUES].contiguous()
            digest.update(f"{part} {name} {source.info(name)}".encode())
            digest.update(byte_view(values).numpy().tobytes())
        source.close()
    return digest.hexdigest()


def check_same(before: Identity, now: Identity) -> None:
    """Raises InvalidRequest that names what differs."""
    if (before.base, before.base_digest) != (now.base, now.base_digest):
        same_name = before.base == now.base
        what = f"whose file has changed since ('{now.base}')" if same_name else f"'{before.base}', not on '{now.base}'"
        raise InvalidRequest(
            "base", f"The run was started on a base {what}." if same_name else f"The run was started on {what}.",
            hint="Resume it on that checkpoint, or start a new run.",
        )  # fmt: skip
    if before.photos != now.photos:
        raise InvalidRequest(
            "data.photos",
            f"The photos are not those that the run was started with: {_difference(before.photos, now.photos)}.",
            hint="Put them back as they were, or start a new run.",
        )
    changed = [
        key for key in sorted({*before.settings, *now.settings}) if before.settings.get(key) != now.settings.get(key)
    ]
    if changed:
        key = changed[0]
        raise InvalidRequest(
            key,
            f"The run was started with {key} = {before.settings.get(key)!r}, which is now {now.settings.get(key)!r}.",
            hint="Resume it with the old value, or start a new run.",
        )


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    parts = {
        "missing": [name for name in before if name not in now],
        "new": [name for name in now if name not in before],
        "changed": [name for name in before if name in now and before[name] != now[name]],
    }
    return "; ".join(f"{_some(sorted(names))} {word}" for word, names in parts.items() if names)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED_PHOTOS
    listed = ", ".join(names[:NAMED_PHOTOS]) + (f" and {more} more" if more > 0 else "")
    return f"{listed} {'is' if len(names) == 1 else 'are'}"


def _binding(config: TrainingConfig) -> dict[str, Any]:
    """Settings that a run cannot go on without, as "section.field" -> value."""
    values: dict[str, Any] = {}
    for section, content in config.model_dump(mode="json").items():
        free = FREE_TO_CHANGE.get(section, frozenset())
        if section == "base" or free is None:
            continue
        values |= {f"{section}.{name}": value for name, value in content.items() if name not in free}
    return values


class StateFile:
    """The latest state of a run in `folder`; none until the first was written."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.path = folder / "state.pt"
        self._identity = identity

    def write(self, state: State) -> None:
        """Raises StorageError; then the state before stays."""
        content = {
            "version": VERSION,
            "step": state.step,
            "seconds": state.seconds,
            "weights": dict(state.weights),
            "optimizer": dict(state.optimizer),
            "average": dict(state.average),
            "scaler": dict(state.scaler),
            "taken": dict(state.taken),
            "base": self._identity.base,
            "base_digest": self._identity.base_digest,
            "photos": dict(self._identity.photos),
            "settings": dict(self._identity.settings),
        }
        part = self.path.with_suffix(".part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise StorageError(
                f"The state after step {state.step} could not be written to {self.path.parent}: {error}.",
                hint="Make room on the disk; the run can then be resumed from the state before.",
            ) from error

    def read(self, device: torch.device) -> State | None:
        """The latest, with its tensors on `device`; None if there is none yet.

        Raises InvalidRequest if it belongs to another base, other photos or other settings; StorageError if damaged.
        """
        if not self.path.is_file():
            return None
        try:
            content = torch.load(self.path, map_location=device, weights_only=True)
            before = Identity(**{name: content[name] for name in ("base", "base_digest", "photos", "settings")})
            if content["version"] != VERSION:
                raise KeyError(f"version {content['version']}")
        except (OSError, RuntimeError, KeyError, TypeError, EOFError, UnpicklingError) as error:
            raise StorageError(
                f"The state {self.path} cannot be read: {error}.",
                hint="Start the run again without --resume; the candidates it saved are still there.",
            ) from error
        check_same(before, self._identity)
        names = ("step", "seconds", "weights", "optimizer", "average", "scaler")
        return State(**{name: content[name] for name in names}, taken=content.get("taken", {}))
