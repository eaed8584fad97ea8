"""The table test_clocks."""

from datetime import datetime
from typing import Final

from kalends_shared.db import Connection, Queryable

# The lock is on the name, not on a row, as a running clock has none. While the timers fire the transaction is idle, for
# longer than others may be; it has written nothing then, so it holds back no tail, and its own timeout still ends it.
LOCK: Final = """
SELECT set_config('idle_in_transaction_session_timeout', '0', true),
    pg_advisory_xact_lock(hashtextextended('test-clock/' || $1, 0))
"""
GET: Final = "SELECT stopped_at FROM test_clocks WHERE tenant_id = $1"
STOP: Final = """
INSERT INTO test_clocks (tenant_id, stopped_at) VALUES ($1, $2)
ON CONFLICT (tenant_id) DO UPDATE SET stopped_at = EXCLUDED.stopped_at
"""
RELEASE: Final = "DELETE FROM test_clocks WHERE tenant_id = $1"


async def get(conn: Queryable, tenant: str) -> datetime | None:
    """When the tenant's clock stands, or None where it runs; `conn` may be a pool."""
    stopped_at: datetime | None = await conn.fetchval(GET, tenant)
    return stopped_at


async def lock(conn: Connection, tenant: str) -> None:
    """Holds the clock until the transaction ends, which may wait for others meanwhile."""
    await conn.execute(LOCK, tenant)


async def put(conn: Connection, tenant: str, stopped_at: datetime | None) -> None:
    if stopped_at is None:
        await conn.execute(RELEASE, tenant)
    else:
        await conn.execute(STOP, tenant, stopped_at)
