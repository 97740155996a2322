"""What the names in a tool's request mean: models of the library, and the place of the new one. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from webui.errors import InvalidRequest, ModelNotFound, StorageError, UnsupportedModel
from webui.library.catalog import CheckpointInfo, Library
from webui.library.downloads.placing import safe_name
from webui.library.entries import look_into
from webui.library.events import ModelSaved
from webui.library.names import misleading
from webui.library.scan import ROOMS, RoomKind
from webui.library.tool_requests import ToolRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolModels:
    """The models that requests may name, and where new ones go.

    `anywhere`: names may also be paths of this machine, as on the command line; a path comes before a name. Without it,
    nothing outside of the library is read, and nothing outside of its folders is written.
    """

    library: Library
    anywhere: bool = False

    def checkpoint(self, name: str) -> CheckpointInfo:
        """Raises ModelNotFound or UnsupportedModel."""
        path = self._path(name)
        if path is None:
            return self.library.find_checkpoint(name)
        facts = look_into(path).facts
        if facts.problems or facts.kind != "checkpoint" or not facts.family:
            reason = "; ".join(facts.problems) or f"it is no checkpoint but a file of the kind '{facts.kind}'"
            raise UnsupportedModel(path, reason)
        return CheckpointInfo(
            name=path.stem if path.is_file() else path.name,
            title=path.name,
            path=path,
            family=facts.family,
            prediction_type=facts.prediction_type,
            zero_terminal_snr=facts.zero_terminal_snr,
        )

    def adapter(self, name: str) -> Path:
        """Raises ModelNotFound or UnsupportedModel."""
        path = self._path(name)
        return path if path is not None and path.is_file() else self.library.find_adapter(name).path

    def vae(self, name: str) -> Path:
        """An autoencoder, or with `anywhere` also a checkpoint that has one. Raises as `adapter`."""
        return self._path(name) or self.library.find_vae(name).path

    def destination(self, request: ToolRequest) -> Path:
        """A new file or folder. Raises InvalidRequest for a name that cannot be, StorageError if it is taken."""
        wanted = request.destination
        if not Path(wanted).name:
            raise InvalidRequest(
                "destination", "There is no name for the new model.", hint="Give it one, such as mixed.safetensors."
            )
        if not self.anywhere and safe_name(wanted) != wanted:
            raise InvalidRequest(
                "destination", f"A model cannot be called '{wanted}'.", hint=f"'{safe_name(wanted)}' would do."
            )
        if not request.makes_folder and not wanted.lower().endswith(".safetensors"):
            raise InvalidRequest(
                "destination", f"'{Path(wanted).name}' does not end in .safetensors.", hint="Name the file so."
            )
        plain = Path(wanted).name
        if not self.anywhere and (reason := misleading(plain, is_checkpoint=request.makes == "checkpoint")):
            raise InvalidRequest("destination", reason, hint="Choose another name.")
        path = _local_path(wanted) if self.anywhere else Path(wanted)
        if path.parent != Path():
            refuse_existing(path)
            return path
        path = self.library.models_dirs[0] / ROOMS[request.makes].folder / path.name
        refuse_existing(path)
        self._refuse_name_of_another(request.makes, path.name if request.makes_folder else path.stem)
        return path

    def check(self, request: ToolRequest) -> None:
        """Raises InvalidRequest that names the field, for what can be refused without opening a model."""
        for named in request.named_models():
            if not named.name:
                raise InvalidRequest(named.field, f"No {ROOMS[named.kind].word} is chosen.", hint="Choose one.")
            try:
                _FINDERS[named.kind](self, named.name)
            except (ModelNotFound, UnsupportedModel) as error:
                raise InvalidRequest(named.field, error.message, hint=error.hint) from error
        try:
            self.destination(request)
        except StorageError as error:
            raise InvalidRequest("destination", error.message, hint=error.hint) from error

    def _path(self, name: str) -> Path | None:
        """`name` as a path, where it may be one and something is there."""
        if not self.anywhere or not name:
            return None
        path = _local_path(name)
        return path if path.exists() else None

    def _refuse_name_of_another(self, kind: RoomKind, name: str) -> None:
        """Of two models with the same name, in two formats, the lists show one."""
        if any(file.location.lower() == name.lower() for file in self.library.files(kind)):
            raise StorageError(f"There is a {ROOMS[kind].word} '{name}' already.", hint="Choose another name.")


_FINDERS: Mapping[RoomKind, Callable[[ToolModels, str], object]] = MappingProxyType(
    {"checkpoint": ToolModels.checkpoint, "adapter": ToolModels.adapter, "vae": ToolModels.vae}
)


def refuse_existing(path: Path) -> None:
    """Raises StorageError if there is something at `path`."""
    if path.exists():
        raise StorageError(
            f"{path.name} is there already, in {path.parent.name or path.parent}.", hint="Choose another name."
        )


def _local_path(name: str) -> Path:
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:  # "~x", and there is no user x
        return path


def saved_model(path: Path) -> ModelSaved:
    """What a tool reports of its new file or folder."""
    facts = look_into(path).facts
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return ModelSaved(
        path=str(path), kind=facts.kind, family=facts.family, size=sum(file.stat().st_size for file in files)
    )
