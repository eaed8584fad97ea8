"""Sample events, which `test` sends: each type as it might be, of people and things that do not exist."""

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import (
    Booking,
    BookingLocation,
    EventTypeSnapshot,
    Hold,
    HostSnapshot,
    Payment,
    Status,
)
from kalends_shared.contracts.calendars import Calendar, CalendarEvent
from kalends_webhooks.domain.derive import Drafted
from kalends_webhooks.domain.facts import Facts, PersonRef, Recording
from kalends_webhooks.domain.subscription import Subscription, public

_STATUS: Final[dict[str, Status]] = {
    "booking.pending": "pending",
    "booking.declined": "declined",
    "booking.cancelled": "cancelled",
    "booking.completed": "completed",
    "meeting.ended": "completed",
    "booking.no_show": "no_show",
}
_MOVED: Final = frozenset({"booking.rescheduled", "booking.updated", "booking.reassigned"})


def sample(event_type: str, subscription: Subscription, now: datetime) -> Drafted:
    """An event of that type that never happened, for one subscription."""
    facts = _facts(event_type, subscription, now.replace(microsecond=0))
    return Drafted(
        id=ids.new_id("msg"),
        type=event_type,
        tenant_id=subscription.tenant_id,
        created_at=now,
        stream_id=subscription.id,
        data=msgspec.json.encode(facts),
    )


def _facts(event_type: str, subscription: Subscription, now: datetime) -> Facts:
    match event_type:
        case "hold.expired":
            return Facts(hold=_hold(now))
        case "event.created" | "event.updated" | "event.deleted":
            return Facts(event=_event(now, deleted=event_type == "event.deleted"))
        case "calendar.synced" | "calendar.disconnected":
            return Facts(calendar=_calendar(now, connected=event_type == "calendar.synced"))
        case "webhook.disabled":
            disabled = msgspec.structs.replace(public(subscription), enabled=False, disabled_reason="gone")
            return Facts(webhook=disabled, reason="gone")
        case "person.erased":
            return Facts(person=PersonRef(ids.new_id("per")))
    facts = _booking(event_type, now)
    if event_type == "payment.updated":
        facts.payment = Payment(status="paid", amount=4500, currency="EUR", reference="pay_123")
    if event_type == "recording.ready":
        facts.recording = Recording(url="https://example.com/recordings/1", duration_seconds=1800)
    return facts


def _booking(event_type: str, now: datetime) -> Facts:
    start = now.replace(minute=0, second=0) + timedelta(days=1)
    kind = EventTypeSnapshot(id=ids.new_id("evt"), slug="consultation", title="Consultation", duration_minutes=30)
    host = HostSnapshot(id=ids.new_id("hst"), name="Grace Hopper", email="grace@example.com", timezone="UTC")
    location = BookingLocation(id=ids.new_id("loc"), name="Main Street", kind="in_person", address="1 Main Street")
    booking = Booking(
        id=ids.new_id("bkg"),
        created_at=now,
        updated_at=now,
        version=1,
        event_type_id=kind.id,
        start_at=start,
        end_at=start + timedelta(minutes=30),
        status=_STATUS.get(event_type, "confirmed"),
        booker_name="Ada Lovelace",
        booker_email="ada@example.com",
        booker_timezone="Europe/London",
        host_id=host.id,
        host_ids=[host.id],
        person_id=ids.new_id("per"),
        location_id=location.id,
        location=location,
    )
    other = ids.new_id("hst")
    earlier: dict[str, Any] = {"start_at": start - timedelta(hours=1), "end_at": start - timedelta(minutes=30)}
    if event_type == "booking.reassigned":
        earlier = {"host_id": other, "host_ids": [other]}
    previous = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in earlier.items()}
    return Facts(
        booking=booking,
        event_type=kind,
        host=host,
        location=location,
        previous=previous if event_type in _MOVED else None,
    )


def _hold(now: datetime) -> Hold:
    start = now.replace(minute=0, second=0) + timedelta(days=1)
    host = ids.new_id("hst")
    return Hold(
        id=ids.new_id("hld"),
        created_at=now - timedelta(minutes=5),
        updated_at=now,
        version=2,
        event_type_id=ids.new_id("evt"),
        start_at=start,
        end_at=start + timedelta(minutes=30),
        host_id=host,
        host_ids=[host],
        ttl_seconds=300,
        status="expired",
        expires_at=now,
    )


def _event(now: datetime, *, deleted: bool) -> CalendarEvent:
    start = now.replace(minute=0, second=0) + timedelta(days=1)
    return CalendarEvent(
        id=ids.new_id("cev"),
        created_at=now,
        updated_at=now,
        version=2 if deleted else 1,
        calendar_id=ids.new_id("cal"),
        host_id=ids.new_id("hst"),
        source="provider",
        status="cancelled" if deleted else "confirmed",
        title="Dentist",
        start_at=start,
        end_at=start + timedelta(hours=1),
    )


def _calendar(now: datetime, *, connected: bool) -> Calendar:
    return Calendar(
        id=ids.new_id("cal"),
        created_at=now,
        updated_at=now,
        version=1,
        host_id=ids.new_id("hst"),
        provider="caldav",
        url="https://calendar.example.com/dav/",
        status="connected" if connected else "disconnected",
        last_synced_at=now,
    )
