"""Holds: a start kept for a while."""

import msgspec
from msgspec import Struct

from kalends_booking.domain import choosing, hold, placing
from kalends_booking.domain.choosing import Wish
from kalends_booking.domain.decision import Choice
from kalends_booking.domain.refusals import refused
from kalends_booking.handlers.changes import keyed, settled
from kalends_booking.handlers.context import ATTEMPTS, Context, Quoted, crowded, require_key, under_key
from kalends_booking.handlers.placing import offers, other_starts
from kalends_booking.handlers.queries import seen
from kalends_booking.store import holds
from kalends_booking.store.commit import commit
from kalends_shared import lists
from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import HoldIn, HoldState, public_hold
from kalends_shared.contracts.call import Call, Reply, check_match, etag
from kalends_shared.contracts.decode import decode, query
from kalends_shared.contracts.endpoints import PageQuery
from kalends_shared.contracts.errors import not_found
from kalends_shared.contracts.quotes import AlternativesRequest, QuoteRequest
from kalends_shared.event_store import VersionConflict


class Key(Struct, frozen=True):
    id: str


async def create_hold(ctx: Context, call: Call) -> Reply:
    require_key(call)
    request = decode(call.body, HoldIn)
    asked = QuoteRequest(
        event_type_id=request.event_type_id,
        start_at=request.start_at,
        end_at=request.end_at,
        host_id=request.host_id,
        seats=request.seats,
        purpose="hold",
    )
    hold_id = ids.new_id("hld")
    answer = Reply(status=201, etag=etag(1), location=f"/holds/{hold_id}")

    async def work(fingerprint: bytes) -> Reply:
        quoted = Quoted(ctx, call, asked)
        for _ in range(ATTEMPTS):
            quote = await quoted.fresh()
            wish = Wish(quote=quote, start=quote.starts[0], seats=request.seats)
            decision = placing.hold(hold_id, request, wish, await offers(ctx, call, wish), call.now)
            outcome = await commit(
                ctx.db.pool, call, decision, render=_shown, keyed=keyed(call, fingerprint, answer, None)
            )
            if (reply := await settled(ctx, outcome, fingerprint, answer)) is not None:
                return reply
            if choosing.plain(wish) is not None:
                raise refused(outcome.rule)
        raise crowded()

    def instead() -> AlternativesRequest:
        return other_starts(request.event_type_id, request.start_at, request.end_at, request.host_id, request.seats)

    return await under_key(ctx, call, work, instead=instead)


async def get_hold(ctx: Context, call: Call) -> Reply:
    await seen(call)
    held = await holds.get(ctx.db.pool, call.tenant, call.params["id"])
    if held is None:
        raise not_found("A hold of this id")
    return Reply(body=public_hold(hold.at(held, call.now)), etag=etag(held.version))


async def list_holds(ctx: Context, call: Call) -> Reply:
    asked = query(call.query, PageQuery)
    window = lists.window(asked, Key)
    await seen(call)
    before = window.after.id if window.after is not None else None
    rows = await holds.page(ctx.db.pool, call.tenant, before, window.take, window.offset)
    total = await holds.count(ctx.db.pool, call.tenant) if window.numbered else None
    body = lists.answer(
        window,
        rows,
        key=lambda row: Key(row.id),
        encode=lambda row: msgspec.json.encode(public_hold(hold.at(row, call.now))),
        total=total,
    )
    return Reply(body=body)


async def release_hold(ctx: Context, call: Call) -> Reply:
    """Gives the slot back; 404 for a hold that is no longer active."""
    for _ in range(ATTEMPTS):
        held = await holds.get(ctx.db.pool, call.tenant, call.params["id"])
        if held is None:
            raise not_found("A hold of this id")
        check_match(call, held.version)
        try:
            outcome = await commit(ctx.db.pool, call, hold.release(held, call.now))
        except VersionConflict:
            continue
        await ctx.nudge()
        return Reply(status=204, position=outcome.position)
    raise crowded()


def _shown(choice: Choice) -> bytes:
    state = choice.changes[0].after
    assert isinstance(state, HoldState)
    return msgspec.json.encode(public_hold(state))
