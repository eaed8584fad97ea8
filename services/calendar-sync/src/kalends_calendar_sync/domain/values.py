"""Values of iCalendar properties (RFC 5545 section 3.3): dates, times, durations, periods, offsets."""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from msgspec import Struct

_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)?(?:[.,]\d+)?(Z)?)?", re.IGNORECASE)
_DURATION: Final = re.compile(
    r"([+-])?P(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,9})S)?)?", re.IGNORECASE
)
_OFFSET: Final = re.compile(r"([+-])(\d\d):?(\d\d)(?::?(\d\d))?")
_LEAP_SECOND: Final = 60
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_WALL: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (a wall time has no zone)


class BadValueError(ValueError):
    """A value that cannot be read; says which."""


class When(Struct, frozen=True):
    """A date, or a wall time in a zone, as a property has it.

    `wall` is naive, at midnight for a date. A floating time has got the calendar's zone by then, a UTC one has UTC.
    """

    wall: datetime
    zone: tzinfo
    all_day: bool = False

    def utc(self) -> datetime:
        """The instant, by RFC 5545 3.3.5: an ambiguous time is the first one, one in a gap has the offset before it."""
        return instant(self.wall, self.zone)


class Length(Struct, frozen=True):
    """A DURATION: days are nominal (they keep the wall time), the rest is exact."""

    days: int = 0
    exact: timedelta = timedelta()

    def after(self, start: When) -> datetime:
        """The instant at which something that begins then ends."""
        wall = start.wall + timedelta(days=self.days) if self.days else start.wall
        return instant(wall, start.zone) + self.exact


def instant(wall: datetime, zone: tzinfo) -> datetime:
    """A naive wall time as UTC. A day's offset is looked up once, as series meet the same days over and over."""
    origin = _origin(zone, wall.toordinal())
    if origin is None:
        origin = EPOCH_WALL + _offset(wall, zone)
    return EPOCH + (wall - origin)


@lru_cache(maxsize=20_000)
def _origin(zone: tzinfo, day: int) -> datetime | None:
    """What the wall clock shows at the epoch, by the offset of a day; None where that changes within the day.

    It is None of the calendar's last day, too, by which some mean for ever: there is no day after it to compare with.
    """
    if day == date.max.toordinal():
        return None
    dawn = datetime.fromordinal(day)
    first = _offset(dawn, zone)
    return EPOCH_WALL + first if first == _offset(dawn + timedelta(days=1), zone) else None


def _offset(wall: datetime, zone: tzinfo) -> timedelta:
    offset = zone.utcoffset(wall.replace(tzinfo=zone))
    if offset is None:
        raise BadValueError(f"{zone} has no offset")
    return offset


def wall_time(text: str) -> tuple[datetime, bool, bool]:
    """A DATE or DATE-TIME as (naive time, is it a date, is it UTC)."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise BadValueError(f"{text[:40]!r} is no date or time")
    year, month, day, hour, minute, second, utc = found.groups()
    try:
        if hour is None:
            return datetime(int(year), int(month), int(day)), True, False  # noqa: DTZ001 (a wall time has no zone)
        seconds = min(int(second or 0), _LEAP_SECOND - 1)
        made = datetime(int(year), int(month), int(day), int(hour), int(minute), seconds)  # noqa: DTZ001
    except ValueError as error:
        raise BadValueError(f"{text[:40]!r} is no date or time") from error
    return made, False, utc is not None


def duration(text: str) -> Length:
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()[1:]):
        raise BadValueError(f"{text[:40]!r} is no duration")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
    sign = -1 if found[1] == "-" else 1
    return Length(sign * (weeks * 7 + days), sign * timedelta(hours=hours, minutes=minutes, seconds=seconds))


def offset(text: str) -> timedelta:
    found = _OFFSET.fullmatch(text.strip())
    if found is None:
        raise BadValueError(f"{text[:40]!r} is no offset from UTC")
    sign = -1 if found[1] == "-" else 1
    made = sign * timedelta(hours=int(found[2]), minutes=int(found[3]), seconds=int(found[4] or 0))
    if abs(made) >= timedelta(hours=24):
        raise BadValueError(f"{text[:40]!r} is no offset from UTC")
    return made


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 (a wall time has no zone)
