"""Events of a calendar as series: what one resource says of one UID, typed, and nothing that has no meaning for us."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from kalends_calendar_sync.domain import rules
from kalends_calendar_sync.domain.content import Component, Property
from kalends_calendar_sync.domain.rules import Rule
from kalends_calendar_sync.domain.values import BadValueError, Length, When, duration, wall_time
from kalends_calendar_sync.domain.zones import Zones

MARKER: Final = "X-KALENDS-BOOKING"
_NOT_BUSY: Final = {"FREE", "WORKINGELSEWHERE"}
_MAX_DATES: Final = 5_000


class Instance(Struct, frozen=True, kw_only=True):
    """One VEVENT: the series itself, or what replaces one occurrence of it (`replaces`), or it and all later ones.

    `until` is where it ends, or `length` how long it lasts; neither: an all-day one lasts its day, a timed one no time.
    """

    uid: str
    start: When
    until: When | None = None
    length: Length | None = None
    replaces: When | None = None
    and_later: bool = False
    sequence: int = 0
    rules: tuple[Rule, ...] = ()
    extra: tuple[tuple[When, Length | When | None], ...] = ()
    except_times: frozenset[datetime] = frozenset()
    except_days: frozenset[datetime] = frozenset()
    title: str | None = None
    status: str = "CONFIRMED"
    transparent: bool = False
    declined: bool = False
    marker: str | None = None

    def end(self) -> datetime:
        """The instant at which its own first occurrence ends."""
        return self.end_of(self.start, self.start.utc())

    def end_of(self, start: When, at: datetime) -> datetime:
        """The instant at which an occurrence ends that begins then, at the instant `at`.

        A length of days, and of all-day events, is nominal; one given by an end is exact, since start and end of a
        later occurrence would otherwise fall together, or change places, where the clock goes forward.
        """
        if self.length is not None:
            return self.length.after(start)
        if start.all_day:
            return Length(days=1 if self.until is None else (self.until.wall - self.start.wall).days).after(start)
        if self.until is None:
            return at
        if start.wall == self.start.wall:
            written = self.until.utc()
            if written >= at:
                return written
        return at + self._exact

    @property
    def _exact(self) -> timedelta:
        """How long it lasts by its end: as the clock shows it where that is one clock."""
        assert self.until is not None
        if self.until.zone is self.start.zone:
            return self.until.wall - self.start.wall
        return self.until.utc() - self.start.utc()


class Series(Struct, frozen=True, kw_only=True):
    """All that a resource says of one UID; `master` is None where only replaced occurrences are there."""

    uid: str
    master: Instance | None
    overrides: tuple[Instance, ...] = ()

    @property
    def first(self) -> Instance:
        return self.master or self.overrides[0]

    @property
    def marker(self) -> str | None:
        return next((i.marker for i in (self.master, *self.overrides) if i is not None and i.marker), None)


def read(resource: Component, zones: Zones, owners: frozenset[str]) -> list[Series]:
    """The series of one calendar resource. `owners` are the calendar owner's addresses in lower case.

    Raises:
        BadValueError: where an event in it cannot be understood.
    """
    masters: dict[str, Instance] = {}
    overrides: dict[str, dict[datetime, Instance]] = {}
    for component in resource.within("VEVENT"):
        made = instance(component, zones, owners)
        if made.replaces is None:
            known = masters.get(made.uid)
            if known is None or made.sequence >= known.sequence:
                masters[made.uid] = made
        else:
            by_time = overrides.setdefault(made.uid, {})
            known = by_time.get(made.replaces.utc())
            if known is None or made.sequence >= known.sequence:
                by_time[made.replaces.utc()] = made
    return [
        Series(uid=uid, master=masters.get(uid), overrides=tuple(overrides.get(uid, {}).values()))
        for uid in dict.fromkeys([*masters, *overrides])
    ]


def instance(component: Component, zones: Zones, owners: frozenset[str]) -> Instance:
    """Reads one VEVENT."""
    uid, begins = component.text("UID"), component.first("DTSTART")
    if not uid or begins is None:
        raise BadValueError(f"an event has no {'DTSTART' if uid else 'UID'}")
    start = when(begins, zones)
    ends, lasts, replaces = component.first("DTEND"), component.first("DURATION"), component.first("RECURRENCE-ID")
    times, days = _exceptions(component, zones, start)
    return Instance(
        uid=uid[:1000],
        start=start,
        until=_end(start, when(ends, zones)) if ends else None,
        length=duration(lasts.value) if lasts and not ends else None,
        replaces=when(replaces, zones) if replaces else None,
        and_later=replaces is not None and replaces.params.get("RANGE", "").upper() == "THISANDFUTURE",
        sequence=_sequence(component.text("SEQUENCE")),
        rules=tuple(rules.parse(line.value) for line in component.every("RRULE")),
        extra=tuple(_extra(component, zones)),
        except_times=times,
        except_days=days,
        title=(component.text("SUMMARY") or "").strip()[:500] or None,
        status=(component.text("STATUS") or "CONFIRMED").strip().upper(),
        transparent=_transparent(component),
        declined=any(
            p.value.strip().lower().removeprefix("mailto:") in owners
            and p.params.get("PARTSTAT", "").upper() == "DECLINED"
            for p in component.every("ATTENDEE")
        ),
        marker=component.text(MARKER),
    )


def when(found: Property, zones: Zones, value: str | None = None) -> When:
    """A DATE or DATE-TIME property's value in its zone; a date, and a floating time, are in the calendar's own."""
    wall, is_date, is_utc = wall_time(found.value if value is None else value)
    if is_utc:
        return When(wall, UTC)
    return When(wall, zones.own if is_date else zones.of(found.params.get("TZID")), is_date)


def _end(start: When, end: When) -> When:
    # Some programs write an end of the other kind than the start; the start's kind is the event's.
    if start.all_day and not end.all_day:
        return When(end.wall.replace(hour=0, minute=0, second=0), start.zone, all_day=True)
    return end


def _sequence(text: str | None) -> int:
    return int(text) if text and text.strip().isdecimal() else 0


def _transparent(component: Component) -> bool:
    if (component.text("TRANSP") or "").strip().upper() == "TRANSPARENT":
        return True
    return (component.text("X-MICROSOFT-CDO-BUSYSTATUS") or "").strip().upper() in _NOT_BUSY


def _exceptions(component: Component, zones: Zones, start: When) -> tuple[frozenset[datetime], frozenset[datetime]]:
    """What is left out: instants, and whole days by their midnight, as wall time of the start's zone."""
    times: set[datetime] = set()
    days: set[datetime] = set()
    for line in component.every("EXDATE"):
        for value in line.value.split(","):
            out = when(line, zones, value)
            if out.all_day:
                days.add(out.wall)
            elif start.all_day:
                # An all-day series whose exceptions are instants: the local midnights that some servers write in UTC.
                days.add(out.utc().astimezone(start.zone).replace(tzinfo=None, hour=0, minute=0, second=0))
            else:
                times.add(out.utc())
    if len(times) + len(days) > _MAX_DATES:
        raise BadValueError("an event has too many exceptions")
    return frozenset(times), frozenset(days)


def _extra(component: Component, zones: Zones) -> Iterator[tuple[When, Length | When | None]]:
    """RDATEs as (start, and for a PERIOD its length or its end)."""
    number = 0
    for line in component.every("RDATE"):
        for value in line.value.split(","):
            number += 1
            if number > _MAX_DATES:
                raise BadValueError("an event has too many dates")
            begin, _, end = value.partition("/")
            start = when(line, zones, begin)
            if not end:
                yield start, None
            elif end.lstrip("+-").upper().startswith("P"):
                yield start, duration(end)
            else:
                yield start, when(line, zones, end)
