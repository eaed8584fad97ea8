"""Events as they are written: what they tell, and that they can be read for ever."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kalends_booking.domain import booking, events, hold
from kalends_booking.domain.decision import Change
from kalends_booking.store import codec, people
from kalends_shared.contracts.booking import (
    BookingLocation,
    BookingState,
    EventTypeSnapshot,
    HoldState,
    HostSnapshot,
    Payment,
    Policies,
)
from kalends_shared.db import Database
from kalends_shared.upcasters import UPCASTERS

from .domain.given import HOUR, MADE, NOON, ONE, booked
from .world import NOW, Client, tailed

GOLDEN = Path(__file__).parent / "golden"
SNAPSHOT = EventTypeSnapshot(id="evt_1", slug="visit", title="Visit", duration_minutes=60)
PLACE = {
    "start_at": NOON + HOUR,
    "end_at": ONE + HOUR,
    "host_ids": ["hst_bob"],
    "resource_ids": ["res_room"],
    "units": ["res_room#2"],
    "event_type": SNAPSHOT,
    "hosts": [HostSnapshot(id="hst_bob", name="Bob")],
    "policies": Policies(buffer_before_minutes=5),
}
HELD = HoldState(
    id="hld_1",
    created_at=MADE,
    updated_at=MADE,
    version=1,
    event_type_id="evt_1",
    start_at=NOON,
    end_at=ONE,
    host_ids=["hst_ann"],
    seats=1,
    ttl_seconds=300,
    status="active",
    expires_at=MADE + HOUR,
    event_type=SNAPSHOT,
    hosts=[HostSnapshot(id="hst_ann", name="Ann")],
    policies=Policies(),
)
SAMPLES: list[events.Event] = [
    events.BookingCreated(booking=booked()),
    events.BookingApproved(status="confirmed", reason="fine"),
    events.BookingDeclined(reason="no"),
    events.BookingCancelled(reason="ill"),
    events.BookingRescheduled(**PLACE, reason="later"),
    events.BookingReassigned(**PLACE),
    events.BookingUpdated(
        person_version="v_2",
        previous_person_version="v_1",
        location=BookingLocation(id="loc_1", name="Shop"),
        metadata=msgspec.Raw(b'{"a":1}'),
    ),
    events.BookingCompleted(),
    events.BookingNoShow(reason="no sign"),
    events.BookingNoShowUndone(),
    events.MeetingStarted(),
    events.MeetingEnded(),
    events.PaymentUpdated(payment=Payment(status="paid", amount=1, currency="EUR"), status="confirmed"),
    events.RecordingReady(recording=events.Recording(url="https://x.test/r", duration_seconds=60)),
    events.HoldPlaced(hold=HELD),
    events.HoldReleased(),
    events.HoldExpired(),
    events.HoldConverted(booking_id="bkg_1"),
]


def happened(event: events.Event) -> Change:
    if event.TYPE.startswith("hold."):
        before: Any = None if isinstance(event, events.HoldPlaced) else HELD
        return Change(before, event, hold.evolve(before, event, NOON), NOON)
    before = None if isinstance(event, events.BookingCreated) else booked("pending")
    return Change(before, event, booking.evolve(before, event, NOON), NOON)


def test_there_is_a_sample_of_every_event() -> None:
    assert {type(one) for one in SAMPLES} == {*events.BOOKING_EVENTS, *events.HOLD_EVENTS}


@pytest.mark.parametrize("event", SAMPLES, ids=lambda one: one.TYPE)
def test_an_event_is_read_as_it_was_written(event: events.Event) -> None:
    change = happened(event)
    state = msgspec.json.encode(change.after)
    written = codec.new_event(change, "e", state)
    assert codec.decode(written.type, written.schema_version, written.data, written.state) == event


@pytest.mark.parametrize("event", SAMPLES, ids=lambda one: one.TYPE)
def test_every_version_ever_written_can_be_read(event: events.Event) -> None:
    """A golden file a version, with data and state as that version wrote them."""
    version = UPCASTERS.current(event.TYPE)
    change = happened(event)
    written = b'{"data":%s,"state":%s}' % (codec.data(change), msgspec.json.encode(change.after))
    path = GOLDEN / f"{event.TYPE}.{version}.json"
    assert path.exists(), f"write {path.name}:\n{written.decode()}"
    assert path.read_bytes() == written + b"\n", "the version that is written has changed: it needs a new number"
    for number in range(1, version + 1):
        old = msgspec.json.decode((GOLDEN / f"{event.TYPE}.{number}.json").read_bytes(), type=dict[str, msgspec.Raw])
        assert codec.decode(event.TYPE, number, bytes(old["data"]), bytes(old["state"])) == event


WHY = events.Assignment(
    method="round_robin",
    among=2,
    candidates=[
        events.Candidate(host_id="hst_ann", rank={"weight": 100.0, "shortfall": 0.5}),
        events.Candidate(host_id="hst_bob", rank={"weight": 200.0, "shortfall": -0.5}),
    ],
)


@pytest.mark.parametrize(
    "event",
    [
        events.BookingCreated(booking=booked(), assignment=WHY),
        events.BookingRescheduled(**PLACE, assignment=WHY),
        events.HoldPlaced(hold=HELD, assignment=WHY),
    ],
    ids=lambda one: one.TYPE,
)
def test_why_a_host_was_chosen_is_read_as_it_was_written(event: events.Event) -> None:
    change = happened(event)
    written = codec.new_event(change, "e", msgspec.json.encode(change.after))
    assert codec.decode(written.type, written.schema_version, written.data, written.state) == event


STATES = st.builds(
    lambda status, started, payment: replace(booked(status), started_at=started, payment=payment),
    st.sampled_from(["pending", "confirmed", "declined", "cancelled", "completed", "no_show"]),
    st.sampled_from([None, NOON]),
    st.sampled_from([None, Payment(status="pending"), Payment(status="paid")]),
)


@given(STATES, st.lists(st.sampled_from([one for one in SAMPLES if not one.TYPE.startswith("hold.")]), max_size=8))
def test_evolve_is_total(state: BookingState, happening: list[events.Event]) -> None:
    for event in happening:
        after = booking.evolve(state, event, NOON)
        assert isinstance(event, events.BookingCreated) or after.version == state.version + 1
        assert codec.booking_state(msgspec.json.encode(after)) == after
        booking.next_timer(after)
        booking.caught_up(after, NOON + 100 * HOUR)
        state = after


# Text as people write it: any character that UTF-8 has, quotes and lone escapes among them.
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
MAYBE = st.none() | WORDS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
METADATA = st.dictionaries(WORDS, JSON, max_size=3).map(lambda value: msgspec.Raw(msgspec.json.encode(value)))
PLACES = st.none() | st.builds(BookingLocation, id=WORDS, name=WORDS, kind=MAYBE, address=MAYBE, url_template=MAYBE)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - zone apart
PAYMENTS = st.builds(
    Payment,
    status=st.sampled_from(["pending", "paid", "failed", "refunded"]),
    amount=st.none() | st.integers(0, 10**9),
    currency=MAYBE,
    reference=MAYBE,
    expires_at=st.none() | INSTANTS,
)
STATUSES = st.sampled_from(["pending", "confirmed", "declined", "cancelled", "completed", "no_show"])
ANY_STATE = st.builds(
    lambda metadata, place, **fields: replace(booked(), metadata=metadata, location=place, **fields),
    metadata=METADATA,
    place=PLACES,
    status=STATUSES,
    start_at=INSTANTS,
    end_at=INSTANTS,
    seats=st.integers(1, 10_000),
    host_ids=st.lists(WORDS, min_size=1, max_size=3),
    units=st.lists(WORDS, max_size=3),
    reason=MAYBE,
    payment=st.none() | PAYMENTS,
    no_show_at=st.none() | INSTANTS,
)
ANY_PLACING = {
    "start_at": INSTANTS,
    "end_at": INSTANTS,
    "host_ids": st.lists(WORDS, max_size=3),
    "resource_ids": st.lists(WORDS, max_size=3),
    "units": st.lists(WORDS, max_size=3),
    "event_type": st.builds(replace, st.just(SNAPSHOT), title=WORDS, description=MAYBE, metadata=METADATA),
    "hosts": st.lists(st.builds(HostSnapshot, id=WORDS, name=WORDS, email=MAYBE, timezone=WORDS), max_size=3),
    "policies": st.builds(
        Policies,
        buffer_after_minutes=st.integers(0, 1440),
        capacity=st.integers(1, 10_000),
        confirmation_expires_at=st.none() | INSTANTS,
        approved=st.booleans(),
        requires_payment=st.booleans(),
    ),
    "reason": MAYBE,
}
ANY_EVENT = st.one_of(
    st.builds(events.BookingCreated, booking=ANY_STATE),
    st.builds(events.BookingApproved, status=STATUSES, reason=MAYBE),
    st.builds(events.BookingDeclined, reason=MAYBE),
    st.builds(events.BookingCancelled, reason=MAYBE),
    st.builds(events.BookingRescheduled, **ANY_PLACING),
    st.builds(events.BookingReassigned, **ANY_PLACING),
    st.builds(
        events.BookingUpdated,
        person_version=WORDS,
        previous_person_version=MAYBE,
        location=PLACES,
        meeting_url=MAYBE,
        metadata=METADATA,
    ),
    st.builds(events.BookingCompleted, reason=MAYBE),
    st.builds(events.BookingNoShow, reason=MAYBE),
    st.builds(events.PaymentUpdated, payment=PAYMENTS, status=STATUSES, reason=MAYBE),
    st.builds(events.RecordingReady, recording=st.builds(events.Recording, url=WORDS), reason=MAYBE),
    st.builds(events.HoldConverted, booking_id=WORDS),
    st.sampled_from(SAMPLES),
)


@given(ANY_STATE, ANY_EVENT)
def test_what_is_written_is_what_is_read(state: BookingState, event: events.Event) -> None:
    """Whatever people write: the event again, and the state after it."""
    before: Any = HELD if event.TYPE.startswith("hold.") else state
    evolve: Any = hold.evolve if event.TYPE.startswith("hold.") else booking.evolve
    after = evolve(before, event, NOON)
    raw = msgspec.json.encode(after)
    written = codec.new_event(Change(before, event, after, NOON), "e", raw)
    assert codec.decode(written.type, written.schema_version, written.data, written.state) == event
    assert (codec.hold_state if event.TYPE.startswith("hold.") else codec.booking_state)(raw) == after


@given(st.sampled_from(["active", "converted", "released", "expired"]), st.sampled_from(SAMPLES[-4:]))
def test_evolve_of_holds_is_total(status: Any, event: events.Event) -> None:
    after = hold.evolve(replace(HELD, status=status), event, NOON)
    assert codec.hold_state(msgspec.json.encode(after)) == after


def test_previous_holds_only_what_changed() -> None:
    moved = happened(events.BookingRescheduled(**{**PLACE, "host_ids": ["hst_ann"], "resource_ids": [], "units": []}))
    assert codec.previous(moved) == {"start_at": NOON, "end_at": ONE}
    given_away = happened(events.BookingReassigned(**{**PLACE, "start_at": NOON, "end_at": ONE, "resource_ids": []}))
    assert codec.previous(given_away) == {"host_ids": ["hst_ann"], "host_id": "hst_ann"}
    assert codec.previous(happened(events.BookingApproved(status="confirmed"))) == {"status": "pending"}
    assert codec.previous(happened(SAMPLES[0])) is None


async def test_events_hold_no_attendee_data_and_the_relay_joins_it_in(client: Client, db: Database) -> None:
    await client.book(booker_name="Zoe Secret", guests=[{"name": "Bob", "email": "bob@x.test"}])
    stored = await tailed(db, 1)
    async with db.pool.acquire() as conn:
        joined = await people.join(conn, stored)
    assert not [one for one in stored if b"Secret" in one.data + one.state or b"@" in one.data + one.state]
    (version,) = [codec.booking_state(one.state).person_version for one in stored]
    assert joined[0] is not None
    assert b"Zoe Secret" in bytes(joined[0][version])
    assert stored[0].occurred_at == NOW
