"""Looks at a photo set's pictures on a thread of its own: their sizes first, then each as a whole, then what is wrong.

A change of the set starts it again; what was read of a picture stays known as long as its file is the same.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from webui.errors import ExtensionError, InvalidRequest, UnreadableImage, WebUIError
from webui.training.config import Data, Subject
from webui.training.data.checks import find_problems
from webui.training.data.faces import FaceReader, Pixels, SeenFace
from webui.training.data.listings import LeftOut
from webui.training.data.photo_set import PhotoSet
from webui.training.data.photos import Box, FileFacts, FileKey, Photo, PhotoReader
from webui.training.data.problems import Problem, together
from webui.training.data.set_changes import upright_size
from webui.training.data.set_contents import Contents, SetPhoto
from webui.training.data.sources import MAX_READERS, edited, photo_of
from webui.training.data.split import split

logger = logging.getLogger(__name__)

FACELESS = 0.5
"""Share of photos without a face from which on they are hardly of a person."""
MOST_FINDINGS = 4
"""Ways of looking at a set, such as several resolutions, that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What the photos are looked at for; the fields are those of config.Data."""

    subject: Subject = "person"
    resolution: int = 512
    bucket_step: int = 64
    holdout: int | None = None
    trigger: str = ""
    class_word: str = ""
    masks: bool = False

    def data(self, source: Path) -> Data:
        return Data(
            photos=source,
            resolution=self.resolution,
            bucket_step=self.bucket_step,
            holdout=self.holdout,
            trigger=self.trigger,
            class_word=self.class_word,
            masks=self.masks,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    """Who reads faces, asked anew for each check; None where nobody can, and why."""

    reader: Callable[[], FaceReader | None]
    why_not: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Of the contents with `stamp`. `held_out` are names."""

    stamp: str
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    unreadable: tuple[LeftOut, ...] = ()
    held_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    done: int
    total: int


class Changed(Exception):
    """The set is another one than that which is being looked at."""


@dataclass(slots=True)
class _Work:
    """What the thread is about."""

    purposes: list[Purpose] = field(default_factory=list)
    done: int = 0
    total: int = 0
    running: bool = False
    stopped: bool = False


class _Counted:
    """A reader of faces that tells how far it is."""

    def __init__(self, inner: FaceReader, work: _Work) -> None:
        self._inner = inner
        self._work = work

    @property
    def same_person(self) -> float:
        return self._inner.same_person

    def read(self, pixels: Pixels) -> Sequence[SeenFace]:
        faces = self._inner.read(pixels)
        self._work.done += 1
        return faces


class Checker:
    """Of one set. Any number of threads may ask; one looks."""

    def __init__(self, photo_set: PhotoSet, reader: PhotoReader, faces: Faces) -> None:
        self._set = photo_set
        self._reader = reader
        self._faces = faces
        self._state = threading.Condition()
        self._work = _Work()
        self._sizes: dict[FileKey, tuple[int, int]] = {}
        self._found: dict[Purpose, Findings] = {}
        self._known_faces: dict[tuple[str, Box], tuple[SeenFace, ...]] = {}
        self._version = 0

    def size_of(self, photo: SetPhoto) -> tuple[int, int]:
        """Of the upright picture; (0, 0) as long as nobody looked."""
        facts = self._reader.known(photo.key)
        return (facts.width, facts.height) if facts else self._sizes.get(photo.key, (0, 0))

    def facts_of(self, photo: SetPhoto) -> FileFacts | None:
        """None as long as it was not read."""
        return self._reader.known(photo.key)

    def known_problems(self) -> list[Problem]:
        """All that may be shown somewhere, the latest first."""
        with self._state:
            return [problem for found in reversed(self._found.values()) for problem in found.problems]

    def findings(self, purpose: Purpose, *, wait_s: float = 0.0) -> tuple[Contents, Findings, Progress | None]:
        """What lies in the set now, what is known of it or was before, and how far looking is where it goes on.

        Starts to look where there is something to see, and waits `wait_s` at most until that is done. Raises
        InvalidRequest where the set is gone.
        """
        with self._state:
            contents = self._set.contents()
            if not self._is_known(purpose, contents):
                self._start(purpose)
                self._state.wait_for(lambda: self._is_known(purpose, self._set.contents()), wait_s)
                contents = self._set.contents()
            found = self._found.get(purpose) or self._latest() or Findings(stamp="")
            if self._is_known(purpose, contents):
                return contents, found, None
            return contents, found, Progress(done=self._work.done, total=self._work.total)

    @property
    def version(self) -> int:
        """Another one whenever more is known."""
        return self._version

    def stop(self) -> None:
        """Soon; what is asked afterwards starts nothing."""
        with self._state:
            self._work.stopped = True
            self._state.notify_all()

    def _is_known(self, purpose: Purpose, contents: Contents) -> bool:
        found = self._found.get(purpose)
        return found is not None and found.stamp == contents.stamp

    def _latest(self) -> Findings | None:
        return next(reversed(self._found.values()), None)

    def _start(self, purpose: Purpose) -> None:
        work = self._work
        if purpose in work.purposes:
            work.purposes.remove(purpose)
        work.purposes = [*work.purposes[-MOST_FINDINGS + 1 :], purpose]
        if not work.running and not work.stopped:
            work.running = True
            threading.Thread(target=self._run, name=f"photos of {self._set.info.name}", daemon=True).start()

    def _run(self) -> None:
        """Until nobody waits for anything."""
        while True:
            with self._state:
                if self._work.stopped or not self._work.purposes:
                    self._work.running = False
                    self._state.notify_all()
                    return
                purpose = self._work.purposes[-1]
                self._work.done = 0
            try:
                self._keep(purpose, self._looked_at(purpose))
            except Changed:
                continue
            except WebUIError:  # the folder is gone: whoever asks next is told so by its contents
                with self._state:
                    self._work.purposes.clear()

    def _looked_at(self, purpose: Purpose) -> Findings:
        """Raises Changed, and WebUIError where the set is gone. A fault of ours is told once, not tried for ever."""
        contents = self._set.contents()
        try:
            return self._look(contents, purpose)
        except (Changed, WebUIError):
            raise
        except Exception as error:
            logger.exception("The photos of %s could not be checked", self._set.info.name)
            return Findings(
                stamp=contents.stamp, notes=(f"The photos could not be checked: {error or 'no reason given'}.",)
            )

    def _keep(self, purpose: Purpose, found: Findings) -> None:
        with self._state:
            self._found.pop(purpose, None)
            self._found[purpose] = found
            while len(self._found) > MOST_FINDINGS:
                self._found.pop(next(iter(self._found)))
            if purpose in self._work.purposes:
                self._work.purposes.remove(purpose)
            self._version += 1
            self._state.notify_all()

    def _look(self, contents: Contents, purpose: Purpose) -> Findings:
        """Raises Changed, and WebUIError where the set is gone."""
        used = [photo for photo in contents.photos if not photo.excluded]
        self._work.total = len(used)
        self._read_sizes(contents)

        def check() -> None:
            if self._work.stopped or self._set.contents().stamp != contents.stamp:
                raise Changed

        photos, unreadable = self._read(used, check)
        left_out = [*contents.left_out, *unreadable]
        problems, notes = self._problems(photos, left_out, purpose, check)
        faceless = sum(problem.kind == "no face" for problem in problems)
        if faceless > FACELESS * len(photos):
            notes = (*notes, "Most photos show no face: if they are not of a person, choose another subject.")
            problems = [problem for problem in problems if problem.kind != "no face"]
        own = [photo for photo in photos if not photo.is_prior]
        held_out, refusal = _held_out(own, purpose, check)
        return Findings(
            stamp=contents.stamp,
            problems=(*together(problems), *refusal),
            notes=notes,
            unreadable=tuple(unreadable),
            held_out=held_out,
        )

    def _problems(
        self, photos: Sequence[Photo], left_out: Sequence[LeftOut], purpose: Purpose, check: Callable[[], None]
    ) -> tuple[list[Problem], tuple[str, ...]]:
        """And what should be known beside them. An extension that fails costs its own checks only."""
        data = purpose.data(self._set.info.source)
        if purpose.subject != "person" or not photos:
            return find_problems(photos, left_out, data, purpose.subject, check=check), ()
        reader = self._faces.reader()
        if reader is None:
            why = self._faces.why_not()
        else:
            try:
                return self._with_faces(photos, left_out, data, reader, check), ()
            except ExtensionError as error:
                why = error.message
        problems = find_problems(photos, left_out, data, purpose.subject, check=check)
        return problems, (f"Faces were not looked for: {why}",) if why else ()

    def _with_faces(
        self,
        photos: Sequence[Photo],
        left_out: Sequence[LeftOut],
        data: Data,
        reader: FaceReader,
        check: Callable[[], None],
    ) -> list[Problem]:
        """Finding faces takes longest, so it counts as much as reading."""
        new = {(photo.sha256, photo.area) for photo in photos if not photo.is_prior} - self._known_faces.keys()
        self._work.total += len(new)
        counted = _Counted(reader, self._work)
        return find_problems(
            photos, left_out, data, "person", faces=counted, known_faces=self._known_faces, check=check
        )

    def _read_sizes(self, contents: Contents) -> None:
        """Of all photos whose size nobody knows yet, from their headers."""
        unknown = [photo for photo in contents.photos if self.size_of(photo) == (0, 0)]
        if not unknown:
            return
        for photo in unknown:
            if self._work.stopped:
                return
            try:
                self._sizes[photo.key] = upright_size(photo.path)
            except Exception:  # noqa: BLE001  # decoders raise anything; reading it as a whole will tell why
                continue
        with self._state:
            self._version += 1

    def _read(self, photos: Sequence[SetPhoto], check: Callable[[], None]) -> tuple[list[Photo], list[LeftOut]]:
        found: list[Photo] = []
        unreadable: list[LeftOut] = []
        with ThreadPoolExecutor(min(MAX_READERS, os.cpu_count() or 1)) as pool:
            try:
                for result in pool.map(self._read_one, photos):
                    check()
                    (found if isinstance(result, Photo) else unreadable).append(result)  # type: ignore[arg-type]
                    self._work.done += 1
            finally:
                pool.shutdown(cancel_futures=True)
        return found, unreadable

    def _read_one(self, photo: SetPhoto) -> Photo | LeftOut:
        try:
            facts = self._reader.known(photo.key) or self._reader.read(photo.path)
        except (UnreadableImage, OSError) as error:
            sentence = str(error) if isinstance(error, UnreadableImage) else f"'{photo.name}' cannot be read: {error}."
            return LeftOut(name=photo.name, path=photo.path, kind="unreadable", sentence=sentence)
        return edited(photo_of(photo.listed, facts), photo.edit)


def _held_out(
    photos: Sequence[Photo], purpose: Purpose, check: Callable[[], None]
) -> tuple[frozenset[str], Iterable[Problem]]:
    """Names, and what is wrong with how many shall be kept back."""
    if not photos:
        return frozenset(), ()
    try:
        return frozenset(photo.name for photo in split(photos, purpose.holdout, check=check)[1]), ()
    except InvalidRequest as error:
        return frozenset(), (Problem(kind="held out", names=(), sentence=str(error)),)


def of_now(found: Findings, contents: Contents) -> Findings:
    """Older findings without what cannot be true any more."""
    if found.stamp == contents.stamp:
        return found
    names = {photo.name for photo in contents.photos if not photo.excluded}
    return replace(
        found,
        problems=tuple(problem for problem in found.problems if names.issuperset(problem.names) and problem.names),
        unreadable=tuple(left for left in found.unreadable if left.name in names),
        held_out=found.held_out & names,
    )
