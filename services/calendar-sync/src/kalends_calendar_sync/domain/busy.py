"""Which time an event takes from its host: the busy rule, and a series' occurrences as UTC minutes."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from kalends_calendar_sync.domain.rules import DAY, occurrences
from kalends_calendar_sync.domain.series import Instance, Series
from kalends_calendar_sync.domain.values import EPOCH, Length, When

Interval = tuple[int, int]
MINUTE: Final = timedelta(minutes=1)
LONGEST_REACH: Final = 1000 * 365 * DAY  # further back nothing begins, and the calendar itself soon ends
LAST_MINUTE: Final = 2**31 - 1  # the last that a projection's integer holds, in the year 6053


class Window(Struct, frozen=True):
    """The span that is expanded, in UTC."""

    start: datetime
    end: datetime


class Occurrence(Struct, frozen=True):
    """One time at which an event takes place, in UTC."""

    start: datetime
    end: datetime
    event: Instance


def is_busy(event: Instance, tentative: bool = True) -> bool:
    """The busy rule for one occurrence; zero length is judged by the times."""
    if event.transparent or event.declined or event.status == "CANCELLED":
        return False
    return tentative or event.status != "TENTATIVE"


def busy(series: Series, window: Window, tentative: bool = True) -> list[Interval]:
    """The series' busy minutes [start, end) in the window, widened to whole minutes, merged, ascending.

    Raises:
        BadValueError: where the series cannot be expanded.
    """
    return merge(
        minutes(found.start, found.end)
        for found in expand(series, window)
        if is_busy(found.event, tentative) and found.start < found.end
    )


def minutes(start: datetime, end: datetime) -> Interval:
    """An interval as minutes since 1970, widened to whole ones, until LAST_MINUTE: some block time until the year 9999."""
    return min((start - EPOCH) // MINUTE, LAST_MINUTE), min(-((EPOCH - end) // MINUTE), LAST_MINUTE)


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    out: list[Interval] = []
    for start, end in sorted(intervals):
        if out and start <= out[-1][1]:
            if end > out[-1][1]:
                out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out


def expand(series: Series, window: Window) -> Iterator[Occurrence]:
    """The occurrences that meet the window, in no order; cancelled ones are among them, as they are."""
    replaced = {o.replaces.utc(): o for o in series.overrides if o.replaces is not None}
    replaced_days = {o.replaces.wall for o in series.overrides if o.replaces is not None and o.replaces.all_day}
    if series.master is not None:
        yield from _of_master(series.master, window, replaced, replaced_days)
    for override in series.overrides:
        if series.master is not None and override.replaces is not None and _gone(series.master, override.replaces):
            continue
        start, end = override.start.utc(), override.end()
        if start < window.end and end > window.start:
            yield Occurrence(start, end, override)


def _of_master(
    master: Instance, window: Window, replaced: dict[datetime, Instance], replaced_days: set[datetime]
) -> Iterator[Occurrence]:
    later = sorted((at, o) for at, o in replaced.items() if o.and_later) if replaced else []
    reach = max((_reach(o) for o in (master, *(o for _, o in later))), default=DAY)
    shifts = [_shift(o) for _, o in later]
    back, ahead = max([reach, *(reach + s for s in shifts)]), max([timedelta(), *(-s for s in shifts)])
    for start, end in _starts(master, Window(window.start - back, window.end + ahead)):
        at = start.utc()
        if at in replaced or (replaced_days and start.wall.replace(hour=0, minute=0, second=0) in replaced_days):
            continue
        event = master
        for since, override in later:
            if since < at:
                event = override
        if event is not master:
            start = When(start.wall + _shift(event), event.start.zone, event.start.all_day)
            at = start.utc()
        until = event.end_of(start, at) if end is None else _ending(start, end)
        if at < window.end and until > window.start:
            yield Occurrence(at, until, event)


def _reach(event: Instance) -> timedelta:
    """How long before the window an occurrence may begin and still meet it."""
    lengths = [event.end() - event.start.utc()]
    for start, end in event.extra:
        if isinstance(end, Length):
            lengths.append(end.after(start) - start.utc())
        elif end is not None:
            lengths.append(end.utc() - start.utc())
    return min(max(*lengths, timedelta()) + 2 * DAY, LONGEST_REACH)


def _shift(later: Instance) -> timedelta:
    """By how much a THISANDFUTURE override moves the occurrences from it on, in wall time."""
    if later.replaces is None:
        return timedelta()
    replaced = later.replaces.utc().astimezone(later.start.zone).replace(tzinfo=None)
    return later.start.wall - (later.replaces.wall if later.replaces.all_day else replaced)


def _ending(start: When, own: Length | When) -> datetime:
    """Where an occurrence ends that was given by a PERIOD."""
    return own.after(start) if isinstance(own, Length) else own.utc()


def _starts(master: Instance, window: Window) -> Iterator[tuple[When, Length | When | None]]:
    """The starts by DTSTART, RRULE and RDATE less EXDATE, a little beyond the window, each once."""
    zone = master.start.zone
    after = window.start.astimezone(zone).replace(tzinfo=None) - DAY
    before = window.end.astimezone(zone).replace(tzinfo=None) + DAY
    walls: dict[datetime, Length | When | None] = {}
    for rule in master.rules:
        last = _last(rule.until, master.start)
        if last is not None and last < master.start.wall:
            continue
        walls.update(dict.fromkeys(occurrences(rule, master.start.wall, last, after, before)))
    ended = master.rules and all(
        last is not None and last < master.start.wall for last in (_last(r.until, master.start) for r in master.rules)
    )
    if not ended and after <= master.start.wall < before:
        walls.setdefault(master.start.wall, None)
    for start, end in master.extra:
        wall = start.wall if start.zone is zone or start.all_day else start.utc().astimezone(zone).replace(tzinfo=None)
        if after <= wall < before:
            walls[wall] = end
    for wall, end in walls.items():
        start = When(wall, zone, master.start.all_day)
        if not _left_out(master, start):
            yield start, end


def _left_out(master: Instance, start: When) -> bool:
    if master.except_days and _day(start, master) in master.except_days:
        return True
    return bool(master.except_times) and start.utc() in master.except_times


def _gone(master: Instance, replaces: When) -> bool:
    """Whether a replaced occurrence is itself left out: a whole day that is left out leaves what was moved from it."""
    if master.start.all_day:
        return _day(replaces, master) in master.except_days
    return replaces.utc() in master.except_times


def _day(start: When, master: Instance) -> datetime:
    wall = start.wall if start.all_day else start.utc().astimezone(master.start.zone).replace(tzinfo=None)
    return wall.replace(hour=0, minute=0, second=0)


def _last(until: tuple[datetime, bool, bool] | None, start: When) -> datetime | None:
    """UNTIL as the last wall time, included: a date means the whole of it."""
    if until is None:
        return None
    wall, is_date, is_utc = until
    if start.all_day:
        return wall.replace(hour=0, minute=0, second=0)
    if is_date:
        return wall + DAY - timedelta(seconds=1)
    return wall.replace(tzinfo=UTC).astimezone(start.zone).replace(tzinfo=None) if is_utc else wall


def horizon(now: datetime, days: int = 730) -> Window:
    """The span that is kept expanded: from the day before yesterday to as far as a booking window reaches and a day."""
    dawn = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Window(dawn - 2 * DAY, dawn + (days + 2) * DAY)
