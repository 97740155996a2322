"""What jobs report that bring a model into the library."""

from dataclasses import dataclass

from webui.jobs.events import JobEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSaved(JobEvent):
    """The model is at `path`. `already_there`: and was, before this job. `size` in bytes; `sha256` "" if not known."""

    path: str
    kind: str
    family: str
    size: int
    sha256: str = ""
    already_there: bool = False
