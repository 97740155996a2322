"""How a running job is told to stop. The runner asks at every step; nothing is ever killed from outside."""

import threading


class JobInterrupted(Exception):
    """Stop now and keep what is finished."""


class ImageSkipped(Exception):
    """Leave the present image and go on with the next one."""


class CancelToken:
    """Set from any thread, asked on the worker's thread."""

    def __init__(self) -> None:
        self._interrupted = threading.Event()
        self._insisted = threading.Event()
        self._skipped = threading.Event()

    def interrupt(self) -> None:
        """Every `check` from now on raises JobInterrupted. Said twice it is `insisted`."""
        if self._interrupted.is_set():
            self._insisted.set()
        self._interrupted.set()

    def skip(self) -> None:
        """The next `check` raises ImageSkipped, once. Clicks that come before that `check` count as one."""
        self._skipped.set()

    def check(self) -> None:
        """Raises JobInterrupted or ImageSkipped if that was asked for."""
        if self._interrupted.is_set():
            raise JobInterrupted
        if self._skipped.is_set():
            self._skipped.clear()
            raise ImageSkipped

    @property
    def interrupted(self) -> bool:
        return self._interrupted.is_set()

    @property
    def insisted(self) -> bool:
        """For what takes its time to stop well: somebody will not wait."""
        return self._insisted.is_set()
