"""The periods in which limits count: days, ISO weeks, months and years of a host's own zone, as instants."""

import zoneinfo
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from kalends_shared.contracts.availability import Period

# Zone rules are those of the pinned tzdata package, never the machine's.
zoneinfo.reset_tzpath(())


def around(at: datetime, period: Period, zone: str) -> tuple[datetime, datetime]:
    """The period of that zone in which an instant lies, as [from, to)."""
    tz = ZoneInfo(zone)
    day = at.astimezone(tz).date()
    match period:
        case "day":
            first, after = day, day + timedelta(days=1)
        case "week":
            first = day - timedelta(days=day.weekday())
            after = first + timedelta(days=7)
        case "month":
            first = day.replace(day=1)
            after = (first + timedelta(days=31)).replace(day=1)
        case "year":
            first, after = date(day.year, 1, 1), date(day.year + 1, 1, 1)
    return _midnight(first, tz), _midnight(after, tz)


def _midnight(day: date, tz: ZoneInfo) -> datetime:
    # fold=0: the first of two midnights, and in a gap the offset before it (RFC 5545 3.3.5).
    return datetime(day.year, day.month, day.day, tzinfo=tz).astimezone(UTC)
