"""What is known of the objects in external calendars, and the events that they have become.

Their streams are written under the calendar's lease alone, so one statement appends to as many as there are.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from uuid_utils import uuid7

from kalends_calendar_sync.domain.reading import Batch, Known, Upserted
from kalends_shared import telemetry
from kalends_shared.contracts.calendars import CalendarEventState
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.types import EMPTY
from kalends_shared.db import Connection, Queryable

KNOWN: Final = """
SELECT i.ref, i.uid, i.etag, i.hash, i.event_id, i.own, i.problem, e.version, e.created_at, e.end_at
FROM items i LEFT JOIN calendar_events e ON e.tenant_id = i.tenant_id AND e.id = i.event_id
WHERE i.tenant_id = $1 AND i.calendar_id = $2
"""
RUNNING_OUT: Final = """
SELECT ref, uid, etag, source FROM items
WHERE tenant_id = $1 AND calendar_id = $2 AND expanded_until < $3 LIMIT $4
"""
APPEND: Final = """
SELECT count(a.version) FROM unnest($2::text[], $3::integer[], $4::text[], $5::text[], $6::json[])
        AS e (stream_id, expected, id, type, state),
    LATERAL append_events($1, e.stream_id, e.expected, '{}', ARRAY[e.id], ARRAY[e.type], ARRAY[1::smallint],
        ARRAY['{}'::json], ARRAY[e.state], $7, $8, NULL, NULL, $9) a
"""
UPSERT_EVENTS: Final = """
INSERT INTO calendar_events (tenant_id, id, calendar_id, host_id, source, status, title, start_at, end_at, all_day, busy,
    metadata, version, created_at, updated_at)
SELECT $1, e.id, $2, $3, 'provider', e.status, e.title, e.start_at, e.end_at, e.all_day, e.busy, '{}', e.version,
    e.created_at, $4
FROM unnest($5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::timestamptz[], $10::boolean[], $11::boolean[],
    $12::integer[], $13::timestamptz[])
    AS e (id, status, title, start_at, end_at, all_day, busy, version, created_at)
ON CONFLICT (tenant_id, id) DO UPDATE SET status = excluded.status, title = excluded.title,
    start_at = excluded.start_at, end_at = excluded.end_at, all_day = excluded.all_day, busy = excluded.busy,
    version = excluded.version, updated_at = excluded.updated_at
"""
EVENTS: Final = """
SELECT id, host_id, status, title, start_at, end_at, all_day, busy, version, created_at FROM calendar_events
WHERE tenant_id = $1 AND id = ANY ($2)
"""
DELETE_EVENTS: Final = "DELETE FROM calendar_events WHERE tenant_id = $1 AND id = ANY ($2)"
UPSERT: Final = """
INSERT INTO items (tenant_id, calendar_id, ref, uid, etag, hash, event_id, own, source, expanded_until, problem)
SELECT $1, $2, i.ref, i.uid, i.etag, i.hash, i.event_id, i.own, i.source, i.expanded_until, i.problem
FROM unnest($3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::boolean[], $9::text[], $10::timestamptz[],
    $11::text[]) AS i (ref, uid, etag, hash, event_id, own, source, expanded_until, problem)
ON CONFLICT (tenant_id, calendar_id, ref, uid) DO UPDATE SET etag = excluded.etag, hash = excluded.hash,
    event_id = excluded.event_id, own = excluded.own, source = excluded.source,
    expanded_until = excluded.expanded_until, problem = excluded.problem
"""
TOUCH: Final = """
UPDATE items SET etag = t.etag FROM unnest($3::text[], $4::text[], $5::text[]) AS t (ref, uid, etag)
WHERE tenant_id = $1 AND calendar_id = $2 AND items.ref = t.ref AND items.uid = t.uid
"""
DELETE: Final = """
DELETE FROM items USING unnest($3::text[], $4::text[]) AS gone (ref, uid)
WHERE tenant_id = $1 AND calendar_id = $2 AND items.ref = gone.ref AND items.uid = gone.uid
"""
_UPSERTED, _EXPANDED, _DELETED = "calendar_event.upserted", "calendar_event.expanded", "calendar_event.deleted"
DELETE_ALL: Final = "DELETE FROM items WHERE tenant_id = $1 AND calendar_id = $2"
DELETE_ALL_EVENTS: Final = "DELETE FROM calendar_events WHERE tenant_id = $1 AND calendar_id = $2"


async def known(conn: Queryable, tenant: str, calendar_id: str) -> list[Known]:
    return [Known(*row) for row in await conn.fetch(KNOWN, tenant, calendar_id)]


async def running_out(
    conn: Queryable, tenant: str, calendar_id: str, before: datetime, limit: int
) -> list[tuple[str, str, str, str]]:
    """(ref, UID, etag, source) of series that were not expanded as far as `before`."""
    return [tuple(row) for row in await conn.fetch(RUNNING_OUT, tenant, calendar_id, before, limit)]


async def write(conn: Connection, call: Call, calendar_id: str, host_id: str, batch: Batch) -> None:
    """Writes a batch; the transaction holds the calendar's lease and the lock of its stream."""
    tenant = call.tenant
    if batch.deleted:
        await _delete(conn, call, calendar_id, batch.deleted)
    if batch.upserted:
        await _append(conn, call, [
            (_EXPANDED if u.expanded else _UPSERTED, u.id, u.version - 1, _state(u, calendar_id, host_id, call.now))
            for u in batch.upserted
        ])  # fmt: skip
        await conn.execute(
            UPSERT_EVENTS, tenant, calendar_id, host_id, call.now,
            [u.id for u in batch.upserted], [u.facts.status for u in batch.upserted],
            [u.facts.title for u in batch.upserted], [u.facts.start_at for u in batch.upserted],
            [u.facts.end_at for u in batch.upserted], [u.facts.all_day for u in batch.upserted],
            [u.facts.busy for u in batch.upserted], [u.version for u in batch.upserted],
            [u.created_at for u in batch.upserted],
        )  # fmt: skip
    if batch.gone:
        await conn.execute(DELETE, tenant, calendar_id, [ref for ref, _ in batch.gone], [uid for _, uid in batch.gone])
    if batch.touched:
        refs, uids, etags = map(list, zip(*batch.touched, strict=True))
        await conn.execute(TOUCH, tenant, calendar_id, refs, uids, etags)
    if batch.rows:
        columns = zip(*(
            (r.ref, r.uid, r.etag, r.hash, r.event_id, r.own, r.source, r.expanded_until, r.problem) for r in batch.rows
        ), strict=True)  # fmt: skip
        await conn.execute(UPSERT, tenant, calendar_id, *(list(column) for column in columns))


async def _delete(conn: Connection, call: Call, calendar_id: str, events: Sequence[tuple[str, int]]) -> None:
    versions = dict(events)
    states = []
    for row in await conn.fetch(EVENTS, call.tenant, list(versions)):
        version = versions[row["id"]]
        state = CalendarEventState(
            id=row["id"], created_at=row["created_at"], updated_at=call.now, version=version + 1,
            calendar_id=calendar_id, host_id=row["host_id"], source="provider", status=row["status"],
            title=row["title"], start_at=row["start_at"], end_at=row["end_at"], all_day=row["all_day"],
            busy=row["busy"],
        )  # fmt: skip
        states.append((_DELETED, row["id"], version, msgspec.json.encode(state)))
    await _append(conn, call, states)
    await conn.execute(DELETE_EVENTS, call.tenant, list(versions))


async def _append(conn: Connection, call: Call, events: Sequence[tuple[str, str, int, bytes]]) -> None:
    """Appends (type, stream, version so far, state)."""
    await conn.execute(
        APPEND, call.tenant, [stream for _, stream, _, _ in events], [expected for _, _, expected, _ in events],
        [str(uuid7()) for _ in events], [kind for kind, _, _, _ in events], [state for _, _, _, state in events],
        call.now, msgspec.json.encode(call.actor), telemetry.traceparent(),
    )  # fmt: skip


def _state(upserted: Upserted, calendar_id: str, host_id: str, now: datetime) -> bytes:
    facts = upserted.facts
    return msgspec.json.encode(
        CalendarEventState(
            id=upserted.id, created_at=upserted.created_at, updated_at=now, version=upserted.version,
            calendar_id=calendar_id, host_id=host_id, source="provider",
            status=facts.status,  # type: ignore[arg-type]  # one of them, by Facts' own table
            title=facts.title, start_at=facts.start_at, end_at=facts.end_at, all_day=facts.all_day, busy=facts.busy,
            metadata=EMPTY, intervals=facts.intervals,
        )
    )  # fmt: skip


async def forget(conn: Connection, tenant: str, calendar_id: str) -> None:
    """Drops what was read of a calendar that is disconnected; its last event says so for all of them."""
    await conn.execute(DELETE_ALL, tenant, calendar_id)
    await conn.execute(DELETE_ALL_EVENTS, tenant, calendar_id)
