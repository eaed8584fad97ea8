"""A booking's life after it is made: what may happen in each state (api.md, States), and what time does to it by itself."""

from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from kalends_booking.domain.decision import Change, Choice, Decision, Timer, illegal
from kalends_booking.domain.events import (
    BookingApproved,
    BookingCancelled,
    BookingCompleted,
    BookingCreated,
    BookingDeclined,
    BookingNoShow,
    BookingNoShowUndone,
    BookingReassigned,
    BookingRescheduled,
    BookingUpdated,
    Event,
    MeetingEnded,
    MeetingStarted,
    PaymentUpdated,
    RecordingReady,
)
from kalends_shared.contracts.booking import BookingState, Payment
from kalends_shared.contracts.errors import KalendsError

EXPIRED: Final = "expired"
UNDOABLE: Final = timedelta(hours=24)
OPEN: Final = ("pending", "confirmed")


def evolve(state: BookingState | None, event: Event, at: datetime) -> BookingState:
    """The booking after an event; total over every state and every event of a booking."""
    if isinstance(event, BookingCreated):
        return event.booking
    assert state is not None, "a booking begins with booking.created"
    state = replace(state, version=state.version + 1, updated_at=at)
    match event:
        case BookingApproved():
            approved = replace(state.policies, approved=True)
            return replace(state, status=event.status, reason=event.reason, policies=approved)
        case BookingDeclined():
            return replace(state, status="declined", reason=event.reason)
        case BookingCancelled():
            return replace(state, status="cancelled", reason=event.reason, cancelled_reason=event.reason)
        case BookingRescheduled() | BookingReassigned():
            return replace(
                state,
                start_at=event.start_at,
                end_at=event.end_at,
                host_ids=event.host_ids,
                resource_ids=event.resource_ids,
                units=event.units,
                event_type=event.event_type,
                hosts=event.hosts,
                policies=event.policies,
                reason=event.reason,
                started_at=state.started_at if event.start_at == state.start_at else None,
            )
        case BookingUpdated():
            return replace(
                state,
                person_version=event.person_version,
                location=event.location,
                meeting_url=event.meeting_url,
                metadata=event.metadata,
            )
        case BookingCompleted():
            return replace(state, status="completed", reason=event.reason, completed_at=at)
        case BookingNoShow():
            return replace(state, status="no_show", reason=event.reason, no_show_at=at)
        case BookingNoShowUndone():
            status = "completed" if state.completed_at else "confirmed"
            return replace(state, status=status, reason=event.reason, no_show_at=None)
        case MeetingStarted():
            return replace(state, started_at=at)
        case MeetingEnded():
            return replace(state, status="completed", reason=None, completed_at=at)
        case PaymentUpdated():
            return replace(state, payment=event.payment, status=event.status, reason=event.reason)
        case _:  # RecordingReady is told, but nothing of the booking is other for it
            return state


def next_timer(state: BookingState) -> Timer | None:
    """When time will do something to the booking by itself."""
    if state.status == "pending":
        return Timer("expire", expires_at(state))
    if state.status == "confirmed":
        return Timer("end", state.end_at) if state.started_at else Timer("start", state.start_at)
    return None


def expires_at(state: BookingState) -> datetime:
    """When a pending booking is declined: what it waits for came too late, at the latest its start."""
    waits = [state.start_at]
    if not state.policies.approved and state.policies.confirmation_expires_at:
        waits.append(state.policies.confirmation_expires_at)
    if not paid(state) and state.payment is not None and state.payment.expires_at:
        waits.append(state.payment.expires_at)
    return min(waits)


def paid(state: BookingState) -> bool:
    """Nothing is awaited; a payment that nobody asked for may be told, and is not waited for."""
    return not state.policies.requires_payment or (state.payment is not None and state.payment.status == "paid")


def caught_up(state: BookingState, now: datetime) -> tuple[BookingState, tuple[Change, ...]]:
    """The booking as time has made it, and the events by which: what its timers tell, should they be late."""
    changes: tuple[Change, ...] = ()
    while (timer := next_timer(state)) is not None and timer.due_at <= now:
        made = _happen(state, timer.due_at, *_DUE[timer.kind], by_time=True)
        state, changes = _after(made), changes + made
    return state, changes


def stamp(state: BookingState, now: datetime) -> datetime:
    """When a change happens: a command that was asked before the last one, and committed after it, is told as of that one.

    So the times of a booking's history ascend, and what it was at a moment is one version of it.
    """
    return max(now, state.updated_at)


_DUE: Final[dict[str, tuple[Event, ...]]] = {
    "expire": (BookingDeclined(reason=EXPIRED),),
    "start": (MeetingStarted(),),
    "end": (MeetingEnded(), BookingCompleted()),
}


def tick(state: BookingState, now: datetime) -> Decision | None:
    """What a timer does; None where there is nothing to do any more."""
    after, changes = caught_up(state, now)
    return _decided(after, changes) if changes else None


def approve(state: BookingState, now: datetime, reason: str | None = None) -> Decision:
    state, late = caught_up(state, now)
    if state.status != "pending" or state.policies.approved:
        raise illegal(state.status, "approved")
    return _append(state, late, now, BookingApproved(status="confirmed" if paid(state) else "pending", reason=reason))


def decline(state: BookingState, now: datetime, reason: str | None = None) -> Decision:
    state, late = caught_up(state, now)
    if state.status != "pending":
        raise illegal(state.status, "declined")
    return _append(state, late, now, BookingDeclined(reason=reason))


def cancel(state: BookingState, now: datetime, reason: str | None = None, *, force: bool = False) -> Decision:
    """Raises: `invalid_state`; `cutoff_passed` past the cut-off, unless forced."""
    state, late = caught_up(state, now)
    if state.status not in OPEN:
        raise illegal(state.status, "cancelled")
    hold_cutoff(state, state.policies.cancel_cutoff_minutes, now, force=force)
    return _append(state, late, now, BookingCancelled(reason=reason))


def hold_cutoff(state: BookingState, cutoff: int | None, now: datetime, *, force: bool) -> None:
    """Raises: `cutoff_passed` where less than the cut-off is left before the start."""
    if cutoff is not None and not force and now > state.start_at - timedelta(minutes=cutoff):
        raise KalendsError("cutoff_passed", f"That was possible until {cutoff} minutes before the start.")


def complete(state: BookingState, now: datetime, reason: str | None = None) -> Decision:
    state, late = caught_up(state, now)
    if state.status != "confirmed" or now < state.start_at:
        raise illegal(state.status, "completed")
    return _append(state, late, now, BookingCompleted(reason=reason))


def no_show(state: BookingState, now: datetime, reason: str | None = None) -> Decision:
    state, late = caught_up(state, now)
    begun = state.status == "confirmed" and now >= state.start_at
    lately = state.status == "completed" and state.completed_at is not None and now <= state.completed_at + UNDOABLE
    if not (begun or lately):
        raise illegal(state.status, "marked as no-show")
    return _append(state, late, now, BookingNoShow(reason=reason))


def undo_no_show(state: BookingState, now: datetime, reason: str | None = None) -> Decision:
    """Gives the booking back what it was, and what time has made of that meanwhile."""
    state, _ = caught_up(state, now)
    if state.status != "no_show" or state.no_show_at is None or now > state.no_show_at + UNDOABLE:
        raise illegal(state.status, "unmarked as no-show")
    undone = _happen(state, now, BookingNoShowUndone(reason=reason))
    state, since = caught_up(_after(undone), now)
    return _decided(state, undone + since)


def tell_payment(state: BookingState, now: datetime, payment: Payment, reason: str | None = None) -> Decision:
    """Takes down a payment in any state; paid confirms what waited for nothing else."""
    state, late = caught_up(state, now)
    was = state.payment or Payment(status="pending")
    told = Payment(
        status=payment.status,
        amount=was.amount if payment.amount is None else payment.amount,
        currency=payment.currency or was.currency,
        reference=payment.reference or was.reference,
        expires_at=was.expires_at,
    )
    confirms = state.status == "pending" and state.policies.approved and payment.status == "paid"
    status = "confirmed" if confirms else state.status
    return _append(state, late, now, PaymentUpdated(payment=told, status=status, reason=reason))


def tell_recording(state: BookingState, now: datetime, event: RecordingReady) -> Decision:
    state, late = caught_up(state, now)
    return _append(state, late, now, event)


def update(state: BookingState, now: datetime, event: BookingUpdated) -> Decision | None:
    """What PATCH does; None where it changes nothing."""
    same = (state.location, state.meeting_url, state.metadata) == (event.location, event.meeting_url, event.metadata)
    if same and event.previous_person_version is None:
        return None
    state, late = caught_up(state, now)
    return _append(state, late, now, event)


def subjects(state: BookingState) -> tuple[str, ...]:
    """The hosts and resources whose locks guard the booking's places."""
    return (*state.host_ids, *state.resource_ids)


def _append(state: BookingState, late: tuple[Change, ...], now: datetime, event: Event) -> Decision:
    changes = late + _happen(state, now, event)
    return _decided(_after(changes), changes)


def _happen(state: BookingState, at: datetime, *events: Event, by_time: bool = False) -> tuple[Change, ...]:
    """One action by all of its events, at the earliest when the booking was changed last (`stamp`)."""
    at = stamp(state, at)
    changes = []
    after = state
    for event in events:
        after = evolve(after, event, at)
        changes.append(Change(state, event, after, at, by_time))
    return tuple(changes)


def _after(changes: tuple[Change, ...]) -> BookingState:
    state = changes[-1].after
    assert isinstance(state, BookingState)
    return state


def _decided(state: BookingState, changes: tuple[Change, ...]) -> Decision:
    """Events of one booking; one that is over by them leaves its place."""
    choices = (Choice(changes=changes),)
    before = changes[0].before
    if state.status in {"declined", "cancelled"} and isinstance(before, BookingState) and before.status in OPEN:
        return Decision(choices=choices, leaves=(state.id,), locks=subjects(state))
    return Decision(choices=choices)
