"""The rules of slots.md, each a function that gives the starts it allows. Availability, quote and explain all ask these.

A `View` is one question: an event type, what is known of its hosts' time, a moment, a length. Its members are sets of
starts (see bits); each is computed when first asked for.
"""

from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Final

from msgspec import Struct

from kalends_availability.domain.bits import Frame, at_least, filled, merged, span
from kalends_availability.domain.busy import NOTHING, PERIODS, Facts, Ids, Periods, Tally, periods_of, unfree
from kalends_availability.domain.memo import once
from kalends_availability.domain.plan import HostPlan, Plan
from kalends_availability.domain.zones import DAY, Interval, Zone, day_of, minute_after, minute_of, weekday
from kalends_shared.contracts.availability import Limit

ALL_DAYS: Final = 730
_ENDLESS: Final = 1 << 40


class Ask(Struct, frozen=True, kw_only=True):
    """What is asked for. `now` is the tenant's time, `wall` the wall clock's, by which calendars grow stale.

    `ignored` are the booking that moves and the hold that it converts. `series`: a later occurrence of one, which the
    event type's booking window does not bind.
    """

    now: datetime
    minutes: int
    seats: int = 1
    host_id: str | None = None
    ignored: Ids = NOTHING
    wall: float | None = None
    series: bool = False


class View:
    """The rules that are about the slot itself, and how hosts are put together."""

    def __init__(self, plan: Plan, facts: Facts, ask: Ask, frame: Frame) -> None:
        self.plan = plan
        self.facts = facts
        self.ask = ask
        self.frame = frame
        self.now = ask.now.timestamp()
        self.wall = self.now if ask.wall is None else ask.wall
        self.tail = ask.minutes + plan.after
        named = [h for h in plan.hosts if ask.host_id is None or h.id == ask.host_id]
        self.hosts = [HostView(self, h) for h in named]
        self.active = [h for h in self.hosts if h.plan.active]
        self.together = plan.event_type.assignment == "collective"
        # A host that is asked for by name is judged alone, also as one of several.
        alone = ask.host_id is not None
        self.needed = 1 if alone else len(self.hosts) if self.together else plan.event_type.required_hosts

    def clear_of(self, busy: Sequence[Interval]) -> int:
        """The starts whose slot, with the event type's buffers, meets none of the intervals."""
        return ~unfree(self.frame, busy, self.plan.before, self.tail) if busy else self.frame.every

    @property
    def reach(self) -> tuple[int, int, int, int]:
        """What `clear_of` goes by beside the intervals."""
        return self.frame.base, self.frame.size, self.plan.before, self.tail

    @once
    def notice(self) -> int:
        """Rule 7: not before now and the minimum notice."""
        earliest = minute_after(self.ask.now) + self.plan.event_type.minimum_notice_minutes
        return span(self.frame, earliest, self.frame.end)

    @once
    def window(self) -> int:
        """Rule 7: the dates that may be booked, in the event type's zone."""
        first, last = bookable_dates(self.plan, self.ask.now, series=self.ask.series)
        return _days(self.frame, self.plan.zone, first, last)

    @once
    def grid(self) -> int:
        """Rules 3 and 9: any host's grid, or the first host's where all are needed."""
        if self.together:
            return self.hosts[0].grid
        grid = 0
        for host in self.active or self.hosts:
            grid |= host.grid
        return grid

    @once
    def near(self) -> tuple[Periods, Periods]:
        """The periods of rule 8 between which all that have dates in the frame lie; most of a year's days do not."""
        return periods_of(self.frame.base // DAY - 2), periods_of(self.frame.end // DAY + 2)

    @once
    def rooms(self) -> int:
        """Rule 10: a free unit of every resource for all that the slot reserves."""
        allowed = self.frame.every
        for resource in self.plan.resources:
            allowed &= self.units(resource.id, resource.quantity)
        return allowed

    def units(self, resource_id: str, quantity: int) -> int:
        taken = {n: r for n, r in self.facts.units(resource_id).items() if n <= quantity}
        if len(taken) < quantity:
            return self.frame.every
        free = 0
        for reservations in taken.values():
            busy = reservations.intervals(self.frame, self.now, self.ask.ignored)
            free |= self.clear_of(busy)
        return free & self.frame.every

    @once
    def offered(self) -> int:
        """The starts that every rule allows, 8b included."""
        starts = self.allowed
        return self.first_of_day(starts) if self.plan.event_type.only_first_slot_of_day else starts

    @once
    def allowed(self) -> int:
        """The starts that every rule but 8b allows."""
        starts = self.frame.starts & self.notice & self.window
        if not starts or not self.plan.event_type.active or len(self.active) < self.needed:
            return 0
        starts &= self.grid
        if not starts:
            return 0
        if not self.together:
            return starts & at_least(self.needed, [h.serves for h in self.active])
        joined = starts
        for host in self.active:
            starts &= host.fit & host.unfilled & (host.fresh | host.joins)
            joined &= host.joins
            if not starts:
                return 0
        return starts & (self.rooms | joined)

    @property
    def shared(self) -> bool:
        """Whether a slot may have several bookings."""
        return self.plan.event_type.capacity > 1

    def until(self) -> float:
        """Until when (Unix time) nothing about this question changes by time alone, the staleness of calendars aside."""
        ends = [p.end * 60.0 for p in self.plan.zone.pieces(self.plan.zone.local_day(minute_of(self.ask.now)))]
        if self.allowed:
            earliest = self.frame.base + (self.allowed & -self.allowed).bit_length() - 1
            # At that very moment it is still offered.
            ends.append((earliest - self.plan.event_type.minimum_notice_minutes) * 60.0 + 1e-6)
        ends += [at for h in self.hosts if (at := self.facts.reserved(h.plan.id).lapses_after(self.now)) is not None]
        ends += [at for h in self.hosts if (at := self.facts.tally(h.plan.id).lapses_after(self.now)) is not None]
        for resource in self.plan.resources:
            units = self.facts.units(resource.id).values()
            ends += [at for unit in units if (at := unit.lapses_after(self.now)) is not None]
        return min((end for end in ends if end > self.now), default=self.now)

    def first_of_day(self, starts: int) -> int:
        """Rule 8b: of each date the earliest. Right where the frame's starts are whole dates of the event type's zone."""
        kept, left = 0, starts
        while left:
            at = self.frame.base + (left & -left).bit_length() - 1
            kept |= 1 << (at - self.frame.base)
            day = self.plan.zone.local_day(at)
            left &= ~_days(self.frame, self.plan.zone, day, day)
        return kept

    def seats_left(self, start: int) -> int:
        """Rule 6, of an offered start."""
        if not self.shared:
            return 1
        bit = 1 << (start - self.frame.base)
        left = [n for host in self.active if (n := host.seats_left(start, bit)) > 0]
        return min(left, default=0) if self.together else sum(left)


class HostView:
    """The rules that are about one host."""

    def __init__(self, view: View, plan: HostPlan) -> None:
        self.view = view
        self.plan = plan

    @once
    def hours(self) -> int:
        """Rule 1: the start lies in a working window."""
        return self.plan.timetable.hours(self.view.frame) if self.plan.timetable else 0

    @once
    def there(self) -> int:
        """Rule 2: nothing of the slot is away time or a holiday."""
        frame, minutes = self.view.frame, self.view.ask.minutes
        taken = self.plan.taken(frame)
        return frame.every & ~_smeared(taken, minutes) if taken else frame.every

    @once
    def unrestricted(self) -> int:
        """Rule 2: the whole slot lies inside the restriction's windows."""
        restriction = self.view.plan.restriction
        return restriction.fit(self.view.frame, self.view.ask.minutes) if restriction else self.view.frame.every

    @once
    def grid(self) -> int:
        """Rule 3."""
        if self.plan.timetable is None:
            return 0
        kind = self.view.plan
        return self.plan.timetable.grid(
            self.view.frame, kind.interval(self.view.ask.minutes), kind.event_type.slot_offset_minutes
        )

    @once
    def fit(self) -> int:
        """Rule 4, and with it 1 and 2."""
        return self.plan.fit(self.view.frame, self.view.ask.minutes, self.view.plan.restriction)

    @once
    def unfilled(self) -> int:
        """Rule 5, as to external busy time: never shared, and all time where a calendar is stale and counts as busy."""
        view = self.view
        external = view.facts.external(self.plan.id)
        if external.stale(view.wall) is not None and view.plan.event_type.on_stale_calendar == "closed":
            return 0
        if not external.entries:
            return view.frame.every
        key = (external.serial, *view.reach)
        return self.plan.remembered(key, lambda: view.clear_of(external.intervals(view.frame)))

    @once
    def unreserved(self) -> int:
        """Rule 5, as to bookings and holds."""
        view = self.view
        reserved = view.facts.reserved(self.plan.id)
        if view.ask.ignored or reserved.lapses_after(view.now) is not None:
            return view.clear_of(reserved.intervals(view.frame, view.now, view.ask.ignored))
        if reserved.empty:
            return view.frame.every
        key = (reserved.serial, *view.reach)
        return self.plan.remembered(key, lambda: view.clear_of(reserved.intervals(view.frame, view.now)))

    @once
    def begun(self) -> dict[int, int]:
        """Rule 6: seats taken of the begun slots of this event type and length, by start."""
        view = self.view
        if not view.shared:
            return {}
        groups = view.facts.reservations(self.plan.id)
        buffers = view.plan.before, view.plan.after
        return groups.groups(view.plan.event_type.id, view.ask.minutes, buffers, view.now, view.ask.ignored)

    @once
    def joins(self) -> int:
        """Rule 6: the starts of begun slots with room for the seats asked for."""
        frame, room = self.view.frame, self.view.plan.event_type.capacity - self.view.ask.seats
        starts = 0
        for start, taken in self.begun.items():
            if taken <= room and frame.base <= start < frame.end:
                starts |= 1 << (start - frame.base)
        return starts

    @once
    def limits(self) -> int:
        """Rule 8: the starts in no full period."""
        view = self.view
        tally = view.facts.tally(self.plan.id)
        if view.ask.ignored or tally.lapses_after(view.now) is not None:
            return self._unlimited(tally)
        key = (self.plan.serial, 2, tally.serial, view.frame.base, view.frame.size, view.ask.minutes)
        return self.plan.remembered(key, lambda: self._unlimited(tally))

    def _unlimited(self, tally: Tally) -> int:
        view, zone = self.view, self.plan.zone
        minutes = view.ask.minutes
        sums = tally.sums(zone, view.now, view.ask.ignored)
        full: list[Interval] = []
        for limit in view.plan.event_type.limits:
            kind = PERIODS.index(limit.per)
            nearest, furthest = view.near[0][kind], view.near[1][kind]
            most, longest = before_full(limit, minutes)
            if longest < 0:
                return 0
            for period, (count, spent) in sums[kind].items():
                if (count > most or spent > longest) and nearest <= period <= furthest:
                    full += zone.spans(*_dates(kind, period))
        return view.frame.every & ~filled(view.frame, merged(full)) if full else view.frame.every

    @once
    def fresh(self) -> int:
        """The starts at which the host can begin a reservation of its own, as far as rules 5, 6 and 8 go."""
        view = self.view
        if view.ask.seats > view.plan.event_type.capacity:
            return 0
        free = self.unreserved
        return free & self.limits if view.plan.event_type.limits else free

    @once
    def serves(self) -> int:
        """The starts that this host can serve by itself: rules 4, 5, 6, 8 and 10."""
        fresh = self.fresh & self.view.rooms if self.view.plan.resources else self.fresh
        return self.fit & self.unfilled & (fresh | self.joins)

    def seats_left(self, start: int, bit: int) -> int:
        """Seats that this host has at an offered start; 0 where it can neither begin nor join a slot there."""
        view = self.view
        capacity = view.plan.event_type.capacity
        if not bit & self.fit & self.unfilled:
            return 0
        if start in self.begun:
            return max(capacity - self.begun[start], 0)
        free = bit & self.fresh & (view.frame.every if view.together else view.rooms)
        return capacity if free else 0


def before_full(limit: Limit, minutes: int) -> tuple[int, int]:
    """The most bookings, and the most minutes of them, beside which one more of so many minutes is allowed."""
    return (_ENDLESS if limit.count is None else limit.count - 1), (limit.minutes or _ENDLESS) - minutes


def bookable_dates(plan: Plan, now: datetime, *, series: bool = False) -> Interval:
    """Rule 7: the first and last date that may be booked, in the event type's zone."""
    window = None if series else plan.event_type.booking_window
    today = plan.zone.local_day(minute_of(now))
    if window is None:
        return today, today + ALL_DAYS
    if window.rolling_days is not None:
        return today, today + window.rolling_days
    if window.rolling_business_days is not None:
        return today, _business_day(today, window.rolling_business_days)
    assert window.start_date is not None
    assert window.end_date is not None
    return day_of(window.start_date), day_of(window.end_date)


def _business_day(today: int, count: int) -> int:
    """The count-th Monday to Friday after a date; the date itself where count is 0."""
    day = today
    while count:
        day += 1
        count -= weekday(day) < 5
    return day


def _days(frame: Frame, where: Zone, first: int, last: int) -> int:
    """The frame's minutes whose local date lies in `[first, last]`."""
    nearest, furthest = frame.base // DAY - 2, frame.end // DAY + 2
    first, last = max(first, nearest), min(last, furthest)
    return filled(frame, where.spans(first, last)) if first <= last else 0


def _smeared(minutes: int, length: int) -> int:
    """The starts whose slot of that length meets one of the minutes."""
    have = 1
    while have * 2 <= length:
        minutes |= minutes >> have
        have *= 2
    return minutes | (minutes >> (length - have)) if have < length else minutes


@lru_cache(maxsize=4096)
def _dates(kind: int, period: int) -> Interval:
    """The first and last local date of a period."""
    if kind == 0:
        return period, period
    if kind == 1:
        return period * 7 - 3, period * 7 + 3
    if kind == 2:
        year, month = divmod(period, 12)
        return _first(year, month + 1), _first(year + (month == 11), (month + 1) % 12 + 1) - 1
    return _first(period, 1), _first(period + 1, 1) - 1


def _first(year: int, month: int) -> int:
    return day_of(date(year, month, 1))
