"""What is done now and then: forgetting what is long past, and counting what is due."""

import asyncio
from typing import Final

from kalends_calendar_sync import metrics
from kalends_calendar_sync.store import bookings, cursors, mirrors
from kalends_shared.db import Database
from kalends_shared.service import wait

PRUNE_SECONDS: Final = 3600.0
COUNT_SECONDS: Final = 15.0
KEPT_DAYS: Final = 35
PRUNED_AT_ONCE: Final = 1000


async def keep_pruned(db: Database, stop: asyncio.Event) -> None:
    """Forgets bookings that are long past and stand in no calendar."""
    while not await wait(stop, PRUNE_SECONDS):
        while await prune(db):
            if stop.is_set():
                return


async def prune(db: Database) -> bool:
    """Forgets some; tells whether there may be more."""
    more = False
    for statement in (mirrors.PRUNE, bookings.PRUNE):
        more |= await db.pool.fetchval(statement, KEPT_DAYS, PRUNED_AT_ONCE) == PRUNED_AT_ONCE
    return more


async def keep_counted(db: Database, stop: asyncio.Event) -> None:
    """Keeps the gauges: what is due, what fails, what was given up."""
    while not stop.is_set():
        reading = await db.pool.fetchrow(cursors.BACKLOG)
        writing = await db.pool.fetchrow(mirrors.BACKLOG)
        assert reading is not None
        assert writing is not None
        metrics.DUE.labels("read").set(reading["due"])
        metrics.DUE.labels("write").set(writing["due"])
        metrics.FAILING.set(reading["failing"])
        metrics.DEAD.set(writing["dead"])
        metrics.OLDEST.set(writing["oldest"])
        await wait(stop, COUNT_SECONDS)
