"""What can happen to a booking or a hold. Attendee data is in none of it: events name a version of a person."""

from datetime import datetime
from typing import ClassVar, Final

from msgspec import Struct, field

from kalends_shared.contracts.booking import (
    BookingLocation,
    BookingState,
    EventTypeSnapshot,
    HoldState,
    HostSnapshot,
    Payment,
    Policies,
    Status,
)
from kalends_shared.contracts.types import EMPTY, Json


class Event(Struct, frozen=True, kw_only=True):
    TYPE: ClassVar[str]


class Candidate(Struct, frozen=True, kw_only=True):
    """A host that the rules allowed, and the figures that it was ranked by."""

    host_id: str
    rank: dict[str, float]


class Assignment(Struct, frozen=True, kw_only=True):
    """Why these hosts: the candidates, the best first; one before a chosen one was taken.

    Of very many only the first are told, and the chosen ones; `among` says how many there were.
    """

    method: str
    among: int
    candidates: list[Candidate]


class BookingCreated(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "booking.created"
    booking: BookingState
    assignment: Assignment | None = None


class BookingApproved(Event, frozen=True, kw_only=True):
    """Still pending after it where a payment is awaited."""

    TYPE: ClassVar[str] = "booking.approved"
    status: Status
    reason: str | None = None


class BookingDeclined(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "booking.declined"
    reason: str | None = None


class BookingCancelled(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "booking.cancelled"
    reason: str | None = None


class Placing(Event, frozen=True, kw_only=True):
    """A new place of a booking, with its event type and hosts as of the quote."""

    start_at: datetime
    end_at: datetime
    host_ids: list[str]
    resource_ids: list[str]
    units: list[str]
    event_type: EventTypeSnapshot
    hosts: list[HostSnapshot]
    policies: Policies
    reason: str | None = None
    assignment: Assignment | None = None


class BookingRescheduled(Placing, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "booking.rescheduled"


class BookingReassigned(Placing, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "booking.reassigned"


class BookingUpdated(Event, frozen=True, kw_only=True):
    """All that PATCH may change, as it is after it. What changed of the attendee is told by two versions of a person."""

    TYPE: ClassVar[str] = "booking.updated"
    person_version: str
    previous_person_version: str | None = None
    location: BookingLocation | None = None
    meeting_url: str | None = None
    metadata: Json = field(default=EMPTY)


class BookingCompleted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "booking.completed"
    reason: str | None = None


class BookingNoShow(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "booking.no_show"
    reason: str | None = None


class BookingNoShowUndone(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "booking.no_show_undone"
    reason: str | None = None


class MeetingStarted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "meeting.started"


class MeetingEnded(Event, frozen=True, kw_only=True):
    """Its end, which completes it."""

    TYPE: ClassVar[str] = "meeting.ended"


class PaymentUpdated(Event, frozen=True, kw_only=True):
    """What is known of a payment; `status` is the booking's after it, which it confirms where that alone was awaited."""

    TYPE: ClassVar[str] = "payment.updated"
    payment: Payment
    status: Status
    reason: str | None = None


class Recording(Struct, frozen=True, kw_only=True):
    url: str
    duration_seconds: int | None = None


class RecordingReady(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "recording.ready"
    recording: Recording
    reason: str | None = None


class HoldPlaced(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "hold.placed"
    hold: HoldState
    assignment: Assignment | None = None


class HoldReleased(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "hold.released"


class HoldExpired(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "hold.expired"


class HoldConverted(Event, frozen=True, kw_only=True):
    TYPE: ClassVar[str] = "hold.converted"
    booking_id: str


BOOKING_EVENTS: Final[tuple[type[Event], ...]] = (
    BookingCreated,
    BookingApproved,
    BookingDeclined,
    BookingCancelled,
    BookingRescheduled,
    BookingReassigned,
    BookingUpdated,
    BookingCompleted,
    BookingNoShow,
    BookingNoShowUndone,
    MeetingStarted,
    MeetingEnded,
    PaymentUpdated,
    RecordingReady,
)
HOLD_EVENTS: Final[tuple[type[Event], ...]] = (HoldPlaced, HoldReleased, HoldExpired, HoldConverted)
