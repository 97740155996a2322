"""A finished picture's way through the steps of its request. A step that fails costs nobody a picture.

Imports no torch: what repaints is handed in.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image
from pydantic import BaseModel

from webui.errors import StorageError, WebUIError
from webui.generation.infotext import OWN_KEYS
from webui.generation.outcome import Outcome, StepResult
from webui.generation.postprocess import Additions, PostprocessContext, Postprocessor, PostprocessStep, Processed
from webui.generation.redraw import Paint, Redrawing
from webui.generation.request import GenerationRequest
from webui.generation.steps import infotext_key, parse_params, step_keys
from webui.images.infotext import is_field_name
from webui.images.reading import flatten
from webui.images.store import KeptPictures
from webui.jobs.cancel import ImageSkipped, JobInterrupted

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocessing:
    """The steps of `request`, for its pictures one after the other, on the worker's thread."""

    request: GenerationRequest
    additions: Additions
    pictures: KeptPictures
    paint: Paint
    say: Callable[[str], None]
    """What is being done, for the progress bar."""
    tell: Callable[[str], None]
    """A note."""
    check: Callable[[], None]

    def run(self, index: int, image: Image.Image) -> Outcome:
        """Raises JobInterrupted, or ImageSkipped where the user does without this picture."""
        outcome = Outcome(image=image)
        for step in self.request.postprocess:
            self.check()
            outcome = self._after(step, index, outcome)
        return outcome

    def _after(self, step: PostprocessStep, index: int, before: Outcome) -> Outcome:
        postprocessor = self.additions.postprocessor(step.id)
        if postprocessor is None:
            note = f"{self._named(step.id, index)}: it is not installed, or switched off. {_AS_IT_WAS}"
            return self._told(before, note)
        name = self._named(postprocessor.title, index)
        try:
            params = parse_params(postprocessor, step.params)
        except WebUIError as error:
            return self._told(before, f"{name}: {error} {_AS_IT_WAS}")
        try:
            processed = self._processed(postprocessor, params, index, before.image)
        except (JobInterrupted, ImageSkipped):
            raise
        except Exception as error:  # whatever an extension raises, the picture that was made is kept
            logger.warning("%s failed; the picture is kept without it.", name, exc_info=True)
            said = str(error) if isinstance(error, WebUIError) else _internal(error)
            failed = replace(
                before,
                results=(*before.results, StepResult(postprocessor=postprocessor, params=params, processed=None)),
            )
            return self._told(failed, f"{name}: {said} {_AS_IT_WAS}")
        result = StepResult(postprocessor=postprocessor, params=params, processed=processed)
        after = replace(before, image=processed.image, results=(*before.results, result))
        return self._told(after, *(f"{name}: {note}" for note in processed.notes))

    def _processed(self, postprocessor: Postprocessor, params: BaseModel, index: int, image: Image.Image) -> Processed:
        def say(text: str) -> None:
            self.say(f"{postprocessor.title}: {text}")

        self.say(postprocessor.title)
        seed = self.request.seed_of(index)
        context = PostprocessContext(
            request=self.request,
            index=index,
            seed=seed,
            source=self.request.init.image if self.request.init else None,
            picture=self._picture,
            redraw=Redrawing(request=self.request, seed=seed, paint=self.paint, say=say),
            report=say,
            check=self.check,
        )
        # A copy: a step that fails half-way leaves the picture as it was.
        processed = _checked(postprocessor(image.copy(), params, context), postprocessor)
        return replace(processed, image=flatten(processed.image))

    def _picture(self, name: str) -> Image.Image:
        if not name:
            raise StorageError("No picture was chosen.", hint="Choose one.")
        return flatten(self.pictures.get(name))

    def _named(self, title: str, index: int) -> str:
        return title if self.request.num_images == 1 else f"{title}, picture {index + 1}"

    def _told(self, outcome: Outcome, *notes: str) -> Outcome:
        for note in notes:
            self.tell(note)
        return replace(outcome, notes=(*outcome.notes, *notes))


_AS_IT_WAS = "The picture was left as it was."


def _internal(error: Exception) -> str:
    return f"it failed with {type(error).__name__}: {error}. The log says more."


def _checked(processed: Processed, postprocessor: Postprocessor) -> Processed:
    """`processed`, fit to be saved. Raises TypeError or ValueError with what is wrong."""
    if not isinstance(processed, Processed) or not isinstance(processed.image, Image.Image):
        raise TypeError(f"a postprocessor gives back Processed with a picture, not {type(processed).__name__}")
    if not all(processed.image.size):
        raise ValueError("the picture that it gave back has no pixels")
    own = {*OWN_KEYS, *step_keys(postprocessor), infotext_key(postprocessor.title)}
    for key, value in processed.fields.items():
        if not is_field_name(key) or key in own:
            raise ValueError(f"{key!r} cannot be the name of a field")
        if not isinstance(value, str):
            raise TypeError(f"the field '{key}' is no text but {type(value).__name__}")
    # Programs read them, so they have to be JSON: what is none is found here and not when the job is stored.
    details = json.loads(json.dumps(dict(processed.details), allow_nan=False))
    return replace(processed, details=details)
