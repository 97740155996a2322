"""What an old weight file (.ckpt, .pt, .bin, .pth) holds: names, shapes and types, without torch.

Such files are Python pickles. None of what they ask for is run, but a few bytes of one can still ask for hours and for
all of the memory, so a child process with limits reads them. Their weights are later read by torch's restricted reader.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from webui.errors import UnsupportedModel
from webui.library.header import Header, TensorInfo

PICKLE_SUFFIXES = (".ckpt", ".pt", ".bin", ".pth")
PATIENCE_S = 15.0
"""For one file, which needs some milliseconds; the child's own limit on its work is smaller."""
IDLE_S = 5.0
"""After so long without a file the child is ended."""
COMMAND = (sys.executable, "-I", "-S", str(Path(__file__).resolve().with_name("old_files_child.py")))
"""Without site-packages: it starts in some 50 ms, and nothing but the standard library is in it."""


def read_old_header(path: Path) -> Header:
    """Names as `state_dict` or the nested containers give them, joined by dots.

    Raises UnsupportedModel for a file that cannot be read, NotReadNow where that may be this moment's fault.
    """
    answer = _CHILD.ask(path)
    if "problem" in answer:
        raise UnsupportedModel(path, answer["problem"], hint=answer.get("hint", ""))
    tensors = {name: TensorInfo(dtype, tuple(shape)) for name, dtype, shape in answer["tensors"]}
    return Header(tensors=tensors, metadata={}, data_start=0)


class NotReadNow(UnsupportedModel):
    """The file was not read, perhaps for want of processes or time: nothing is known of it that would last."""


class Child:
    """A reader in a process of its own, started when it is needed, ended when it is not. Thread-safe.

    The process also ends when this one does: its input is closed then.
    """

    def __init__(self, command: Sequence[str] = COMMAND, *, patience_s: float = PATIENCE_S) -> None:
        self._command = command
        self.patience_s = patience_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._idle: threading.Timer | None = None
        self._gave_up = threading.Event()

    def ask(self, path: Path) -> dict[str, Any]:
        """{"tensors": ...} or {"problem": ...}, also where its own limits ended the process. Raises NotReadNow."""
        with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            try:
                line = self._exchange(os.fsencode(path.absolute()).hex())
            except OSError as error:
                self._end()
                raise NotReadNow(path, f"its reader cannot be started ({error})") from error
            if not line.endswith("\n"):
                self._end()
                problem = "reading what it holds takes more time or memory than any model needs"
                if self._gave_up.is_set():  # the machine may have been busy, or asleep
                    raise NotReadNow(path, problem)
                return {"problem": problem}
            self._idle = threading.Timer(IDLE_S, self.close)
            self._idle.daemon = True
            self._idle.start()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process, if there is one; the next question starts another."""
        with self._lock:
            self._end()

    def _exchange(self, line: str) -> str:
        """The answer; cut short where the process ended, by itself or because it took too long."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        patience = threading.Timer(self.patience_s, self._give_up, [process])
        self._gave_up.clear()
        patience.start()
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return process.stdout.readline()
        finally:
            patience.cancel()

    def _give_up(self, process: subprocess.Popen[str]) -> None:
        self._gave_up.set()
        process.kill()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(OSError):  # what was not written yet
                process.communicate()


_CHILD = Child()
atexit.register(_CHILD.close)
