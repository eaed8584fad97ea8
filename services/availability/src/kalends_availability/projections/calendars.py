"""Events of the calendar context -> external busy time, and how fresh each calendar is."""

from datetime import datetime
from typing import Final

import asyncpg
import msgspec
from msgspec import Struct

from kalends_availability.domain.busy import FRESH_SECONDS
from kalends_availability.projections.bookings import Key
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection

CLOSE: Final = """
UPDATE calendar_busy SET seen_until = $3
WHERE tenant_id = $1 AND id = $2 AND seen_until IS NULL AND version < $4 RETURNING host_id
"""
INSERT: Final = """
INSERT INTO calendar_busy (tenant_id, id, version, host_id, calendar_id, intervals, busy_from, busy_to, seen_from)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (tenant_id, id, version) DO NOTHING
"""
# The row goes on while all that changes is the last success, and that comes before the one before has grown stale.
EXTEND: Final = """
UPDATE calendars SET version = $3, last_synced_at = $6
WHERE tenant_id = $1 AND id = $2 AND seen_until IS NULL AND version < $3 AND host_id = $4 AND counts = $5
    AND stale_since IS NULL AND $7::timestamptz IS NULL AND $6 <= last_synced_at + make_interval(secs => $8)
"""
END: Final = """
UPDATE calendars SET seen_until = $4 WHERE tenant_id = $1 AND id = $2 AND seen_until IS NULL AND version < $3
RETURNING host_id
"""
BEGIN: Final = """
INSERT INTO calendars (tenant_id, id, version, host_id, counts, last_synced_at, stale_since, seen_from)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (tenant_id, id, version) DO NOTHING
"""


class EventState(Struct):
    """Of a calendar event's state, what availability needs."""

    id: str
    host_id: str
    calendar_id: str | None = None
    intervals: list[tuple[int, int]] = []


class CalendarState(Struct):
    id: str
    host_id: str
    reads_busy: bool = True
    status: str = "connected"
    last_synced_at: datetime | None = None
    stale_since: datetime | None = None


_EVENT: Final = msgspec.json.Decoder(EventState | None)
_CALENDAR: Final = msgspec.json.Decoder(CalendarState | None)


async def apply(conn: Connection, events: list[Envelope]) -> set[Key]:
    """Writes what the events say, and tells what has changed."""
    changed: set[Key] = set()
    for event in events:
        if event.stream_id.startswith("cev_"):
            changed |= await _event(conn, event)
        elif event.stream_id.startswith("cal_"):
            changed |= await _calendar(conn, event)
    return changed


def keys_of(row: asyncpg.Record) -> set[Key]:
    """What a row of either table is part of, by the name that caches know it by."""
    return {(row["tenant_id"], f"calendar/{row['host_id']}")}


async def _event(conn: Connection, event: Envelope) -> set[Key]:
    state = _EVENT.decode(event.state)
    closed = await conn.fetch(CLOSE, event.tenant_id, event.stream_id, event.occurred_at, event.version)
    hosts = {row[0] for row in closed}
    if state is not None and state.intervals and event.type != "calendar_event.deleted":
        hosts.add(state.host_id)
        await conn.execute(
            INSERT, event.tenant_id, event.stream_id, event.version, state.host_id, state.calendar_id,
            msgspec.json.encode(state.intervals), min(low for low, _ in state.intervals),
            max(high for _, high in state.intervals), event.occurred_at,
        )  # fmt: skip
    return {(event.tenant_id, f"calendar/{host}") for host in hosts}


async def _calendar(conn: Connection, event: Envelope) -> set[Key]:
    state = _CALENDAR.decode(event.state)
    if state is None:
        return set()
    counts = state.reads_busy and state.status != "disconnected" and event.type != "calendar.disconnected"
    head = (event.tenant_id, event.stream_id, event.version)
    fields = (state.host_id, counts, state.last_synced_at, state.stale_since)
    hosts = {state.host_id}
    if await conn.execute(EXTEND, *head, *fields, FRESH_SECONDS) == "UPDATE 0":
        hosts |= {row[0] for row in await conn.fetch(END, *head, event.occurred_at)}
        await conn.execute(BEGIN, *head, *fields, event.occurred_at)
    return {(event.tenant_id, f"calendar/{host}") for host in hosts}
