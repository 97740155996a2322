"""Events as text for the database, and back."""

import json
import logging
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from webui.jobs.events import Cancelled, Failed, Finished, JobEvent, Progress, Queued, Started

BASE_EVENTS: tuple[type[JobEvent], ...] = (Queued, Started, Progress, Finished, Failed, Cancelled)

log = logging.getLogger(__name__)


class EventCodec:
    """Knows the base events and `event_types`; an event's name in the database is its class name."""

    def __init__(self, event_types: Iterable[type[JobEvent]]) -> None:
        self._adapters: dict[str, TypeAdapter[JobEvent]] = {}
        self._types: set[type[JobEvent]] = set()
        for event_type in (*BASE_EVENTS, *event_types):
            if event_type in self._types:
                continue
            if event_type.__name__ in self._adapters:
                raise ValueError(f"Two event types are named {event_type.__name__}.")
            self._types.add(event_type)
            self._adapters[event_type.__name__] = TypeAdapter(event_type)

    def check(self, event: JobEvent) -> None:
        """Raises TypeError for an event that no one has announced."""
        if type(event) not in self._types:
            raise TypeError(f"{type(event).__name__} is not among the queue's event_types.")

    def encode(self, event: JobEvent) -> tuple[str, str]:
        """(name, JSON). Raises TypeError for an event that no one has announced."""
        self.check(event)
        name = type(event).__name__
        return name, json.dumps(self._adapters[name].dump_python(event, mode="json"))

    def decode(self, name: str, body: str) -> JobEvent | None:
        """None, and a line in the log, for an event of an extension or a version that is gone."""
        adapter = self._adapters.get(name)
        if adapter is None:
            log.warning("Left out a stored event of the unknown type %s.", name)
            return None
        try:
            return adapter.validate_python(json.loads(body))
        except (json.JSONDecodeError, ValidationError) as error:
            log.warning("Left out a stored %s event that cannot be read: %s", name, error)
            return None
