"""Bookings, holds, people; and the state that booking's events carry."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from kalends_shared.contracts.events import Actor
from kalends_shared.contracts.types import EMPTY, Currency, Email, Instant, Json, Name, Object, Phone, Start, Url, Zone

Status = Literal["pending", "confirmed", "declined", "cancelled", "completed", "no_show"]
Seats = Annotated[int, Meta(ge=1, le=10_000)]


class Guest(Struct, kw_only=True):
    name: Name | None = None
    email: Email


class Recurrence(Struct):
    """An RRULE (RFC 5545 3.3.10) of up to 52 occurrences."""

    rrule: Annotated[str, Meta(min_length=1, max_length=500)]
    on_conflict: Literal["fail", "skip"] = "fail"


class BookingIn(Struct, kw_only=True):
    event_type_id: str
    start_at: Start
    booker_name: Name
    booker_email: Email
    end_at: Instant | None = None
    booker_timezone: Zone | None = None
    booker_phone: Phone | None = None
    guests: Annotated[list[Guest], Meta(max_length=100)] = []
    answers: Object = EMPTY
    seats: Seats = 1
    location_id: str | None = None
    host_id: str | None = None
    hold_id: str | None = None
    recurrence: Recurrence | None = None
    metadata: Json = EMPTY


class BookingPatch(Struct, kw_only=True):
    """What PATCH may change."""

    booker_name: Name
    booker_phone: Phone | None = None
    booker_timezone: Zone | None = None
    guests: Annotated[list[Guest], Meta(max_length=100)] = []
    answers: Object = EMPTY
    location_id: str | None = None
    metadata: Json = EMPTY


class BookingLocation(Struct, kw_only=True):
    """The location as it was when it was chosen."""

    id: str
    name: str
    kind: str | None = None
    address: str | None = None
    url_template: str | None = None


class Payment(Struct, kw_only=True):
    """`amount` is in the currency's smallest unit."""

    status: Literal["pending", "paid", "failed", "refunded"]
    amount: int | None = None
    currency: str | None = None
    reference: str | None = None
    expires_at: Instant | None = None


class Series(Struct, kw_only=True):
    id: str
    booking_ids: list[str]
    skipped: list[dict[str, Any]] = []


class Booking(Struct, kw_only=True):
    """The public booking. `series` is in the answer that made it only, null elsewhere."""

    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    event_type_id: str
    start_at: Instant
    end_at: Instant
    status: Status
    booker_name: str | None
    booker_email: str | None
    booker_timezone: str | None = None
    booker_phone: str | None = None
    guests: list[Guest] = []
    answers: Object = EMPTY
    seats: int = 1
    host_id: str | None = None
    host_ids: list[str] = []
    resource_ids: list[str] = []
    person_id: str | None = None
    location_id: str | None = None
    location: BookingLocation | None = None
    meeting_url: str | None = None
    hold_id: str | None = None
    series_id: str | None = None
    series: Series | None = None
    recurrence: Recurrence | None = None
    payment: Payment | None = None
    cancelled_reason: str | None = None
    reason: str | None = None
    metadata: Json = EMPTY


class BookingQuery(Struct, kw_only=True):
    """`as_of`: the booking as it was at that moment."""

    as_of: Instant | None = None


class BookingsQuery(Struct, kw_only=True):
    status: list[Status] | None = None
    upcoming: bool | None = None
    event_type_id: str | None = None
    host_id: str | None = None
    booker_email: str | None = None
    start_after: Instant | None = None
    start_before: Instant | None = None
    series_id: str | None = None
    as_of: Instant | None = None
    order: Literal["asc", "desc"] = "asc"
    limit: Annotated[int, Meta(ge=1, le=100)] | None = None
    cursor: str | None = None
    page: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    per_page: Annotated[int, Meta(ge=1, le=100)] | None = None


class Reason(Struct, kw_only=True):
    """The body of approve, decline, complete, and of no-show and its undo."""

    reason: Name | None = None


class CancelIn(Struct, kw_only=True):
    reason: Name | None = None
    force: bool = False
    scope: Literal["this", "following", "all"] = "this"


class RescheduleIn(Struct, kw_only=True):
    start_at: Start
    end_at: Instant | None = None
    host_id: str | None = None
    reason: Name | None = None
    force: bool = False


class ReassignIn(Struct, kw_only=True):
    """`from_host_id`: the host whose part `host_id` takes, needed only where several serve together."""

    host_id: str
    from_host_id: str | None = None
    reason: Name | None = None


class PaymentIn(Struct, kw_only=True):
    status: Literal["pending", "paid", "failed", "refunded"]
    amount: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None
    currency: Currency | None = None
    reference: Name | None = None
    reason: Name | None = None


class RecordingIn(Struct, kw_only=True):
    url: Url
    duration_seconds: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    reason: Name | None = None


class HoldIn(Struct, kw_only=True):
    event_type_id: str
    start_at: Start
    end_at: Instant | None = None
    host_id: str | None = None
    seats: Seats = 1
    ttl_seconds: Annotated[int, Meta(ge=1, le=3600)] = 300
    metadata: Json = EMPTY


class Hold(Struct, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    event_type_id: str
    start_at: Instant
    end_at: Instant
    host_id: str | None = None
    host_ids: list[str] = []
    seats: int = 1
    ttl_seconds: int
    status: Literal["active", "converted", "released", "expired"]
    expires_at: Instant
    metadata: Json = EMPTY


class Person(Struct, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    name: str
    email: str
    phone: str | None = None
    timezone: str | None = None
    metadata: Json = EMPTY


class HistoryEntry(Struct, kw_only=True):
    id: str
    type: str
    occurred_at: Instant
    actor: Actor
    data: Any


# --- the state that events carry, as consumers read it


class EventTypeSnapshot(Struct, kw_only=True):
    """What a booking keeps of its event type, as of its quote; public members first, then the policies it goes by."""

    id: str
    slug: str | None
    title: str
    duration_minutes: int
    description: str | None = None
    metadata: Json = EMPTY


class HostSnapshot(Struct, kw_only=True):
    """A host as it was; `limits_timezone`, in which its limits count where that is another, is for booking alone."""

    id: str
    name: str
    email: str | None = None
    timezone: str = "UTC"
    limits_timezone: str | UnsetType = UNSET


class Policies(Struct, kw_only=True, omit_defaults=True):
    """The event type's settings that bind a booking after it is made."""

    buffer_before_minutes: int = 0
    buffer_after_minutes: int = 0
    capacity: int = 1
    cancel_cutoff_minutes: int | None = None
    reschedule_cutoff_minutes: int | None = None
    requires_confirmation: bool = False
    confirmation_expires_at: Instant | None = None
    approved: bool = True
    requires_payment: bool = False
    assignment: str = "single"


class BookingState(Struct, kw_only=True, omit_defaults=True):
    """The aggregate after an event; what has its default is not written. Attendee data is not in it: `person_id` and `person_version` name it.

    Consumers find that data in the envelope's `people[person_version]` as a PersonData, absent where it was erased.
    """

    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    event_type_id: str
    start_at: Instant
    end_at: Instant
    status: Status
    seats: int
    host_ids: list[str]
    resource_ids: list[str]
    person_id: str
    person_version: str
    location: BookingLocation | None = None
    meeting_url: str | None = None
    hold_id: str | None = None
    series_id: str | None = None
    recurrence: Recurrence | None = None
    payment: Payment | None = None
    cancelled_reason: str | None = None
    reason: str | None = None
    # When its start was told as meeting.started, when it was completed, when it was marked as no-show.
    started_at: Instant | None = None
    completed_at: Instant | None = None
    no_show_at: Instant | None = None
    metadata: Json = EMPTY
    event_type: EventTypeSnapshot
    hosts: list[HostSnapshot]
    policies: Policies
    # Units taken, `<resource id>#<unit>`, beside the hosts the subjects of the booking's reservations.
    units: list[str] = []


class PersonData(Struct, kw_only=True):
    """One version of what a booker told about themself."""

    person_id: str
    name: str
    email: str
    phone: str | None = None
    timezone: str | None = None
    guests: list[Guest] = []
    answers: Object = EMPTY


class HoldState(Struct, kw_only=True, omit_defaults=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    event_type_id: str
    start_at: Instant
    end_at: Instant
    host_ids: list[str]
    seats: int
    ttl_seconds: int
    status: Literal["active", "converted", "released", "expired"]
    expires_at: Instant
    event_type: EventTypeSnapshot
    hosts: list[HostSnapshot]
    policies: Policies
    units: list[str] = []
    metadata: Json = EMPTY


def public_booking(state: BookingState, person: PersonData | None, series: Series | None = None) -> Booking:
    """The booking as the API and webhooks show it; without its attendee data where that was erased."""
    return Booking(
        id=state.id,
        created_at=state.created_at,
        updated_at=state.updated_at,
        version=state.version,
        event_type_id=state.event_type_id,
        start_at=state.start_at,
        end_at=state.end_at,
        status=state.status,
        booker_name=person.name if person else None,
        booker_email=person.email if person else None,
        booker_timezone=person.timezone if person else None,
        booker_phone=person.phone if person else None,
        guests=person.guests if person else [],
        answers=person.answers if person else EMPTY,
        seats=state.seats,
        host_id=state.host_ids[0] if state.host_ids else None,
        host_ids=state.host_ids,
        resource_ids=state.resource_ids,
        person_id=state.person_id,
        location_id=state.location.id if state.location else None,
        location=state.location,
        meeting_url=state.meeting_url,
        hold_id=state.hold_id,
        series_id=state.series_id,
        series=series,
        recurrence=state.recurrence,
        payment=state.payment,
        cancelled_reason=state.cancelled_reason,
        reason=state.reason,
        metadata=state.metadata,
    )


def public_hold(state: HoldState) -> Hold:
    return Hold(
        id=state.id,
        created_at=state.created_at,
        updated_at=state.updated_at,
        version=state.version,
        event_type_id=state.event_type_id,
        start_at=state.start_at,
        end_at=state.end_at,
        host_id=state.host_ids[0] if state.host_ids else None,
        host_ids=state.host_ids,
        seats=state.seats,
        ttl_seconds=state.ttl_seconds,
        status=state.status,
        expires_at=state.expires_at,
        metadata=state.metadata,
    )
