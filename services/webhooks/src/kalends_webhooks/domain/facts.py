"""What a public event is about, as it is stored: everything that any payload of it may show, but attendee data.

Attendee data lies beside it (`Attendees`), so that an erasure empties one column; a body is put together at send.
"""

from typing import Final

import msgspec
from msgspec import Struct

from kalends_shared.contracts.booking import (
    Booking,
    BookingLocation,
    EventTypeSnapshot,
    Hold,
    HostSnapshot,
    Payment,
    PersonData,
)
from kalends_shared.contracts.calendars import Calendar, CalendarEvent
from kalends_shared.contracts.types import EMPTY
from kalends_shared.contracts.webhooks import Webhook


class PersonRef(Struct):
    """All that is told of a person who was erased."""

    id: str


class Recording(Struct):
    """Where a recording is, as booking was told."""

    url: str
    duration_seconds: int | None = None


class Facts(Struct, kw_only=True, omit_defaults=True):
    """What one public event tells; which members are there depends on its type (see payloads.kalends)."""

    booking: Booking | None = None
    event_type: EventTypeSnapshot | None = None
    host: HostSnapshot | None = None
    location: BookingLocation | None = None
    previous: dict[str, msgspec.Raw] | None = None
    payment: Payment | None = None
    recording: Recording | None = None
    hold: Hold | None = None
    event: CalendarEvent | None = None
    calendar: Calendar | None = None
    webhook: Webhook | None = None
    reason: str | None = None
    person: PersonRef | None = None

    @property
    def emptied(self) -> bool:
        """Tells whether this is about somebody who was erased: nothing else has a booking without a booker."""
        return self.booking is not None and self.booking.booker_name is None


class Attendees(Struct, kw_only=True, omit_defaults=True):
    """Attendee data of a booking's event: as of the event, and before it where it changed it."""

    now: PersonData | None = None
    before: PersonData | None = None


# The members of a booking that are attendee data, by their name in PersonData.
ATTENDEE_MEMBERS: Final = {
    "booker_name": "name",
    "booker_email": "email",
    "booker_timezone": "timezone",
    "booker_phone": "phone",
    "guests": "guests",
    "answers": "answers",
}

_facts: Final = msgspec.json.Decoder(Facts)
_attendees: Final = msgspec.json.Decoder(Attendees)


def read(data: bytes, attendees: bytes | None) -> Facts:
    """The facts of a stored event with its attendee data put in, as far as there still is any."""
    facts = _facts.decode(data)
    if attendees is None:
        return facts
    people = _attendees.decode(attendees)
    if facts.booking is not None and people.now is not None:
        with_attendee(facts.booking, people.now)
    if people.before is not None and people.now is not None:
        facts.previous = with_changes(facts.previous, people.before, people.now)
    return facts


class Traits(Struct, frozen=True):
    """What subscriptions choose events by, beside the account."""

    type: str
    event_type_id: str | None
    host_ids: tuple[str, ...]
    metadata: msgspec.Raw


def traits(event_type: str, data: bytes) -> Traits:
    """The traits of a stored event, by what it is about."""
    facts = _facts.decode(data)
    about = facts.booking or facts.hold
    if about is not None:
        return Traits(event_type, about.event_type_id, tuple(about.host_ids), about.metadata)
    other = facts.event or facts.calendar
    if other is not None:
        return Traits(event_type, None, (other.host_id,), other.metadata)
    return Traits(event_type, None, (), EMPTY)


def with_attendee(booking: Booking, person: PersonData) -> None:
    """Puts the attendee data into a booking that was stored without."""
    for member, name in ATTENDEE_MEMBERS.items():
        setattr(booking, member, getattr(person, name))


def with_changes(
    previous: dict[str, msgspec.Raw] | None, before: PersonData, now: PersonData
) -> dict[str, msgspec.Raw] | None:
    """`previous` with the old values of the attendee data that changed, each under its public name."""
    changed = {
        member: msgspec.Raw(msgspec.json.encode(getattr(before, name)))
        for member, name in ATTENDEE_MEMBERS.items()
        if getattr(before, name) != getattr(now, name)
    }
    return {**(previous or {}), **changed} or None
