"""Domain events -> public events: the table "What an action emits" of the contract, one place for all of it.

Each public event has one id for good, derived from the domain event's id and its own type, so that deriving it again
makes no second one.
"""

from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import BookingState, HoldState, public_booking, public_hold
from kalends_shared.contracts.calendars import Calendar, CalendarEvent, CalendarEventState, CalendarState
from kalends_shared.contracts.events import Envelope
from kalends_shared.contracts.types import EMPTY
from kalends_webhooks.domain.facts import Facts, PersonRef, Recording


class Drafted(Struct, kw_only=True, frozen=True):
    """A public event before it has its place in the account's order.

    `data` is the JSON of its Facts and `attendees` that of its Attendees. `event_type_id`, `host_ids` and `metadata`
    are what subscriptions filter by. `stream_id` is what it is about: deliveries of one stream may be kept in order.
    """

    id: str
    type: str
    tenant_id: str
    created_at: datetime
    stream_id: str
    data: bytes
    attendees: bytes | None = None
    person_id: str | None = None
    event_type_id: str | None = None
    host_ids: tuple[str, ...] = ()
    metadata: msgspec.Raw = EMPTY
    traceparent: str | None = None


class _BookingAction(Struct):
    """What is read of a booking event's data; `previous_person_version` is there where attendee data changed."""

    previous: dict[str, msgspec.Raw] | None = None
    previous_person_version: str | None = None
    recording: Recording | None = None


# What a booking's event emits, in order; _CONFIRMATION stands for what depends on the state, see _confirmation.
_CONFIRMATION: Final = ""
_EMITS: Final[dict[str, tuple[str, ...]]] = {
    "booking.created": ("booking.created", _CONFIRMATION),
    "booking.approved": (_CONFIRMATION,),
    "booking.declined": ("booking.declined",),
    "booking.cancelled": ("booking.cancelled",),
    "booking.rescheduled": ("booking.rescheduled", "booking.updated"),
    "booking.reassigned": ("booking.reassigned", "booking.updated"),
    "booking.updated": ("booking.updated",),
    "booking.completed": ("booking.completed",),
    "booking.no_show": ("booking.no_show",),
    "booking.no_show_undone": ("booking.updated",),
    "meeting.started": ("meeting.started",),
    "meeting.ended": ("meeting.ended",),
    "payment.updated": ("payment.updated", _CONFIRMATION),
    "recording.ready": ("recording.ready",),
}

_booking_state: Final = msgspec.json.Decoder(BookingState)
_booking_action: Final = msgspec.json.Decoder(_BookingAction | None)
_hold_state: Final = msgspec.json.Decoder(HoldState)
_calendar_state: Final = msgspec.json.Decoder(CalendarState)
_calendar_event_state: Final = msgspec.json.Decoder(CalendarEventState)
_PENDING: Final = b'"pending"'


def derive(envelope: Envelope) -> list[Drafted]:
    """The public events of one domain event, in the order of /changes; none where it is nobody else's business."""
    kind = envelope.type
    if kind in _EMITS:
        return _of_booking(envelope)
    match kind:
        case "hold.expired":
            return [_of_hold(envelope)]
        case "person.erased":
            return [_draft(envelope, kind, Facts(person=PersonRef(envelope.stream_id)))]
        case "calendar.synced" | "calendar.disconnected":
            return [_of_calendar(envelope, kind)]
        case "calendar_event.upserted":
            return [_of_calendar_event(envelope, "event.created" if envelope.version == 1 else "event.updated")]
        case "calendar_event.deleted":
            return [_of_calendar_event(envelope, "event.deleted")]
    return []


def _of_booking(envelope: Envelope) -> list[Drafted]:
    state = _booking_state.decode(envelope.state)
    action = _booking_action.decode(envelope.data) or _BookingAction()
    types = [
        emitted
        for named in _EMITS[envelope.type]
        if (emitted := named or _confirmation(envelope.type, state.status, action)) is not None
    ]
    facts = Facts(
        booking=public_booking(state, None),
        event_type=state.event_type,
        host=msgspec.structs.replace(state.hosts[0], limits_timezone=msgspec.UNSET) if state.hosts else None,
        location=state.location,
        previous=action.previous,
        payment=state.payment if envelope.type == "payment.updated" else None,
        recording=action.recording,
    )
    data = msgspec.json.encode(facts)
    attendees = _attendees(envelope, state.person_version, action.previous_person_version)
    return [
        Drafted(
            id=ids.derived("msg", envelope.id, kind),
            type=kind,
            tenant_id=envelope.tenant_id,
            created_at=envelope.occurred_at,
            stream_id=envelope.stream_id,
            data=data,
            attendees=attendees,
            person_id=state.person_id,
            event_type_id=state.event_type_id,
            host_ids=tuple(state.host_ids),
            metadata=state.metadata,
            traceparent=envelope.traceparent,
        )
        for kind in types
    ]


def _confirmation(domain_type: str, status: str, action: _BookingAction) -> str | None:
    """What follows creation, approval or payment: confirmed once nothing is awaited; pending is told at creation alone."""
    if status != "confirmed":
        return "booking.pending" if domain_type == "booking.created" else None
    if domain_type == "payment.updated":
        was = (action.previous or {}).get("status")
        return "booking.confirmed" if was is not None and bytes(was) == _PENDING else None
    return "booking.confirmed"


def _attendees(envelope: Envelope, version: str, previous_version: str | None) -> bytes | None:
    """The JSON of the Attendees, put together from what the relay joined in, byte for byte."""
    now = envelope.people.get(version)
    if now is None:
        return None
    before = envelope.people.get(previous_version) if previous_version else None
    if before is None:
        return b'{"now":%s}' % bytes(now)
    return b'{"now":%s,"before":%s}' % (bytes(now), bytes(before))


def _of_hold(envelope: Envelope) -> Drafted:
    state = _hold_state.decode(envelope.state)
    return _draft(
        envelope,
        "hold.expired",
        Facts(hold=public_hold(state)),
        event_type_id=state.event_type_id,
        host_ids=tuple(state.host_ids),
        metadata=state.metadata,
    )


def _of_calendar(envelope: Envelope, kind: str) -> Drafted:
    state = _calendar_state.decode(envelope.state)
    calendar = _as(Calendar, state)
    return _draft(envelope, kind, Facts(calendar=calendar), host_ids=(state.host_id,), metadata=state.metadata)


def _of_calendar_event(envelope: Envelope, kind: str) -> Drafted:
    state = _calendar_event_state.decode(envelope.state)
    event = _as(CalendarEvent, state)
    return _draft(envelope, kind, Facts(event=event), host_ids=(state.host_id,), metadata=state.metadata)


def _as(kind: type[Any], state: Struct) -> Any:
    """The public form of a state that has all of its members and more."""
    return kind(**{name: getattr(state, name) for name in kind.__struct_fields__})


def _draft(envelope: Envelope, kind: str, facts: Facts, **filtered: Any) -> Drafted:
    return Drafted(
        id=ids.derived("msg", envelope.id, kind),
        type=kind,
        tenant_id=envelope.tenant_id,
        created_at=envelope.occurred_at,
        stream_id=envelope.stream_id,
        data=msgspec.json.encode(facts),
        traceparent=envelope.traceparent,
        **filtered,
    )
