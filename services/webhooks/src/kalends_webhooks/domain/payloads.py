"""The bodies of deliveries: the default payload, and the two by which receivers written for other engines go on working.

A body is compact UTF-8 JSON equal to `JSON.stringify(JSON.parse(body))`: members of Structs are named by words, their
numbers are whole, and free JSON was brought into that form when it was read (contracts.jsjson).
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from kalends_shared.contracts.booking import Booking
from kalends_shared.contracts.webhooks import PublicEvent
from kalends_webhooks.domain.facts import Facts

# Which facts each type shows under `data`, in this order; every other type is about a booking and shows BOOKING.
BOOKING: Final = ("booking", "event_type", "host", "location", "previous")
MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "hold.expired": ("hold",),
    "event.created": ("event",),
    "event.updated": ("event",),
    "event.deleted": ("event",),
    "calendar.synced": ("calendar",),
    "calendar.disconnected": ("calendar",),
    "webhook.disabled": ("webhook", "reason"),
    "payment.updated": ("booking", "payment"),
    "recording.ready": ("booking", "recording"),
    "person.erased": ("person",),
}
# A trigger's name is the type in upper case, save where the other engines' receivers know it by another.
TRIGGERS: Final = {
    "booking.pending": "BOOKING_REQUESTED",
    "booking.confirmed": "BOOKING_CREATED",
    "booking.declined": "BOOKING_REJECTED",
}


class Event(Struct, kw_only=True):
    """A public event at send: what it is, and its facts with attendee data as far as there still is any."""

    id: str
    type: str
    tenant_id: str
    created_at: datetime
    facts: Facts


def body(payload: str, event: Event) -> bytes:
    """The bytes that are sent and signed, for a subscription's `payload`."""
    return _RENDER[payload](event)


def kalends(event: Event) -> bytes:
    """`{id, type, created_at, account_id, mode, data}`, the default payload and a row of GET /changes."""
    facts = event.facts
    account_id, mode = account(event.tenant_id)
    return _encode(
        PublicEvent(
            id=event.id,
            type=event.type,
            created_at=event.created_at,
            account_id=account_id,
            mode=mode,
            data={name: getattr(facts, name) for name in MEMBERS.get(event.type, BOOKING)},
        )
    )


def account(tenant_id: str) -> tuple[str, Literal["live", "test"]]:
    """The account and mode behind a tenant id, `<account id>-live` or `-test`."""
    account_id, _, mode = tenant_id.rpartition("-")
    return account_id, "test" if mode == "test" else "live"


def service(event: Event) -> bytes:
    """`{id, event, timestamp, data}` about services and clients; a confirmation goes out as `booking.created`."""
    return _encode(
        {
            "id": event.id,
            "event": service_name(event.type),
            "timestamp": _offset(event.created_at),
            "data": _service_data(event),
        }
    )


def service_name(event_type: str) -> str:
    return "booking.created" if event_type == "booking.confirmed" else event_type


def _service_data(event: Event) -> dict[str, Any]:
    facts = event.facts
    booking = facts.booking
    if booking is None:
        return {name: getattr(facts, name) for name in MEMBERS[event.type]}
    first, _, last = (booking.booker_name or "").partition(" ")
    known = booking.booker_name is not None
    data: dict[str, Any] = {
        "id": booking.id,
        "status": booking.status,
        "service": {"id": booking.event_type_id, "name": facts.event_type.title if facts.event_type else None},
        "client": {
            "first_name": first if known else None,
            "last_name": last if known else None,
            "email": booking.booker_email,
        },
        "starts_at": _offset(booking.start_at),
        "ends_at": _offset(booking.end_at),
        "location": {"id": facts.location.id, "name": facts.location.name} if facts.location else None,
    }
    for name in MEMBERS.get(event.type, ()):
        if name != "booking":
            data[name] = getattr(facts, name)
    return data


def trigger(event: Event) -> bytes:
    """`{trigger, triggerEvent, createdAt, payload}`, names of triggers in upper case."""
    name = trigger_name(event.type)
    return _encode(
        {
            "trigger": name,
            "triggerEvent": name,
            "createdAt": event.created_at,
            "payload": _trigger_payload(event),
        }
    )


def trigger_name(event_type: str) -> str:
    return TRIGGERS.get(event_type) or event_type.upper().replace(".", "_")


def _trigger_payload(event: Event) -> dict[str, Any]:
    facts = event.facts
    booking = facts.booking
    if booking is None:
        return {name: getattr(facts, name) for name in MEMBERS[event.type]}
    booker = _attendee(booking.booker_name, booking.booker_email, booking.booker_timezone)
    guests = [_attendee(guest.name, guest.email, booking.booker_timezone) for guest in booking.guests]
    host, kind, place = facts.host, facts.event_type, facts.location
    payload: dict[str, Any] = {
        "uid": booking.id,
        "title": kind.title if kind else None,
        "type": kind.slug if kind else None,
        "description": kind.description if kind else None,
        "eventTypeId": booking.event_type_id,
        "length": round((booking.end_at - booking.start_at).total_seconds()) // 60,
        "startTime": booking.start_at,
        "endTime": booking.end_at,
        "attendee": booker,
        "attendees": [booker, *guests],
        "organizer": _attendee(host.name, host.email, host.timezone) if host else None,
        "location": booking.meeting_url or (place.name if place else None),
        "status": booking.status,
        "responses": booking.answers,
        "cancellationReason": booking.cancelled_reason,
        "metadata": booking.metadata,
    }
    payload |= _particular(event, booking)
    for name in MEMBERS.get(event.type, ()):
        if name != "booking":
            payload[name] = getattr(facts, name)
    return payload


def _particular(event: Event, booking: Booking) -> dict[str, Any]:
    """What the other engines tell of one kind of event: from when it was moved, why it was rejected, where a recording is."""
    facts = event.facts
    if event.type == "booking.rescheduled" and facts.previous is not None:
        return {
            "rescheduleUid": booking.id,
            "rescheduleStartTime": facts.previous.get("start_at", booking.start_at),
            "rescheduleEndTime": facts.previous.get("end_at", booking.end_at),
        }
    if event.type == "booking.declined":
        return {"rejectionReason": booking.reason}
    return {"downloadLink": facts.recording.url} if facts.recording is not None else {}


def _attendee(name: str | None, email: str | None, timezone: str | None) -> dict[str, str | None]:
    return {"name": name, "email": email, "timeZone": timezone}


def _offset(at: datetime) -> str:
    """An instant in UTC whose offset is written +00:00."""
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds")


_encode: Final = msgspec.json.Encoder().encode
_RENDER: Final[dict[str, Callable[[Event], bytes]]] = {"kalends": kalends, "service": service, "trigger": trigger}
