"""Which hosts and units serve a start (slots.md 5, 6, 8, 8b, 9, 10), as far as the bookings and holds seen allow.

What is chosen here is only a proposal: the commit holds it to the same rules under its locks.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from msgspec import Struct

from kalends_booking.domain import periods
from kalends_booking.domain.decision import HostLimit, minutes
from kalends_booking.domain.refusals import refused
from kalends_shared.contracts.availability import EventType
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.quotes import Quote, QuotedHost, QuotedResource, QuotedStart

OFFERED: Final = 5  # choices that one commit tries; where all are lost, it is looked again


class Taken(NamedTuple):
    """A reservation as it was seen; `seats` are those that are taken beside the one that moves."""

    subject_id: str
    resource_id: str | None
    slot: str
    start_at: datetime
    end_at: datetime
    reserved_from: datetime
    reserved_to: datetime
    seats: int


class Seen(Struct, frozen=True):
    """The reservations near a start, and what counts already against each limit: (slots, minutes)."""

    taken: tuple[Taken, ...] = ()
    counted: dict[HostLimit, tuple[int, int]] = {}


class Unit(NamedTuple):
    resource_id: str
    subject_id: str
    slot: str


class Option(NamedTuple):
    """Hosts in their order, and a unit of each resource."""

    hosts: tuple[QuotedHost, ...]
    units: tuple[Unit, ...]


class Wish(Struct, frozen=True, kw_only=True):
    """A start to be served as its quote has it; `keep` are the hosts that a booking which moves has now."""

    quote: Quote
    start: QuotedStart
    seats: int = 1
    keep: tuple[str, ...] = ()

    @property
    def event_type(self) -> EventType:
        return self.quote.event_type

    @property
    def needed(self) -> int:
        match self.event_type.assignment:
            case "collective":
                return len(self.start.hosts)
            case "single":
                return 1
            case _:
                return self.event_type.required_hosts

    @property
    def reserved(self) -> tuple[datetime, datetime]:
        return reserved(self.event_type, self.start.start_at, self.start.end_at)

    def earlier(self, start_at: datetime, host_ids: Iterable[str]) -> "Wish":
        """The same at another start of the date, with the hosts that are allowed there."""
        zones = self.quote.host_zones
        hosts = [
            QuotedHost(id=one, name="", email=None, timezone=zones.get(one, self.quote.timezone)) for one in host_ids
        ]
        end_at = start_at + (self.start.end_at - self.start.start_at)
        return Wish(
            quote=self.quote, start=QuotedStart(start_at=start_at, end_at=end_at, hosts=hosts), seats=self.seats
        )


def reserved(event_type: EventType, start_at: datetime, end_at: datetime) -> tuple[datetime, datetime]:
    before = timedelta(minutes=event_type.buffer_before_minutes)
    return start_at - before, end_at + timedelta(minutes=event_type.buffer_after_minutes)


def admit(wish: Wish) -> None:
    """Raises: what the quote already refuses, and seats that no slot of this event type has."""
    if not wish.start.earlier_starts:
        _allow(wish)
    if wish.seats > wish.event_type.capacity:
        raise refused("capacity")


def plain(wish: Wish) -> Option | None:
    """The one option there is, where no look at what is taken could lead to another."""
    if len(wish.start.hosts) != wish.needed or wish.start.earlier_starts:
        return None
    if any(resource.quantity > 1 for resource in wish.quote.resources):
        return None
    hosts = tuple(wish.start.hosts)
    return Option(hosts, tuple(_unit(wish, hosts[0].id, resource.id, 1) for resource in wish.quote.resources))


def options(wish: Wish, seen: Seen) -> list[Option]:
    """What would do, the best first: the hosts that a booking has now, the fullest group, then the quote's ranking.

    Raises:
        KalendsError: `slot_taken`, `limit_reached`, or, for only-first, `slot_not_offered`.
    """
    for start_at, host_ids in wish.start.earlier_starts:
        if start_at < wish.start.start_at and _free(wish.earlier(start_at, host_ids), seen):
            raise refused("first_of_day")
    _allow(wish)
    return _options(wish, seen)


def limits(event_type: EventType, start: QuotedStart, hosts: Iterable[QuotedHost]) -> list[HostLimit]:
    """What the limits say of each host at this start."""
    made = []
    for host in hosts:
        for limit in event_type.limits:
            from_at, to_at = periods.around(start.start_at, limit.per, host.limits_timezone or host.timezone)
            made.append(
                HostLimit(
                    host.id, event_type.id, from_at, to_at, limit.count, limit.minutes, start.start_at, start.end_at
                )
            )
    return made


def all_limits(wish: Wish) -> list[HostLimit]:
    """Every limit that `options` may want to know the count of."""
    made = limits(wish.event_type, wish.start, wish.start.hosts)
    for start_at, host_ids in wish.start.earlier_starts:
        earlier = wish.earlier(start_at, host_ids)
        made += limits(wish.event_type, earlier.start, earlier.start.hosts)
    return made


def unit_slot(event_type_id: str, host_id: str) -> str:
    return f"{event_type_id}/{host_id}"


def resource_of(unit: str) -> str:
    """The resource that a unit is of, by the unit's own id."""
    return unit.rpartition("#")[0]


def _allow(wish: Wish) -> None:
    """Raises: the quote's refusal."""
    if (refusal := wish.start.refusal) is not None:
        raise refused(refusal.rule, refusal.detail, refusal.code)
    if len(wish.start.hosts) < max(wish.needed, 1):
        raise refused("busy")


def _free(wish: Wish, seen: Seen) -> bool:
    try:
        return len(wish.start.hosts) >= wish.needed and bool(_options(wish, seen))
    except KalendsError:
        return False


def _options(wish: Wish, seen: Seen) -> list[Option]:
    calm = [host for host in wish.start.hosts if not _met(wish, seen, host.id)]
    if len(calm) < wish.needed:
        raise refused("busy")
    places = [(host, seats_taken(wish, seen, host.id)) for host in calm]
    free = [(host, begun) for host, begun in places if begun + wish.seats <= wish.event_type.capacity]
    if len(free) < wish.needed:
        raise refused("capacity")
    # Those who serve together share their units, which go by the first one's name.
    together = free[0][0].id if wish.event_type.assignment == "collective" else None
    served = [
        (host, begun, units) for host, begun in free if (units := _units(wish, seen, together or host.id)) is not None
    ]
    if len(served) < wish.needed:
        raise refused("resource")
    allowed = [one for one in served if one[1] > 0 or _within_limits(wish, seen, one[0])]
    if len(allowed) < wish.needed:
        raise refused("limit")
    if wish.event_type.assignment != "collective":
        allowed.sort(key=lambda one: (one[0].id not in wish.keep, -one[1]))
    n = wish.needed
    chosen = [allowed[:n]] if n == len(allowed) else [[*allowed[: n - 1], last] for last in allowed[n - 1 :][:OFFERED]]
    return [Option(tuple(host for host, _, _ in some), some[0][2]) for some in chosen]


def _met(wish: Wish, seen: Seen, subject_id: str) -> bool:
    """Rule 5: whether the slot meets what another one reserves; one that it could share is no other."""
    low, high = wish.reserved
    return any(
        taken.subject_id == subject_id
        and taken.reserved_from < high
        and low < taken.reserved_to
        and not _shared(wish, taken, wish.event_type.id)
        for taken in seen.taken
    )


def seats_taken(wish: Wish, seen: Seen, subject_id: str) -> int:
    """Rule 6: the seats taken in the group slot that would be joined, 0 where one would be begun."""
    shared = (t for t in seen.taken if t.subject_id == subject_id and _shared(wish, t, wish.event_type.id))
    return next((taken.seats for taken in shared), 0)


def _shared(wish: Wish, taken: Taken, slot: str) -> bool:
    same = (taken.slot, taken.start_at, taken.end_at) == (slot, wish.start.start_at, wish.start.end_at)
    return same and wish.event_type.capacity > 1


def _units(wish: Wish, seen: Seen, host_id: str) -> tuple[Unit, ...] | None:
    """A unit of every resource with this host: those that the group has, else the lowest-numbered free ones."""
    found = [_one_unit(wish, seen, host_id, resource) for resource in wish.quote.resources]
    return None if None in found else tuple(unit for unit in found if unit is not None)


def _one_unit(wish: Wish, seen: Seen, host_id: str, resource: QuotedResource) -> Unit | None:
    low, high = wish.reserved
    slot = unit_slot(wish.event_type.id, host_id)
    own, busy = None, set()
    for taken in seen.taken:
        if taken.resource_id != resource.id:
            continue
        if _shared(wish, taken, slot):
            own = taken.subject_id
        elif taken.reserved_from < high and low < taken.reserved_to:
            busy.add(taken.subject_id)
    if own is not None:
        # It grows with who joins, by buffers that may have become longer since, and there may be no room for that.
        return Unit(resource.id, own, slot) if own not in busy else None
    for number in range(1, resource.quantity + 1):
        unit = _unit(wish, host_id, resource.id, number)
        if unit.subject_id not in busy:
            return unit
    return None


def _unit(wish: Wish, host_id: str, resource_id: str, number: int) -> Unit:
    return Unit(resource_id, f"{resource_id}#{number}", unit_slot(wish.event_type.id, host_id))


def _within_limits(wish: Wish, seen: Seen, host: QuotedHost) -> bool:
    own = minutes(wish.start.start_at, wish.start.end_at)
    for limit in limits(wish.event_type, wish.start, (host,)):
        count, spent = seen.counted.get(limit, (0, 0))
        if limit.max_count is not None and count + 1 > limit.max_count:
            return False
        if limit.max_minutes is not None and spent + own > limit.max_minutes:
            return False
    return True
