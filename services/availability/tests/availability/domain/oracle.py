"""slots.md once more, as plainly as it can be said: a walk over the minutes with datetime and zoneinfo.

It shares no code with the engine, only the public settings (contracts). It is slow on purpose.
"""

import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

import holidays

from kalends_shared.contracts.availability import EventType, Host, Resource, Schedule

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@dataclass
class Taken:
    """A booking or hold in force: whom it takes, for which time, reserving how much around it."""

    id: str
    event_type_id: str
    start: datetime
    end: datetime
    host_ids: list[str]
    before: int = 0
    after: int = 0
    seats: int = 1
    units: list[tuple[str, int]] = field(default_factory=list)
    expires_at: datetime | None = None

    @property
    def reserves(self) -> tuple[datetime, datetime]:
        return self.start - self.before * MINUTE, self.end + self.after * MINUTE


@dataclass
class World:
    event_type: EventType
    hosts: Mapping[str, Host]
    schedules: Mapping[str, Schedule]
    resources: Mapping[str, Resource] = field(default_factory=dict)
    taken: list[Taken] = field(default_factory=list)
    external: dict[str, list[tuple[datetime, datetime]]] = field(default_factory=dict)
    stale: frozenset[str] = frozenset()


@dataclass
class Question:
    now: datetime
    zone: str
    first: date
    last: date
    minutes: int
    seats: int = 1
    host_id: str | None = None
    ignored: frozenset[str] = frozenset()


def local(at: datetime, zone: str) -> date:
    return at.astimezone(zoneinfo.ZoneInfo(zone)).date()


def written(at: datetime, zone: str) -> str:
    """RFC 3339 in the zone's wall time."""
    return at.astimezone(zoneinfo.ZoneInfo(zone)).isoformat().replace("+00:00", "Z")


def number(at: datetime) -> int:
    return int(at.timestamp()) // 60


def moment(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


def dates(first: date, last: date) -> Iterator[date]:
    while first <= last:
        yield first
        first += DAY


@lru_cache(maxsize=10_000)
def exists(day: date, zone: str) -> bool:
    noon = datetime.combine(day, time(12), tzinfo=UTC)
    return any(local(noon + timedelta(minutes=15 * n), zone) == day for n in range(-28 * 4, 28 * 4))


def wall(day: date, clock: str, zone: str) -> datetime:
    hours, minutes = map(int, clock.split(":"))
    naive = datetime.combine(day, time()) + timedelta(hours=hours, minutes=minutes)
    return naive.replace(tzinfo=zoneinfo.ZoneInfo(zone), fold=0).astimezone(UTC)


def zone_of(schedule: Schedule, day: date) -> str:
    for journey in schedule.travel:
        if journey.start_date <= day <= journey.end_date:
            return journey.timezone
    return schedule.timezone


def windows(schedule: Schedule, day: date) -> list[tuple[datetime, datetime]]:
    """Rule 1 for one date."""
    zone = zone_of(schedule, day)
    if not exists(day, zone):
        return []
    overrides = [o for o in schedule.overrides if o.date == day]
    name = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][day.weekday()]
    if overrides:
        raw = [(w.start, w.end) for w in overrides[0].windows]
    else:
        raw = [(w.start, w.end) for w in schedule.weekly if name in w.days]
    found = sorted((wall(day, start, zone), wall(day, end, zone)) for start, end in raw)
    found = [(start, end) for start, end in found if end > start]
    joined: list[tuple[datetime, datetime]] = []
    for start, end in found:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


class Oracle:
    def __init__(self, world: World, ask: Question) -> None:
        self.world, self.ask = world, ask
        self.kind = world.event_type
        # Whole days on either side, as zones differ by up to 26 hours and a slot may last a day.
        self.days = list(dates(ask.first - 3 * DAY, ask.last + 3 * DAY))
        named = [world.hosts[h.host_id] for h in self.kind.hosts]
        self.narrowed = [h for h in named if ask.host_id in {None, h.id}]
        self.active = [h for h in self.narrowed if h.active]
        self.zone = self.own_zone(named[0])
        if self.kind.schedule_id:
            self.zone = world.schedules[self.kind.schedule_id].timezone
        self.taken = [
            t for t in world.taken if t.id not in ask.ignored and (t.expires_at is None or ask.now < t.expires_at)
        ]
        self._minutes: dict[str, set[int]] = {}
        self._grids = {h.id: self.grid(h) for h in self.narrowed}
        self._work = {h.id: self.work(h) for h in self.narrowed}

    def own(self, host: Host) -> Schedule | None:
        return self.world.schedules[host.schedule_id] if host.schedule_id else None

    def own_zone(self, host: Host) -> str:
        own = self.own(host)
        return own.timezone if own else host.timezone or "UTC"

    def in_force(self, host: Host) -> Schedule | None:
        return self.world.schedules[self.kind.schedule_id] if self.kind.schedule_id else self.own(host)

    # --- rules 1 to 4

    def minutes_of(self, schedule: Schedule) -> set[int]:
        """Working minutes, each counted from 1970."""
        if schedule.id not in self._minutes:
            found: set[int] = set()
            for day in self.days:
                for start, end in windows(schedule, day):
                    found.update(range(number(start), number(end)))
            self._minutes[schedule.id] = found
        return self._minutes[schedule.id]

    def work(self, host: Host) -> set[int]:
        schedule = self.in_force(host)
        if schedule is None:
            return set()
        minutes = self.minutes_of(schedule)
        own, zone = self.own(host), self.own_zone(host)
        if self.kind.restriction_schedule_id:
            minutes = minutes & self.minutes_of(self.world.schedules[self.kind.restriction_schedule_id])
        if own is None:
            return minutes
        if own.holidays:
            public = holidays.country_holidays(own.holidays.country, subdiv=own.holidays.subdivision)
            free = {d for d in self.days if d in public and d not in {o.date for o in schedule.overrides}}
            minutes = {m for m in minutes if local(moment(m), zone) not in free} if free else minutes
        for away in own.away:
            if away.start_at and away.end_at:
                start, end = away.start_at, away.end_at
                minutes = {m for m in minutes if not start < moment(m + 1) or not moment(m) < end}
            elif away.start_date and away.end_date:
                minutes = {m for m in minutes if not away.start_date <= local(moment(m), zone) <= away.end_date}
        return minutes

    def grid(self, host: Host) -> set[datetime]:
        schedule = self.in_force(host)
        step = (self.kind.slot_interval_minutes or self.ask.minutes) * MINUTE
        starts: set[datetime] = set()
        for day in self.days:
            for start, end in windows(schedule, day) if schedule else []:
                at = start + self.kind.slot_offset_minutes * MINUTE
                while at < end:
                    starts.add(at)
                    at += step
        return starts

    def fits(self, host: Host, start: datetime) -> bool:
        first = number(start)
        return self._work[host.id].issuperset(range(first, first + self.ask.minutes))

    # --- rules 5 and 6

    def reserves(self, start: datetime) -> tuple[datetime, datetime]:
        end = start + self.ask.minutes * MINUTE
        return start - self.kind.buffer_before_minutes * MINUTE, end + self.kind.buffer_after_minutes * MINUTE

    def calendar_free(self, host: Host, start: datetime) -> bool:
        if host.id in self.world.stale and self.kind.on_stale_calendar == "closed":
            return False
        low, high = self.reserves(start)
        for begin, end in self.world.external.get(host.id, []):
            widened = begin.replace(second=0, microsecond=0)
            until = (
                end if end == end.replace(second=0, microsecond=0) else end.replace(second=0, microsecond=0) + MINUTE
            )
            if widened < high and low < until:
                return False
        return True

    def sharing(self, host: Host, start: datetime) -> list[Taken]:
        end = start + self.ask.minutes * MINUTE
        same = (self.kind.id, start, end)
        return [t for t in self.taken if host.id in t.host_ids and (t.event_type_id, t.start, t.end) == same]

    def begun(self, host: Host, start: datetime) -> int | None:
        """Seats left of the slot that this one would join; None where there is none, or another is in its way."""
        sharing = self.sharing(host, start) if self.kind.capacity > 1 else []
        if not sharing or not self.host_free(host, start, besides=sharing):
            return None
        return self.kind.capacity - sum(t.seats for t in sharing)

    def host_free(self, host: Host, start: datetime, besides: Sequence[Taken] = ()) -> bool:
        low, high = self.reserves(start)
        mine = [t.reserves for t in self.taken if host.id in t.host_ids and t not in besides]
        return not any(begin < high and low < end for begin, end in mine)

    # --- rule 7

    def in_time(self, start: datetime) -> bool:
        if start < self.ask.now + self.kind.minimum_notice_minutes * MINUTE:
            return False
        window, today, day = self.kind.booking_window, local(self.ask.now, self.zone), local(start, self.zone)
        if window is None:
            return day <= today + 730 * DAY
        if window.rolling_days is not None:
            return day <= today + window.rolling_days * DAY
        if window.rolling_business_days is not None:
            last, left = today, window.rolling_business_days
            while left:
                last += DAY
                left -= last.weekday() < 5
            return day <= last
        return window.start_date <= day <= window.end_date

    # --- rule 8

    def within_limits(self, host: Host, start: datetime) -> bool:
        zone = self.own_zone(host)
        mine = {(t.start, t.end) for t in self.taken if host.id in t.host_ids and t.event_type_id == self.kind.id}
        for limit in self.kind.limits:
            same = [
                (begin, end) for begin, end in mine
                if period(local(begin, zone), limit.per) == period(local(start, zone), limit.per)
            ]  # fmt: skip
            if limit.count is not None and len(same) + 1 > limit.count:
                return False
            used = sum((end - begin) / MINUTE for begin, end in same)
            if limit.minutes is not None and used + self.ask.minutes > limit.minutes:
                return False
        return True

    # --- rules 9 and 10

    def rooms_free(self, start: datetime) -> bool:
        low, high = self.reserves(start)
        for id_ in self.kind.resource_ids:
            busy = {
                unit
                for t in self.taken
                for resource, unit in t.units
                if resource == id_ and t.reserves[0] < high and low < t.reserves[1]
            }
            if not set(range(1, self.world.resources[id_].quantity + 1)) - busy:
                return False
        return True

    def new_with(self, host: Host, start: datetime) -> bool:
        return (
            self.ask.seats <= self.kind.capacity
            and self.begun(host, start) is None
            and self.host_free(host, start)
            and self.within_limits(host, start)
        )

    def joins(self, host: Host, start: datetime) -> bool:
        left = self.begun(host, start)
        return left is not None and left >= self.ask.seats

    def there(self, host: Host, start: datetime) -> bool:
        return self.calendar_free(host, start) and self.fits(host, start)

    def seats_left(self, start: datetime) -> int:
        """0: not offered, as far as all rules but 8b go."""
        if not self.kind.active or not self.in_time(start):
            return 0
        capacity = self.kind.capacity
        if self.kind.assignment == "collective":
            if len(self.active) < len(self.narrowed) or start not in self._grids[self.narrowed[0].id]:
                return 0
            if not all(self.there(h, start) and (self.joins(h, start) or self.new_with(h, start)) for h in self.active):
                return 0
            if not all(self.joins(h, start) for h in self.active) and not self.rooms_free(start):
                return 0
            left = [self.begun(h, start) for h in self.active]
            return min(capacity if n is None else n for n in left)
        if not any(start in self._grids[h.id] for h in self.active):
            return 0
        serving = [
            h for h in self.active
            if self.there(h, start) and (self.joins(h, start) or (self.new_with(h, start) and self.rooms_free(start)))
        ]  # fmt: skip
        if len(serving) < self.kind.required_hosts:
            return 0
        if capacity == 1:
            return 1
        rest = 0
        for host in self.active:
            left = self.begun(host, start)
            if left is None:
                if self.there(host, start) and self.new_with(host, start) and self.rooms_free(start):
                    rest += capacity
            elif self.there(host, start):
                rest += max(left, 0)
        return rest

    def offered(self) -> list[tuple[datetime, int]]:
        """Starts of the dates asked for, with the seats left."""
        at = datetime.combine(self.ask.first - 2 * DAY, time(), tzinfo=UTC)
        end = datetime.combine(self.ask.last + 3 * DAY, time(), tzinfo=UTC)
        starts = set().union(*self._grids.values())
        found: list[tuple[datetime, int]] = []
        firsts: set[date] = set()
        while at < end:
            if at in starts and (left := self.seats_left(at)):
                day = local(at, self.zone)
                if not (self.kind.only_first_slot_of_day and day in firsts):
                    firsts.add(day)
                    found.append((at, left))
            at += MINUTE
        return [(at, left) for at, left in found if self.ask.first <= local(at, self.ask.zone) <= self.ask.last]


def period(day: date, per: str) -> Sequence[int]:
    if per == "day":
        return day.timetuple()[:3]
    if per == "week":
        return day.isocalendar()[:2]
    return (day.year, day.month) if per == "month" else (day.year,)
