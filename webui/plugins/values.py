"""The settings of extensions: what the user chose, checked by each one's own model."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from webui.errors import InvalidRequest
from webui.plugins.loading import Loaded, failure
from webui.plugins.manifest import first_mistake
from webui.plugins.state import ExtensionStates


class SettingsValues:
    """The present values by extension, as long as the program runs; `states` keeps them from run to run."""

    def __init__(self, states: ExtensionStates) -> None:
        self._states = states
        self._values: dict[str, BaseModel] = {}

    def get(self, id: str) -> BaseModel | None:
        return self._values.get(id)

    def load(self, id: str, model: type[BaseModel], *, say: Callable[[str], None]) -> None:
        """Reads what was kept. A value that `model` does not take gives way to its default, and `say` is told."""
        kept = dict(self._states.get(id).settings)
        try:
            self._values[id] = model.model_validate(kept)
        except ValidationError as error:
            wrong = {str(mistake["loc"][0]) for mistake in error.errors() if mistake["loc"]}
            self._values[id] = _as_many_as_go(model, {name: kept[name] for name in kept if name not in wrong})
            named = ", ".join(sorted(wrong)) or "those chosen"
            say(f"Of its settings, {named} cannot be used as kept; the defaults are.")

    def change(self, loaded: Loaded, values: Mapping[str, Any]) -> BaseModel:
        """Keeps `values`, all or some of the model's fields. Raises InvalidRequest (field) or StorageError."""
        present = self._values.get(loaded.id)
        if loaded.settings_model is None or present is None:
            raise InvalidRequest("id", f"The extension '{loaded.id}' has no settings.")
        try:
            new = loaded.settings_model.model_validate({**present.model_dump(), **values}, extra="forbid")
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise InvalidRequest(field, f"{first_mistake(error)}.") from error
        except Exception as error:  # of a validator of the extension's own
            raise InvalidRequest("", str(failure(error, loaded.folder))) from error
        self._states.change(loaded.id, settings=new.model_dump(mode="json", exclude_defaults=True))
        self._values[loaded.id] = new
        return new


def _as_many_as_go(model: type[BaseModel], kept: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate(kept)
    except ValidationError:  # they do not go together
        return model()
