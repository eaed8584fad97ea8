"""Calendar events as the API shows them; own blocks are written here, the others where they come from."""

from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct
from uuid_utils import uuid7

from kalends_shared import event_store
from kalends_shared.contracts.calendars import CalendarEvent, CalendarEventsQuery, CalendarEventState
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import NewEvent
from kalends_shared.db import Connection, Queryable

_COLUMNS: Final = """id, calendar_id, host_id, source, status, title, start_at, end_at, all_day, busy, booking_id, metadata,
    version, created_at, updated_at"""
FIND: Final = f"SELECT {_COLUMNS} FROM calendar_events WHERE tenant_id = $1 AND id = $2"  # noqa: S608 (our own columns)
_WHERE: Final = """
WHERE tenant_id = $1 AND ($2::text[] IS NULL OR status = ANY ($2)) AND ($3::text[] IS NULL OR source = ANY ($3))
    AND ($4::text IS NULL OR calendar_id = $4) AND ($5::text IS NULL OR host_id = $5)
    AND ($6::timestamptz IS NULL OR start_at >= $6) AND ($7::timestamptz IS NULL OR start_at < $7)
"""
ASCENDING: Final = f"""
SELECT {_COLUMNS} FROM calendar_events {_WHERE} AND ($8::timestamptz IS NULL OR (start_at, id) > ($8, $9))
ORDER BY start_at, id LIMIT $10 OFFSET $11
"""  # noqa: S608
DESCENDING: Final = f"""
SELECT {_COLUMNS} FROM calendar_events {_WHERE} AND ($8::timestamptz IS NULL OR (start_at, id) < ($8, $9))
ORDER BY start_at DESC, id DESC LIMIT $10 OFFSET $11
"""  # noqa: S608
COUNT: Final = f"SELECT count(*) FROM calendar_events {_WHERE}"  # noqa: S608
INSERT: Final = f"""
INSERT INTO calendar_events (tenant_id, {_COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
"""  # noqa: S608
UPDATE: Final = """
UPDATE calendar_events SET host_id = $3, status = $4, title = $5, start_at = $6, end_at = $7, all_day = $8, busy = $9,
    metadata = $10, version = $11, updated_at = $12
WHERE tenant_id = $1 AND id = $2
"""
DELETE: Final = "DELETE FROM calendar_events WHERE tenant_id = $1 AND id = $2"

Kind = Literal["calendar_event.upserted", "calendar_event.deleted"]


class Shown(Struct, kw_only=True):
    """A row."""

    id: str
    calendar_id: str | None
    host_id: str
    source: str
    status: str
    title: str | None
    start_at: datetime
    end_at: datetime
    all_day: bool
    busy: bool
    booking_id: str | None
    metadata: bytes
    version: int
    created_at: datetime
    updated_at: datetime


def _fields(row: Shown) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in row.__struct_fields__}
    return fields | {"metadata": msgspec.Raw(row.metadata)}


def public(row: Shown) -> CalendarEvent:
    return CalendarEvent(**_fields(row))


async def find(conn: Queryable, tenant: str, event_id: str) -> Shown | None:
    row = await conn.fetchrow(FIND, tenant, event_id)
    return None if row is None else Shown(**row)


def _filters(tenant: str, query: CalendarEventsQuery) -> tuple[Any, ...]:
    return (
        tenant,
        query.status,
        query.source,
        query.calendar_id,
        query.host_id,
        query.start_after,
        query.start_before,
    )


async def page(
    conn: Queryable,
    tenant: str,
    query: CalendarEventsQuery,
    after: tuple[datetime, str] | None,
    take: int,
    offset: int,
) -> list[Shown]:
    sql = ASCENDING if query.order == "asc" else DESCENDING
    rows = await conn.fetch(sql, *_filters(tenant, query), *(after or (None, None)), take, offset)
    return [Shown(**row) for row in rows]


async def count(conn: Queryable, tenant: str, query: CalendarEventsQuery) -> int:
    return int(await conn.fetchval(COUNT, *_filters(tenant, query)))


async def insert(conn: Connection, call: Call, row: Shown, busy: list[tuple[int, int]]) -> event_store.Appended:
    made = await _append(conn, call, row, "calendar_event.upserted", busy)
    await conn.execute(INSERT, call.tenant, *(getattr(row, name) for name in row.__struct_fields__))
    return made


async def update(conn: Connection, call: Call, row: Shown, busy: list[tuple[int, int]]) -> event_store.Appended:
    """Stores a changed row, whose version is already the new one."""
    made = await _append(conn, call, row, "calendar_event.upserted", busy)
    await conn.execute(
        UPDATE, call.tenant, row.id, row.host_id, row.status, row.title, row.start_at, row.end_at, row.all_day, row.busy,
        row.metadata, row.version, row.updated_at,
    )  # fmt: skip
    return made


async def delete(conn: Connection, call: Call, row: Shown) -> event_store.Appended:
    """Removes a row, whose version is already that of its end."""
    made = await _append(conn, call, row, "calendar_event.deleted", [])
    await conn.execute(DELETE, call.tenant, row.id)
    return made


async def _append(
    conn: Connection, call: Call, row: Shown, kind: Kind, busy: list[tuple[int, int]]
) -> event_store.Appended:
    state = CalendarEventState(**_fields(row), intervals=busy)
    event = NewEvent(type=kind, data=b"{}", state=msgspec.json.encode(state), id=str(uuid7()))
    return await event_store.append(conn, call, row.id, row.version - 1, [event])
