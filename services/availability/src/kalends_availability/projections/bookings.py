"""Events of booking -> table `busy`: what bookings and holds in force reserve, of whom."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct

from kalends_availability.domain.zones import minute_after, minute_of
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection

CLOSE: Final = """
UPDATE busy b SET seen_until = e.at
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[]) AS e (tenant_id, id, at, version)
WHERE b.tenant_id = e.tenant_id AND b.id = e.id AND b.seen_until IS NULL AND b.version < e.version
RETURNING b.tenant_id, coalesce(b.resource_id, b.subject_id), b.event_type_id, b.id,
    b.resource_id IS NULL
"""
INSERT: Final = """
INSERT INTO busy (tenant_id, id, version, subject_id, resource_id, event_type_id, reserved_from, reserved_to, start_min,
    end_min, seats, status, lapses_at, created_at, seen_from, seen_until)
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::integer[],
    $8::integer[], $9::integer[], $10::integer[], $11::integer[], $12::text[], $13::timestamptz[], $14::timestamptz[],
    $15::timestamptz[], $16::timestamptz[])
ON CONFLICT (tenant_id, id, version, subject_id) DO NOTHING
"""
TOUCH: Final = """
INSERT INTO touched (tx, tenant_id, key) SELECT current_tx(), * FROM unnest($1::text[], $2::text[])
"""

IN_FORCE: Final = frozenset({"pending", "confirmed", "completed", "no_show", "active"})
# Events that change nothing of what is reserved, nor whether a booking is still to come.
SILENT: Final = frozenset(
    {"booking.updated", "booking.approved", "meeting.started", "meeting.ended", "recording.ready"}
)


class _Policies(Struct):
    buffer_before_minutes: int = 0
    buffer_after_minutes: int = 0


class State(Struct):
    """Of a booking's or hold's state, what availability needs; the rest is skipped unread."""

    id: str
    created_at: datetime
    event_type_id: str
    start_at: datetime
    end_at: datetime
    status: str
    seats: int
    host_ids: list[str]
    policies: _Policies
    units: list[str] = []
    expires_at: datetime | None = None


Key = tuple[str, str]
_STATE: Final = msgspec.json.Decoder(State)


async def apply(conn: Connection, events: list[Envelope]) -> set[Key]:
    """Writes what the events leave in force, and tells what has changed; the rows before them stay, as seen until then."""
    told = [event for event in events if event.stream_id.startswith(("bkg_", "hld_")) and event.type not in SILENT]
    if not told:
        return set()
    first: dict[tuple[str, str], Envelope] = {}
    until: dict[tuple[str, str], datetime] = {}
    rows: list[tuple[Any, ...]] = []
    for event in reversed(told):
        stream = event.tenant_id, event.stream_id
        rows += _rows(event, until.get(stream))
        until[stream] = event.occurred_at
        first[stream] = event
    # A stream's first event has nothing before it to close.
    later = [event for event in first.values() if event.version > 1]
    closed = []
    if later:
        closed = await conn.fetch(
            CLOSE,
            [event.tenant_id for event in later],
            [event.stream_id for event in later],
            [event.occurred_at for event in later],
            [event.version for event in later],
        )
    if rows:
        await conn.execute(INSERT, *[list(column) for column in zip(*rows, strict=True)])
    changed = {key for row in closed for key in _keys(*row)}
    for row in rows:
        changed.update(keys_of(row))
    return changed


async def touch(conn: Connection, changed: Iterable[Key]) -> None:
    """Leaves word of what has changed for the sweep."""
    found = sorted(changed)
    if found:
        await conn.execute(TOUCH, [t for t, _ in found], [key for _, key in found])


def keys_of(row: asyncpg.Record | tuple[Any, ...]) -> set[Key]:
    """What a row of `busy` is part of, by the names that caches know it by; only its first six columns are looked at."""
    tenant, id_, _, subject, resource, event_type_id = row[:6]
    return set(_keys(tenant, resource or subject, event_type_id, id_, resource is None))


def _keys(tenant: str, subject: str, event_type_id: str, id_: str, host: bool) -> list[Key]:
    """What a row is part of: the time of its host or resource, and, of a booking's host, its place in the ranking."""
    made = [(tenant, f"busy/{subject}")]
    return [*made, (tenant, f"standing/{event_type_id}/{subject}")] if host and id_.startswith("bkg_") else made


def _rows(event: Envelope, seen_until: datetime | None) -> list[tuple[Any, ...]]:
    state = _STATE.decode(event.state)
    if state.status not in IN_FORCE:
        return []
    start, end = minute_of(state.start_at), minute_after(state.end_at)
    common = (
        state.event_type_id, start - state.policies.buffer_before_minutes, end + state.policies.buffer_after_minutes,
        start, end, state.seats, state.status, state.expires_at, state.created_at, event.occurred_at, seen_until,
    )  # fmt: skip
    head = (event.tenant_id, state.id, event.version)
    hosts = [(*head, host, None, *common) for host in state.host_ids]
    return hosts + [(*head, unit, unit.rpartition("#")[0], *common) for unit in state.units]
