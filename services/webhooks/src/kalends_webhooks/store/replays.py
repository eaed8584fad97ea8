"""Replays that are still at work, and the events that one brings again."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from kalends_shared.contracts.webhooks import ReplayIn
from kalends_shared.db import Connection, Queryable

# Events in a range of places; with $5, only those that this webhook was sent and never took, which is asked once for all of
# them, and not of each day's partition for each event.
EVENTS: Final = """
SELECT p.seq, p.type, p.data FROM public_events p
WHERE p.tenant_id = $1 AND p.seq > $3 AND p.seq <= $4 AND ($6::timestamptz IS NULL OR p.created_at >= $6)
    AND ($7::timestamptz IS NULL OR p.created_at < $7) AND ($8::text[] IS NULL OR p.type = ANY ($8))
    AND (NOT $5 OR p.seq = ANY (ARRAY(
        SELECT d.seq FROM deliveries d
        WHERE d.tenant_id = $1 AND d.webhook_id = $2 AND d.seq > $3 AND d.seq <= $4
        GROUP BY d.seq HAVING bool_or(d.status = 'failed') AND NOT bool_or(d.status = 'succeeded')
    )))
ORDER BY p.seq
"""
QUEUED: Final = """
SELECT count(*) FROM (SELECT 1 FROM queue q WHERE q.tenant_id = $1 AND q.webhook_id = $2 LIMIT $3) AS counted
"""
INSERT: Final = """
INSERT INTO replays (tenant_id, id, webhook_id, asked, enabled, after, until, made)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
# The one that was begun first; ids begin with the time of their making.
OPEN: Final = "SELECT tenant_id, id FROM replays ORDER BY id LIMIT $1"
COUNT: Final = "SELECT count(*) FROM replays WHERE tenant_id = $1"
TAKE: Final = """
SELECT tenant_id, id, webhook_id, asked, enabled, after, until, made FROM replays
WHERE tenant_id = $1 AND id = $2 FOR UPDATE SKIP LOCKED
"""
MOVE: Final = "UPDATE replays SET after = $3, made = $4 WHERE tenant_id = $1 AND id = $2"
END: Final = "DELETE FROM replays WHERE tenant_id = $1 AND id = $2"

_asked: Final = msgspec.json.Decoder(ReplayIn)


class Replay(Struct):
    """A replay of events to one subscription: places after `after` up to `until` are left; `made` are its deliveries."""

    tenant_id: str
    id: str
    webhook_id: str
    asked: ReplayIn
    enabled: bool
    after: int
    until: int
    made: int = 0


class Found(Struct, frozen=True):
    """An event that may be replayed."""

    seq: int
    type: str
    data: bytes


async def events(conn: Connection, replay: Replay, up_to: int) -> list[Found]:
    """What is asked for among the events after the replay's place, up to another, in order."""
    asked = replay.asked
    types = None if not asked.events or "*" in asked.events else asked.events
    rows = await conn.fetch(
        EVENTS,
        replay.tenant_id,
        replay.webhook_id,
        replay.after,
        up_to,
        asked.only_failed,
        asked.start_at,
        asked.end_at,
        types,
    )
    return [Found(row["seq"], row["type"], row["data"]) for row in rows]


async def queued(conn: Connection, replay: Replay, most: int) -> int:
    """How many deliveries wait for the replay's subscription, counted up to `most`."""
    return int(await conn.fetchval(QUEUED, replay.tenant_id, replay.webhook_id, most))


async def insert(conn: Connection, replay: Replay) -> None:
    await conn.execute(
        INSERT,
        replay.tenant_id,
        replay.id,
        replay.webhook_id,
        msgspec.json.encode(replay.asked),
        replay.enabled,
        replay.after,
        replay.until,
        replay.made,
    )


async def at_work(conn: Queryable, limit: int) -> Sequence[tuple[str, str]]:
    """(account, id) of what is still at work, the oldest first."""
    return [(row["tenant_id"], row["id"]) for row in await conn.fetch(OPEN, limit)]


async def count(conn: Connection, tenant: str) -> int:
    return int(await conn.fetchval(COUNT, tenant))


async def take(conn: Connection, tenant: str, replay_id: str) -> Replay | None:
    """One replay, which nobody else works on until this transaction ends; None where it is done, or another's."""
    row = await conn.fetchrow(TAKE, tenant, replay_id)
    if row is None:
        return None
    return Replay(
        tenant_id=row["tenant_id"],
        id=row["id"],
        webhook_id=row["webhook_id"],
        asked=_asked.decode(row["asked"]),
        enabled=row["enabled"],
        after=row["after"],
        until=row["until"],
        made=row["made"],
    )


async def move(conn: Connection, replay: Replay) -> None:
    """Writes down how far it has come."""
    await conn.execute(MOVE, replay.tenant_id, replay.id, replay.after, replay.made)


async def end(conn: Connection, replay: Replay) -> None:
    await conn.execute(END, replay.tenant_id, replay.id)
