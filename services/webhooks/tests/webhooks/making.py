"""Events as booking would append them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import (
    BookingLocation,
    BookingState,
    EventTypeSnapshot,
    Guest,
    HoldState,
    HostSnapshot,
    PersonData,
    Policies,
)
from kalends_shared.contracts.events import Envelope

NOW = datetime(2026, 4, 10, 9, tzinfo=UTC)
TENANT = "acc_test-live"
EVENT_TYPE = ids.derived("evt", "visit")
HOST = ids.derived("hst", "grace")
LOCATION = BookingLocation(id=ids.derived("loc", "shop"), name="Main Shop", kind="in_person")


def state(**fields: Any) -> BookingState:
    booking_id = fields.pop("id", None) or ids.new_id("bkg")
    made = BookingState(
        id=booking_id,
        created_at=NOW,
        updated_at=NOW,
        version=1,
        event_type_id=EVENT_TYPE,
        start_at=NOW + timedelta(days=1),
        end_at=NOW + timedelta(days=1, minutes=30),
        status="confirmed",
        seats=1,
        host_ids=[HOST],
        resource_ids=[],
        person_id=ids.derived("per", booking_id),
        person_version=ids.derived("v", booking_id),
        location=LOCATION,
        metadata=msgspec.Raw(b'{"1":1,"plan":"gold","price":1e+21}'),
        event_type=EventTypeSnapshot(id=EVENT_TYPE, slug="visit", title="Visit", duration_minutes=30),
        hosts=[
            HostSnapshot(
                id=HOST,
                name="Grace Hopper",
                email="grace@example.test",
                timezone="Europe/Madrid",
                limits_timezone="UTC",
            )
        ],
        policies=Policies(),
    )
    return msgspec.structs.replace(made, **fields)


def person(booking: BookingState, **fields: Any) -> PersonData:
    made = PersonData(
        person_id=booking.person_id,
        name="Ada Lovelace King",
        email="ada@example.test",
        phone="+34 600",
        timezone="Europe/London",
        guests=[Guest(name="Bob", email="bob@example.test")],
        answers=msgspec.Raw('{"2":"two","why":"“tea”"}'.encode()),
    )
    return msgspec.structs.replace(made, **fields)


def hold(**fields: Any) -> HoldState:
    booking = state()
    made = HoldState(
        id=ids.new_id("hld"),
        created_at=NOW,
        updated_at=NOW,
        version=2,
        event_type_id=EVENT_TYPE,
        start_at=booking.start_at,
        end_at=booking.end_at,
        host_ids=[HOST],
        seats=1,
        ttl_seconds=300,
        status="expired",
        expires_at=NOW + timedelta(minutes=5),
        event_type=booking.event_type,
        hosts=booking.hosts,
        policies=booking.policies,
    )
    return msgspec.structs.replace(made, **fields)


def envelope(
    kind: str, about: Any, data: Any = None, *, people: dict[str, PersonData] | None = None, **fields: Any
) -> Envelope:
    return Envelope(
        **{
            "id": ids.new_id("ev"),
            "type": kind,
            "source": "booking",
            "tenant_id": TENANT,
            "stream_id": about if isinstance(about, str) else about.id,
            "version": 1,
            "tx": 1,
            "position": 1,
            "occurred_at": NOW,
            "data": msgspec.Raw(msgspec.json.encode(data or {"previous": None})),
            "state": msgspec.Raw(b"{}" if isinstance(about, str) else msgspec.json.encode(about)),
            "people": {name: msgspec.Raw(msgspec.json.encode(one)) for name, one in (people or {}).items()},
            **fields,
        }
    )


def of_booking(kind: str, booking: BookingState, data: Any = None, **fields: Any) -> Envelope:
    """A booking's event with its attendee data, as the relay publishes it."""
    return envelope(kind, booking, data, people={booking.person_version: person(booking)}, **fields)
