"""Wall time and instants. Instants are whole UTC minutes since 1970, days are days since 1970 (day 0 was a Thursday).

Zone rules are those of the pinned tzdata package, never the machine's. Most days of a zone are plain: one offset from
midnight to midnight. Only the others ask zoneinfo for every time of day.
"""

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

zoneinfo.reset_tzpath(())

DAY: Final = 1440
_EPOCH: Final = date(1970, 1, 1).toordinal()
_ORIGIN: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - wall time, to which zones are attached below
# Days that zoneinfo can place in every zone; nothing is offered outside them.
FIRST_DAY: Final = date(1970, 1, 3).toordinal() - _EPOCH
LAST_DAY: Final = date(9998, 12, 31).toordinal() - _EPOCH

# No zone has two changes of offset within this many minutes, and none has set its clocks back by more (since 1970).
_QUIET: Final = 300
_KEPT_DAYS: Final = 4096

Interval = tuple[int, int]


class Piece(NamedTuple):
    """Instants `[start, end)` of one local date under one offset (minutes east of UTC)."""

    start: int
    end: int
    offset: int


def day_of(value: date) -> int:
    return value.toordinal() - _EPOCH


def date_of(day: int) -> date:
    return date.fromordinal(day + _EPOCH)


def weekday(day: int) -> int:
    """Monday is 0."""
    return (day + 3) % 7


def minute_of(at: datetime) -> int:
    """The minute in which an instant lies."""
    return int(at.timestamp() // 60)


def minute_after(at: datetime) -> int:
    """The first whole minute that is not before an instant."""
    return int(-(-at.timestamp() // 60))


def instant_of(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


@lru_cache(maxsize=1024)
def zone(name: str) -> "Zone":
    return Zone(name)


class Zone:
    """One IANA zone."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._info = zoneinfo.ZoneInfo(name)
        self._plain: dict[int, int | None] = {}
        self._pieces: dict[int, tuple[Piece, ...]] = {}

    def instant(self, day: int, minute: int) -> int:
        """Wall time to an instant by RFC 5545 3.3.5: an ambiguous time is its first, one in a gap takes the offset before."""
        return day * DAY + minute - self._wall_offset(day, minute)

    def midnight(self, day: int) -> int | None:
        """The instant of 00:00 on a plain day, where wall minute m is midnight + m; None on any other."""
        try:
            return self._plain[day]
        except KeyError:
            if len(self._plain) >= _KEPT_DAYS:
                self._plain.clear()
            offset = self._wall_offset(day, 0)
            even = all(self._wall_offset(day, m) == offset for m in (360, 720, 1080, DAY))
            found = self._plain[day] = day * DAY - offset if even else None
            return found

    def skips(self, day: int) -> bool:
        """Tells whether the zone has no such date, as Samoa has no 30 December 2011."""
        return self.instant(day + 1, 0) <= self.instant(day, 0)

    def offset(self, at: int) -> int:
        """Minutes east of UTC at an instant."""
        return _minutes(datetime.fromtimestamp(at * 60, self._info).utcoffset())

    def local_day(self, at: int) -> int:
        """The local date of an instant."""
        return self.day_at(at)[0]

    def day_at(self, at: int) -> tuple[int, int, int]:
        """The local date of an instant, and the instants `[start, end)` around it that are of it too."""
        guess = at // DAY
        for day in (guess, guess - 1, guess + 1):
            for piece in self.pieces(day):
                if piece.start <= at < piece.end:
                    return day, piece.start, piece.end
        return (at + self.offset(at)) // DAY, at, at + 1

    def pieces(self, day: int) -> tuple[Piece, ...]:
        """The instants of a local date, ascending: one piece on a plain day, none of a date that is skipped."""
        try:
            return self._pieces[day]
        except KeyError:
            if len(self._pieces) >= _KEPT_DAYS:
                self._pieces.clear()
            found = self._pieces[day] = tuple(self._find(day))
            return found

    def spans(self, first: int, last: int) -> list[Interval]:
        """The instants whose local date lies in `[first, last]`, both included, ascending."""
        if last < first:
            return []
        head, tail = self.pieces(first), self.pieces(last)
        spans = [(p.start, p.end) for p in head]
        if last > first:
            inner = (
                max((p.end for p in head), default=self.instant(first, 0)),
                min((p.start for p in tail), default=self.instant(last, 0)),
            )
            if inner[0] < inner[1]:
                spans.append(inner)
            spans += [(p.start, p.end) for p in tail]
        return sorted(spans)

    def _find(self, day: int) -> Iterator[Piece]:
        start = self.midnight(day)
        if start is not None:
            offset = day * DAY - start
            if self.offset(start - _QUIET) == offset == self.offset(start + DAY + _QUIET):
                yield Piece(start, start + DAY, offset)
                return
        for low, high, offset in self._runs((day - 2) * DAY, (day + 3) * DAY):
            first, end = max(low, day * DAY - offset), min(high, (day + 1) * DAY - offset)
            if first < end:
                yield Piece(first, end, offset)

    def _runs(self, low: int, high: int) -> Iterator[Piece]:
        """The stretches of one offset within `[low, high)`."""
        begun, offset = low, self.offset(low)
        for at in range(low, high, _QUIET):
            end = min(at + _QUIET, high)
            if (then := self.offset(end)) != offset:
                before, after = at, end
                while after - before > 1:
                    middle = (before + after) // 2
                    if self.offset(middle) == offset:
                        before = middle
                    else:
                        after = middle
                yield Piece(begun, after, offset)
                begun, offset = after, then
        if begun < high:
            yield Piece(begun, high, offset)

    def _wall_offset(self, day: int, minute: int) -> int:
        return _minutes(self._info.utcoffset(_ORIGIN + timedelta(day, 0, 0, 0, minute)))


def _minutes(offset: timedelta | None) -> int:
    assert offset is not None  # every zone of the database has one at every time
    return offset.days * DAY + offset.seconds // 60
