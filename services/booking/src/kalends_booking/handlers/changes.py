"""Commands on a booking that is there: load, decide, commit, and again where somebody else was faster."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from kalends_booking.domain import booking, series
from kalends_booking.domain.decision import Choice, Decision
from kalends_booking.domain.events import Recording, RecordingReady
from kalends_booking.domain.refusals import refused
from kalends_booking.handlers.context import ATTEMPTS, Context, crowded, under_key
from kalends_booking.store import bookings
from kalends_booking.store.bookings import Loaded
from kalends_booking.store.commit import Keyed, Outcome, commit
from kalends_booking.store.people import PersonVersion
from kalends_booking.store.replies import placed
from kalends_shared import idempotency
from kalends_shared.contracts.booking import (
    BookingState,
    CancelIn,
    Payment,
    PaymentIn,
    PersonData,
    Reason,
    RecordingIn,
    public_booking,
)
from kalends_shared.contracts.call import Call, Reply, check_match, etag
from kalends_shared.contracts.decode import decode
from kalends_shared.contracts.errors import not_found
from kalends_shared.contracts.quotes import AlternativesRequest
from kalends_shared.event_store import VersionConflict

T = TypeVar("T", bound=msgspec.Struct)


async def cancel_booking(ctx: Context, call: Call) -> Reply:
    """Cancels one booking of a series, it and those that follow, or all that are still to come."""

    async def attempt(loaded: Loaded) -> Attempt:
        request = decode(call.body, CancelIn)
        if request.scope == "this" or loaded.state.series_id is None:
            decision = booking.cancel(loaded.state, call.now, request.reason, force=request.force)
            return Attempt(decision, loaded.person)
        since = loaded.state.start_at if request.scope == "following" else None
        others = await bookings.open_of_series(ctx.db.pool, call, loaded.state, since)
        return Attempt(series.cancel(loaded.state, others, call.now, request), loaded.person)

    return await attempted(ctx, call, attempt)


async def approve_booking(ctx: Context, call: Call) -> Reply:
    return await change(ctx, call, Reason, lambda state, told: booking.approve(state, call.now, told.reason))


async def decline_booking(ctx: Context, call: Call) -> Reply:
    return await change(ctx, call, Reason, lambda state, told: booking.decline(state, call.now, told.reason))


async def complete_booking(ctx: Context, call: Call) -> Reply:
    return await change(ctx, call, Reason, lambda state, told: booking.complete(state, call.now, told.reason))


async def no_show_booking(ctx: Context, call: Call) -> Reply:
    return await change(ctx, call, Reason, lambda state, told: booking.no_show(state, call.now, told.reason))


async def undo_no_show(ctx: Context, call: Call) -> Reply:
    return await change(ctx, call, Reason, lambda state, told: booking.undo_no_show(state, call.now, told.reason))


async def payment_booking(ctx: Context, call: Call) -> Reply:
    def decide(state: BookingState, told: PaymentIn) -> Decision:
        payment = Payment(status=told.status, amount=told.amount, currency=told.currency, reference=told.reference)
        return booking.tell_payment(state, call.now, payment, told.reason)

    return await change(ctx, call, PaymentIn, decide)


async def recordings_booking(ctx: Context, call: Call) -> Reply:
    def decide(state: BookingState, told: RecordingIn) -> Decision:
        recording = Recording(url=told.url, duration_seconds=told.duration_seconds)
        return booking.tell_recording(state, call.now, RecordingReady(recording=recording, reason=told.reason))

    return await change(ctx, call, RecordingIn, decide)


async def change(ctx: Context, call: Call, body: type[T], decide: Callable[[BookingState, T], Decision]) -> Reply:
    """A command that takes no new place; `body` is what it is told by."""

    async def attempt(loaded: Loaded) -> Attempt:
        return Attempt(decide(loaded.state, decode(call.body, body)), loaded.person)

    return await attempted(ctx, call, attempt)


class Attempt(msgspec.Struct, frozen=True):
    """What a command decided on the booking as it was loaded, and whose data the answer shows.

    `final`: a refusal by the commit stands; else the choices were some of many, and it is looked again.
    """

    decision: Decision
    shown: PersonData | None
    person: PersonVersion | None = None
    final: bool = True


async def attempted(
    ctx: Context,
    call: Call,
    attempt: Callable[[Loaded], Awaitable[Attempt | None]],
    instead: Callable[[], AlternativesRequest] | None = None,
) -> Reply:
    """Loads the booking of the path, and commits what `attempt` decides; None: nothing changes, and it is answered as it is.

    The body is read by `attempt`, so that a booking that is not there is 404 whatever the body says.

    Raises:
        KalendsError: `not_found`, `version_mismatch`, what `attempt` raises, a refusal of the commit.
    """
    booking_id = call.params["id"]

    async def work(fingerprint: bytes) -> Reply:
        for _ in range(ATTEMPTS):
            loaded = await bookings.get(ctx.db.pool, call.tenant, booking_id)
            if loaded is None:
                raise not_found("A booking of this id")
            check_match(call, loaded.state.version)
            decided = await attempt(loaded)
            if decided is None:
                same = Reply(body=bookings.encode(loaded), etag=etag(loaded.state.version))
                return await placed(ctx.db.pool, call, same)
            answer = Reply(etag=etag(_after(decided.decision.choices[0], loaded.state).version))
            try:
                outcome = await commit(
                    ctx.db.pool,
                    call,
                    decided.decision,
                    render=lambda choice, before=loaded.state, shown=decided.shown: _shown(choice, before, shown),  # type: ignore[misc]
                    keyed=keyed(call, fingerprint, answer, shown_of(loaded)),
                    person=decided.person,
                )
            except VersionConflict:
                continue
            if outcome.kind == "refused" and (decided.final or outcome.rule == "booker"):
                raise refused(outcome.rule)
            if (reply := await settled(ctx, outcome, fingerprint, answer)) is not None:
                return reply
        raise crowded()

    return await under_key(ctx, call, work, instead=instead)


def shown_of(loaded: Loaded) -> str | None:
    """Whose data an answer shows; nobody's once they are erased."""
    return loaded.state.person_id if loaded.person is not None else None


def keyed(call: Call, fingerprint: bytes, reply: Reply, person_id: str | None) -> Keyed | None:
    """What of an answer is stored with the command, where it came with a key."""
    if call.idempotency_key is None:
        return None
    head = idempotency.columns(reply)
    return Keyed(request_hash=fingerprint, status=head.status, headers=head.headers, person_id=person_id)


async def settled(ctx: Context, outcome: Outcome, fingerprint: bytes, answer: Reply) -> Reply | None:
    """The answer where there is one: to what was done, by its head `answer`, or to the request that came first under the key."""
    match outcome.kind:
        case "done":
            await ctx.nudge()
            return msgspec.structs.replace(answer, body=outcome.reply, position=outcome.position)
        case "stored":
            assert outcome.row is not None
            return idempotency.answer(outcome.row, fingerprint)
        case "in_flight":
            raise idempotency.in_flight()
    return None


def _shown(choice: Choice, before: BookingState, person: PersonData | None) -> bytes:
    return msgspec.json.encode(public_booking(_after(choice, before), person))


def _after(choice: Choice, before: BookingState) -> BookingState:
    """The booking as the choice leaves it, which may change others of its series too, or others alone."""
    states = (change.after for change in reversed(choice.changes))
    return next((one for one in states if isinstance(one, BookingState) and one.id == before.id), before)
