import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webui.jobs.codec import BASE_EVENTS, EventCodec
from webui.jobs.events import JobEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(JobEvent):
    name: str
    path: Path | None
    losses: tuple[float, ...]
    notes: dict[str, int]


CODEC = EventCodec([Sample])


@settings(deadline=None, max_examples=50)
@given(
    st.builds(
        Sample,
        name=st.text(),
        path=st.none() | st.just(Path("a/b.png")),
        losses=st.lists(st.floats(allow_nan=False)).map(tuple),
        notes=st.dictionaries(st.text(), st.integers()),
    )
)
def test_a_stored_event_comes_back_equal(event: Sample) -> None:
    assert CODEC.decode(*CODEC.encode(event)) == event


@pytest.mark.parametrize("event_type", BASE_EVENTS)
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_every_base_event_comes_back_equal(event_type: type[JobEvent], data: st.DataObject) -> None:
    event = data.draw(st.builds(event_type))
    assert repr(CODEC.decode(*CODEC.encode(event))) == repr(event)  # NaN differs from itself


def test_a_loss_that_is_not_a_number_comes_back_as_such() -> None:
    event = CODEC.decode(*CODEC.encode(Sample(name="", path=None, losses=(math.nan,), notes={})))
    assert isinstance(event, Sample)
    assert math.isnan(event.losses[0])


@pytest.mark.parametrize(("name", "body"), [("Sample", "{"), ("Sample", '{"name": 1}'), ("Gone", "{}")])
def test_what_cannot_be_read_is_left_out(name: str, body: str) -> None:
    assert CODEC.decode(name, body) is None
