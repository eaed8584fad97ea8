"""A hold's life: it reserves a slot until it is released, converted into a booking, or runs out."""

from datetime import datetime

from msgspec.structs import replace

from kalends_booking.domain.choosing import resource_of
from kalends_booking.domain.decision import Change, Choice, Decision, Timer
from kalends_booking.domain.events import Event, HoldConverted, HoldExpired, HoldPlaced, HoldReleased
from kalends_shared.contracts.booking import BookingIn, HoldState
from kalends_shared.contracts.errors import FieldError, KalendsError, not_found


def evolve(state: HoldState | None, event: Event, at: datetime) -> HoldState:
    """The hold after an event; total over every state and every event of a hold."""
    if isinstance(event, HoldPlaced):
        return event.hold
    assert state is not None, "a hold begins with hold.placed"
    state = replace(state, version=state.version + 1, updated_at=at)
    match event:
        case HoldReleased():
            return replace(state, status="released")
        case HoldConverted():
            return replace(state, status="converted")
        case _:
            return replace(state, status="expired")


def at(state: HoldState, now: datetime) -> HoldState:
    """The hold as it is to be seen: one that has run out is expired, whether or not its timer has told so yet."""
    return replace(state, status="expired") if state.status == "active" and now >= state.expires_at else state


def next_timer(state: HoldState) -> Timer | None:
    return Timer("expire", state.expires_at) if state.status == "active" else None


def tick(state: HoldState, now: datetime) -> Decision | None:
    """What its timer does; None where the hold is no longer active."""
    if state.status != "active" or now < state.expires_at:
        return None
    return _free(state, HoldExpired(), max(state.expires_at, state.updated_at), by_time=True)


def release(state: HoldState, now: datetime) -> Decision:
    """Gives the slot back.

    Raises:
        KalendsError: `not_found` where the hold is no longer active.
    """
    if at(state, now).status != "active":
        raise not_found("An active hold of this id")
    return _free(state, HoldReleased(), now)


def conversion(state: HoldState | None, request: BookingIn, booking_id: str, now: datetime) -> Change:
    """The hold's part in the booking that uses it.

    Raises:
        KalendsError: 422 `not_found` for an unknown hold, `hold_expired` for one no longer active, `hold_mismatch`.
    """
    if state is None:
        raise KalendsError(
            "validation_failed", "There is no such hold.", (FieldError("#/hold_id", "not_found", "does not exist"),)
        )
    if at(state, now).status != "active":
        raise KalendsError(
            "hold_expired", f"The hold is {at(state, now).status}.", extra={"state": at(state, now).status}
        )
    asked = {
        "event_type_id": (request.event_type_id, state.event_type_id),
        "start_at": (request.start_at, state.start_at),
        "end_at": (request.end_at or state.end_at, state.end_at),
        "host_id": (request.host_id or state.host_ids[0], state.host_ids[0]),
        "seats": (request.seats, state.seats),
    }
    wrong = [name for name, (wanted, held) in asked.items() if wanted != held]
    if wrong:
        fields = tuple(FieldError(f"#/{name}", "hold_mismatch", "differs from the hold's") for name in wrong)
        raise KalendsError("validation_failed", "The booking differs from its hold.", fields)
    event = HoldConverted(booking_id=booking_id)
    return Change(state, event, evolve(state, event, now), now)


def _free(state: HoldState, event: Event, at_: datetime, *, by_time: bool = False) -> Decision:
    change = Change(state, event, evolve(state, event, at_), at_, by_time)
    return Decision(
        choices=(Choice(changes=(change,)),), frees=(state.id,), locks=(*state.host_ids, *map(resource_of, state.units))
    )
