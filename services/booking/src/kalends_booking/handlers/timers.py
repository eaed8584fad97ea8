"""What time does by itself: a stream's timer fires, in order, once."""

from kalends_booking.domain import booking, hold
from kalends_booking.domain.decision import Decision
from kalends_booking.handlers.context import ATTEMPTS, Context
from kalends_booking.store import bookings, holds
from kalends_booking.store.commit import commit
from kalends_shared import timers
from kalends_shared.contracts.accounts import ClockMove
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.decode import decode
from kalends_shared.contracts.events import Actor
from kalends_shared.db import Connection
from kalends_shared.event_store import VersionConflict
from kalends_shared.timers import Timer

SYSTEM = Actor(type="system", name="timer")


async def fire(conn: Connection, timer: Timer) -> bool:
    """Appends what is due of the timer's stream by now, which moves or cancels the timer; False where nothing is due.

    Raises:
        VersionConflict: the stream changed each time it was looked at.
    """
    call = Call(tenant=timer.tenant_id, now=timer.now, actor=SYSTEM)
    for _ in range(ATTEMPTS):
        decision = await _due(conn, timer)
        if decision is None:
            return False
        try:
            await commit(conn, call, decision)
        except VersionConflict:
            continue
        return True
    raise VersionConflict(timer.stream_id)


async def _due(conn: Connection, timer: Timer) -> Decision | None:
    if timer.stream_id.startswith("hld_"):
        held = await holds.get(conn, timer.tenant_id, timer.stream_id)
        return None if held is None else hold.tick(held, timer.now)
    booked = await bookings.state(conn, timer.tenant_id, timer.stream_id)
    return None if booked is None else booking.tick(booked, timer.now)


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
    return Reply(body=b"{}")
