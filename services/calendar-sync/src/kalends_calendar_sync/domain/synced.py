"""One calendar object into what is kept of it: its series as events with their busy time, or why that cannot be."""

import hashlib
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from msgspec import Struct

from kalends_calendar_sync.domain import content
from kalends_calendar_sync.domain.booked import REVISION, echo
from kalends_calendar_sync.domain.busy import Interval, Window, busy, is_busy
from kalends_calendar_sync.domain.content import Component, NotACalendarError, Property
from kalends_calendar_sync.domain.rules import Rule, occurrences
from kalends_calendar_sync.domain.series import MARKER, Instance, Series, read
from kalends_calendar_sync.domain.values import BadValueError
from kalends_calendar_sync.domain.zones import Zones, named

TOO_LARGE: Final = "the object is too large"
# How far beyond the window the next occurrence of a rule that counts is looked for.
_FAR: Final = timedelta(days=3660)
_KEPT: Final = frozenset({
    "UID", "DTSTART", "DTEND", "DURATION", "RECURRENCE-ID", "SEQUENCE", "RRULE", "RDATE", "EXDATE", "SUMMARY", "STATUS",
    "TRANSP", "X-MICROSOFT-CDO-BUSYSTATUS", MARKER, REVISION,
})  # fmt: skip
_STATUS: Final = {"CANCELLED": "cancelled", "TENTATIVE": "tentative"}


class Context(Struct, frozen=True):
    """What the times of a calendar depend on: its own zone, its owner's addresses, the span that is expanded."""

    zone: tzinfo
    owners: frozenset[str]
    window: Window


class Facts(Struct, frozen=True, kw_only=True):
    """A series as an event: the times of its first occurrence, and all of its busy minutes in the window."""

    title: str | None
    status: str
    start_at: datetime
    end_at: datetime
    all_day: bool
    busy: bool
    intervals: list[Interval]


class Read(Struct, frozen=True, kw_only=True):
    """One series of an object. `facts` is None where `problem` says why; `over`: it ended before the window begins.

    `source` is kept of a series that may go on beyond the window. `marker` is the booking that it says it is of,
    `echo` and `revision` tell whether it is as we wrote it.
    """

    uid: str
    hash: bytes | None = None
    facts: Facts | None = None
    over: bool = False
    source: str | None = None
    marker: str | None = None
    echo: bytes = b""
    revision: int | None = None
    problem: str | None = None


def read_object(text: str | None, context: Context) -> list[Read]:
    """Reads an object; it never fails. An object that cannot be read at all is one problem without a UID."""
    if text is None:
        return [Read(uid="", problem=TOO_LARGE)]
    try:
        resource = minimal(content.parse(text), context.owners)
        found = read(resource, Zones(resource, context.zone), context.owners)
    except (NotACalendarError, BadValueError, OverflowError, ValueError, RecursionError) as error:
        return [Read(uid="", problem=str(error)[:200])]
    source = content.render(resource)
    return [_read(series, resource, source, context) for series in found]


def _read(series: Series, resource: Component, source: str, context: Context) -> Read:
    digest = hashlib.sha256(f"{source}|{context.zone}|{sorted(context.owners)}".encode()).digest()[:16]
    try:
        facts, later = _facts(series, context.window), goes_on(series, context.window)
        return Read(
            uid=series.uid,
            hash=digest,
            facts=facts,
            over=facts.end_at <= context.window.start and not facts.intervals and not later,
            source=source if later else None,
            marker=series.marker,
            echo=echo(series),
            revision=_revision(resource, series.uid),
        )
    except (BadValueError, OverflowError, ValueError) as error:
        return Read(uid=series.uid, marker=series.marker, problem=str(error)[:200])


def _facts(series: Series, window: Window) -> Facts:
    first = series.first
    if not 1900 <= first.start.wall.year <= 9000:
        raise BadValueError("an event lies outside the years 1900 to 9000")
    start, end = first.start.utc(), first.end()
    return Facts(
        title=first.title,
        status=_STATUS.get(first.status, "confirmed"),
        start_at=start,
        end_at=max(start, end),
        all_day=first.start.all_day,
        busy=is_busy(first),
        intervals=busy(series, window),
    )


def goes_on(series: Series, window: Window) -> bool:
    """Whether the series may have occurrences beyond the window."""
    master = series.master
    if master is None:
        return False
    return any(_rule_goes_on(rule, master, window) for rule in master.rules) or any(
        start.utc() >= window.end for start, _ in master.extra
    )


def _rule_goes_on(rule: Rule, master: Instance, window: Window) -> bool:
    if rule.count is not None:
        end = window.end.replace(tzinfo=None)
        return bool(occurrences(rule, master.start.wall, None, end, end + _FAR))
    return rule.until is None or rule.until[0].replace(tzinfo=UTC) > window.end


def minimal(resource: Component, owners: frozenset[str]) -> Component:
    """The resource with nothing but what we read: no descriptions, places or other people's addresses are kept."""

    def keeps(found: Property) -> bool:
        if found.name == "ATTENDEE":
            return found.value.strip().lower().removeprefix("mailto:") in owners
        return found.name in _KEPT

    # In one order, as servers write the same event in several.
    events = [
        Component(c.name, sorted(filter(keeps, c.properties), key=lambda p: (p.name, p.value)))
        for c in resource.within("VEVENT")
    ]
    zones = {p.params.get("TZID", "") for event in events for p in event.properties}
    described = [z for z in resource.within("VTIMEZONE") if (z.text("TZID") or "") in zones]
    return Component("VCALENDAR", [], [*described, *events])


def _revision(resource: Component, uid: str) -> int | None:
    for event in resource.within("VEVENT"):
        if event.text("UID") == uid and (text := event.text(REVISION)) and text.isdecimal():
            return int(text)
    return None


def calendar_zone(described: str | None, fallback: str) -> tzinfo:
    """A calendar's own zone: what its server says (a name or a VTIMEZONE), else its host's."""
    if described:
        if not described.lstrip().upper().startswith("BEGIN:"):
            return named(described) or named(fallback) or UTC
        try:
            resource = content.parse(described)
        except NotACalendarError:
            resource = Component("VCALENDAR")
        for zone in resource.within("VTIMEZONE"):
            return Zones(resource, named(fallback) or UTC).of(zone.text("TZID"))
    return named(fallback) or UTC
