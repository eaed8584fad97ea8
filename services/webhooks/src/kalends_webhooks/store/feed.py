"""Public events: made once, in each account's order, together with the deliveries that they begin."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from kalends_shared import positions
from kalends_shared.db import Connection, Queryable
from kalends_shared.event_store import Position
from kalends_webhooks.domain import facts
from kalends_webhooks.domain.derive import Drafted
from kalends_webhooks.domain.payloads import Event

EMIT: Final = """
SELECT stale, queued, redacted FROM emit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
"""
AFTER: Final = """
SELECT tenant_id, seq, id, type, created_at, data, attendees FROM public_events
WHERE tenant_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
"""
PLACE: Final = "SELECT pg_current_xact_id()::text::bigint"
LAST: Final = "SELECT last_seq FROM feeds WHERE tenant_id = $1"
SAMPLE: Final = """
INSERT INTO public_events (tenant_id, seq, id, type, created_at, stream_id, data, attendees)
VALUES ($1, -nextval('samples'), $2, $3, $4, $5, $6, $7) RETURNING seq
"""
ERASE: Final = "INSERT INTO erased (tenant_id, person_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
EMPTY: Final = """
UPDATE public_events SET attendees = NULL WHERE tenant_id = $1 AND person_id = $2 AND attendees IS NOT NULL
"""


class Planned(Struct, frozen=True):
    """A delivery to be queued: of the `of`-th event (from 0), to a subscription.

    With a `claim` it is queued as taken, for `lease` seconds, by a worker that sends it as soon as this is committed.
    """

    of: int
    webhook_id: str
    id: str
    claim: str | None = None
    lease: int = 0


class Emitted(Struct, frozen=True):
    """What `emit` did.

    Where subscriptions have changed, `stale` are their accounts, and nothing was written. Else `queued` are the ids of the
    deliveries that are new, and `redacted` those of events about persons who have been erased.
    """

    stale: list[str]
    queued: list[str]
    redacted: list[str]


async def emit(
    conn: Connection, versions: dict[str, int], events: Sequence[Drafted], deliveries: Sequence[Planned]
) -> Emitted:
    """Makes the events that are new and queues their deliveries, all under the accounts' locks.

    `versions` are of the accounts' subscriptions, as the deliveries were chosen by them.
    """
    row = await conn.fetchrow(
        EMIT,
        list(versions),
        list(versions.values()),
        [event.tenant_id for event in events],
        [event.id for event in events],
        [event.type for event in events],
        [event.created_at for event in events],
        [event.stream_id for event in events],
        [event.data for event in events],
        [event.person_id for event in events],
        [event.attendees for event in events],
        [event.traceparent for event in events],
        [planned.of + 1 for planned in deliveries],
        [planned.webhook_id for planned in deliveries],
        [planned.id for planned in deliveries],
        [planned.claim for planned in deliveries],
        [planned.lease for planned in deliveries],
    )
    assert row is not None
    return Emitted(row["stale"], row["queued"], row["redacted"])


async def after(conn: Queryable, tenant: str, seq: int, limit: int) -> list[tuple[int, Event]]:
    """The account's events after a place in its order, each with its own place."""
    rows = await conn.fetch(AFTER, tenant, seq, limit)
    return [(row["seq"], event(row)) for row in rows]


async def last(conn: Queryable, tenant: str) -> int:
    """The place of the account's newest event; 0 where there is none."""
    return int(await conn.fetchval(LAST, tenant) or 0)


async def written(conn: Connection) -> str:
    """The Kalends-Position of what this transaction writes. Reads here see whatever is committed, so none waits for it."""
    return positions.token("webhooks", Position(tx=await conn.fetchval(PLACE)))


def event(row: Any) -> Event:
    """A stored event with its facts read and its attendee data put in."""
    return Event(
        id=row["id"],
        type=row["type"],
        tenant_id=row["tenant_id"],
        created_at=row["created_at"],
        facts=facts.read(row["data"], row["attendees"]),
    )


async def sample(conn: Connection, drafted: Drafted, now: datetime) -> int:
    """Stores an event that is not in the feed; returns its place, which is negative."""
    return int(
        await conn.fetchval(
            SAMPLE, drafted.tenant_id, drafted.id, drafted.type, now, drafted.stream_id, drafted.data, drafted.attendees
        )
    )


async def erase(conn: Connection, tenant: str, person_id: str) -> None:
    """Empties what is stored of a person, now and for whatever comes later; `scrubs` does the rest."""
    await conn.execute(ERASE, tenant, person_id)
    await conn.execute(EMPTY, tenant, person_id)
