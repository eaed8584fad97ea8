"""Connections, and their streams: each change is an event whose state is the whole connection."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
from uuid_utils import uuid7

from kalends_shared import event_store
from kalends_shared.contracts.calendars import Calendar, CalendarState
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import Actor, NewEvent
from kalends_shared.db import Connection, Queryable

_COLUMNS: Final = """tenant_id, id, host_id, provider, url, username, sealed, credentials, reads_busy, writes_bookings,
    status, last_synced_at, stale_since, metadata, host_zone, version, stream_version, created_at, updated_at"""
INSERT: Final = f"""
INSERT INTO calendars ({_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
"""  # noqa: S608 (our own column names)
# A password that was not changed stays as it is sealed now, which a rotation of keys may have done since it was read.
UPDATE: Final = """
UPDATE calendars SET url = $3, username = $4, sealed = CASE credentials WHEN $6 THEN sealed ELSE $5 END, credentials = $6,
    reads_busy = $7, writes_bookings = $8, status = $9, last_synced_at = $10, stale_since = $11, metadata = $12, host_zone = $13, version = $14,
    stream_version = $15, updated_at = $16
WHERE tenant_id = $1 AND id = $2
"""
TOUCH: Final = "UPDATE calendars SET last_synced_at = $3 WHERE tenant_id = $1 AND id = $2"
FIND: Final = f"SELECT {_COLUMNS} FROM calendars WHERE tenant_id = $1 AND id = $2"  # noqa: S608
PAGE: Final = f"""
SELECT {_COLUMNS} FROM calendars
WHERE tenant_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
ORDER BY created_at DESC, id DESC LIMIT $4 OFFSET $5
"""  # noqa: S608
COUNT: Final = "SELECT count(*) FROM calendars WHERE tenant_id = $1"
DELETE: Final = "DELETE FROM calendars WHERE tenant_id = $1 AND id = $2"


class Connected(Struct, kw_only=True):
    """A row: a calendar's connection. `stream_version` is that of its last event."""

    tenant_id: str
    id: str
    host_id: str
    provider: str
    url: str | None
    username: str | None
    sealed: bytes | None
    credentials: int
    reads_busy: bool
    writes_bookings: bool
    status: str
    last_synced_at: datetime | None
    stale_since: datetime | None
    metadata: bytes
    host_zone: str
    version: int
    stream_version: int
    created_at: datetime
    updated_at: datetime


def public(row: Connected) -> Calendar:
    return Calendar(**_fields(row))


def _fields(row: Connected) -> dict[str, Any]:
    return {
        "id": row.id,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "version": row.version,
        "host_id": row.host_id,
        "provider": row.provider,
        "url": row.url,
        "username": row.username,
        "reads_busy": row.reads_busy,
        "writes_bookings": row.writes_bookings,
        "status": row.status,
        "last_synced_at": row.last_synced_at,
        "stale_since": row.stale_since,
        "metadata": msgspec.Raw(row.metadata),
    }


def event(row: Connected, kind: str, data: Mapping[str, Any]) -> NewEvent:
    """An event of the connection as it is now."""
    state = CalendarState(**_fields(row))
    if kind == "calendar.disconnected":
        state.status = "disconnected"
    return NewEvent(type=kind, data=msgspec.json.encode(data), state=msgspec.json.encode(state), id=str(uuid7()))


def worker_call(tenant: str, calendar_id: str, url: str | None = None) -> Call:
    """The call under which a worker appends: nobody asked, the calendar itself has changed."""
    return Call(tenant=tenant, now=datetime.now(UTC), actor=Actor("external_calendar", calendar_id, url))


async def find(conn: Queryable, tenant: str, calendar_id: str) -> Connected | None:
    row = await conn.fetchrow(FIND, tenant, calendar_id)
    return None if row is None else Connected(**row)


async def page(
    conn: Queryable, tenant: str, after: tuple[datetime, str] | None, take: int, offset: int
) -> list[Connected]:
    rows = await conn.fetch(PAGE, tenant, *(after or (None, None)), take, offset)
    return [Connected(**row) for row in rows]


async def count(conn: Queryable, tenant: str) -> int:
    return int(await conn.fetchval(COUNT, tenant))


async def insert(conn: Connection, call: Call, row: Connected) -> event_store.Appended:
    """Stores a new connection and tells of it; the transaction has written nothing yet."""
    made = await event_store.append(conn, call, row.id, 0, [event(row, "calendar.connected", {})])
    row.stream_version = made.version
    await conn.execute(INSERT, *(getattr(row, name) for name in row.__struct_fields__))
    return made


async def change(conn: Connection, call: Call, row: Connected, events: Sequence[NewEvent]) -> event_store.Appended:
    """Appends and stores the connection as it is now."""
    made = await event_store.append(conn, call, row.id, row.stream_version, events)
    row.stream_version = made.version
    await conn.execute(
        UPDATE, row.tenant_id, row.id, row.url, row.username, row.sealed, row.credentials, row.reads_busy,
        row.writes_bookings, row.status, row.last_synced_at, row.stale_since, row.metadata, row.host_zone, row.version,
        row.stream_version, row.updated_at,
    )  # fmt: skip
    return made


async def touch(conn: Connection, row: Connected, at: datetime) -> None:
    """Notes a reading that found nothing new, of which no event tells."""
    await conn.execute(TOUCH, row.tenant_id, row.id, at)


async def remove(conn: Connection, call: Call, row: Connected, data: Mapping[str, Any]) -> event_store.Appended:
    """Disconnects: the row goes, and with it the password; its last event stays."""
    made = await event_store.append(conn, call, row.id, row.stream_version, [event(row, "calendar.disconnected", data)])
    await conn.execute(DELETE, row.tenant_id, row.id)
    return made
