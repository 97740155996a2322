"""Where a run keeps what, and which runs there are. Imports no torch.

A run's folder has all of it: settings, events, the state it resumes from, candidates, samples, and what came out.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from webui.errors import ModelNotFound, StorageError
from webui.library.whole_files import write_whole
from webui.training.config import TrainingConfig
from webui.training.config_file import config_text


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run, there or not."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def candidates(self) -> Path:
        return self.path / "candidates"

    @property
    def result(self) -> Path:
        return self.path / "result"

    @property
    def finished(self) -> Path:
        """What came out, and of which settings."""
        return self.result / "finished.json"

    @property
    def facts(self) -> Path:
        """What the run was made from, for the notes of what comes out."""
        return self.path / "facts.json"

    @property
    def tensorboard(self) -> Path:
        """Curves and samples, for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        """What the run's process said beside its events."""
        return self.path / "process.log"

    @property
    def unpacked(self) -> Path:
        """Photos of an archive."""
        return self.path / "photos"

    @property
    def encoded(self) -> Path:
        """Latents and encoded captions, where they are kept on disk."""
        return self.path / "encoded"

    @property
    def class_pictures(self) -> Path:
        return self.path / "class pictures"

    @property
    def pause(self) -> Path:
        """A file that, once it is there, pauses the run before its next step."""
        return self.path / "pause"

    @property
    def can_resume(self) -> bool:
        return (self.state / "state.pt").is_file()

    def candidate(self, step: int) -> Path:
        return self.candidates / f"{step:06d}.safetensors"

    def write_config(self, config: TrainingConfig) -> None:
        """Raises StorageError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.config, config_text(config).encode())
        except OSError as error:
            raise StorageError(
                f"The run's folder {self.path} cannot be written to ({error.strerror}).",
                hint="Make room on the disk, or change the folder's permissions.",
            ) from error


def runs_in(runs_dir: Path, name: str | None = None) -> Iterator[RunFolder]:
    """The runs below `runs_dir`, the newest first; with a name, those of that name."""
    found = []
    for config in runs_dir.glob("*/config.toml"):
        with suppress(OSError):  # removed by hand just now
            found.append((config.parent.stat().st_mtime_ns, config.parent))
    for _, path in sorted(found, reverse=True):
        if name is None or path.name == name or path.name.rpartition("-")[0] == name:
            yield RunFolder(path)


def new_run(runs_dir: Path, config: TrainingConfig) -> RunFolder:
    """A folder of its own for a run: NAME, or NAME-2 and so on where there are others. Raises StorageError."""
    number = 1
    while (path := runs_dir / (config.name if number == 1 else f"{config.name}-{number}")).exists():
        number += 1
    folder = RunFolder(path)
    folder.write_config(config)
    return folder


def run_to_resume(runs_dir: Path, name: str) -> RunFolder:
    """The latest run of that name that got as far as a state. Raises ModelNotFound."""
    runs = list(runs_in(runs_dir, name))
    for run in runs:
        if run.can_resume:
            return run
    raise ModelNotFound("run to resume", name, [run.path.name for run in runs_in(runs_dir) if run.can_resume][:3])


def run_to_pick_from(runs_dir: Path, name: str) -> RunFolder:
    """The latest run of that name that has candidates. Raises ModelNotFound."""
    runs = [run for run in runs_in(runs_dir) if any(run.candidates.glob("[0-9]*.safetensors"))]
    own = {run.path for run in runs_in(runs_dir, name)}
    for run in runs:
        if run.path in own:
            return run
    raise ModelNotFound("run with candidates", name, [run.path.name for run in runs][:3])
