"""One start judged rule by rule: for a refusal's name, and for explain."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from kalends_availability.domain.busy import PERIODS, Reservation, named, periods_of
from kalends_availability.domain.plan import Plan
from kalends_availability.domain.rules import HostView, View, before_full, bookable_dates
from kalends_availability.domain.zones import DAY, LAST_DAY, Zone, date_of, minute_after

DETAILS: Final = {
    "working_hours": "The start lies outside the host's working hours.",
    "away": "The host is away, or has a public holiday.",
    "restriction": "The slot does not lie inside the restriction schedule.",
    "grid": "The start is not on the grid of starts.",
    "fit": "The slot does not end within working hours.",
    "notice": "The start is in the past, or too soon.",
    "window": "The date cannot be booked yet, or no longer.",
    "host_inactive": "The host is not active.",
    "busy": "The host is busy.",
    "capacity": "There are not so many seats left.",
    "resource": "What the booking needs is taken.",
    "limit": "The host has as many bookings as are allowed in that period.",
    "first_of_day": "An earlier start of that date is offered.",
}


class Why(NamedTuple):
    """What stands behind a verdict: a `booking`, `hold`, `calendar_event` or `schedule`, by id."""

    type: str
    id: str | None


class Verdict(NamedTuple):
    rule: str
    ok: bool
    cause: Why | None


class Judge:
    """Asks the rules of a view about one start; `whole` tells that it is a whole minute, as every start on a grid is."""

    def __init__(self, view: View, start: int, *, whole: bool = True) -> None:
        self.view = view
        self.start = start
        self._at = start - view.frame.base
        self.whole = whole

    def refusal(self, *, about_time: bool = True) -> str | None:
        """The rule that refuses among those that quote judges: 1 to 4, 7, 9, and external busy time (10b gives the order).

        Without `about_time` the grid, notice and window do not judge.
        """
        left = list(self.view.hosts)
        for rule, allows in _QUOTED:
            if not about_time and rule in {"grid", "notice", "window"}:
                continue
            left = [host for host in left if allows(self, host)]
            if len(left) < self.view.needed or not left:
                return rule
        return None

    def servers(self) -> list[HostView]:
        """The hosts that pass those rules."""
        return [h for h in self.view.hosts if h.plan.active and self.has(h.fit & h.unfilled)]

    def has(self, starts: int) -> bool:
        return bool(starts >> self._at & 1)

    def verdicts(self, host: HostView) -> list[Verdict]:
        """Every rule's verdict on one host, in the order of 10b, and 8b."""
        return list(self._verdicts(host))

    def _verdicts(self, host: HostView) -> Iterator[Verdict]:
        for rule, allows in _QUOTED[:-1]:
            ok = allows(self, host)
            yield Verdict(rule, ok, None if ok else _settings(rule, self.view.plan, host))
        begun = self.start in host.begun
        calm = self.has(host.unfilled)
        free = begun or self.has(host.unreserved)
        yield Verdict("busy", calm and free, None if calm and free else self._blocker(host, calendar=not calm))
        capacity = self.view.plan.event_type.capacity
        room = capacity - host.begun.get(self.start, 0) >= self.view.ask.seats
        yield Verdict("capacity", room, None if room or not begun else self._sharer(host))
        # A slot that is begun has its units, and joining it is never limited, whether or not there is room.
        roomy = begun or self.has(self.view.rooms)
        yield Verdict("resource", roomy, None if roomy else self._occupant())
        within = begun or self.has(host.limits)
        yield Verdict("limit", within, None if within else self._latest(host))
        first = not self.view.plan.event_type.only_first_slot_of_day or not self._earlier()
        yield Verdict("first_of_day", first, None)

    def _earlier(self) -> bool:
        """Whether an earlier start of the date, in the event type's zone, is offered."""
        zone = self.view.plan.zone
        day = zone.local_day(self.start)
        base = self.view.frame.base
        return any(
            self.view.allowed >> (p.start - base) & ((1 << max(min(p.end, self.start) - p.start, 0)) - 1)
            for p in zone.pieces(day)
        )

    def _slot(self) -> tuple[int, int]:
        return self.start - self.view.plan.before, self.start + self.view.tail

    def _blocker(self, host: HostView, *, calendar: bool) -> Why | None:
        low, high = self._slot()
        if calendar:
            external = self.view.facts.external(host.plan.id)
            met = next((e for e in external.entries if e.start < high and low < e.end), None)
            return Why("calendar_event", met.id) if met else Why("calendar", None)
        return self._met(self.view.facts.reservations(host.plan.id).alive(self.view.now, self.view.ask.ignored))

    def _met(self, entries: Iterator[Reservation]) -> Why | None:
        low, high = self._slot()
        met = next((e for e in entries if e.reserved_from < high and low < e.reserved_to), None)
        return Why(met.kind, met.id) if met else None

    def _sharer(self, host: HostView) -> Why | None:
        alive = self.view.facts.reservations(host.plan.id).alive(self.view.now, self.view.ask.ignored)
        mine = self.view.plan.event_type.id
        met = next((e for e in alive if e.start == self.start and e.event_type_id == mine), None)
        return Why(met.kind, met.id) if met else None

    def _occupant(self) -> Why | None:
        for resource in self.view.plan.resources:
            if not self.has(self.view.units(resource.id, resource.quantity)):
                for unit in self.view.facts.units(resource.id).values():
                    if met := self._met(named(unit).alive(self.view.now, self.view.ask.ignored)):
                        return met
        return None

    def _latest(self, host: HostView) -> Why | None:
        """What counts in the full period, the latest of it; nothing where the slot alone is longer than the limit."""
        zone, ask = host.plan.zone, self.view.ask
        tally = self.view.facts.tally(host.plan.id)
        sums = tally.sums(zone, self.view.now, ask.ignored)
        periods = periods_of(zone.local_day(self.start))
        for limit in self.view.plan.event_type.limits:
            kind = PERIODS.index(limit.per)
            most, longest = before_full(limit, ask.minutes)
            count, spent = sums[kind].get(periods[kind], (0, 0))
            if count > most or spent > longest:
                last = tally.latest(zone, kind, periods[kind], self.view.now, ask.ignored)
                return Why(last.kind, last.id) if last else None
        return None


def _settings(rule: str, plan: Plan, host: HostView) -> Why | None:
    """Which object the setting belongs to that a rule of settings goes by."""
    if rule == "restriction":
        return Why("schedule", plan.event_type.restriction_schedule_id)
    if rule in {"working_hours", "fit", "grid"}:
        return Why("schedule", plan.event_type.schedule_id or host.plan.host.schedule_id)
    if rule == "away":
        return Why("schedule", host.plan.host.schedule_id)
    return Why("host", host.plan.id) if rule == "host_inactive" else Why("event_type", plan.event_type.id)


def detail(rule: str, view: View, host: HostView) -> str:
    """A refusing rule's words, with the figures it went by."""
    kind = view.plan.event_type
    if rule == "notice":
        earliest = minute_after(view.ask.now) + kind.minimum_notice_minutes
        return f"The earliest start is {_wall(view.plan.zone, earliest)}."
    if rule == "window":
        first, last = bookable_dates(view.plan, view.ask.now, series=view.ask.series)
        return f"Dates from {date_of(first)} to {date_of(min(last, LAST_DAY))} can be booked."
    if rule == "limit":
        said = ", ".join(
            f"{limit.count} bookings a {limit.per}" if limit.count else f"{limit.minutes} minutes a {limit.per}"
            for limit in kind.limits
        )
        return f"A limit is reached in {host.plan.zone.name}: at most {said}."
    if rule == "capacity":
        return f"{kind.capacity} seats in all, {view.ask.seats} asked for."
    return DETAILS[rule]


def _wall(zone: Zone, at: int) -> str:
    day, minute = divmod(at + zone.offset(at), DAY)
    return f"{date_of(day)} {minute // 60:02}:{minute % 60:02} in {zone.name}"


_QUOTED: Final[list[tuple[str, Callable[[Judge, HostView], bool]]]] = [
    ("working_hours", lambda judge, host: judge.has(host.hours)),
    ("away", lambda judge, host: judge.has(host.there)),
    ("restriction", lambda judge, host: judge.has(host.unrestricted)),
    ("grid", lambda judge, _: judge.whole and judge.has(judge.view.grid)),
    ("fit", lambda judge, host: judge.has(host.fit)),
    ("notice", lambda judge, _: judge.has(judge.view.notice)),
    ("window", lambda judge, _: judge.has(judge.view.window)),
    ("host_inactive", lambda _, host: host.plan.active),
    ("busy", lambda judge, host: judge.has(host.unfilled)),
]
