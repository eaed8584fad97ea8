"""What the log and stored replies may tell of erased persons: the beginnings of receivers' answers."""

from collections.abc import Callable
from typing import Any, Final

from kalends_shared.db import Connection

DUE: Final = """
SELECT tenant_id, person_id, scrubbed FROM erased WHERE scrub_at <= now() ORDER BY scrub_at LIMIT 1
FOR UPDATE SKIP LOCKED
"""
# `log` is as msgspec writes it, so an answer is there where this is.
QUEUED: Final = """
SELECT q.id, q.log FROM public_events p
JOIN queue q ON q.tenant_id = p.tenant_id AND q.stream_id = p.stream_id AND q.seq = p.seq
WHERE p.tenant_id = $1 AND p.person_id = $2 AND q.log::text LIKE '%"response_head":"%' LIMIT $3
FOR UPDATE OF q
"""
LOGGED: Final = """
SELECT d.id, d.log FROM public_events p JOIN deliveries d ON d.tenant_id = p.tenant_id AND d.seq = p.seq
WHERE p.tenant_id = $1 AND p.person_id = $2 AND d.log::text LIKE '%"response_head":"%' LIMIT $3
FOR UPDATE OF d
"""
SET_QUEUED: Final = "UPDATE queue SET log = $3 WHERE tenant_id = $1 AND id = $2"
SET_LOGGED: Final = "UPDATE deliveries SET log = $3 WHERE tenant_id = $1 AND id = $2"
REPLIES: Final = "SELECT method, path, key, body FROM idempotency WHERE tenant_id = $1 AND person_id = $2"
SET_REPLY: Final = "UPDATE idempotency SET body = $5 WHERE tenant_id = $1 AND method = $2 AND path = $3 AND key = $4"
DONE: Final = """
UPDATE erased SET scrubbed = true, scrub_at = CASE WHEN scrubbed THEN NULL ELSE now() + make_interval(secs => $3) END
WHERE tenant_id = $1 AND person_id = $2
"""

Scrub = Callable[[bytes], bytes]


async def due(conn: Connection) -> tuple[str, str] | None:
    """(account, person) of one erasure whose turn it is, which nobody else works on until this transaction ends."""
    row = await conn.fetchrow(DUE)
    return None if row is None else (row["tenant_id"], row["person_id"])


async def logs(conn: Connection, tenant: str, person_id: str, scrub: Scrub, most: int) -> int:
    """Scrubs at most so many logs of the person's deliveries; returns how many there were."""
    count = 0
    for select, update in ((QUEUED, SET_QUEUED), (LOGGED, SET_LOGGED)):
        rows: list[Any] = await conn.fetch(select, tenant, person_id, most - count)
        if rows:
            await conn.executemany(update, [(tenant, row["id"], scrub(row["log"])) for row in rows])
        count += len(rows)
    return count


async def replies(conn: Connection, tenant: str, person_id: str, scrub: Scrub) -> None:
    """Scrubs the stored replies that show the person's deliveries."""
    for row in await conn.fetch(REPLIES, tenant, person_id):
        await conn.execute(SET_REPLY, tenant, row["method"], row["path"], row["key"], scrub(row["body"]))


async def done(conn: Connection, tenant: str, person_id: str, again_seconds: float) -> None:
    """Says that all is scrubbed; after the first time it is looked at once more, so many seconds later."""
    await conn.execute(DONE, tenant, person_id, again_seconds)
