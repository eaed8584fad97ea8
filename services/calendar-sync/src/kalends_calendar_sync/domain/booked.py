"""A booking as a host's calendar shows it."""

import hashlib
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from kalends_calendar_sync.domain.content import Component, Property, escape, render
from kalends_calendar_sync.domain.series import MARKER, Instance, Series
from kalends_shared.contracts.booking import BookingState, Guest, PersonData

REVISION: Final = "X-KALENDS-REVISION"
# A booking that took place stays in the calendar, as it took place.
_PRESENT: Final = frozenset({"confirmed", "completed", "no_show"})


class Shape(Struct, frozen=True):
    """What a calendar shows of a booking; its bytes tell whether that has changed."""

    start_at: datetime
    end_at: datetime
    title: str
    booker: str | None = None
    email: str | None = None
    phone: str | None = None
    guests: list[str] = []
    location: str | None = None
    url: str | None = None

    def encoded(self) -> bytes:
        return msgspec.json.encode(self)


def is_present(state: BookingState) -> bool:
    """Whether calendars are to hold the booking."""
    return state.status in _PRESENT


def shape_of(state: BookingState, person: PersonData | None) -> Shape:
    place = state.location
    return Shape(
        start_at=state.start_at,
        end_at=state.end_at,
        title=state.event_type.title,
        booker=person.name if person else None,
        email=person.email if person else None,
        phone=person.phone if person else None,
        guests=[_told(guest) for guest in person.guests] if person else [],
        location=(place.address or place.name) if place else None,
        url=state.meeting_url,
    )


def _told(guest: Guest) -> str:
    return f"{guest.name} <{guest.email}>" if guest.name else guest.email


def without_person(shape: Shape) -> Shape:
    """The same after its booker's data was erased."""
    return Shape(shape.start_at, shape.end_at, shape.title, location=shape.location, url=shape.url)


def summary(shape: Shape) -> str:
    return f"{shape.title}: {shape.booker}" if shape.booker else shape.title


def uid_of(booking_id: str, calendar_id: str) -> str:
    """The UID under which a booking stands in a calendar: known before it is written, so that it is written once."""
    return f"{booking_id}.{calendar_id}@kalends"


def text_of(booking_id: str, uid: str, revision: int, shape: Shape, stamp: datetime) -> str:
    """The booking as iCalendar text.

    It has no ORGANIZER and no ATTENDEE, since the server would then send invitations of its own.
    """
    about = [
        line
        for line in (
            shape.booker,
            shape.email,
            shape.phone,
            *shape.guests,
            shape.url,
        )
        if line
    ]
    properties = [
        Property("UID", escape(uid)),
        Property("DTSTAMP", _utc(stamp)),
        Property("SEQUENCE", str(revision)),
        Property("DTSTART", _utc(shape.start_at)),
        Property("DTEND", _utc(shape.end_at)),
        Property("SUMMARY", escape(summary(shape))),
        Property("STATUS", "CONFIRMED"),
        Property("TRANSP", "OPAQUE"),
        Property(MARKER, escape(booking_id)),
        Property(REVISION, str(revision)),
    ]
    if about:
        properties.append(Property("DESCRIPTION", escape("\n".join(about))))
    if shape.location:
        properties.append(Property("LOCATION", escape(shape.location)))
    if shape.url and "\n" not in shape.url:
        properties.append(Property("URL", shape.url))
    event = Component("VEVENT", properties)
    head = [Property("VERSION", "2.0"), Property("PRODID", "-//Kalends//Calendar Sync//EN")]
    return render(Component("VCALENDAR", head, [event]))


def echo_of(shape: Shape) -> bytes:
    """The hash by which what comes back is known as what we wrote: start, end, status."""
    return _echo(shape.start_at, shape.end_at, "CONFIRMED")


def echo(series: Series) -> bytes:
    """The same of an event that was read. One that was made to recur, or cancelled, is another."""
    event: Instance = series.first
    if event.rules or event.extra or series.overrides:
        return b"recurring"
    return _echo(event.start.utc(), event.end(), event.status)


def _echo(start: datetime, end: datetime, status: str) -> bytes:
    return hashlib.sha256(f"{start.timestamp():.0f}|{end.timestamp():.0f}|{status}".encode()).digest()[:16]


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
