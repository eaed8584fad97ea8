"""How an event is written down: its `data`, what the action was, beside the `state` after it.

What begins a stream is its state, which is written once; its data tells the main facts. The data of a change to a
booking also holds `previous`: the public fields that the action changed, with their old values.
"""

from typing import Any, Final

import msgspec

from kalends_booking.domain.decision import Change
from kalends_booking.domain.events import (
    BOOKING_EVENTS,
    HOLD_EVENTS,
    Assignment,
    BookingCreated,
    BookingNoShowUndone,
    Event,
    HoldPlaced,
)
from kalends_shared.contracts.booking import BookingState, HoldState
from kalends_shared.contracts.events import NewEvent
from kalends_shared.upcasters import UPCASTERS

# What of a booking's state its public form shows, beside ids, times of change and attendee data.
_TOLD: Final = (
    "start_at",
    "end_at",
    "status",
    "seats",
    "host_ids",
    "resource_ids",
    "location",
    "meeting_url",
    "payment",
    "cancelled_reason",
    "reason",
    "metadata",
)


class _Assigned(msgspec.Struct):
    assignment: Assignment | None = None


_KINDS: Final = {kind.TYPE: kind for kind in (*BOOKING_EVENTS, *HOLD_EVENTS)}
_encode: Final = msgspec.json.Encoder().encode
booking_state: Final = msgspec.json.Decoder(BookingState).decode
hold_state: Final = msgspec.json.Decoder(HoldState).decode
_assigned: Final = msgspec.json.Decoder(_Assigned).decode


def new_event(change: Change, event_id: str, state: bytes) -> NewEvent:
    """The event to be appended; `state` is the one after it, encoded."""
    kind = change.event.TYPE
    return NewEvent(kind, data(change), state, event_id, UPCASTERS.current(kind))


def data(change: Change) -> bytes:
    event = change.event
    if isinstance(event, BookingCreated):
        made = event.booking
        told: dict[str, Any] = {
            "status": made.status,
            "start_at": made.start_at,
            "end_at": made.end_at,
            "host_ids": made.host_ids,
        }
        return _encode(told | {"seats": made.seats, "previous": None} | _why(event.assignment))
    if isinstance(event, HoldPlaced):
        held = event.hold
        told = {"start_at": held.start_at, "end_at": held.end_at, "host_ids": held.host_ids, "seats": held.seats}
        return _encode(told | {"expires_at": held.expires_at, "previous": None} | _why(event.assignment))
    fields = msgspec.structs.asdict(event)
    if isinstance(event, BookingNoShowUndone) and event.reason is None:
        del fields["reason"]  # as before there was such a field
    why = _why(fields.pop("assignment", None))
    return _encode(fields | {"previous": previous(change)} | why)


def _why(assignment: Assignment | None) -> dict[str, Assignment]:
    """Left out where nobody was chosen among several, as before there was such a field."""
    return {"assignment": assignment} if assignment is not None else {}


def previous(change: Change) -> dict[str, Any] | None:
    """The public fields that differ, with their old values; None where none does."""
    before, after = change.before, change.after
    if not isinstance(before, BookingState) or not isinstance(after, BookingState):
        return None
    changed = {name: old for name in _TOLD if (old := getattr(before, name)) != getattr(after, name)}
    if "host_ids" in changed and before.host_ids[:1] != after.host_ids[:1]:
        changed["host_id"] = before.host_ids[0]
    if "location" in changed:
        changed["location_id"] = before.location.id if before.location else None
    return changed or None


def decode(kind: str, schema_version: int, data_: bytes, state: bytes) -> Event:
    """The event again, at the version that this code has.

    Raises:
        KeyError: a type that this code does not know.
    """
    _, data_, state = UPCASTERS.documents(kind, schema_version, data_, state)
    found = _KINDS[kind]
    if found is BookingCreated:
        return BookingCreated(booking=booking_state(state), assignment=_assigned(data_).assignment)
    if found is HoldPlaced:
        return HoldPlaced(hold=hold_state(state), assignment=_assigned(data_).assignment)
    return msgspec.json.decode(data_, type=found)
