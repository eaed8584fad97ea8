"""Rules 1 to 3: a schedule's working windows, what is taken away from them, and the grid of starts."""

from collections.abc import Iterable, Sequence

from kalends_availability.domain.bits import Frame, every_nth, filled, lasting, merged
from kalends_availability.domain.memo import SERIALS, BitMemo
from kalends_availability.domain.zones import DAY, Interval, Zone, day_of, minute_after, minute_of, weekday, zone
from kalends_shared.contracts.availability import Away, Override, Schedule, WeeklyWindow

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# The windows of a day in wall minutes: as written, and with those joined that overlap or touch.
Day = tuple[tuple[Interval, ...], tuple[Interval, ...]]


class Timetable:
    """A schedule made ready for computing. It never changes: a schedule that is edited makes another one."""

    def __init__(self, schedule: Schedule, memo: BitMemo) -> None:
        self.zone = zone(schedule.timezone)
        self._week = _week(schedule.weekly)
        self._overrides = {day_of(o.date): _override(o) for o in schedule.overrides}
        self._travel = sorted((day_of(t.start_date), day_of(t.end_date), zone(t.timezone)) for t in schedule.travel)
        self._memo = memo
        self._serial = next(SERIALS)

    def overrides(self, day: int) -> bool:
        return day in self._overrides

    def zone_on(self, day: int) -> Zone:
        """The zone of a date's wall times."""
        for first, last, away in self._travel:
            if first <= day <= last:
                return away
        return self.zone

    def windows(self, first: int, last: int) -> list[Interval]:
        """Rule 1: the windows of the dates `[first, last]` as instants, date by date; those of one date are disjoint."""
        out: list[Interval] = []
        for day in range(first, last + 1):
            raw, joined = self._overrides.get(day) or self._week[weekday(day)]
            if not raw:
                continue
            where = self.zone_on(day) if self._travel else self.zone
            midnight = where.midnight(day)
            if midnight is not None:
                out += [(midnight + start, midnight + end) for start, end in joined]
            elif not where.skips(day):
                instants = ((where.instant(day, start), where.instant(day, end)) for start, end in raw)
                out += merged((start, end) for start, end in instants if start < end)
        return out

    def hours(self, frame: Frame) -> int:
        """Working time before anything is taken away."""
        return self._memo.get(
            (self._serial, 0, frame.base, frame.size), lambda: filled(frame, sorted(self._near(frame)))
        )

    def fit(self, frame: Frame, minutes: int) -> int:
        """Rule 4 where nothing is taken away: the starts from which on that many minutes are working time."""
        return self._memo.get(
            (self._serial, 1, frame.base, frame.size, minutes), lambda: lasting(self.hours(frame), minutes)
        )

    def grid(self, frame: Frame, interval: int, offset: int) -> int:
        """Rule 3: in each window of each date, `start + offset + k * interval`, below the window's end."""
        return self._memo.get(
            (self._serial, 2, frame.base, frame.size, interval, offset), lambda: self._grid(frame, interval, offset)
        )

    def _near(self, frame: Frame) -> list[Interval]:
        # A local date lies within a day of the date of UTC that has its number, whatever the zone.
        return self.windows(frame.base // DAY - 1, frame.end // DAY + 1)

    def _grid(self, frame: Frame, interval: int, offset: int) -> int:
        bits = 0
        for start, end in self._near(frame):
            first = start + offset
            count = -((first - end) // interval)
            if count <= 0:
                continue
            at = first - frame.base
            if at >= 0:
                bits |= every_nth(interval, count) << at
            else:
                # A window begun before the frame: its later starts lie inside, in step with its beginning.
                skipped = -(at // interval)
                if skipped < count:
                    bits |= every_nth(interval, count - skipped) << (at + skipped * interval)
        return bits & frame.every


def away_time(periods: Iterable[Away], where: Zone) -> list[Interval]:
    """Rule 2: away periods as instants; dates are whole local dates of the host's own schedule's zone."""
    out: list[Interval] = []
    for away in periods:
        if away.start_at is not None and away.end_at is not None:
            out.append((minute_of(away.start_at), minute_after(away.end_at)))
        elif away.start_date is not None and away.end_date is not None:
            out += where.spans(day_of(away.start_date), day_of(away.end_date))
    return merged(out)


def _week(weekly: Sequence[WeeklyWindow]) -> list[Day]:
    days: list[list[Interval]] = [[] for _ in _WEEKDAYS]
    for window in weekly:
        for name in window.days:
            days[_WEEKDAYS.index(name)].append((clock(window.start), clock(window.end)))
    return [(tuple(windows), tuple(merged(windows))) for windows in days]


def _override(override: Override) -> Day:
    windows = [(clock(w.start), clock(w.end)) for w in override.windows]
    return tuple(windows), tuple(merged(windows))


def clock(text: str) -> int:
    """`HH:MM` as minutes from midnight; `24:00` is 1440."""
    return int(text[:2]) * 60 + int(text[3:])
