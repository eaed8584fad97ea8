"""An event type with all the settings that shape its slots, made ready for computing."""

from collections.abc import Callable, Hashable, Mapping, Sequence

from msgspec import Struct

from kalends_availability.domain.bits import Frame, filled, lasting, merged
from kalends_availability.domain.holiday import public_holidays
from kalends_availability.domain.memo import SERIALS, BitMemo
from kalends_availability.domain.timetable import Timetable, away_time
from kalends_availability.domain.zones import DAY, Interval, Zone, date_of, zone
from kalends_shared.contracts.availability import EventType, EventTypeHost, Host, Location, Resource, Schedule


class Settings(Struct, frozen=True):
    """The objects that an event type names, as of one moment; `joined` says since when each host takes part (Unix time)."""

    event_type: EventType
    hosts: Mapping[str, Host]
    schedules: Mapping[str, Schedule]
    resources: Mapping[str, Resource] = {}
    locations: Mapping[str, Location] = {}
    joined: Mapping[str, float] = {}


class HostPlan:
    """One host of an event type."""

    def __init__(self, named: EventTypeHost, settings: Settings, in_force: Timetable | None, memo: BitMemo) -> None:
        self.host = host = settings.hosts[named.host_id]
        self.id = host.id
        self.active = host.active
        self.weight = named.weight
        self.priority = named.priority
        self.joined = settings.joined.get(host.id, 0.0)
        self.timetable = in_force
        own = settings.schedules.get(host.schedule_id) if host.schedule_id else None
        # The zone of limits, away dates and holidays is the host's own, also where the event type has a schedule.
        self.zone: Zone = zone(own.timezone if own else host.timezone or "UTC")
        self._away = away_time(own.away, self.zone) if own else []
        self._holidays = own.holidays if own else None
        self._memo = memo
        self.serial = next(SERIALS)

    @property
    def always_there(self) -> bool:
        return not self._away and self._holidays is None

    def remembered(self, key: Hashable, make: Callable[[], int]) -> int:
        """A set of minutes that is kept for the next question; the key says all that it depends on."""
        return self._memo.get(key, make)

    def taken(self, frame: Frame) -> int:
        """Rule 2: the minutes that away periods and public holidays take."""
        if self.always_there:
            return 0
        return self._memo.get(
            (self.serial, 0, frame.base, frame.size),
            lambda: filled(frame, merged([*self._away, *self._free_days(frame)])),
        )

    def fit(self, frame: Frame, minutes: int, restriction: Timetable | None) -> int:
        """Rule 4: the starts from which on that many minutes are working time that nothing takes."""
        if self.timetable is None:
            return 0
        if self.always_there and restriction is None:
            return self.timetable.fit(frame, minutes)
        return self._memo.get(
            (self.serial, 1, frame.base, frame.size, minutes), lambda: self._fit(frame, minutes, restriction)
        )

    def _fit(self, frame: Frame, minutes: int, restriction: Timetable | None) -> int:
        assert self.timetable is not None
        work = self.timetable.hours(frame) & ~self.taken(frame)
        if restriction is not None:
            work &= restriction.hours(frame)
        return lasting(work, minutes)

    def _free_days(self, frame: Frame) -> list[Interval]:
        if self._holidays is None:
            return []
        first, last = frame.base // DAY - 1, frame.end // DAY + 1
        country, subdivision = self._holidays.country, self._holidays.subdivision
        years = range(date_of(first).year, date_of(last).year + 1)
        days = sorted(d for year in years for d in public_holidays(country, subdivision, year) if first <= d <= last)
        # A holiday yields to an override of its date in the schedule in force.
        yields = self.timetable.overrides if self.timetable else lambda _day: False
        return [(p.start, p.end) for day in days if not yields(day) for p in self.zone.pieces(day)]


class Plan:
    """What the rules need to know of an event type. It never changes: a change of settings makes another one."""

    def __init__(self, settings: Settings, memo: BitMemo) -> None:
        kind = self.event_type = settings.event_type
        tables = {id_: Timetable(schedule, memo) for id_, schedule in settings.schedules.items()}
        common = tables[kind.schedule_id] if kind.schedule_id else None
        self.hosts: Sequence[HostPlan] = [
            HostPlan(named, settings, common or tables.get(settings.hosts[named.host_id].schedule_id or ""), memo)
            for named in kind.hosts
        ]
        self.restriction = tables[kind.restriction_schedule_id] if kind.restriction_schedule_id else None
        # The zone of booking windows and of only-first: the schedule's, else the first host's own schedule's.
        self.zone = common.zone if common else self.hosts[0].zone
        self.resources = [settings.resources[id_] for id_ in kind.resource_ids]
        self.locations = [settings.locations[id_] for id_ in kind.location_ids]
        self.durations = kind.durations or [kind.duration_minutes]
        self.before = kind.buffer_before_minutes
        self.after = kind.buffer_after_minutes

    def interval(self, minutes: int) -> int:
        return self.event_type.slot_interval_minutes or minutes
