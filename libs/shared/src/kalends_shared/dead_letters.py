"""Events that a consumer could not apply, and those of the same streams that wait behind them; for `kalends doctor`.

Asking for a retry only marks them: the active consumer, which knows how to apply them, tries again within a second.
"""

from datetime import datetime
from typing import Final

from msgspec import Struct

from kalends_shared.db import Connection, Queryable

LIST: Final = """
SELECT source, tx, position, tenant_id, stream_id, event_id, type, status, error, attempts, retry_requested, created_at,
    tried_at
FROM dead_letters WHERE ($1::text IS NULL OR source = $1) ORDER BY source, tx, position LIMIT $2
"""
REQUEST_RETRY: Final = """
UPDATE dead_letters SET retry_requested = true
WHERE ($1::text IS NULL OR source = $1) AND ($2::text IS NULL OR tenant_id = $2) AND ($3::text IS NULL OR stream_id = $3)
"""
DISCARD: Final = "DELETE FROM dead_letters WHERE source = $1 AND tx = $2 AND position = $3"
# What waited behind it is tried at once, since nothing else would move it.
RELEASE: Final = """
UPDATE dead_letters SET retry_requested = true WHERE source = $1 AND (tenant_id, stream_id) = (
    SELECT tenant_id, stream_id FROM dead_letters WHERE source = $1 AND tx = $2 AND position = $3)
"""


class DeadLetter(Struct, frozen=True):
    """`status` is `failed`, with the error of the last try, or `parked`, behind a failed one of the same stream."""

    source: str
    tx: int
    position: int
    tenant_id: str
    stream_id: str
    event_id: str
    type: str
    status: str
    error: str | None
    attempts: int
    retry_requested: bool
    created_at: datetime
    tried_at: datetime


async def listed(conn: Queryable, source: str | None = None, limit: int = 100) -> list[DeadLetter]:
    """The dead letters of this schema, oldest first; `conn` may be a pool."""
    return [DeadLetter(*row) for row in await conn.fetch(LIST, source, limit)]


async def request_retry(
    conn: Queryable, source: str | None = None, tenant: str | None = None, stream_id: str | None = None
) -> int:
    """Has them tried again, all or those named; returns how many. `conn` may be a pool."""
    status: str = await conn.execute(REQUEST_RETRY, source, tenant, stream_id)
    return int(status.rpartition(" ")[2])


async def discard(conn: Connection, source: str, tx: int, position: int) -> bool:
    """Gives one event up for good, and has what waits behind it tried; False where there is none such."""
    async with conn.transaction():
        await conn.execute(RELEASE, source, tx, position)
        status: str = await conn.execute(DISCARD, source, tx, position)
    return status.endswith(" 1")
