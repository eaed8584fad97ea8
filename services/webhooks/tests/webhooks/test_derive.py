"""The contract's table "What an action emits", row by row."""

from typing import Any

import msgspec
import pytest

from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import Payment
from kalends_shared.contracts.calendars import CalendarEventState, CalendarState
from kalends_webhooks.domain import facts
from kalends_webhooks.domain.derive import derive
from kalends_webhooks.domain.payloads import Event, kalends

from .making import EVENT_TYPE, HOST, NOW, envelope, hold, of_booking, person, state

PAID = Payment(status="paid", amount=1000, currency="EUR")

ROWS: list[tuple[str, str, str, Any, list[str]]] = [
    ("create", "booking.created", "confirmed", None, ["booking.created", "booking.confirmed"]),
    ("create, to be approved", "booking.created", "pending", None, ["booking.created", "booking.pending"]),
    ("approve", "booking.approved", "confirmed", {"previous": {"status": "pending"}}, ["booking.confirmed"]),
    ("approve, payment awaited", "booking.approved", "pending", {"previous": None}, []),
    (
        "payment that confirms",
        "payment.updated",
        "confirmed",
        {"previous": {"status": "pending"}},
        ["payment.updated", "booking.confirmed"],
    ),
    (
        "payment of a confirmed one",
        "payment.updated",
        "confirmed",
        {"previous": {"payment": None}},
        ["payment.updated"],
    ),
    ("payment that fails", "payment.updated", "pending", {"previous": {"payment": None}}, ["payment.updated"]),
    (
        "a recording",
        "recording.ready",
        "completed",
        {"recording": {"url": "https://x.test"}, "previous": None},
        ["recording.ready"],
    ),
    ("decline", "booking.declined", "declined", {"previous": {"status": "pending"}}, ["booking.declined"]),
    (
        "reschedule",
        "booking.rescheduled",
        "confirmed",
        {"previous": {"start_at": NOW}},
        ["booking.rescheduled", "booking.updated"],
    ),
    (
        "reassign",
        "booking.reassigned",
        "confirmed",
        {"previous": {"host_ids": ["hst_x"]}},
        ["booking.reassigned", "booking.updated"],
    ),
    ("PATCH", "booking.updated", "confirmed", {"previous": {"metadata": {}}}, ["booking.updated"]),
    ("no-show undone", "booking.no_show_undone", "confirmed", {"previous": {"status": "no_show"}}, ["booking.updated"]),
    ("cancel", "booking.cancelled", "cancelled", {"previous": {"status": "confirmed"}}, ["booking.cancelled"]),
    ("start", "meeting.started", "confirmed", None, ["meeting.started"]),
    ("end", "meeting.ended", "confirmed", None, ["meeting.ended"]),
    ("end, then complete", "booking.completed", "completed", None, ["booking.completed"]),
    ("no-show", "booking.no_show", "no_show", None, ["booking.no_show"]),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_action_emits(row: tuple[str, str, str, Any, list[str]]):
    _, kind, status, data, want = row
    assert [event.type for event in derive(of_booking(kind, state(status=status, payment=PAID), data))] == want


def test_a_hold_that_runs_out_is_told_and_one_that_is_released_is_not():
    assert [event.type for event in derive(envelope("hold.expired", hold()))] == ["hold.expired"]
    for kind in ("hold.placed", "hold.released", "hold.converted"):
        assert derive(envelope(kind, hold(status="released"))) == []


def test_settings_are_nobody_elses_business():
    for kind in (
        "host.created",
        "schedule.updated",
        "event_type.deleted",
        "calendar.connected",
        "calendar.sync_failed",
        "unheard.of",
    ):
        assert derive(envelope(kind, "hst_1")) == []


def test_ids_are_the_same_whenever_it_is_derived_and_differ_by_type():
    told = of_booking("booking.created", state())
    first, again = derive(told), derive(told)
    assert [event.id for event in first] == [event.id for event in again]
    assert first[0].id != first[1].id
    assert all(ids.valid(event.id, "msg") for event in first)
    assert derive(msgspec.structs.replace(told, id="another"))[0].id != first[0].id


def test_stored_data_holds_no_attendee_data_and_reading_puts_it_back():
    booking = state()
    event = derive(of_booking("booking.created", booking))[1]
    for secret in (b"Ada", b"ada@example", b"Bob", b"tea", b"+34", b"London"):
        assert secret not in event.data
        assert secret in (event.attendees or b"")
    whole = facts.read(event.data, event.attendees)
    assert whole.booking is not None
    assert (whole.booking.booker_name, whole.booking.guests[0].name) == ("Ada Lovelace King", "Bob")
    assert bytes(whole.booking.answers) == '{"2":"two","why":"“tea”"}'.encode()
    erased = facts.read(event.data, None)
    assert erased.booking is not None
    assert (erased.booking.booker_name, erased.booking.guests, bytes(erased.booking.answers)) == (None, [], b"{}")
    assert event.person_id == booking.person_id


def test_previous_tells_old_attendee_data_under_its_public_names():
    booking = state()
    told = envelope(
        "booking.updated",
        booking,
        {
            "person_version": booking.person_version,
            "previous_person_version": "v_0",
            "previous": {"metadata": {"a": 1}},
        },
        people={booking.person_version: person(booking), "v_0": person(booking, name="Ada", phone=None)},
    )
    event = derive(told)[0]
    assert b"Ada" not in event.data
    assert body(event)["data"]["previous"] == {"metadata": {"a": 1}, "booker_name": "Ada", "booker_phone": None}


def test_what_subscriptions_filter_by():
    event = derive(of_booking("booking.created", state()))[0]
    assert (event.event_type_id, event.host_ids, event.stream_id[:4]) == (EVENT_TYPE, (HOST,), "bkg_")
    stored = facts.traits(event.type, event.data)
    assert (stored.event_type_id, stored.host_ids, bytes(stored.metadata)) == (
        EVENT_TYPE,
        (HOST,),
        bytes(event.metadata),
    )


def test_calendars_and_their_events():
    common = {"created_at": NOW, "updated_at": NOW, "version": 1, "host_id": HOST}
    calendar = CalendarState(id=ids.new_id("cal"), provider="caldav", **common)
    for kind in ("calendar.synced", "calendar.disconnected"):
        event = derive(envelope(kind, calendar))[0]
        assert (event.type, set(body(event)["data"])) == (kind, {"calendar"})
    block = CalendarEventState(
        id=ids.new_id("cev"), source="provider", start_at=NOW, end_at=NOW, intervals=[(1, 2)], **common
    )
    for kind, version, want in (
        ("calendar_event.upserted", 1, "event.created"),
        ("calendar_event.upserted", 2, "event.updated"),
        ("calendar_event.deleted", 3, "event.deleted"),
    ):
        event = derive(envelope(kind, block, version=version))[0]
        assert event.type == want
        shown = body(event)["data"]
        assert (set(shown), "intervals" in shown["event"]) == ({"event"}, False)


def test_an_erased_person_is_told_by_id_alone():
    event = derive(envelope("person.erased", "per_1"))[0]
    assert body(event)["data"] == {"person": {"id": "per_1"}}


def body(event: Any) -> Any:
    whole = facts.read(event.data, event.attendees)
    rendered = kalends(
        Event(id=event.id, type=event.type, tenant_id=event.tenant_id, created_at=event.created_at, facts=whole)
    )
    return msgspec.json.decode(rendered)
