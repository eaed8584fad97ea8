"""What calendars are to show of bookings: a projection of the booking context."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from kalends_calendar_sync.domain.booked import Shape, summary, without_person
from kalends_shared.db import Connection, Queryable

UPSERT: Final = """
INSERT INTO bookings AS b (tenant_id, id, version, present, start_at, end_at, host_ids, person_id, shape_rev, shape,
    summary, updated_at)
SELECT n.tenant_id, n.id, n.version, n.present, n.start_at, n.end_at, string_to_array(n.host_ids, ' '), n.person_id,
    1, n.shape, n.summary, n.updated_at
FROM unnest($1::text[], $2::text[], $3::integer[], $4::boolean[], $5::timestamptz[], $6::timestamptz[], $7::text[],
    $8::text[], $9::json[], $10::text[], $11::timestamptz[])
    AS n (tenant_id, id, version, present, start_at, end_at, host_ids, person_id, shape, summary, updated_at)
ON CONFLICT (tenant_id, id) DO UPDATE SET version = excluded.version, present = excluded.present,
    start_at = excluded.start_at, end_at = excluded.end_at, host_ids = excluded.host_ids,
    person_id = excluded.person_id, shape = excluded.shape, summary = excluded.summary,
    updated_at = excluded.updated_at,
    shape_rev = CASE WHEN b.shape::text = excluded.shape::text AND b.present = excluded.present
        AND b.host_ids = excluded.host_ids THEN b.shape_rev ELSE b.shape_rev + 1 END
WHERE b.version < excluded.version
RETURNING b.tenant_id, b.id, old.shape_rev IS DISTINCT FROM new.shape_rev AS changed
"""
FIND: Final = """
SELECT shape, updated_at FROM bookings WHERE tenant_id = $1 AND id = $2
"""
OF_PERSON: Final = "SELECT id, shape FROM bookings WHERE tenant_id = $1 AND person_id = $2"
SCRUB: Final = """
WITH scrubbed AS (
    UPDATE calendar_events SET title = $4 WHERE tenant_id = $1 AND booking_id = $2
)
UPDATE bookings SET shape = $3, summary = $4, shape_rev = shape_rev + 1 WHERE tenant_id = $1 AND id = $2
"""
# What stands in a calendar is kept, so that an erasure finds it there.
PRUNE: Final = """
WITH gone AS (
    DELETE FROM bookings WHERE ctid = ANY (ARRAY(
        SELECT b.ctid FROM bookings b WHERE b.end_at < now() - make_interval(days => $1) AND NOT EXISTS (
            SELECT 1 FROM mirrors m WHERE m.tenant_id = b.tenant_id AND m.booking_id = b.id)
        LIMIT $2
    )) RETURNING tenant_id, id
), dropped AS (
    DELETE FROM calendar_events e USING gone WHERE e.tenant_id = gone.tenant_id AND e.booking_id = gone.id
)
SELECT count(*) FROM gone
"""


class Told(Struct, frozen=True, kw_only=True):
    """A booking as its latest event tells it."""

    tenant_id: str
    id: str
    version: int
    present: bool
    host_ids: list[str]
    person_id: str
    shape: Shape
    updated_at: datetime


async def upsert(conn: Connection, told: Sequence[Told]) -> list[tuple[str, str]]:
    """Stores the latest of each booking; returns (tenant, id) of those whose calendars have to change."""
    rows = await conn.fetch(
        UPSERT, [b.tenant_id for b in told], [b.id for b in told], [b.version for b in told],
        [b.present for b in told], [b.shape.start_at for b in told], [b.shape.end_at for b in told],
        [" ".join(b.host_ids) for b in told], [b.person_id for b in told], [b.shape.encoded() for b in told],
        [summary(b.shape) for b in told], [b.updated_at for b in told],
    )  # fmt: skip
    return [(row["tenant_id"], row["id"]) for row in rows if row["changed"]]


async def shape(conn: Queryable, tenant: str, booking_id: str) -> tuple[Shape, datetime] | None:
    """What a calendar is to show of the booking, and when that last changed."""
    row = await conn.fetchrow(FIND, tenant, booking_id)
    return None if row is None else (msgspec.json.decode(row["shape"], type=Shape), row["updated_at"])


async def scrub(conn: Connection, tenant: str, person_id: str) -> list[tuple[str, str]]:
    """Takes a person's data out of their bookings; returns (tenant, id) of them."""
    out = []
    for row in await conn.fetch(OF_PERSON, tenant, person_id):
        bare = without_person(msgspec.json.decode(row["shape"], type=Shape))
        await conn.execute(SCRUB, tenant, row["id"], bare.encoded(), summary(bare))
        out.append((tenant, row["id"]))
    return out
