"""Deliveries that are still to be made: who has any that are due, claiming them, and what became of an attempt."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from kalends_shared.db import Connection, Queryable

# The distinct lanes with something due, by one index probe a lane, however long the lanes are.
DUE_LANES: Final = """
WITH RECURSIVE lanes AS (
    (SELECT q.tenant_id, q.webhook_id, q.due_at FROM queue q ORDER BY q.tenant_id, q.webhook_id, q.due_at LIMIT 1)
    UNION ALL
    SELECT next.tenant_id, next.webhook_id, next.due_at
    FROM lanes l CROSS JOIN LATERAL (
        SELECT q.tenant_id, q.webhook_id, q.due_at FROM queue q
        WHERE (q.tenant_id, q.webhook_id) > (l.tenant_id, l.webhook_id)
        ORDER BY q.tenant_id, q.webhook_id, q.due_at LIMIT 1
    ) AS next
)
SELECT tenant_id, webhook_id, greatest(0, extract(epoch FROM now() - due_at))::float8 AS age
FROM lanes WHERE due_at <= now()
"""
CLAIM: Final = """
SELECT tenant_id, id, webhook_id, attempts, log, forced, subscription_version, event_id, type, created_at, data, attendees,
    traceparent
FROM claim($1, $2, $3, $4, $5)
"""
FINISH: Final = "SELECT finish($1, $2, $3, $4, $5, $6, $7)"
LIVES: Final = "SELECT worker_lives($1, $2)"
LEAVES: Final = "SELECT worker_leaves($1)"
GIVE_BACK: Final = "SELECT give_back($1, $2, $3, $4)"
BACKLOG: Final = "SELECT count(*) FROM queue WHERE due_at <= now()"
ADD: Final = """
INSERT INTO queue (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, forced, due_at)
SELECT p.tenant_id, d.id, $2, p.seq, p.id, p.type, p.stream_id, $3, true, now()
FROM unnest($4::bigint[], $5::text[]) AS d (seq, id)
JOIN public_events p ON p.tenant_id = $1 AND p.seq = d.seq
ON CONFLICT DO NOTHING
"""


class Wanted(Struct, frozen=True):
    """Room for so many deliveries of a lane, each to be leased for so many seconds."""

    tenant_id: str
    webhook_id: str
    room: int
    lease: int


class Ended(Struct, frozen=True):
    """What became of a claimed delivery: its status, seconds until it is tried again or None, the log of its attempts."""

    tenant_id: str
    id: str
    claim: str
    status: str
    wait: float | None
    log: bytes


async def due_lanes(conn: Queryable) -> list[tuple[str, str, float]]:
    """(account, webhook, age in seconds of the oldest) of every lane with something due."""
    return [(row["tenant_id"], row["webhook_id"], row["age"]) for row in await conn.fetch(DUE_LANES)]


async def claim(conn: Queryable, wanted: Sequence[Wanted], name: str) -> list[Any]:
    """Takes what is due of these lanes under a lease called `name`; rows with the event and the subscription's version."""
    rows: list[Any] = await conn.fetch(
        CLAIM,
        [lane.tenant_id for lane in wanted],
        [lane.webhook_id for lane in wanted],
        [lane.room for lane in wanted],
        [lane.lease for lane in wanted],
        name,
    )
    return rows


async def finish(conn: Queryable, ended: Sequence[Ended], now: datetime) -> set[str]:
    """Writes what became of attempts; returns the ids of those whose lease still held."""
    rows: list[Any] = await conn.fetch(
        FINISH,
        [one.tenant_id for one in ended],
        [one.id for one in ended],
        [one.claim for one in ended],
        [one.status for one in ended],
        [one.wait for one in ended],
        [one.log for one in ended],
        now,
    )
    return {row[0] for row in rows}


async def lives(conn: Queryable, worker: str, dead: float | None) -> int:
    """Says that a worker lives; frees what workers had claimed who were not seen for `dead` seconds, and counts it."""
    return int(await conn.fetchval(LIVES, worker, dead))


async def leaves(conn: Queryable, worker: str) -> int:
    """Says that a worker has ended; frees what it could not end, and counts it."""
    return int(await conn.fetchval(LEAVES, worker))


async def give_back(conn: Queryable, tenant: str, delivery_id: str, claim: str, wait: float) -> None:
    """Gives a delivery back unsent, due again after so many seconds, if that claim still holds it."""
    await conn.execute(GIVE_BACK, tenant, delivery_id, claim, wait)


async def add(conn: Connection, tenant: str, webhook_id: str, replay: str, events: Sequence[tuple[int, str]]) -> None:
    """Queues deliveries of (place of the event, id of the delivery) to one subscription, due at once."""
    await conn.execute(ADD, tenant, webhook_id, replay, [seq for seq, _ in events], [one for _, one in events])


async def backlog(conn: Queryable) -> int:
    """How many deliveries are due now."""
    return int(await conn.fetchval(BACKLOG))
