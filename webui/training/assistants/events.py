"""What a run of an assistant tells in the end."""

from dataclasses import dataclass

from webui.jobs.events import JobEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Assisted(JobEvent):
    """`kind` "captions" or "masks"; how many photos were `changed`, how many `kept` what they had, and of which
    photos (name, sentence) nothing could be made. Also told when it was stopped before its end.
    """

    kind: str
    changed: int
    kept: int
    problems: tuple[tuple[str, str], ...] = ()


ASSIST_EVENTS: tuple[type[JobEvent], ...] = (Assisted,)
