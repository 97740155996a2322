"""Changes to a photo set: captions, masks, and what was decided by hand. Each can be taken back, to the byte."""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from webui.errors import InvalidRequest, StorageError
from webui.images.reading import flatten, open_image
from webui.library.whole_files import write_whole
from webui.training.data.captions import CAPTION_SUFFIXES, joined_lines, write_caption
from webui.training.data.edits import FILE_NAME, Edit, read_edits, write_edits
from webui.training.data.listings import MASK_END
from webui.training.data.photos import MAX_PIXELS
from webui.training.data.prepared import SHAPE_TOLERANCE
from webui.training.data.set_contents import AS_IT_IS, Contents, SetPhoto

MOST_STEPS = 50
"""Changes that can be taken back, per set."""


@dataclass(slots=True, kw_only=True)
class Step:
    """`before` are the bytes of each file that was touched, None where there was none; `after` their hashes."""

    what: str
    before: dict[Path, bytes | None] = field(default_factory=dict)
    after: dict[Path, str] = field(default_factory=dict)


class Change:
    """What is changed at once, and is taken back at once. Each call writes. Raises InvalidRequest and StorageError."""

    def __init__(self, contents: Contents, step: Step, *, is_list: bool) -> None:
        """`is_list`: the source is a list that says the captions, so that those beside photos would not count."""
        self._contents = contents
        self._photos = {photo.name: photo for photo in contents.photos}
        self._step = step
        self._is_list = is_list
        self._said: dict[str, str | None] = {}

    def caption(self, name: str, text: str | None) -> bool:
        """Whether it was another one before. None removes the caption."""
        photo = self._photo(name)
        text = None if text is None else joined_lines(text.split("\n"))
        if text == self._said.get(name, photo.caption):
            return False
        changed = self._write_caption(photo, text)
        self._said[name] = text
        return changed

    def _write_caption(self, photo: SetPhoto, text: str | None) -> bool:
        if self._is_list:
            return self.edit({photo.name: Edit(caption=text)})
        if text is None:
            return self._doing([photo.path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES], _remove_all)
        return self._doing([photo.path.with_suffix(CAPTION_SUFFIXES[0])], lambda _: write_caption(photo.path, text))

    def edit(self, edits: Mapping[str, Edit]) -> bool:
        """Of each photo only what is set in its Edit; the rest stays as it was decided."""
        for name in edits:
            self._photo(name)
        folder = self._contents.folder
        known = read_edits(folder)
        new = {name: _merged(known.get(name, AS_IT_IS), edit) for name, edit in edits.items()}
        if all(known.get(name, AS_IT_IS) == edit for name, edit in new.items()):
            return False
        return self._doing([folder / FILE_NAME], lambda _: write_edits(folder, new))

    def mask(self, name: str, picture: bytes | None) -> bool:
        """`picture` is white where the photo is learnt from, of the photo's shape. None removes the mask."""
        photo = self._photo(name)
        path = photo.path.with_name(f"{photo.path.stem}{MASK_END}.png")
        data = None if picture is None else _mask_bytes(picture, photo)
        old = [] if photo.mask in (None, path) else [photo.mask]

        def write(paths: Sequence[Path]) -> None:
            if data is not None:
                _write(path, data)
            _remove_all(paths if data is None else paths[1:])

        return self._doing([path, *old], write)

    def _photo(self, name: str) -> SetPhoto:
        return self._photos.get(name) or self._contents.photo(name)

    def _doing(self, paths: Sequence[Path], write: Callable[[Sequence[Path]], object]) -> bool:
        """Remembers how `paths` were and became; whether anything is another."""
        before = {path: bytes_of(path) for path in paths}
        for path, data in before.items():
            self._step.before.setdefault(path, data)
        try:
            write(paths)
        finally:
            after = {path: _digest(bytes_of(path)) for path in paths}
            self._step.after.update(after)
        return any(_digest(data) != after[path] for path, data in before.items())


def changed(step: Step) -> bool:
    return any(step.after.get(path) != _digest(data) for path, data in step.before.items())


class Steps:
    """The latest changes of a set, for as long as the program runs."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=MOST_STEPS)

    def add(self, step: Step) -> None:
        if changed(step):
            self._steps.append(step)

    def latest(self) -> str:
        """What would be taken back; "" for nothing."""
        return self._steps[-1].what if self._steps else ""

    def undo(self) -> str:
        """Takes the latest change back. Raises InvalidRequest if files were changed otherwise since."""
        if not self._steps:
            raise InvalidRequest("undo", "There is nothing to take back.")
        step = self._steps.pop()
        touched = [path for path in step.before if _digest(bytes_of(path)) != step.after.get(path)]
        if touched:
            raise InvalidRequest(
                "undo",
                f"'{step.what}' cannot be taken back: '{touched[0].name}' was changed otherwise since.",
                hint="The file stays as it is.",
            )
        for path, data in step.before.items():
            if data is None:
                _remove(path)
            else:
                _write(path, data)
        return step.what


def _merged(old: Edit, new: Edit) -> Edit:
    return old.model_copy(update={name: getattr(new, name) for name in new.model_fields_set})


def _mask_bytes(picture: bytes, photo: SetPhoto) -> bytes:
    """As PNG, gray. Raises UnreadableImage, InvalidRequest."""
    mask = flatten(open_image(picture, max_pixels=MAX_PIXELS, name="The mask"), "#000000").convert("L")
    width, height = upright_size(photo.path)
    if abs(mask.width * height / (mask.height * width) - 1.0) > SHAPE_TOLERANCE:
        raise InvalidRequest(
            "mask",
            f"The mask is {mask.width} x {mask.height} pixels, another shape than '{photo.name}' "
            f"with {width} x {height}.",
        )
    data = io.BytesIO()
    mask.save(data, "PNG")
    return data.getvalue()


def upright_size(path: Path) -> tuple[int, int]:
    """Of a picture, from its header. Raises OSError or ValueError for what is none."""
    with Image.open(path) as file:
        width, height = file.size
        try:
            turned = file.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except Exception:  # noqa: BLE001  # a damaged block, whatever is raised: it is then shown as it is stored
            turned = False
    return (height, width) if turned else (width, height)


def bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def _digest(data: bytes | None) -> str:
    return "" if data is None else hashlib.sha256(data).hexdigest()


def _remove_all(paths: Sequence[Path]) -> None:
    for path in paths:
        _remove(path)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path} could not be written: {error.strerror or error}.",
        hint="Check that the folder can be written to and the disk has room.",
    )
