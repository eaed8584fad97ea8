"""Keeping the table of reservations as small as the future."""

import asyncio
from typing import Final

from kalends_shared.db import Queryable, tolerant
from kalends_shared.service import wait

PAUSE_SECONDS: Final = 60.0
BATCH: Final = 1000

# By the server's clock, never a test clock; of all tenants, in batches that hold up no tail.
PRUNE: Final = """
DELETE FROM reservations WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM reservations WHERE upper(during) < now() - interval '1 day' LIMIT $1
))
"""


async def prune(conn: Queryable, limit: int = BATCH) -> int:
    """Forgets at most `limit` reservations that ended over a day ago; returns how many. `conn` may be a pool."""
    status: str = await conn.execute(PRUNE, limit)
    return int(status.rpartition(" ")[2])


async def keep_pruned(conn: Queryable, stop: asyncio.Event) -> None:
    """Prunes every minute, until `stop` is set."""
    while not stop.is_set():
        with tolerant("reservations.not_pruned"):
            while await prune(conn) == BATCH and not stop.is_set():
                pass
        await wait(stop, PAUSE_SECONDS)
