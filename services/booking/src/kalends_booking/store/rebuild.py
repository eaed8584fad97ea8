"""The read model out of the events again, and whether the two are the same."""

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from kalends_booking.domain import booking, hold
from kalends_booking.domain.decision import State
from kalends_booking.store import codec
from kalends_booking.store.commit import booking_row
from kalends_shared.contracts.booking import BookingState, HoldState
from kalends_shared.db import Connection, Database

PAGE: Final = 200

STREAMS: Final = """
SELECT tenant_id, stream_id FROM streams
WHERE (tenant_id, stream_id) > ($1, $2) AND (stream_id LIKE 'bkg\\_%' OR stream_id LIKE 'hld\\_%')
ORDER BY tenant_id, stream_id LIMIT $3
"""
EVENTS: Final = """
SELECT type, schema_version, occurred_at, data, state FROM events WHERE tenant_id = $1 AND stream_id = $2 ORDER BY version
"""
BOOKING: Final = """
SELECT id, event_type_id, start_at, end_at, status, series_id, person_id, person_version, version, state
FROM bookings WHERE tenant_id = $1 AND id = $2
"""
HOLD: Final = "SELECT id, version, state FROM holds WHERE tenant_id = $1 AND id = $2"
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


async def replay(conn: "Connection | Any", tenant: str, stream_id: str) -> State | None:
    """A booking or hold by its events alone; None where it has none."""
    state: State | None = None
    for row in await conn.fetch(EVENTS, tenant, stream_id):
        event = codec.decode(row["type"], row["schema_version"], row["data"], row["state"])
        if stream_id.startswith("bkg_"):
            assert state is None or isinstance(state, BookingState)
            state = booking.evolve(state, event, row["occurred_at"])
        else:
            assert state is None or isinstance(state, HoldState)
            state = hold.evolve(state, event, row["occurred_at"])
    return state


async def rebuild(db: Database, *, write: bool = True) -> list[str]:
    """Replays every stream; returns those whose row differed from it, which `write` puts right. Commands go on meanwhile."""
    different = []
    async for tenant, stream_id in streams(db):
        async with db.transaction() as conn:
            state = await replay(conn, tenant, stream_id)
            assert state is not None
            row = _row(state)
            found = await conn.fetchrow(BOOKING if isinstance(state, BookingState) else HOLD, tenant, stream_id)
            if found is not None and (tuple(found) == row or found["version"] > state.version):
                continue
            different.append(stream_id)
            if write:
                await conn.execute(PUT_BOOKING if isinstance(state, BookingState) else PUT_HOLD, tenant, *row)
    return different


def _row(state: State) -> tuple[Any, ...]:
    encoded = msgspec.json.encode(state)
    if isinstance(state, BookingState):
        return booking_row(0, state, encoded)[1:]
    return (state.id, state.version, encoded)


async def streams(db: Database) -> AsyncIterator[tuple[str, str]]:
    """(tenant, id) of every booking and hold."""
    last = ("", "")
    while rows := await db.pool.fetch(STREAMS, *last, PAGE):
        for row in rows:
            yield row["tenant_id"], row["stream_id"]
        last = (rows[-1]["tenant_id"], rows[-1]["stream_id"])
