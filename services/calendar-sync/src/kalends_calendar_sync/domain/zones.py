"""Which zone a TZID means.

A name of the pinned tzdata package counts before the VTIMEZONE that comes with it, since those are often cut short or
out of date; names that only one program knows (Windows' ones, Mozilla's prefixes) are told apart by what they hold; what
is then left is read from the VTIMEZONE; and a zone nobody knows is the calendar's own.
"""

import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from kalends_calendar_sync.domain import rules
from kalends_calendar_sync.domain.content import Component
from kalends_calendar_sync.domain.values import BadValueError, offset, wall_time
from kalends_calendar_sync.domain.windows import IANA
from kalends_shared.contracts.checks import zones as names

_FIXED: Final = re.compile(r"(?:UTC|GMT|Etc/GMT)?\s*\(?([+-]\d\d?)(?::?(\d\d))?\)?", re.IGNORECASE)
# Windows begins its rules in 1601: only the years that can matter are expanded.
_FROM: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (a wall time has no zone)
_TO: Final = datetime(2060, 1, 1)  # noqa: DTZ001


@cache
def _folded() -> dict[str, str]:
    return {name.casefold(): name for name in names()} | {name.casefold(): zone for name, zone in IANA.items()}


@cache
def named(tzid: str) -> tzinfo | None:
    """The zone that a name stands for wherever it is used, or None."""
    text = tzid.strip().strip('"')
    if text.upper() in {"UTC", "Z", "GMT", "ETC/UTC"}:
        return UTC
    parts = text.strip("/").split("/")
    for count in (len(parts), 3, 2, 1):
        if count <= len(parts):
            found = _folded().get("/".join(parts[-count:]).casefold())
            if found is not None and (count > 1 or len(parts) == 1):
                return ZoneInfo(found)
    fixed = _FIXED.fullmatch(text)
    if fixed is not None and not text.lower().startswith("etc"):
        minutes = int(fixed[2] or 0)
        hours = int(fixed[1])
        if abs(hours) <= 14 and minutes < 60:
            return timezone(timedelta(hours=hours, minutes=-minutes if fixed[1].startswith("-") else minutes))
    return None


class Observed(tzinfo):
    """A zone read from a VTIMEZONE: `changes` are (wall time from which on it is, offset), ascending.

    Where the clock goes back the change is at the later reading, where it goes forward after the gap: so an ambiguous
    time is the first one and a time in a gap has the offset before it, as RFC 5545 3.3.5 wants.
    """

    def __init__(self, name: str, before: timedelta, changes: list[tuple[datetime, timedelta]]) -> None:
        self._name = name
        self._walls = [wall for wall, _ in changes]
        self._offsets = [before, *(to for _, to in changes)]

    def utcoffset(self, moment: datetime | None, /) -> timedelta | None:
        if moment is None:
            return None
        return self._offsets[bisect_right(self._walls, moment.replace(tzinfo=None))]

    def dst(self, _: datetime | None, /) -> timedelta | None:
        return None

    def tzname(self, _: datetime | None, /) -> str:
        return self._name


class Zones:
    """The zones of one calendar resource: its VTIMEZONEs, and the calendar's own for floating and unknown ones."""

    def __init__(self, resource: Component, own: tzinfo) -> None:
        self.own = own
        self._described = {(z.text("TZID") or "").strip(): z for z in resource.within("VTIMEZONE")}
        self._known: dict[str, tzinfo] = {}

    def of(self, tzid: str | None) -> tzinfo:
        if not tzid:
            return self.own
        found = self._known.get(tzid)
        if found is None:
            found = self._known[tzid] = self._find(tzid)
        return found

    def _find(self, tzid: str) -> tzinfo:
        zone = named(tzid)
        if zone is not None:
            return zone
        described = self._described.get(tzid.strip())
        if described is not None:
            location = described.text("X-LIC-LOCATION")
            zone = named(location) if location else None
            if zone is None:
                zone = observed(described)
        return zone or self.own


def observed(described: Component) -> tzinfo | None:
    """The zone that a VTIMEZONE describes; None where it describes none."""
    changes: list[tuple[datetime, timedelta, timedelta]] = []
    for part in described.children:
        try:
            changes.extend(_changes(part))
        except BadValueError:
            continue
    if not changes:
        return None
    changes.sort(key=lambda change: change[0])
    first = changes[0]
    walls = [(max(onset, onset + to - before), to) for onset, before, to in changes]
    return Observed(described.text("TZID") or "", first[1], walls)


def _changes(part: Component) -> list[tuple[datetime, timedelta, timedelta]]:
    """The onsets of one STANDARD or DAYLIGHT block: (wall time before the change, offset before, offset after)."""
    start, before, to = part.first("DTSTART"), part.first("TZOFFSETFROM"), part.first("TZOFFSETTO")
    if part.name not in {"STANDARD", "DAYLIGHT"} or start is None or before is None or to is None:
        return []
    onset, _, _ = wall_time(start.value)
    was, is_now = offset(before.value), offset(to.value)
    onsets = {onset}
    for extra in part.every("RDATE"):
        onsets.update(wall_time(value)[0] for value in extra.value.split(","))
    for line in part.every("RRULE"):
        rule = rules.parse(line.value)
        last = rule.until
        until = None if last is None else last[0] + was if last[2] else last[0]
        onsets.update(rules.occurrences(rule, onset, until, _FROM, _TO))
    return [(onset, was, is_now) for onset in onsets]
