"""What became of a picture on its way through the postprocess steps. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from pydantic import BaseModel

from webui.generation.postprocess import Badge, Postprocessor, PostprocessStep, Processed
from webui.generation.steps import FAILED, ON, infotext_key, step_words, told_step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What became of a step; `processed` is None where it failed and the picture stayed as it was."""

    postprocessor: Postprocessor
    params: BaseModel
    processed: Processed | None

    def words(self) -> dict[str, str]:
        """For an infotext: what was asked for, and what came of it."""
        words = step_words(self.postprocessor, self.params, ON if self.processed else FAILED)
        return words if self.processed is None else {**words, **self.processed.fields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A picture that went through all steps. `notes` are those that were told."""

    image: Image.Image
    results: tuple[StepResult, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> Mapping[str, str]:
        """For an infotext. A step's field whose name is taken by an earlier step is told with its title in front."""
        words: dict[str, str] = {}
        for one in self.results:
            for key, text in one.words().items():
                words[infotext_key(f"{one.postprocessor.title} {key}") if key in words else key] = text
        return words

    @property
    def steps(self) -> tuple[PostprocessStep, ...]:
        """Those that ran, as the picture tells them."""
        return tuple(told_step(one.postprocessor, one.params) for one in self.results)

    @property
    def texts(self) -> Mapping[str, str]:
        """What each step that has run says of the picture, by the postprocessor's id."""
        done = [one for one in self.results if one.processed]
        return {one.postprocessor.id: ", ".join(f"{key}: {text}" for key, text in one.words().items()) for one in done}

    @property
    def badges(self) -> tuple[Badge, ...]:
        return tuple(one.processed.badge for one in self.results if one.processed and one.processed.badge)

    @property
    def details(self) -> Mapping[str, Mapping[str, Any]]:
        """By the postprocessor's id; only of those that have some."""
        return {
            one.postprocessor.id: one.processed.details
            for one in self.results
            if one.processed and one.processed.details
        }

    @property
    def is_composite(self) -> bool:
        return any(one.processed.is_composite for one in self.results if one.processed)

    def joined(self) -> Processed:
        """All steps as one: what comes later wins."""
        done = [one.processed for one in self.results if one.processed]
        return Processed(
            image=self.image,
            fields={key: value for one in done for key, value in one.fields.items()},
            notes=self.notes,
            badge=next(reversed(self.badges), None),
            is_composite=self.is_composite,
            details={key: value for one in done for key, value in one.details.items()},
        )
