"""What there is to fetch for a source: which files, how large, with which hash. Asks the sites' own APIs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from webui.errors import InvalidRequest, WebUIError
from webui.library import old_files
from webui.library.downloads.addresses import Url
from webui.library.downloads.client import NetworkError

PICKLE_SUFFIXES = frozenset({*old_files.PICKLE_SUFFIXES, ".pkl"})
MODEL_SUFFIXES = frozenset({".safetensors"}) | PICKLE_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """`path` is where it goes, relative to the model. `sha256` is lower-case hex, or "" if nobody said."""

    url: Url
    path: str
    size: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All files of one model: a single one, or those of a `folder` (a checkpoint in diffusers layout).

    `card` is what the site says beside the file, in the words of the sidecar files that model browsers read.
    """

    title: str
    files: tuple[RemoteFile, ...]
    folder: bool = False
    card: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """All bytes, if all sizes are known."""
        sizes = [file.size for file in self.files]
        return sum(size for size in sizes if size is not None) if None not in sizes else None


def is_pickle(name: str) -> bool:
    """Whether files of this name hold Python objects, which can run code when they are read carelessly."""
    return PurePosixPath(name.lower()).suffix in PICKLE_SUFFIXES


def refuse_pickles(plan: Plan) -> None:
    """Raises InvalidRequest if `plan` needs any."""
    pickles = [file.path for file in plan.files if is_pickle(file.path)]
    if pickles:
        raise InvalidRequest(
            "allow_pickle",
            f"{pickles[0]} is a pickle: a format that can carry code.",
            hint="Look for a .safetensors file of the same model, or allow pickles if you trust its author.",
        )


def check_status(status: int, headers: Mapping[str, str], what: str, *, token: str) -> None:
    """Raises WebUIError that says what a refusal means. `token` is how the site's token is set."""
    if status < 400:
        return
    if row := _REFUSALS.get(status):
        told = headers.get("x-error-message", "")
        raise WebUIError(row[0](what) + (f" The server says: {told[:300]}" if told else ""), hint=row[1](token))
    raise NetworkError(f"The server answers {status} for {what}.", hint="Try again later.")


_Text = Callable[[str], str]
_REFUSALS: Mapping[int, tuple[_Text, _Text]] = {
    401: (
        lambda what: f"{what} needs a login, or does not exist.",
        lambda token: f"Check the name. For a gated or private model accept its terms on its page and set {token}.",
    ),
    403: (
        lambda what: f"You may not get {what} (yet).",
        lambda token: f"Accept its terms on its page with the account that {token} belongs to.",
    ),
    404: (lambda what: f"There is no {what}.", lambda _: "Check the name, the revision and the file."),
    410: (lambda what: f"{what} was removed.", lambda _: "Look for another copy."),
    451: (lambda what: f"{what} is not offered where you are.", lambda _: "Look for another copy."),
}
