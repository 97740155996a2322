"""One photo set that is open: what lies in it now, and changes to it that can be taken back."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from webui.training.data.set_changes import Change, Step, Steps
from webui.training.data.set_contents import Contents, SetPhoto, current_stamp, read_contents

LOOKS_APART_S = 0.7
"""At least so long the files are not looked at again, unless this program changed them."""
LOOK_SHARE = 0.1
"""Of the time, that looking may take: a folder of a slow drive is looked at less often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetInfo:
    """`own`: its pictures belong to this program, below its folder of photos; otherwise it only refers to them."""

    id: str
    name: str
    source: Path
    own: bool


class PhotoSet:
    """Any number of threads may use it."""

    def __init__(self, info: SetInfo, *, clock: Callable[[], float] = monotonic) -> None:
        self.info = info
        self._clock = clock
        self._lock = threading.RLock()
        self._steps = Steps()
        self._contents: Contents | None = None
        self._look_again_at = 0.0

    def contents(self) -> Contents:
        """What lies there. Raises InvalidRequest where the source is gone."""
        with self._lock:
            begin = self._clock()
            if self._contents is not None and begin < self._look_again_at:
                return self._contents
            if self._contents is None or current_stamp(self.info.source, self._contents) != self._contents.stamp:
                self._contents = read_contents(self.info.source)
            now = self._clock()
            self._look_again_at = now + max(LOOKS_APART_S, (now - begin) / LOOK_SHARE)
            return self._contents

    def photos(self) -> tuple[SetPhoto, ...]:
        return self.contents().photos

    @contextmanager
    def changing(self, what: str) -> Iterator[Change]:
        """All that is changed within is taken back at once, as `what`; also where it ends in an error."""
        step = Step(what=what)
        try:
            yield Change(self.contents(), step, is_list=not self.info.source.is_dir())
        finally:
            with self._lock:
                self._steps.add(step)
                self.look_again()

    def undo(self) -> str:
        """What was taken back. Raises InvalidRequest, StorageError."""
        with self._lock:
            try:
                return self._steps.undo()
            finally:
                self.look_again()

    def undoable(self) -> str:
        return self._steps.latest()

    def look_again(self) -> None:
        """Files were changed: the next one who asks has them as they are."""
        with self._lock:
            self._look_again_at = 0.0

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else chooses names in the set meanwhile."""
        with self._lock:
            yield

    def why_not_writable(self) -> str:
        """In a sentence; "" where captions and decisions can be written."""
        folder = self.info.source if self.info.source.is_dir() else self.info.source.parent
        if os.access(folder, os.W_OK):
            return ""
        return f"The folder {folder} cannot be written to: photos can be looked at, but not changed."
