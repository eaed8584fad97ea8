"""What time does by itself: streams' timers fire, in order, once."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from kalends_booking.domain import booking, hold
from kalends_booking.domain.decision import Decision, together
from kalends_booking.handlers.context import Context
from kalends_booking.store import bookings, holds
from kalends_booking.store.commit import commit_due
from kalends_shared import event_store, positions, timers
from kalends_shared.contracts.accounts import ClockMove, ClockMoved
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import decode
from kalends_shared.db import Connection
from kalends_shared.timers import Timer


async def fire(conn: Connection, due: Sequence[Timer]) -> Collection[Timer]:
    """Appends what is due of the timers' streams by now, in one commit, a tenant's in the order of its time.

    That moves each timer whose stream will have something more to tell. Gives those of the tenants one of whose streams
    has changed since it was read: they fire at the next look.
    """
    decisions: dict[str, list[Decision]] = defaultdict(list)
    for timer, decision in await _decisions(conn, due):
        decisions[timer.tenant_id].append(decision)
    if not decisions:
        return []
    decided = {tenant: together(several) for tenant, several in decisions.items()}
    await event_store.lock_all(
        conn,
        [
            (tenant, key)
            for tenant, decision in decided.items()
            for key in (*decision.locks, *(change.after.id for change in decision.choices[0].changes))
        ],
    )
    moved = await commit_due(conn, decided)
    return [timer for timer in due if timer.tenant_id in moved]


async def _decisions(conn: Connection, due: Sequence[Timer]) -> list[tuple[Timer, Decision]]:
    """What each stream has to tell; nothing of one that has nothing."""
    streams = [(timer.tenant_id, timer.stream_id) for timer in due]
    booked = await bookings.states(conn, [one for one in streams if not one[1].startswith("hld_")])
    held = await holds.states(conn, [one for one in streams if one[1].startswith("hld_")])
    found = []
    for timer, stream in zip(due, streams, strict=True):
        decision = None
        if stream in booked:
            decision = booking.tick(booked[stream], timer.now)
        elif stream in held:
            decision = hold.tick(held[stream], timer.now)
        if decision is not None:
            found.append((timer, decision))
    return found


async def advance_clock(ctx: Context, call: Call) -> Reply:
    """A test tenant's clock was stopped, moved or released: fires what it passed, in due order, before it answers."""
    move = decode(call.body, ClockMove)
    async with ctx.db.pool.acquire() as conn:
        if move.now is None:
            await timers.release(conn, call.tenant)
        else:
            await timers.freeze(conn, call.tenant, move.now)
    if move.now is not None:
        await timers.fire_due(ctx.db, call.tenant, move.now, fire)
    await ctx.nudge()
    async with ctx.db.pool.acquire() as conn:
        told = await event_store.last(conn)
    return Reply(body=ClockMoved(position=positions.token("booking", told)))
