"""Commands that take a place: a booking is made, moved or given to another host; a hold is placed.

Each gives one choice for every option (domain.choosing) that would serve it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from kalends_booking.domain import booking, choosing
from kalends_booking.domain.choosing import Option, Unit, Wish, resource_of
from kalends_booking.domain.decision import BookerCap, Change, Choice, Claim, Decision, illegal
from kalends_booking.domain.events import (
    Assignment,
    BookingCreated,
    BookingReassigned,
    BookingRescheduled,
    Candidate,
    Event,
    HoldPlaced,
)
from kalends_shared.contracts.availability import EventType, Location
from kalends_shared.contracts.booking import (
    BookingIn,
    BookingLocation,
    BookingState,
    EventTypeSnapshot,
    HoldIn,
    HoldState,
    HostSnapshot,
    Payment,
    Policies,
    ReassignIn,
    RescheduleIn,
)
from kalends_shared.contracts.errors import KalendsError, invalid
from kalends_shared.contracts.quotes import Quote, QuotedHost

# Who sits where they sat is not judged again: a converted hold, and the hosts that stay when another is replaced.
_ANY_CAPACITY: Final = 1_000_000
_CANDIDATES: Final = 20  # an event tells at least as many of the hosts that were ranked


class Booker(Struct, frozen=True, kw_only=True):
    """Who books: a version of a person, and the address by which their bookings are counted."""

    person_id: str
    version: str
    email: str

    def cap(self, event_type: EventType, besides: str | None = None) -> BookerCap | None:
        most = event_type.max_active_per_booker
        return None if most is None else BookerCap(event_type.id, self.person_id, self.email.lower(), most, besides)


def create(
    booking_id: str,
    request: BookingIn,
    wish: Wish,
    options: Sequence[Option],
    booker: Booker,
    now: datetime,
    series_id: str | None = None,
) -> Decision:
    """A new booking of the start that was quoted."""
    choices = []
    for option in options:
        state = _new(booking_id, request, wish, option, booker, now, series_id)
        choices.append(
            _place(None, BookingCreated(booking=state, assignment=_assigned(wish, option)), state, wish, option, now)
        )
    return Decision(choices=tuple(choices), cap=booker.cap(wish.event_type))


def held(hold: HoldState) -> Option:
    """The hosts and units that a hold keeps."""
    slot = choosing.unit_slot(hold.event_type_id, hold.host_ids[0])
    return Option(
        tuple(
            QuotedHost(id=h.id, name=h.name, email=h.email, timezone=h.timezone, limits_timezone=h.limits_timezone)
            for h in hold.hosts
        ),
        tuple(Unit(resource_of(unit), unit, slot) for unit in hold.units),
    )


def convert(
    booking_id: str,
    request: BookingIn,
    wish: Wish,
    hold: HoldState,
    used: Change,
    booker: Booker,
    now: datetime,
    series_id: str | None = None,
) -> Decision:
    """A new booking in the place of a hold, judged by no rule but the cap a booker."""
    state = _new(booking_id, request, wish, held(hold), booker, now, series_id)
    buffers = {
        name: getattr(hold.policies, name) for name in ("buffer_before_minutes", "buffer_after_minutes", "capacity")
    }
    state = replace(
        state,
        start_at=hold.start_at,
        end_at=hold.end_at,
        hold_id=hold.id,
        policies=replace(state.policies, **buffers),
    )
    change = Change(None, BookingCreated(booking=state), state, now)
    choice = Choice(changes=(change, used), claims=tuple(_reclaim(state)))
    locks = (*hold.host_ids, *map(resource_of, hold.units))
    return Decision(choices=(choice,), frees=(hold.id,), locks=locks, cap=booker.cap(wish.event_type))


def may_move(state: BookingState, request: RescheduleIn, now: datetime) -> tuple[BookingState, tuple[Change, ...]]:
    """The booking caught up with time, where it may still be moved; asked before anybody else is.

    Raises:
        KalendsError: `invalid_state`, `cutoff_passed`.
    """
    state, late = booking.caught_up(state, now)
    if state.status not in booking.OPEN:
        raise illegal(state.status, "rescheduled")
    booking.hold_cutoff(state, state.policies.reschedule_cutoff_minutes, now, force=request.force)
    return state, late


def may_reassign(
    state: BookingState, request: ReassignIn, now: datetime
) -> tuple[BookingState, tuple[Change, ...], str]:
    """The booking caught up with time, and the host whose part the new one takes.

    Raises:
        KalendsError: `invalid_state`, also where the host serves it already; 422 at `#/from_host_id`.
    """
    state, late = booking.caught_up(state, now)
    if state.status not in booking.OPEN:
        raise illegal(state.status, "reassigned")
    if request.host_id in state.host_ids:
        raise KalendsError("invalid_state", "That host serves the booking already.", extra={"state": state.status})
    if request.from_host_id is None and len(state.host_ids) > 1:
        raise invalid("#/from_host_id", "required", "is required where several hosts serve together")
    leaving = request.from_host_id or state.host_ids[0]
    if leaving not in state.host_ids:
        raise invalid("#/from_host_id", "not_found", "is not a host of this booking")
    return state, late, leaving


def substitution(state: BookingState, leaving: str, quote: Quote) -> Wish:
    """The new host's part alone: nobody else of the booking is judged again, and it keeps the buffers it was booked by.

    Units go with the first host, so only whoever takes its part needs them.
    """
    alone = replace(
        quote.event_type,
        assignment="single",
        required_hosts=1,
        buffer_before_minutes=state.policies.buffer_before_minutes,
        buffer_after_minutes=state.policies.buffer_after_minutes,
    )
    needed = quote.resources if leaving == state.host_ids[0] else []
    return Wish(quote=replace(quote, event_type=alone, resources=needed), start=quote.starts[0], seats=state.seats)


def reschedule(
    state: BookingState,
    late: tuple[Change, ...],
    wish: Wish,
    options: Sequence[Option],
    cap: BookerCap | None,
    reason: str | None,
    now: datetime,
) -> Decision:
    """The booking at its new start, its old place given up in the same transaction."""
    kept, now = state.policies, booking.stamp(state, now)
    choices = []
    for option in options:
        event = BookingRescheduled(
            start_at=wish.start.start_at,
            end_at=wish.start.end_at,
            host_ids=[host.id for host in option.hosts],
            resource_ids=[unit.resource_id for unit in option.units],
            units=[unit.subject_id for unit in option.units],
            event_type=_snapshot(wish.event_type),
            hosts=_hosts(option.hosts),
            policies=replace(
                _policies(wish.event_type, now),
                requires_confirmation=kept.requires_confirmation,
                confirmation_expires_at=kept.confirmation_expires_at,
                approved=kept.approved,
                requires_payment=kept.requires_payment,
            ),
            reason=reason,
            assignment=_assigned(wish, option),
        )
        after = booking.evolve(state, event, now)
        placed = _place(state, event, after, wish, option, now)
        choices.append(replace(placed, changes=(*late, *placed.changes)))
    return Decision(choices=tuple(choices), frees=(state.id,), locks=booking.subjects(state), cap=cap)


def reassign(
    state: BookingState,
    late: tuple[Change, ...],
    leaving: str,
    wish: Wish,
    options: Sequence[Option],
    reason: str | None,
    now: datetime,
) -> Decision:
    """The booking with another host in the place of the one that leaves (`substitution` is the wish); all else stays."""
    now = booking.stamp(state, now)
    first = leaving == state.host_ids[0]
    kept = [one for one in _reclaim(state) if one.subject_id != leaving and not (first and one.resource_id)]
    choices = []
    for option in options:
        (new,) = _hosts(option.hosts)
        hosts = [new if host.id == leaving else host for host in state.hosts]
        event = BookingReassigned(
            start_at=state.start_at,
            end_at=state.end_at,
            host_ids=[host.id for host in hosts],
            resource_ids=[unit.resource_id for unit in option.units] if first else state.resource_ids,
            units=[unit.subject_id for unit in option.units] if first else state.units,
            event_type=_snapshot(wish.event_type),
            hosts=hosts,
            policies=state.policies,
            reason=reason,
        )
        placed = _place(state, event, booking.evolve(state, event, now), wish, option, now)
        choices.append(replace(placed, changes=(*late, *placed.changes), claims=(*kept, *placed.claims)))
    return Decision(choices=tuple(choices), frees=(state.id,), locks=booking.subjects(state))


def hold(hold_id: str, request: HoldIn, wish: Wish, options: Sequence[Option], now: datetime) -> Decision:
    """A start kept for whoever has the hold's id, until it runs out."""
    choices = []
    expires_at = now + timedelta(seconds=request.ttl_seconds)
    for option in options:
        state = HoldState(
            id=hold_id,
            created_at=now,
            updated_at=now,
            version=1,
            event_type_id=wish.event_type.id,
            start_at=wish.start.start_at,
            end_at=wish.start.end_at,
            host_ids=[host.id for host in option.hosts],
            seats=request.seats,
            ttl_seconds=request.ttl_seconds,
            status="active",
            expires_at=expires_at,
            event_type=_snapshot(wish.event_type),
            hosts=_hosts(option.hosts),
            policies=_policies(wish.event_type, now),
            units=[unit.subject_id for unit in option.units],
            metadata=request.metadata,
        )
        placed = HoldPlaced(hold=state, assignment=_assigned(wish, option))
        choices.append(_place(None, placed, state, wish, option, now, expires_at=expires_at))
    return Decision(choices=tuple(choices))


def _place(
    before: BookingState | None,
    event: Event,
    after: BookingState | HoldState,
    wish: Wish,
    option: Option,
    now: datetime,
    *,
    expires_at: datetime | None = None,
) -> Choice:
    """One choice: the event, and the places that its hosts and units need."""
    start, (low, high) = wish.start, wish.reserved
    capacity = wish.event_type.capacity
    subjects = [(host.id, None, wish.event_type.id) for host in option.hosts]
    claims = [
        Claim(
            after.id, subject, resource, slot, start.start_at, start.end_at, low, high, wish.seats, capacity, expires_at
        )
        for subject, resource, slot in (
            *subjects,
            *((unit.subject_id, unit.resource_id, unit.slot) for unit in option.units),
        )
    ]
    return Choice(
        changes=(Change(before, event, after, now),),
        claims=tuple(claims),
        limits=tuple(choosing.limits(wish.event_type, start, option.hosts)),
    )


def _assigned(wish: Wish, option: Option) -> Assignment | None:
    """Why these hosts, where there was a choice."""
    if wish.event_type.assignment not in {"any", "round_robin"}:
        return None
    chosen = {host.id for host in option.hosts}
    told = [h for n, h in enumerate(wish.start.hosts) if n < _CANDIDATES or h.id in chosen]
    candidates = [Candidate(host_id=host.id, rank=host.rank) for host in told]
    return Assignment(method=wish.event_type.assignment, among=len(wish.start.hosts), candidates=candidates)


def _reclaim(state: BookingState) -> Iterable[Claim]:
    """The places of a booking where they are, buffers as they were."""
    low = state.start_at - timedelta(minutes=state.policies.buffer_before_minutes)
    high = state.end_at + timedelta(minutes=state.policies.buffer_after_minutes)
    slot = choosing.unit_slot(state.event_type_id, state.host_ids[0])
    hosts = [(host, None, state.event_type_id) for host in state.host_ids]
    for subject, resource, name in (*hosts, *((unit, resource_of(unit), slot) for unit in state.units)):
        yield Claim(
            state.id, subject, resource, name, state.start_at, state.end_at, low, high, state.seats, _ANY_CAPACITY
        )


def _new(
    booking_id: str,
    request: BookingIn,
    wish: Wish,
    option: Option,
    booker: Booker,
    now: datetime,
    series_id: str | None,
) -> BookingState:
    event_type = wish.event_type
    location = wish.quote.location
    return BookingState(
        id=booking_id,
        created_at=now,
        updated_at=now,
        version=1,
        event_type_id=event_type.id,
        start_at=wish.start.start_at,
        end_at=wish.start.end_at,
        status="pending" if event_type.requires_confirmation or event_type.payment else "confirmed",
        seats=request.seats,
        host_ids=[host.id for host in option.hosts],
        resource_ids=[unit.resource_id for unit in option.units],
        person_id=booker.person_id,
        person_version=booker.version,
        location=place(location),
        meeting_url=meeting_url(location, booking_id),
        series_id=series_id,
        recurrence=request.recurrence,
        payment=_payment(event_type, now),
        metadata=request.metadata,
        event_type=_snapshot(event_type),
        hosts=_hosts(option.hosts),
        policies=_policies(event_type, now),
        units=[unit.subject_id for unit in option.units],
    )


def place(location: Location | None) -> BookingLocation | None:
    """What a booking keeps of its location."""
    if location is None:
        return None
    return BookingLocation(
        id=location.id,
        name=location.name,
        kind=location.kind,
        address=location.address,
        url_template=location.url_template,
    )


def meeting_url(location: Location | BookingLocation | None, booking_id: str) -> str | None:
    """A link's template with `{booking_id}` filled in."""
    if location is None or location.url_template is None:
        return None
    return location.url_template.replace("{booking_id}", booking_id)


def _payment(event_type: EventType, now: datetime) -> Payment | None:
    terms = event_type.payment
    if terms is None:
        return None
    expires_at = None if terms.expires_minutes is None else now + timedelta(minutes=terms.expires_minutes)
    return Payment(status="pending", amount=terms.amount, currency=terms.currency, expires_at=expires_at)


def _policies(event_type: EventType, now: datetime) -> Policies:
    expires = event_type.confirmation_expires_minutes if event_type.requires_confirmation else None
    return Policies(
        buffer_before_minutes=event_type.buffer_before_minutes,
        buffer_after_minutes=event_type.buffer_after_minutes,
        capacity=event_type.capacity,
        cancel_cutoff_minutes=event_type.cancel_cutoff_minutes,
        reschedule_cutoff_minutes=event_type.reschedule_cutoff_minutes,
        requires_confirmation=event_type.requires_confirmation,
        confirmation_expires_at=None if expires is None else now + timedelta(minutes=expires),
        approved=not event_type.requires_confirmation,
        requires_payment=event_type.payment is not None,
        assignment=event_type.assignment,
    )


def _snapshot(event_type: EventType) -> EventTypeSnapshot:
    return EventTypeSnapshot(
        id=event_type.id,
        slug=event_type.slug,
        title=event_type.title,
        duration_minutes=event_type.duration_minutes,
        description=event_type.description,
        metadata=event_type.metadata,
    )


def _hosts(hosts: Iterable[QuotedHost]) -> list[HostSnapshot]:
    return [
        HostSnapshot(
            id=one.id, name=one.name, email=one.email, timezone=one.timezone, limits_timezone=one.limits_timezone
        )
        for one in hosts
    ]
