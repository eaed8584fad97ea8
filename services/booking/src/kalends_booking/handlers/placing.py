"""Commands that take a place: create, reschedule, reassign."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from kalends_booking import recurrence
from kalends_booking.domain import answers, choosing, hold, placing, series
from kalends_booking.domain.choosing import Option, Seen, Wish
from kalends_booking.domain.decision import Change, Choice, Decision, minutes
from kalends_booking.domain.placing import Booker
from kalends_booking.domain.refusals import refused
from kalends_booking.handlers.changes import Attempt, attempted, keyed, settled
from kalends_booking.handlers.context import ATTEMPTS, Context, Quoted, crowded, require_key, under_key
from kalends_booking.store import bookings, holds, occupancy, people
from kalends_booking.store.bookings import Loaded
from kalends_booking.store.commit import commit
from kalends_booking.store.people import PersonVersion
from kalends_booking.store.replies import placed
from kalends_shared import idempotency
from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import (
    BookingIn,
    BookingState,
    HoldState,
    PersonData,
    ReassignIn,
    RescheduleIn,
    Series,
    public_booking,
)
from kalends_shared.contracts.call import Call, Reply, etag
from kalends_shared.contracts.decode import decode
from kalends_shared.contracts.quotes import AlternativesRequest, QuoteRequest
from kalends_shared.event_store import VersionConflict


async def create_booking(ctx: Context, call: Call) -> Reply:
    """Books a slot: two round trips to the database where there is one choice of hosts and units."""
    require_key(call)
    request = decode(call.body, BookingIn)
    found = await bookings.begin(ctx.db.pool, call, request.booker_email)
    if found["request_hash"] is not None:
        stored = idempotency.answer(found, idempotency.request_hash(call.body))
        return await placed(ctx.db.pool, call, stored)
    quoted = Quoted(
        ctx,
        call,
        QuoteRequest(
            event_type_id=request.event_type_id,
            start_at=request.start_at,
            end_at=request.end_at,
            host_id=request.host_id,
            location_id=request.location_id,
            seats=request.seats,
            hold_id=request.hold_id,
        ),
    )

    async def work(fingerprint: bytes) -> Reply:
        return await _create(ctx, call, request, quoted, fingerprint, found["person_id"])

    def instead() -> AlternativesRequest:
        return other_starts(request.event_type_id, request.start_at, request.end_at, request.host_id, request.seats)

    return await under_key(ctx, call, work, looked=True, instead=instead)


class Made(Struct, frozen=True):
    """What a creation decided; `series` is told in its answer. `final`: a refusal by the commit stands."""

    decision: Decision
    series: Series | None = None
    final: bool = True


async def _create(
    ctx: Context, call: Call, request: BookingIn, quoted: Quoted, fingerprint: bytes, person_id: str | None
) -> Reply:
    booking_id = ids.new_id("bkg")
    answer = Reply(status=201, etag=etag(1), location=f"/bookings/{booking_id}")
    for _ in range(ATTEMPTS):
        person = told(request, person_id)
        booker = Booker(person_id=person.person_id, version=person.version, email=person.email)
        if request.recurrence is not None:
            made = await _series(ctx, call, request, quoted, booking_id, booker)
        elif request.hold_id is not None:
            made = await _from_hold(ctx, call, request, quoted, booking_id, booker)
        else:
            made = await _one(ctx, call, request, quoted, booking_id, booker)
        try:
            outcome = await commit(
                ctx.db.pool,
                call,
                made.decision,
                render=lambda choice, person=person, made=made: created(choice, person.data(), made.series),  # type: ignore[misc]
                keyed=keyed(call, fingerprint, answer, person_id=person.person_id),
                person=person,
            )
        except VersionConflict:  # of the hold that is converted
            continue
        if (reply := await settled(ctx, outcome, fingerprint, answer)) is not None:
            return reply
        if outcome.kind == "person":
            person_id = outcome.person_id
        elif made.final or outcome.rule == "booker":
            raise refused(outcome.rule)
    raise crowded()


async def _one(ctx: Context, call: Call, request: BookingIn, quoted: Quoted, booking_id: str, booker: Booker) -> Made:
    quote = await quoted.fresh()
    answers.check(request.answers, quote.event_type.questions)
    wish = Wish(quote=quote, start=quote.starts[0], seats=request.seats)
    options = await offers(ctx, call, wish)
    decision = placing.create(booking_id, request, wish, options, booker, call.now)
    return Made(decision, final=choosing.plain(wish) is not None)


async def _from_hold(
    ctx: Context, call: Call, request: BookingIn, quoted: Quoted, booking_id: str, booker: Booker
) -> Made:
    held, used = await _held(ctx, call, request, booking_id)
    quote = await quoted.fresh()
    answers.check(request.answers, quote.event_type.questions)
    wish = Wish(quote=quote, start=quote.starts[0], seats=request.seats)
    return Made(placing.convert(booking_id, request, wish, held, used, booker, call.now))


async def _held(ctx: Context, call: Call, request: BookingIn, booking_id: str) -> tuple[HoldState, Change]:
    """The hold that the request names, and its part in the booking that uses it."""
    held = await holds.get(ctx.db.pool, call.tenant, request.hold_id or "")
    used = hold.conversion(held, request, booking_id, call.now)
    assert held is not None
    return held, used


async def _series(
    ctx: Context,
    call: Call,
    request: BookingIn,
    quoted: Quoted,
    booking_id: str,
    booker: Booker,
) -> Made:
    assert request.recurrence is not None
    held = None
    if request.hold_id is not None:
        held = await _held(ctx, call, request, booking_id)
        quoted.request.end_at = held[0].end_at
    quote = await quoted.fresh()
    answers.check(request.answers, quote.event_type.questions)
    if not quoted.request.more_starts:
        more = recurrence.starts(request.recurrence.rrule, request.start_at, quote.timezone)[1:]
        quoted.ask_also(more)
        quote = await quoted.fresh()
    wishes = [Wish(quote=quote, start=start, seats=request.seats) for start in quote.starts]
    seen = await look(ctx, call, wishes, besides=request.hold_id)
    kept = None if held is None else placing.held(held[0])
    plan = series.plan(wishes, seen, skip=request.recurrence.on_conflict == "skip", held=kept)
    series_id = booking_id.replace("bkg_", "ser_")  # named after its first booking
    made = [booking_id, *(ids.new_id("bkg") for _ in plan.served[1:])]
    decision = series.create(series_id, made, request, plan, booker, call.now, held)
    return Made(decision, Series(id=series_id, booking_ids=made, skipped=plan.skipped), final=False)


async def reschedule_booking(ctx: Context, call: Call) -> Reply:
    """Moves a booking: its id, duration and hosts stay, unless told otherwise."""
    moving: list[tuple[BookingState, RescheduleIn]] = []

    async def attempt(loaded: Loaded) -> Attempt:
        request = decode(call.body, RescheduleIn)
        state, late = placing.may_move(loaded.state, request, call.now)
        moving[:] = [(state, request)]
        quote = await Quoted(ctx, call, _move_request(state, request)).fresh()
        wish = Wish(quote=quote, start=quote.starts[0], seats=state.seats, keep=tuple(state.host_ids))
        options = await offers(ctx, call, wish, besides=state.id)
        cap = None
        if loaded.person is not None:
            booker = Booker(person_id=state.person_id, version=state.person_version, email=loaded.person.email)
            cap = booker.cap(quote.event_type, besides=state.id)
        decision = placing.reschedule(state, late, wish, options, cap, request.reason, call.now)
        return Attempt(decision, loaded.person, final=choosing.plain(wish) is not None)

    def instead() -> AlternativesRequest:
        state, request = moving[0]
        end_at = request.end_at or request.start_at + (state.end_at - state.start_at)
        asked = other_starts(state.event_type_id, request.start_at, end_at, request.host_id, state.seats)
        asked.booking_id = state.id
        return asked

    return await attempted(ctx, call, attempt, instead)


async def reassign_booking(ctx: Context, call: Call) -> Reply:
    """Gives a booking, or one host's part in it, to another host at the same time."""
    given: list[tuple[BookingState, ReassignIn]] = []

    async def attempt(loaded: Loaded) -> Attempt:
        request = decode(call.body, ReassignIn)
        state, late, leaving = placing.may_reassign(loaded.state, request, call.now)
        given[:] = [(state, request)]
        asked = QuoteRequest(
            event_type_id=state.event_type_id,
            start_at=state.start_at,
            end_at=state.end_at,
            host_id=request.host_id,
            seats=state.seats,
            booking_id=state.id,
            purpose="reassign",
        )
        quote = await Quoted(ctx, call, asked).fresh()
        wish = placing.substitution(state, leaving, quote)
        options = await offers(ctx, call, wish, besides=state.id)
        decision = placing.reassign(state, late, leaving, wish, options, request.reason, call.now)
        return Attempt(decision, loaded.person, final=choosing.plain(wish) is not None)

    def instead() -> AlternativesRequest:
        state, request = given[0]
        alone = request.host_id if len(state.host_ids) == 1 else None
        asked = other_starts(state.event_type_id, state.start_at, state.end_at, alone, state.seats)
        asked.booking_id = state.id
        return asked

    return await attempted(ctx, call, attempt, instead)


def _move_request(state: BookingState, request: RescheduleIn) -> QuoteRequest:
    """Round robin may rank anew; where hosts were chosen otherwise a booking keeps its host."""
    kept = state.host_ids[0] if state.policies.assignment == "any" and len(state.host_ids) == 1 else None
    return QuoteRequest(
        event_type_id=state.event_type_id,
        start_at=request.start_at,
        end_at=request.end_at or request.start_at + (state.end_at - state.start_at),
        host_id=request.host_id or kept,
        seats=state.seats,
        booking_id=state.id,
        purpose="reschedule",
    )


async def offers(ctx: Context, call: Call, wish: Wish, besides: str | None = None) -> list[Option]:
    """What may serve the start, the best first; looks at what is taken only where there is more than one choice.

    Raises:
        KalendsError: the refusal, where nothing does.
    """
    choosing.admit(wish)
    if (only := choosing.plain(wish)) is not None:
        return [only]
    return choosing.options(wish, await look(ctx, call, [wish], besides))


async def look(ctx: Context, call: Call, wishes: Sequence[Wish], besides: str | None = None) -> Seen:
    """What is taken around the wishes, and around the earlier starts that they must not leave free."""
    every = [
        one
        for wish in wishes
        for one in (wish, *(wish.earlier(start_at, host_ids) for start_at, host_ids in wish.start.earlier_starts))
    ]
    spans = [one.reserved for one in every]
    return await occupancy.look(
        ctx.db.pool,
        call.tenant,
        (min(low for low, _ in spans), max(high for _, high in spans)),
        call.now,
        hosts=sorted({host.id for one in every for host in one.start.hosts}),
        resources=[resource.id for resource in wishes[0].quote.resources],
        limits=[limit for wish in wishes for limit in choosing.all_limits(wish)],
        besides=[besides] if besides is not None else [],
    )


def told(request: BookingIn, person_id: str | None) -> PersonVersion:
    """What a booker says of themself, as a version of the person whose address it is, or of a new one."""
    return PersonVersion(
        person_id=person_id or ids.new_id("per"),
        known=person_id is not None,
        version=people.new_version(),
        name=request.booker_name,
        email=request.booker_email,
        phone=request.booker_phone,
        timezone=request.booker_timezone,
        guests=request.guests,
        answers=request.answers,
    )


def created(choice: Choice, shown: PersonData, made: Series | None) -> bytes:
    state = choice.changes[0].after
    assert isinstance(state, BookingState)
    return msgspec.json.encode(public_booking(state, shown, made))


def other_starts(
    event_type_id: str, start_at: datetime, end_at: datetime | None, host_id: str | None, seats: int
) -> AlternativesRequest:
    """What to ask for beside a refused start."""
    return AlternativesRequest(
        event_type_id=event_type_id,
        after=start_at,
        duration_minutes=None if end_at is None else minutes(start_at, end_at),
        host_id=host_id,
        seats=seats,
        exclude=[start_at],
    )
