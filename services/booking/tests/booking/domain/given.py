"""Bookings and holds to start from, and what is expected of a refusal."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from kalends_booking.domain import booking
from kalends_booking.domain.decision import Decision
from kalends_shared.contracts.booking import BookingState, EventTypeSnapshot, HostSnapshot, Payment, Policies
from kalends_shared.contracts.errors import KalendsError

MADE = datetime(2026, 4, 1, 9, tzinfo=UTC)
NOON = datetime(2026, 4, 10, 12, tzinfo=UTC)
ONE = NOON + timedelta(hours=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def booked(status: str = "confirmed", policies: dict[str, Any] | None = None, **fields: Any) -> BookingState:
    """A booking from noon to one; `policies` on top of those of a plain event type."""
    rules = Policies(**(policies or {}))
    if fields.get("payment"):
        rules = replace(rules, requires_payment=True)
    elif status == "pending":
        rules = replace(rules, requires_confirmation=True, approved=False)
    made = BookingState(
        id="bkg_1",
        created_at=MADE,
        updated_at=MADE,
        version=1,
        event_type_id="evt_1",
        start_at=NOON,
        end_at=ONE,
        status=status,  # type: ignore[arg-type]
        seats=1,
        host_ids=["hst_ann"],
        resource_ids=[],
        person_id="per_1",
        person_version="v_1",
        event_type=EventTypeSnapshot(id="evt_1", slug="visit", title="Visit", duration_minutes=60),
        hosts=[HostSnapshot(id="hst_ann", name="Ann")],
        policies=rules,
    )
    return replace(made, **fields)


def unpaid(**fields: Any) -> BookingState:
    return booked("pending", **{"payment": Payment(status="pending", amount=1500, currency="EUR"), **fields})


def after(decision: Decision | None) -> BookingState:
    assert decision is not None
    state = decision.choices[0].changes[-1].after
    assert isinstance(state, BookingState)
    return state


def events(decision: Decision | None) -> list[str]:
    assert decision is not None
    return [change.event.TYPE for change in decision.choices[0].changes]


def completed(at: datetime = ONE) -> BookingState:
    return after(booking.tick(booked(), at))


@contextmanager
def refused(code: str, **extra: Any) -> Iterator[None]:
    with pytest.raises(KalendsError) as caught:
        yield
    assert caught.value.code == code
    assert {name: caught.value.extra.get(name) for name in extra} == extra
