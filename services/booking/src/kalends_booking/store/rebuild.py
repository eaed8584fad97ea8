"""The read model out of the events again, and whether the two are the same."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import msgspec

from kalends_booking.domain import booking, hold
from kalends_booking.domain.decision import State
from kalends_booking.store import codec
from kalends_booking.store.commit import booking_row
from kalends_shared.contracts.booking import BookingState, HoldState
from kalends_shared.db import Database, Queryable

Key = tuple[str, str]
"""Tenant and id."""

PAGE: Final = 200

STREAMS: Final = """
SELECT tenant_id, stream_id FROM streams
WHERE (tenant_id, stream_id) > ($1, $2) AND (stream_id LIKE 'bkg\\_%' OR stream_id LIKE 'hld\\_%')
ORDER BY tenant_id, stream_id LIMIT $3
"""
EVENTS: Final = """
SELECT e.tenant_id, e.stream_id, e.type, e.schema_version, e.occurred_at, e.data, e.state
FROM unnest($1::text[], $2::text[]) AS w (tenant_id, stream_id)
JOIN events e ON e.tenant_id = w.tenant_id AND e.stream_id = w.stream_id ORDER BY e.tenant_id, e.stream_id, e.version
"""
BOOKINGS: Final = """
SELECT b.tenant_id, b.id, b.event_type_id, b.start_at, b.end_at, b.status, b.series_id, b.person_id, b.person_version,
    b.version, b.state
FROM unnest($1::text[], $2::text[]) AS w (tenant_id, id) JOIN bookings b ON b.tenant_id = w.tenant_id AND b.id = w.id
"""
HOLDS: Final = """
SELECT h.tenant_id, h.id, h.version, h.state
FROM unnest($1::text[], $2::text[]) AS w (tenant_id, id) JOIN holds h ON h.tenant_id = w.tenant_id AND h.id = w.id
"""
# A row that is ahead was written by a command meanwhile, and is right.
PUT_BOOKING: Final = """
INSERT INTO bookings (tenant_id, id, event_type_id, start_at, end_at, status, series_id, person_id, person_version,
    version, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (tenant_id, id) DO UPDATE SET event_type_id = excluded.event_type_id, start_at = excluded.start_at,
    end_at = excluded.end_at, status = excluded.status, series_id = excluded.series_id,
    person_id = excluded.person_id, person_version = excluded.person_version, version = excluded.version,
    state = excluded.state
WHERE bookings.version <= excluded.version
"""
PUT_HOLD: Final = """
INSERT INTO holds (tenant_id, id, version, state) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, id) DO UPDATE SET version = excluded.version, state = excluded.state
WHERE holds.version <= excluded.version
"""


async def replay(conn: Queryable, keys: Sequence[Key]) -> dict[Key, State]:
    """Bookings and holds by their events alone; those that have some."""
    states: dict[Key, State] = {}
    for row in await conn.fetch(EVENTS, *_columns(keys)):
        key = row["tenant_id"], row["stream_id"]
        event = codec.decode(row["type"], row["schema_version"], row["data"], row["state"])
        before = states.get(key)
        if row["stream_id"].startswith("bkg_"):
            assert before is None or isinstance(before, BookingState)
            states[key] = booking.evolve(before, event, row["occurred_at"])
        else:
            assert before is None or isinstance(before, HoldState)
            states[key] = hold.evolve(before, event, row["occurred_at"])
    return states


async def rebuild(db: Database, *, write: bool = True) -> list[str]:
    """Replays every stream; returns those whose row differed from it, which `write` puts right. Commands go on meanwhile."""
    different: list[str] = []
    async for keys in pages(db):
        states = await replay(db.pool, keys)
        found = await _rows(db, keys)  # after the events, so that it is as new as they are or newer
        wrong = [key for key in keys if _differ(found.get(key), states[key])]
        different += [stream_id for _, stream_id in wrong]
        for put, kind in ((PUT_BOOKING, BookingState), (PUT_HOLD, HoldState)) if write else ():
            rows = [(key[0], *_row(states[key])) for key in wrong if isinstance(states[key], kind)]
            await db.pool.executemany(put, rows)
    return different


async def _rows(db: Database, keys: Sequence[Key]) -> dict[Key, Any]:
    """The rows that serve."""
    rows = [row for query in (BOOKINGS, HOLDS) for row in await db.pool.fetch(query, *_columns(keys))]
    return {(row["tenant_id"], row["id"]): row for row in rows}


def _differ(found: Any, state: State) -> bool:
    """Whether a row, or none, is not what the events say; one that is ahead of them is newer than they were."""
    return found is None or (found["version"] <= state.version and tuple(found)[1:] != _row(state))


def _row(state: State) -> tuple[Any, ...]:
    encoded = msgspec.json.encode(state)
    if isinstance(state, BookingState):
        return booking_row(0, state, encoded)[1:]
    return (state.id, state.version, encoded)


def _columns(keys: Sequence[Key]) -> tuple[list[str], list[str]]:
    return [tenant for tenant, _ in keys], [stream_id for _, stream_id in keys]


async def pages(db: Database) -> AsyncIterator[list[Key]]:
    """Every booking and hold, some at a time."""
    last = ("", "")
    while rows := await db.pool.fetch(STREAMS, *last, PAGE):
        keys = [(row["tenant_id"], row["stream_id"]) for row in rows]
        yield keys
        last = keys[-1]
