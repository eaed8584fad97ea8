"""Limits count by the local date of the host's own zone."""

from datetime import UTC, datetime

import pytest

from kalends_booking.domain.periods import around


@pytest.mark.parametrize(
    ("at", "period", "zone", "first", "after"),
    [
        ("2026-04-10T12:00Z", "day", "UTC", "2026-04-10T00:00Z", "2026-04-11T00:00Z"),
        ("2026-04-10T23:30Z", "day", "Europe/Madrid", "2026-04-10T22:00Z", "2026-04-11T22:00Z"),
        ("2026-03-29T12:00Z", "day", "Europe/Madrid", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),
        ("2026-04-12T12:00Z", "week", "UTC", "2026-04-06T00:00Z", "2026-04-13T00:00Z"),
        ("2026-12-31T12:00Z", "week", "UTC", "2026-12-28T00:00Z", "2027-01-04T00:00Z"),
        ("2026-02-10T12:00Z", "month", "UTC", "2026-02-01T00:00Z", "2026-03-01T00:00Z"),
        ("2026-12-10T12:00Z", "month", "UTC", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("2026-12-31T23:30Z", "year", "Asia/Tokyo", "2026-12-31T15:00Z", "2027-12-31T15:00Z"),
    ],
)
def test_periods(at: str, period: str, zone: str, first: str, after: str) -> None:
    def instant(text: str) -> datetime:
        return datetime.fromisoformat(text).astimezone(UTC)

    assert around(instant(at), period, zone) == (instant(first), instant(after))  # type: ignore[arg-type]
