"""What a command comes to, before anything is written: events, what they reserve and free, and what must hold for that.

Where several hosts or units would do, a decision offers a choice for each; the commit takes the first that fits.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec import Struct

from kalends_booking.domain.events import Event
from kalends_shared.contracts.booking import BookingState, HoldState
from kalends_shared.contracts.errors import KalendsError

State = BookingState | HoldState


class Change(NamedTuple):
    """An event of a stream, with the states before (None: it begins the stream) and after it, and when it occurred.

    `by_time`: nobody did it; its timer tells it, or a command that comes before the timer.
    What one action tells by several events is `before` and `after` that action in each of them, but for the version.
    """

    before: State | None
    event: Event
    after: State
    at: datetime
    by_time: bool = False


class Claim(NamedTuple):
    """A place in a slot of a host or of a unit of a resource.

    `slot` says which places share a reservation: those with the same slot, subject, start and end, while their seats
    sum to at most `capacity`. A host's slot is its event type; a unit's also names the host that it serves, so that two
    groups never meet in one room. `reserved_from` and `reserved_to` include buffers.
    """

    holder_id: str
    subject_id: str
    resource_id: str | None
    slot: str
    start_at: datetime
    end_at: datetime
    reserved_from: datetime
    reserved_to: datetime
    seats: int
    capacity: int
    expires_at: datetime | None = None


class HostLimit(NamedTuple):
    """Within [from_at, to_at) the host may have at most so many slots, or minutes, of the event type, this one included."""

    host_id: str
    event_type_id: str
    from_at: datetime
    to_at: datetime
    max_count: int | None
    max_minutes: int | None
    start_at: datetime
    end_at: datetime


class BookerCap(NamedTuple):
    """A person may have at most so many upcoming bookings of the event type, `besides` not counted, this one included."""

    event_type_id: str
    person_id: str
    booker: str
    at_most: int
    besides: str | None = None

    @property
    def lock(self) -> str:
        return f"booker/{self.event_type_id}/{self.booker}"


class Choice(Struct, frozen=True, kw_only=True):
    changes: tuple[Change, ...]
    claims: tuple[Claim, ...] = ()
    limits: tuple[HostLimit, ...] = ()


class Decision(Struct, frozen=True, kw_only=True):
    """What is to be committed, as the first of its choices that fits.

    `frees` and `leaves` are the bookings and holds whose places end here; of the latter a trace is kept, by which lists
    by host still find them. `locks` are the hosts and resources of what is freed.
    """

    choices: tuple[Choice, ...]
    frees: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    cap: BookerCap | None = None


class Timer(NamedTuple):
    """When a stream is to be looked at again; each has at most one."""

    kind: str
    due_at: datetime


def together(decisions: Sequence[Decision]) -> Decision:
    """Several streams' decisions as one, all or nothing, events in the order of their times. None may offer or take places."""
    changes = [change for decision in decisions for change in decision.choices[0].changes]
    return Decision(
        choices=(Choice(changes=tuple(sorted(changes, key=lambda change: change.at))),),
        frees=tuple(holder for decision in decisions for holder in decision.frees),
        leaves=tuple(holder for decision in decisions for holder in decision.leaves),
        locks=tuple(key for decision in decisions for key in decision.locks),
    )


def minutes(start_at: datetime, end_at: datetime) -> int:
    return int((end_at - start_at) / timedelta(minutes=1))


def illegal(state: str, command: str) -> KalendsError:
    return KalendsError("invalid_state", f"A booking that is {state} cannot be {command}.", extra={"state": state})
