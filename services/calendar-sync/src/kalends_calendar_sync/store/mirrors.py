"""Bookings in external calendars: what they are to be there, what was done about it, and the queue of what is to do."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from kalends_calendar_sync.domain.booked import uid_of
from kalends_calendar_sync.store.cursors import LeaseLost
from kalends_shared.contracts import ids
from kalends_shared.db import Connection, Queryable

TARGETS: Final = """
SELECT b.tenant_id, b.id, c.id FROM unnest($1::text[], $2::text[]) AS n (tenant_id, id)
JOIN bookings b ON b.tenant_id = n.tenant_id AND b.id = n.id AND b.present
JOIN calendars c ON c.tenant_id = b.tenant_id AND c.host_id = ANY (b.host_ids) AND c.writes_bookings
"""
TARGETS_OF_CALENDAR: Final = """
SELECT b.tenant_id, b.id, c.id FROM calendars c
JOIN bookings b ON b.tenant_id = c.tenant_id AND c.host_id = ANY (b.host_ids) AND b.present AND b.end_at > $3
WHERE c.tenant_id = $1 AND c.id = $2 AND c.writes_bookings
"""
UPSERT: Final = """
INSERT INTO mirrors AS m (tenant_id, booking_id, calendar_id, uid, desired_rev, desired, wake_at)
SELECT n.tenant_id, n.booking_id, n.calendar_id, n.uid, b.shape_rev, true, now()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n (tenant_id, booking_id, calendar_id, uid)
JOIN bookings b ON b.tenant_id = n.tenant_id AND b.id = n.booking_id
ON CONFLICT (tenant_id, booking_id, calendar_id) DO UPDATE SET desired = true,
    desired_rev = greatest(excluded.desired_rev, m.desired_rev + 1), wake_at = now(), attempts = 0, corrections = 0,
    dead = false, error = NULL
"""
UPSERT_EVENTS: Final = """
INSERT INTO calendar_events (tenant_id, id, calendar_id, host_id, source, status, title, start_at, end_at, all_day, busy,
    booking_id, metadata, version, created_at, updated_at)
SELECT n.tenant_id, n.event_id, n.calendar_id, c.host_id, 'booking', 'confirmed', b.summary, b.start_at, b.end_at,
    false, true, b.id, '{}', 1, b.updated_at, b.updated_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n (tenant_id, booking_id, calendar_id, event_id)
JOIN bookings b ON b.tenant_id = n.tenant_id AND b.id = n.booking_id
JOIN calendars c ON c.tenant_id = n.tenant_id AND c.id = n.calendar_id
ON CONFLICT (tenant_id, id) DO UPDATE SET status = 'confirmed', title = excluded.title, start_at = excluded.start_at,
    end_at = excluded.end_at, busy = true, version = calendar_events.version + 1, updated_at = excluded.updated_at
"""
# Whatever else is in the calendars of these bookings is to go.
UNWANTED: Final = """
UPDATE mirrors m SET desired = false, desired_rev = greatest(b.shape_rev, m.desired_rev + 1), wake_at = now(),
    attempts = 0, corrections = 0, dead = false, error = NULL
FROM unnest($1::text[], $2::text[]) AS n (tenant_id, id)
JOIN bookings b ON b.tenant_id = n.tenant_id AND b.id = n.id
WHERE m.tenant_id = b.tenant_id AND m.booking_id = b.id AND m.desired AND NOT EXISTS (
    SELECT 1 FROM calendars c WHERE c.tenant_id = m.tenant_id AND c.id = m.calendar_id AND b.present
        AND c.host_id = ANY (b.host_ids) AND c.writes_bookings)
RETURNING m.tenant_id, m.booking_id, m.calendar_id
"""
UNWANTED_OF_CALENDAR: Final = """
UPDATE mirrors m SET desired = false, desired_rev = m.desired_rev + 1, wake_at = now(), attempts = 0, corrections = 0,
    dead = false, error = NULL
FROM bookings b
WHERE m.tenant_id = $1 AND m.calendar_id = $2 AND m.desired AND b.tenant_id = m.tenant_id AND b.id = m.booking_id
    AND b.end_at > $3
RETURNING m.tenant_id, m.booking_id, m.calendar_id
"""
CANCEL_EVENTS: Final = """
UPDATE calendar_events e SET status = 'cancelled', busy = false, version = e.version + 1, updated_at = now()
FROM unnest($1::text[], $2::text[]) AS n (tenant_id, id) WHERE e.tenant_id = n.tenant_id AND e.id = n.id
"""
# As for readings, what failed before goes last.
CLAIM: Final = """
UPDATE mirrors m SET lease_until = now() + make_interval(secs => $2), fence = m.fence + 1
FROM (
    SELECT tenant_id, booking_id, calendar_id FROM mirrors
    WHERE wake_at <= now() AND (lease_until IS NULL OR lease_until < now())
    ORDER BY attempts > 0, wake_at LIMIT $1 FOR UPDATE SKIP LOCKED
) due
WHERE m.tenant_id = due.tenant_id AND m.booking_id = due.booking_id AND m.calendar_id = due.calendar_id
RETURNING m.tenant_id, m.booking_id, m.calendar_id, m.fence, m.uid, m.ref, m.etag, m.desired_rev, m.desired,
    m.applied_rev, m.unsure, m.attempts
"""
BEGIN: Final = """
UPDATE mirrors SET ref = $5, unsure = true
WHERE tenant_id = $1 AND booking_id = $2 AND calendar_id = $3 AND fence = $4 RETURNING 1
"""
# What was asked for meanwhile stays due.
APPLIED: Final = """
UPDATE mirrors SET etag = $5, applied_rev = $6, written_hash = $7, unsure = false, lease_until = NULL, attempts = 0,
    error = NULL, wake_at = CASE WHEN desired_rev > $6 THEN now() END
WHERE tenant_id = $1 AND booking_id = $2 AND calendar_id = $3 AND fence = $4 RETURNING 1
"""
FAILED: Final = """
UPDATE mirrors SET lease_until = NULL, attempts = attempts + 1, error = $6, dead = $7, unsure = unsure OR $8,
    wake_at = CASE WHEN $7 AND desired_rev = $9 THEN NULL ELSE now() + make_interval(secs => $5) END
WHERE tenant_id = $1 AND booking_id = $2 AND calendar_id = $3 AND fence = $4
"""
_OWN: Final = """
SELECT uid, booking_id, calendar_id, ref, etag, desired, desired_rev, applied_rev, written_hash, wake_at IS NULL AS idle
FROM mirrors WHERE tenant_id = $1 AND """
OWN: Final = _OWN + "uid = ANY ($2)"
IN_CALENDAR: Final = _OWN + "calendar_id = $2 AND ref = ANY ($3)"
SEEN: Final = """
UPDATE mirrors SET etag = $4 WHERE tenant_id = $1 AND uid = $2 AND applied_rev = $3 AND wake_at IS NULL
"""
DIVERGED: Final = """
UPDATE mirrors SET unsure = true, corrections = corrections + 1,
    wake_at = CASE WHEN corrections < $4 THEN now() END,
    error = CASE WHEN corrections < $4 THEN error ELSE 'the host keeps changing it' END
WHERE tenant_id = $1 AND uid = $2 AND applied_rev = $3 AND wake_at IS NULL
RETURNING corrections
"""
REVIVE: Final = """
UPDATE mirrors SET dead = false, attempts = 0, wake_at = now()
WHERE tenant_id = $1 AND calendar_id = $2 AND (dead OR (wake_at IS NOT NULL AND attempts > 0))
"""
RESTART: Final = """
UPDATE mirrors SET ref = NULL, etag = NULL, unsure = true, dead = false, attempts = 0, wake_at = now()
WHERE tenant_id = $1 AND calendar_id = $2 AND desired
"""
FORGET: Final = "DELETE FROM mirrors WHERE tenant_id = $1 AND calendar_id = $2"
# Of bookings that are long past, what was taken out of the calendar again.
PRUNE: Final = """
WITH gone AS (
    DELETE FROM mirrors WHERE ctid = ANY (ARRAY(
        SELECT m.ctid FROM mirrors m JOIN bookings b ON b.tenant_id = m.tenant_id AND b.id = m.booking_id
        WHERE b.end_at < now() - make_interval(days => $1) AND NOT m.desired AND m.wake_at IS NULL LIMIT $2
    )) RETURNING 1
)
SELECT count(*) FROM gone
"""
BACKLOG: Final = """
SELECT count(*) FILTER (WHERE wake_at <= now()) AS due, count(*) FILTER (WHERE dead) AS dead,
    coalesce(extract(epoch FROM now() - min(wake_at) FILTER (WHERE wake_at <= now())), 0)::float8 AS oldest
FROM mirrors WHERE wake_at IS NOT NULL OR dead
"""


class Claim(Struct, frozen=True):
    """A lease on one booking in one calendar."""

    tenant_id: str
    booking_id: str
    calendar_id: str
    fence: int
    uid: str
    ref: str | None
    etag: str | None
    desired_rev: int
    desired: bool
    applied_rev: int
    unsure: bool
    attempts: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.tenant_id, self.booking_id, self.calendar_id, self.fence


class Own(Struct, frozen=True):
    """What we know of an event of ours, to tell an echo from an edit."""

    uid: str
    booking_id: str
    calendar_id: str
    ref: str | None
    etag: str | None
    desired: bool
    desired_rev: int
    applied_rev: int
    written_hash: bytes | None
    idle: bool


async def refresh(conn: Connection, bookings: Sequence[tuple[str, str]]) -> int:
    """Brings what is desired in line with these bookings; returns how many calendars have to change."""
    tenants, names = [tenant for tenant, _ in bookings], [name for _, name in bookings]
    wanted = [tuple(row) for row in await conn.fetch(TARGETS, tenants, names)]
    await _want(conn, wanted)
    unwanted = await conn.fetch(UNWANTED, tenants, names)
    await _cancel(conn, [tuple(row) for row in unwanted])
    return len(wanted) + len(unwanted)


async def begin_writing(conn: Connection, tenant: str, calendar_id: str, now: datetime) -> None:
    """A calendar that is now to be written to gets the bookings to come."""
    await _want(conn, [tuple(row) for row in await conn.fetch(TARGETS_OF_CALENDAR, tenant, calendar_id, now)])


async def end_writing(conn: Connection, tenant: str, calendar_id: str, now: datetime) -> None:
    """A calendar that is no longer to be written to loses the bookings to come."""
    await _cancel(conn, [tuple(row) for row in await conn.fetch(UNWANTED_OF_CALENDAR, tenant, calendar_id, now)])


async def _want(conn: Connection, wanted: Sequence[tuple[Any, ...]]) -> None:
    if not wanted:
        return
    tenants, bookings, calendars = map(list, zip(*wanted, strict=True))
    await conn.execute(UPSERT, tenants, bookings, calendars, [uid_of(b, c) for _, b, c in wanted])
    await conn.execute(UPSERT_EVENTS, tenants, bookings, calendars, [_event_id(*one) for one in wanted])


async def _cancel(conn: Connection, unwanted: Sequence[tuple[Any, ...]]) -> None:
    if unwanted:
        await conn.execute(CANCEL_EVENTS, [tenant for tenant, _, _ in unwanted], [_event_id(*one) for one in unwanted])


def _event_id(tenant: str, booking_id: str, calendar_id: str) -> str:
    return ids.derived("cev", tenant, booking_id, calendar_id)


async def claim(pool: Any, limit: int, seconds: float) -> list[Claim]:
    return [Claim(*row) for row in await pool.fetch(CLAIM, limit, seconds)]


async def begin(pool: Any, lease: Claim, ref: str) -> None:
    """Notes where a write goes before it is done, and that from here on it may have been.

    Raises:
        LeaseLost: somebody else has taken over.
    """
    if await pool.fetchval(BEGIN, *lease.key, ref) is None:
        raise LeaseLost


async def applied(pool: Any, lease: Claim, etag: str | None, written: bytes | None) -> None:
    if await pool.fetchval(APPLIED, *lease.key, etag, lease.desired_rev, written) is None:
        raise LeaseLost


async def failed(pool: Any, lease: Claim, pause: float, error: str, *, dead: bool, unsure: bool) -> None:
    await pool.execute(FAILED, *lease.key, pause, error, dead, unsure, lease.desired_rev)


async def own(conn: Queryable, tenant: str, uids: Sequence[str]) -> dict[str, Own]:
    """Which of these UIDs are ours, in whichever calendar they were found."""
    return {row["uid"]: Own(*row) for row in await conn.fetch(OWN, tenant, list(uids))}


async def at(conn: Queryable, tenant: str, calendar_id: str, refs: Sequence[str]) -> list[Own]:
    """Our events at these places of a calendar."""
    return [Own(*row) for row in await conn.fetch(IN_CALENDAR, tenant, calendar_id, list(refs))]
