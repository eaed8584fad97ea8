"""Deliveries as they are shown: those in the queue and those that have ended, as one list."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from kalends_shared.contracts.webhooks import Attempt, DeliveriesQuery, Delivery
from kalends_shared.db import Connection, Queryable

ONE: Final = """
SELECT id, webhook_id, event_id, event_type, 'pending' AS status, created_at, attempts, log,
    CASE WHEN claim IS NULL THEN due_at END AS due_at
FROM queue WHERE tenant_id = $1 AND id = $2
UNION ALL
SELECT id, webhook_id, event_id, event_type, status, created_at, attempts, log, NULL
FROM deliveries WHERE tenant_id = $1 AND id = $2
"""
PAGE: Final = """
(SELECT id, webhook_id, event_id, event_type, 'pending' AS status, created_at, attempts, log,
    CASE WHEN claim IS NULL THEN due_at END AS due_at
FROM queue
WHERE tenant_id = $1 AND webhook_id = $2 AND ($3::text IS NULL OR id < $3)
    AND ($4::text[] IS NULL OR 'pending' = ANY ($4)) AND ($5::text IS NULL OR event_type = $5)
    AND ($6::timestamptz IS NULL OR created_at >= $6) AND ($7::timestamptz IS NULL OR created_at < $7)
ORDER BY id DESC LIMIT $8::bigint + $9::bigint)
UNION ALL
(SELECT id, webhook_id, event_id, event_type, status, created_at, attempts, log, NULL
FROM deliveries
WHERE tenant_id = $1 AND webhook_id = $2 AND ($3::text IS NULL OR id < $3)
    AND ($4::text[] IS NULL OR status = ANY ($4)) AND ($5::text IS NULL OR event_type = $5)
    AND ($6::timestamptz IS NULL OR created_at >= $6) AND ($7::timestamptz IS NULL OR created_at < $7)
ORDER BY id DESC LIMIT $8::bigint + $9::bigint)
ORDER BY id DESC LIMIT $8 OFFSET $9
"""
COUNT: Final = """
SELECT (
    SELECT count(*) FROM queue
    WHERE tenant_id = $1 AND webhook_id = $2
        AND ($3::text[] IS NULL OR 'pending' = ANY ($3)) AND ($4::text IS NULL OR event_type = $4)
        AND ($5::timestamptz IS NULL OR created_at >= $5) AND ($6::timestamptz IS NULL OR created_at < $6)
) + (
    SELECT count(*) FROM deliveries
    WHERE tenant_id = $1 AND webhook_id = $2
        AND ($3::text[] IS NULL OR status = ANY ($3)) AND ($4::text IS NULL OR event_type = $4)
        AND ($5::timestamptz IS NULL OR created_at >= $5) AND ($6::timestamptz IS NULL OR created_at < $6)
)
"""
PERSON: Final = """
SELECT p.person_id FROM public_events p
WHERE p.tenant_id = $1 AND p.seq = (
    SELECT q.seq FROM queue q WHERE q.tenant_id = $1 AND q.id = $2
    UNION ALL SELECT d.seq FROM deliveries d WHERE d.tenant_id = $1 AND d.id = $2
)
"""
# What waits is brought forward; what is under way is left to end.
HASTEN: Final = """
UPDATE queue SET due_at = now(), forced = true WHERE tenant_id = $1 AND id = $2 AND claim IS NULL
"""
REVIVE: Final = """
WITH taken AS (
    DELETE FROM deliveries WHERE tenant_id = $1 AND id = $2
    RETURNING tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, created_at, attempts, log
)
INSERT INTO queue (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, created_at, attempts, log,
    forced, due_at)
SELECT tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, created_at, attempts, log, true, now()
FROM taken
"""
_log: Final = msgspec.json.Decoder(list[Attempt])


def read(row: Mapping[str, Any]) -> Delivery:
    """A row as the API shows it. Its version grows with its attempts."""
    attempts = _log.decode(row["log"])
    created_at: datetime = row["created_at"]
    return Delivery(
        id=row["id"],
        created_at=created_at,
        updated_at=attempts[-1].started_at if attempts else created_at,
        version=row["attempts"] + 1,
        webhook_id=row["webhook_id"],
        event_id=row["event_id"],
        event_type=row["event_type"],
        status=row["status"],
        attempts=attempts,
        next_attempt_at=row["due_at"],
    )


async def one(conn: Queryable, tenant: str, delivery_id: str) -> Delivery | None:
    row = await conn.fetchrow(ONE, tenant, delivery_id)
    return None if row is None else read(row)


async def person_of(conn: Queryable, tenant: str, delivery_id: str) -> str | None:
    """The person whom a delivery's event is about, if it is about one."""
    found: str | None = await conn.fetchval(PERSON, tenant, delivery_id)
    return found


async def page(
    conn: Queryable,
    tenant: str,
    webhook_id: str,
    asked: DeliveriesQuery,
    after: str | None,
    limit: int,
    offset: int,
) -> list[Delivery]:
    """Newest first, after an id."""
    rows = await conn.fetch(
        PAGE, tenant, webhook_id, after, asked.status, asked.event_type, asked.after, asked.before, limit, offset
    )
    return [read(row) for row in rows]


async def count(conn: Queryable, tenant: str, webhook_id: str, asked: DeliveriesQuery) -> int:
    return int(
        await conn.fetchval(COUNT, tenant, webhook_id, asked.status, asked.event_type, asked.after, asked.before)
    )


async def retry(conn: Connection, tenant: str, delivery_id: str) -> None:
    """Makes a delivery due now, whether it waits or has ended."""
    if (await conn.execute(HASTEN, tenant, delivery_id)) == "UPDATE 0":
        await conn.execute(REVIVE, tenant, delivery_id)
