"""What fills a host's or a unit's time, as the rules read it. Made once when loaded, then only read."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from kalends_availability.domain.bits import Frame, filled, merged, within
from kalends_availability.domain.zones import Interval, Zone, date_of

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


class Reservations:
    """What bookings and holds reserve of one host, or of one unit of a resource."""

    def __init__(self, entries: Iterable[Reservation] = ()) -> None:
        self.entries = sorted(entries)
        self._cover = merged((e.reserved_from, e.reserved_to) for e in self.entries if e.lapses is None)
        self._holds = [e for e in self.entries if e.lapses is not None]
        self._ids = {e.id for e in self.entries}
        self._groups: dict[str, dict[Interval, list[Reservation]]] = defaultdict(lambda: defaultdict(list))
        for entry in self.entries:
            self._groups[entry.event_type_id][entry.start, entry.end].append(entry)

    def intervals(self, frame: Frame, now: float, ignored: Ids = NOTHING) -> Sequence[Interval]:
        """Reserved time near the frame, buffers included; without lapsed holds and without what is ignored."""
        # No slot reaches further out of the frame than its buffers and its length: three days.
        low, high = frame.base - 4320, frame.end + 4320
        if ignored and not self._ids.isdisjoint(ignored):
            return merged((e.reserved_from, e.reserved_to) for e in self.alive(now, ignored) if e.reserved_from < high)
        held = [(e.reserved_from, e.reserved_to) for e in self._holds if e.lives(now)]
        cover = within(self._cover, low, high)
        return merged([*cover, *held]) if held else cover

    def alive(self, now: float, ignored: Ids = NOTHING) -> Iterator[Reservation]:
        return (e for e in self.entries if e.lives(now) and e.id not in ignored)

    def groups(self, event_type_id: str, minutes: int, now: float, ignored: Ids = NOTHING) -> dict[int, int]:
        """Seats taken of each begun slot of an event type and length, by start."""
        taken: dict[int, int] = {}
        if (begun := self._groups.get(event_type_id)) is None:
            return taken
        for (start, end), sharing in begun.items():
            if end - start == minutes:
                seats = sum(e.seats for e in sharing if e.lives(now) and e.id not in ignored)
                if seats:
                    taken[start] = seats
        return taken

    def lapses_after(self, now: float) -> float | None:
        """When the next hold ends by itself."""
        return min((e.lapses for e in self._holds if e.lapses is not None and now < e.lapses), default=None)


class Counted(NamedTuple):
    """A booking or hold that limits count; all that share a group slot have the same start and end."""

    start: int
    end: int
    id: str
    lapses: float | None = None


class Tally:
    """The bookings of one event type with one host, counted by periods of a zone."""

    def __init__(self, entries: Iterable[Counted] = ()) -> None:
        self.entries = sorted(entries)
        self._ids = {e.id for e in self.entries}
        self._holds = [e.lapses for e in self.entries if e.lapses is not None]
        self._periods: dict[tuple[str, int], Periods] = {}
        self._sums: dict[str, tuple[dict[int, list[int]], ...]] = {}

    def sums(self, where: Zone, now: float, ignored: Ids = NOTHING) -> tuple[dict[int, list[int]], ...]:
        """For each kind of period, period -> [bookings, minutes]; a group slot counts once."""
        steady = not any(now < lapses for lapses in self._holds) and self._ids.isdisjoint(ignored)
        if steady and where.name in self._sums:
            return self._sums[where.name]
        sums: tuple[dict[int, list[int]], ...] = ({}, {}, {}, {})
        last: Interval | None = None
        for entry in self.entries:
            if (entry.lapses is not None and now >= entry.lapses) or entry.id in ignored:
                continue
            if last == (entry.start, entry.end):
                continue
            last = entry.start, entry.end
            for into, period in zip(sums, self._of(where, entry.start), strict=True):
                tally = into.setdefault(period, [0, 0])
                tally[0] += 1
                tally[1] += entry.end - entry.start
        if steady:
            self._sums[where.name] = sums
        return sums

    def lapses_after(self, now: float) -> float | None:
        return min((lapses for lapses in self._holds if now < lapses), default=None)

    def _of(self, where: Zone, start: int) -> Periods:
        key = where.name, start
        if (found := self._periods.get(key)) is None:
            found = self._periods[key] = periods_of(where.local_day(start))
        return found


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
        self.entries = sorted(entries)
        self._stale_since = stale_since
        self._synced_at = synced_at
        self._cover = merged((e.start, e.end) for e in self.entries)

    def stale(self, wall: float) -> float | None:
        """Since when it is stale by the wall clock: the last attempt failed, or the last success is over 15 minutes old."""
        if self._stale_since is None and self._synced_at is not None and wall - self._synced_at > FRESH_SECONDS:
            return self._synced_at
        return self._stale_since

    def stale_at(self, wall: float) -> float | None:
        """When it will become stale if nothing happens."""
        return None if self._synced_at is None or self.stale(wall) is not None else self._synced_at + FRESH_SECONDS

    def intervals(self, frame: Frame) -> Sequence[Interval]:
        return within(self._cover, frame.base - 4320, frame.end + 4320)


def unfree(frame: Frame, intervals: Sequence[Interval], before: int, after: int) -> int:
    """Rule 5: the starts `s` whose `[s - before, s + after)` meets an interval; `after` holds the slot's length.

    Widening each interval by what the slot reserves on the other side says the same as trying every start.
    """
    return filled(frame, intervals, before=after - 1, after=before) if after else 0


class Facts:
    """Everything about one moment that the rules read beside the settings; whoever asks loads what the plan names."""

    def __init__(
        self,
        hosts: dict[str, Reservations] | None = None,
        external: dict[str, ExternalBusy] | None = None,
        units: dict[str, dict[int, Reservations]] | None = None,
        tallies: dict[str, Tally] | None = None,
    ) -> None:
        self._hosts = hosts or {}
        self._external = external or {}
        self._units = units or {}
        self._tallies = tallies or {}

    def parts(self) -> list[object]:
        """All that it is made of, to tell whether two of them are made of the same."""
        found: list[object] = []
        for some in (self._hosts, self._external, self._units, self._tallies):
            found += some.values()
        return found

    def reserved(self, host_id: str) -> Reservations:
        return self._hosts.get(host_id, _FREE)

    def external(self, host_id: str) -> ExternalBusy:
        return self._external.get(host_id, _OPEN)

    def units(self, resource_id: str) -> dict[int, Reservations]:
        """By unit; one that is not there is free."""
        return self._units.get(resource_id, {})

    def tally(self, host_id: str) -> Tally:
        return self._tallies.get(host_id, _NONE)


_FREE = Reservations()
_OPEN = ExternalBusy()
_NONE = Tally()
