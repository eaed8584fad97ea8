"""What fills a host's or a unit's time, as the rules read it. Made once when loaded, then only read."""

from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

from kalends_availability.domain.bits import Frame, filled, merged, within
from kalends_availability.domain.memo import SERIALS
from kalends_availability.domain.zones import DAY, Interval, Zone, date_of

Ids = Collection[str]
NOTHING: frozenset[str] = frozenset()
# day, ISO week, month, year: each a number that ascends with time.
Periods = tuple[int, int, int, int]
PERIODS: Final = ("day", "week", "month", "year")
FRESH_SECONDS: Final = 900.0


class Reservation(NamedTuple):
    """A booking or hold that is in force, with what it reserves of one host or unit, in minutes.

    `lapses` is the Unix time at which a hold ends by itself; None for a booking.
    """

    reserved_from: int
    reserved_to: int
    start: int
    end: int
    id: str
    event_type_id: str
    seats: int
    lapses: float | None = None

    @property
    def kind(self) -> str:
        return "booking" if self.lapses is None else "hold"

    def lives(self, now: float) -> bool:
        return self.lapses is None or now < self.lapses


class Held(NamedTuple):
    """What a hold reserves until it ends by itself (Unix time)."""

    reserved_from: int
    reserved_to: int
    lapses: float


class Reserved:
    """What is reserved of one host, or of one unit of a resource, whoever by.

    That is all most questions need, and it takes 8 bytes an interval: a host with thousands of bookings is small.
    """

    def __init__(self, intervals: Iterable[Interval] = (), holds: Iterable[Held] = ()) -> None:
        self.serial = next(SERIALS)
        disjoint = merged(intervals)
        self._lows = array("i", [low for low, _ in disjoint])
        self._highs = array("i", [high for _, high in disjoint])
        self._holds = list(holds)

    @property
    def weight(self) -> int:
        """Bytes of memory, roughly."""
        return 600 + 8 * len(self._lows) + 180 * len(self._holds)

    @property
    def empty(self) -> bool:
        """Whether no booking reserves anything."""
        return not self._lows

    def intervals(self, frame: Frame, now: float, ignored: Ids = NOTHING) -> Sequence[Interval]:
        """Reserved time near the frame, buffers included; without lapsed holds.

        Raises:
            TypeError: where something is to be ignored, for which `Reservations` are needed.
        """
        if ignored:
            raise TypeError("It is not known whose the intervals are.")
        low, high = near(frame)
        first, last = bisect_right(self._highs, low), bisect_left(self._lows, high)
        cover = list(zip(self._lows[first:last], self._highs[first:last], strict=True))
        if not self._holds:
            return cover
        return merged([*cover, *((h.reserved_from, h.reserved_to) for h in self._holds if now < h.lapses)])

    def lapses_after(self, now: float) -> float | None:
        """When the next hold ends by itself."""
        return min((h.lapses for h in self._holds if now < h.lapses), default=None)


class Reservations(Reserved):
    """The same with who by: where bookings share slots, where some are to be ignored, and to explain."""

    def __init__(self, entries: Iterable[Reservation] = ()) -> None:
        self._entries = sorted(entries)
        super().__init__(
            [(e.reserved_from, e.reserved_to) for e in self._entries if e.lapses is None],
            [Held(e.reserved_from, e.reserved_to, e.lapses) for e in self._entries if e.lapses is not None],
        )
        self._ids = {e.id for e in self._entries}
        self._groups: dict[str, dict[Interval, list[Reservation]]] = defaultdict(lambda: defaultdict(list))
        for entry in self._entries:
            self._groups[entry.event_type_id][entry.start, entry.end].append(entry)

    @property
    def weight(self) -> int:
        return super().weight + 650 * len(self._entries)

    def intervals(self, frame: Frame, now: float, ignored: Ids = NOTHING) -> Sequence[Interval]:
        """Reserved time near the frame, without what is ignored."""
        if self._ids.isdisjoint(ignored):
            return super().intervals(frame, now)
        high = near(frame)[1]
        return merged((e.reserved_from, e.reserved_to) for e in self.alive(now, ignored) if e.reserved_from < high)

    def alive(self, now: float, ignored: Ids = NOTHING) -> Iterator[Reservation]:
        return (e for e in self._entries if e.lives(now) and e.id not in ignored)

    def groups(
        self, event_type_id: str, minutes: int, buffers: Interval, now: float, ignored: Ids = NOTHING
    ) -> dict[int, int]:
        """Seats taken of each begun slot of an event type and length, by start.

        Without those which, with the event type's buffers (before, after) as they are now, meet what others reserve.
        """
        taken: dict[int, int] = {}
        if (begun := self._groups.get(event_type_id)) is None:
            return taken
        for (start, end), sharing in begun.items():
            if end - start == minutes:
                seats = sum(e.seats for e in sharing if e.lives(now) and e.id not in ignored)
                low, high = start - buffers[0], end + buffers[1]
                # Where the slot has reserved as much already, nobody else can have.
                kept = any(e.reserved_from <= low and high <= e.reserved_to for e in sharing)
                if seats and (kept or not self._met(low, high, sharing, now, ignored)):
                    taken[start] = seats
        return taken

    def _met(self, low: int, high: int, besides: Collection[Reservation], now: float, ignored: Ids) -> bool:
        met = (e for e in self.alive(now, ignored) if e.reserved_from < high and low < e.reserved_to)
        return any(e not in besides for e in met)


def named(reserved: Reserved) -> Reservations:
    """What is reserved, where it is known who by.

    Raises:
        TypeError: where it is not.
    """
    if not isinstance(reserved, Reservations):
        raise TypeError("It is not known whose the intervals are.")
    return reserved


class Counted(NamedTuple):
    """A booking or hold that limits count; all that share a group slot have the same start and end."""

    start: int
    end: int
    id: str
    lapses: float | None = None

    @property
    def kind(self) -> str:
        return "booking" if self.lapses is None else "hold"


class Tally:
    """The bookings of one event type with one host, counted by periods of a zone."""

    def __init__(self, entries: Iterable[Counted] = ()) -> None:
        self.serial = next(SERIALS)
        self.entries = sorted(entries)
        self._ids = {e.id for e in self.entries}
        self._holds = [e.lapses for e in self.entries if e.lapses is not None]
        self._sums: dict[str, tuple[dict[int, list[int]], ...]] = {}

    def sums(self, where: Zone, now: float, ignored: Ids = NOTHING) -> tuple[dict[int, list[int]], ...]:
        """For each kind of period, period -> [bookings, minutes]; a group slot counts once."""
        steady = not any(now < lapses for lapses in self._holds) and self._ids.isdisjoint(ignored)
        if steady and where.name in self._sums:
            return self._sums[where.name]
        days: dict[int, list[int]] = {}
        last: Interval | None = None
        day = low = high = 0
        for start, end, id_, lapses in self.entries:
            if (lapses is not None and now >= lapses) or id_ in ignored or last == (start, end):
                continue
            last = start, end
            if not low <= start < high:
                day, low, high = where.day_at(start)
            tally = days.setdefault(day, [0, 0])
            tally[0] += 1
            tally[1] += end - start
        weeks: dict[int, list[int]] = {}
        months: dict[int, list[int]] = {}
        years: dict[int, list[int]] = {}
        for day, (count, minutes) in days.items():
            _, week, month, year = periods_of(day)
            for into, period in ((weeks, week), (months, month), (years, year)):
                tally = into.setdefault(period, [0, 0])
                tally[0] += count
                tally[1] += minutes
        sums = days, weeks, months, years
        if steady:
            self._sums[where.name] = sums
        return sums

    def latest(self, where: Zone, kind: int, period: int, now: float, ignored: Ids = NOTHING) -> Counted | None:
        """The last that counts in a period."""
        alive = (e for e in reversed(self.entries) if (e.lapses is None or now < e.lapses) and e.id not in ignored)
        return next((e for e in alive if periods_of(where.local_day(e.start))[kind] == period), None)

    @property
    def weight(self) -> int:
        """Bytes of memory, roughly."""
        return 800 + 320 * len(self.entries)

    def lapses_after(self, now: float) -> float | None:
        return min((lapses for lapses in self._holds if now < lapses), default=None)


@lru_cache(maxsize=8192)
def periods_of(day: int) -> Periods:
    """The day, ISO week, month and year of a local date."""
    at = date_of(day)
    return day, (day + 3) // 7, at.year * 12 + at.month - 1, at.year


class External(NamedTuple):
    """A time that an external calendar, or an own block, has filled; already widened to whole minutes."""

    start: int
    end: int
    id: str


class ExternalBusy:
    """External busy time of one host, and how fresh it is (Unix times).

    `stale_since`: since when a calendar of it could not be read. `synced_at`: the oldest last success of its calendars.
    """

    def __init__(
        self, entries: Iterable[External] = (), stale_since: float | None = None, synced_at: float | None = None
    ) -> None:
        self.serial = next(SERIALS)
        self.entries = sorted(entries)
        self._stale_since = stale_since
        self._synced_at = synced_at
        self._cover = merged((e.start, e.end) for e in self.entries)

    @property
    def weight(self) -> int:
        """Bytes of memory, roughly."""
        return 600 + 300 * len(self.entries)

    def stale(self, wall: float) -> float | None:
        """Since when it is stale by the wall clock: the last attempt failed, or the last success is over 15 minutes old."""
        if self._stale_since is None and self._synced_at is not None and wall - self._synced_at > FRESH_SECONDS:
            return self._synced_at
        return self._stale_since

    def stale_at(self, wall: float) -> float | None:
        """When it will become stale if nothing happens."""
        return None if self._synced_at is None or self.stale(wall) is not None else self._synced_at + FRESH_SECONDS

    def intervals(self, frame: Frame) -> Sequence[Interval]:
        return within(self._cover, *near(frame))


def near(frame: Frame) -> Interval:
    """Where what fills a slot of the frame can lie: none reaches further out than its buffers and its length, three days."""
    return frame.base - 3 * DAY, frame.end + 3 * DAY


def unfree(frame: Frame, intervals: Sequence[Interval], before: int, after: int) -> int:
    """Rule 5: the starts `s` whose `[s - before, s + after)` meets an interval; `after` holds the slot's length.

    Widening each interval by what the slot reserves on the other side says the same as trying every start.
    """
    return filled(frame, intervals, before=after - 1, after=before) if after else 0


class Facts:
    """Everything about one moment that the rules read beside the settings; whoever asks loads what the plan names."""

    def __init__(
        self,
        hosts: Mapping[str, Reserved] | None = None,
        external: Mapping[str, ExternalBusy] | None = None,
        units: Mapping[str, Mapping[int, Reserved]] | None = None,
        tallies: Mapping[str, Tally] | None = None,
    ) -> None:
        self._hosts = hosts or {}
        self._external = external or {}
        self._units = units or {}
        self._tallies = tallies or {}

    def parts(self) -> list[object]:
        """All that it is made of, to tell whether two of them are made of the same."""
        units = chain.from_iterable(by_unit.values() for by_unit in self._units.values())
        return [*self._hosts.values(), *self._external.values(), *units, *self._tallies.values()]

    def reserved(self, host_id: str) -> Reserved:
        return self._hosts.get(host_id, _FREE)

    def reservations(self, host_id: str) -> Reservations:
        """The same with who by.

        Raises:
            TypeError: where that was not loaded.
        """
        return named(self.reserved(host_id))

    def external(self, host_id: str) -> ExternalBusy:
        return self._external.get(host_id, _OPEN)

    def units(self, resource_id: str) -> Mapping[int, Reserved]:
        """By unit; one that is not there is free."""
        return self._units.get(resource_id, {})

    def tally(self, host_id: str) -> Tally:
        return self._tallies.get(host_id, _NONE)


_FREE = Reservations()
_OPEN = ExternalBusy()
_NONE = Tally()
