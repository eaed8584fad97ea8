"""Election of one process for one job, by a Postgres session lock on a connection of its own.

Whoever holds the lock leads; the others ask again every 0.4 s, so that a leader that dies is replaced within a second
of Postgres noticing. Postgres drops the lock with the connection, and the lease tells its holder of that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from kalends_shared.service import wait

POLL_SECONDS: Final = 0.4
BEAT_SECONDS: Final = 1.0
BEAT_TIMEOUT: Final = 3.0
TRY_LOCK: Final = "SELECT pg_try_advisory_lock(hashtext($1), hashtext($2))"

Connect = Callable[[], Awaitable["asyncpg.Connection[Any]"]]


class Lease:
    """Leadership while it lasts: `conn` is the connection that holds it, `lost` is set when that is gone."""

    def __init__(self, conn: "asyncpg.Connection[Any]") -> None:
        self.conn = conn
        self.lost = asyncio.Event()


@asynccontextmanager
async def elected(
    connect: Connect, kind: str, name: str, stop: asyncio.Event, *, beat: bool = True
) -> AsyncIterator[Lease | None]:
    """Waits to be the one leader of (kind, name) in this database; None where `stop` came first.

    With `beat` the connection is asked for a sign of life every second, and is then not for the holder's own use.

    Raises:
        OSError, asyncpg errors: Postgres cannot be reached, now or while waiting.
    """
    conn = await connect()
    try:
        while not await conn.fetchval(TRY_LOCK, kind, name):
            if await wait(stop, POLL_SECONDS):
                yield None
                return
        lease = Lease(conn)
        conn.add_termination_listener(lambda *_: lease.lost.set())
        beating = asyncio.create_task(_beat(lease)) if beat else None
        try:
            yield lease
        finally:
            if beating is not None:
                beating.cancel()
                await asyncio.wait([beating])
    finally:
        # Closing gives the lock back; a connection that does not answer is cut off, and the server's keepalive finds out.
        try:
            await conn.close(timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            conn.terminate()


async def _beat(lease: Lease) -> None:
    while not lease.lost.is_set():
        await asyncio.sleep(BEAT_SECONDS)
        try:
            await lease.conn.execute("SELECT 1", timeout=BEAT_TIMEOUT)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            lease.lost.set()
