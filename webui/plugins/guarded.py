"""A postprocessor of an extension, so that what goes wrong in it is put down to the extension."""

from collections.abc import Callable
from typing import Any

from PIL import Image
from pydantic import BaseModel

from webui.errors import ExtensionError, WebUIError
from webui.generation.postprocess import PostprocessContext, Postprocessor, Processed
from webui.generation.request import GenerationRequest
from webui.plugins.loading import Loaded, failure
from webui.plugins.stages import PASSED_ON


class Guarded:
    """Raises WebUIError, JobInterrupted and ImageSkipped alone. A WebUIError of the extension's own is no fault."""

    def __init__(
        self, extension: Loaded, inner: Postprocessor, blame: Callable[[Loaded, ExtensionError], None]
    ) -> None:
        self.extension = extension
        self._inner = inner
        self._blame = blame
        self._id, self._title, self._params_model = inner.id, inner.title, inner.params_model

    @property
    def id(self) -> str:
        return self._id

    @property
    def title(self) -> str:
        return self._title

    @property
    def params_model(self) -> type[BaseModel]:
        return self._params_model

    def check(self, params: Any, request: GenerationRequest) -> None:
        self._run(lambda: self._inner.check(params, request))

    def __call__(self, image: Image.Image, params: Any, context: PostprocessContext) -> Processed:
        processed = self._run(lambda: self._inner(image, params, context))
        if not isinstance(processed, Processed):
            raise self._fault(ExtensionError(f"It returned a {type(processed).__name__} instead of a Processed."))
        return processed

    def _run(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (*PASSED_ON, WebUIError):
            raise
        except (Exception, SystemExit) as error:
            raise self._fault(failure(error, self.extension.folder)) from error

    def _fault(self, error: ExtensionError) -> ExtensionError:
        self._blame(self.extension, ExtensionError(f"'{self._title}' failed: {error.message}", hint=error.hint))
        return error
