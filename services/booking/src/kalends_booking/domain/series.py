"""Series: bookings made by one request, on one host, and cancelled together."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kalends_booking.domain import booking, choosing, placing
from kalends_booking.domain.choosing import Option, Seen, Taken, Wish
from kalends_booking.domain.decision import Change, Choice, Decision, HostLimit, minutes
from kalends_booking.domain.placing import Booker
from kalends_booking.domain.refusals import refused
from kalends_shared.contracts.booking import BookingIn, BookingState, CancelIn, HoldState
from kalends_shared.contracts.errors import KalendsError


class Plan(Struct, frozen=True):
    """What of a series can be booked: the wishes with their options, and what is skipped, as the answer lists it."""

    served: list[tuple[Wish, Option]]
    skipped: list[dict[str, Any]]


def plan(wishes: Sequence[Wish], seen: Seen, *, skip: bool, held: Option | None = None) -> Plan:
    """One host (or one set of hosts) for all starts: the first that serves every one, or, with `skip`, the most.

    `held` is what a hold keeps for the first start: it is not judged again, and its hosts serve all.

    Raises:
        KalendsError: the refusal of a start, where not all (with `skip`: none) can be served.
    """
    best: list[Option | KalendsError] = []
    for team in _teams(wishes, seen) if held is None else [frozenset(host.id for host in held.hosts)]:
        tried = _try(wishes, team, seen, held)
        if _count(tried) > _count(best) or not best:
            best = tried
        if _count(best) == len(wishes):
            break
    refusals = [(wish, one) for wish, one in zip(wishes, best, strict=True) if isinstance(one, KalendsError)]
    if refusals and (not skip or len(refusals) == len(wishes)):
        raise _of_the_series(*refusals[0])
    return Plan(
        [(wish, one) for wish, one in zip(wishes, best, strict=True) if isinstance(one, Option)],
        [
            {"start_at": wish.start.start_at, "code": one.code, "rule": one.extra.get("rule")}
            for wish, one in zip(wishes, best, strict=True)
            if isinstance(one, KalendsError)
        ],
    )


def create(
    series_id: str,
    booking_ids: Sequence[str],
    request: BookingIn,
    planned: Plan,
    booker: Booker,
    now: datetime,
    held: tuple[HoldState, Change] | None = None,
) -> Decision:
    """All bookings of a series, or none; the first of them in the place of the hold that it uses."""
    made = [
        placing.convert(booking_id, request, wish, *held, booker, now, series_id)
        if held is not None and n == 0
        else placing.create(booking_id, request, wish, [option], booker, now, series_id)
        for n, (booking_id, (wish, option)) in enumerate(zip(booking_ids, planned.served, strict=True))
    ]
    first = made[0]
    cap = first.cap and first.cap._replace(at_most=first.cap.at_most - len(made) + 1)
    return Decision(choices=(_joined([one.choices[0] for one in made]),), frees=first.frees, locks=first.locks, cap=cap)


def cancel(one: BookingState, others: Iterable[BookingState], now: datetime, request: CancelIn) -> Decision:
    """A booking and others of its series, the earliest first; those that have ended stay as they are, it among them.

    Raises:
        KalendsError: `invalid_state` where all have ended; `cutoff_passed` where one of them is inside its cut-off.
    """
    ordered = sorted((one, *others), key=lambda state: (state.start_at, state.id))
    left = [state for state in ordered if booking.caught_up(state, now)[0].status in booking.OPEN]
    decisions = [booking.cancel(state, now, request.reason, force=request.force) for state in left or [one]]
    return Decision(
        choices=(_joined([decision.choices[0] for decision in decisions]),),
        leaves=tuple(one for decision in decisions for one in decision.leaves),
        locks=tuple(one for decision in decisions for one in decision.locks),
    )


def _of_the_series(wish: Wish, refusal: KalendsError) -> KalendsError:
    """The refusal of one start, which says which one."""
    refusal.extra = refusal.extra | {"start_at": wish.start.start_at}
    return refusal


def _teams(wishes: Sequence[Wish], seen: Seen) -> list[frozenset[str]]:
    """The sets of hosts to try, in ranked order; nobody, where no start allows anyone, so that each has its refusal."""
    ranked = list(dict.fromkeys(host.id for wish in wishes for host in wish.start.hosts))
    needed = wishes[0].event_type.required_hosts
    if wishes[0].event_type.assignment == "collective":
        return [frozenset(ranked)]
    if needed == 1:
        return [frozenset({host}) for host in ranked] or [frozenset()]
    alone = {host: sum(_serves(wish, host, seen) for wish in wishes) for host in ranked}
    return [frozenset(sorted(ranked, key=lambda host: -alone[host])[:needed])]


def _serves(wish: Wish, host_id: str, seen: Seen) -> bool:
    single = msgspec.structs.replace(wish.event_type, required_hosts=1)
    alone = replace(_narrowed(wish, frozenset({host_id})), quote=replace(wish.quote, event_type=single))
    try:
        choosing.admit(alone)
        return bool(choosing.options(alone, seen))
    except KalendsError:
        return False


def _try(wishes: Sequence[Wish], team: frozenset[str], seen: Seen, held: Option | None) -> list[Option | KalendsError]:
    """What each start comes to with these hosts, as if those before it were booked."""
    ends: list[Option | KalendsError] = []
    booked: list[tuple[Wish, Option]] = []
    for wish in wishes:
        narrowed = _narrowed(wish, team)
        if held is not None and not ends:
            ends.append(held)
            booked.append((narrowed, held))
            continue
        try:
            choosing.admit(wish)
            if wish.start.refusal is None and len(narrowed.start.hosts) < max(narrowed.needed, 1):
                raise refused("working_hours", "The series' host does not offer that start.", "slot_not_offered")
            option = choosing.options(narrowed, _with(seen, narrowed, booked))[0]
        except KalendsError as refusal:
            ends.append(refusal)
        else:
            ends.append(option)
            booked.append((narrowed, option))
    return ends


def _narrowed(wish: Wish, team: frozenset[str]) -> Wish:
    hosts = [host for host in wish.start.hosts if host.id in team]
    return replace(wish, start=replace(wish.start, hosts=hosts))


def _with(seen: Seen, wish: Wish, booked: Sequence[tuple[Wish, Option]]) -> Seen:
    """What is seen, and the bookings of the series that come before."""
    if not booked:
        return seen
    taken = list(seen.taken)
    for one, option in booked:
        start, (low, high) = one.start, one.reserved
        places = [(host.id, None, one.event_type.id) for host in option.hosts]
        places += [(unit.subject_id, unit.resource_id, unit.slot) for unit in option.units]  # type: ignore[misc]
        for subject, resource, slot in places:
            taken.append(Taken(subject, resource, slot, start.start_at, start.end_at, low, high, one.seats))
    counted = dict(seen.counted)
    for limit in choosing.all_limits(wish):
        count, spent = counted.get(limit, (0, 0))
        more, longer = _spent(limit, booked, seen)
        counted[limit] = count + more, spent + longer
    return Seen(tuple(taken), counted)


def _spent(limit: HostLimit, booked: Sequence[tuple[Wish, Option]], seen: Seen) -> tuple[int, int]:
    """What of these bookings counts against a limit; what joins a group that is begun is in the counts that are seen."""
    inside = [
        wish.start
        for wish, option in booked
        if limit.from_at <= wish.start.start_at < limit.to_at
        and any(host.id == limit.host_id for host in option.hosts)
        and not choosing.seats_taken(wish, seen, limit.host_id)
    ]
    return len(inside), sum(minutes(start.start_at, start.end_at) for start in inside)


def _count(tried: Sequence[Option | KalendsError]) -> int:
    return sum(isinstance(one, Option) for one in tried)


def _joined(parts: Sequence[Choice]) -> Choice:
    return Choice(
        changes=tuple(change for part in parts for change in part.changes),
        claims=tuple(claim for part in parts for claim in part.claims),
        limits=tuple(limit for part in parts for limit in part.limits),
    )
