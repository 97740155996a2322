"""Lets a test look at a tool that is half done."""

import threading

import pytest

from webui.library.tool_progress import ToolReport


class Hold:
    """`reached` is set when a tool has told its first step; it goes on when `go_on` is set."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()


def hold_tools(monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Every tool waits at its first step, until it may go on or is stopped."""
    hold = Hold()
    report = ToolReport.__call__

    def waiting(self: ToolReport, done: int, total: int) -> None:
        report(self, done, total)
        if done:
            hold.reached.set()
            while not hold.go_on.wait(0.01):
                report(self, done, total)

    monkeypatch.setattr(ToolReport, "__call__", waiting)
    return hold
