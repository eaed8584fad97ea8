"""What is taken near a start, and what counts against limits: the look that choosing between hosts or units needs."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from kalends_booking.domain.choosing import Seen, Taken
from kalends_booking.domain.decision import HostLimit
from kalends_shared.db import Queryable

_TAKEN: Final = """
SELECT r.subject_id, r.resource_id, r.slot, r.start_at, r.end_at, lower(r.during) AS reserved_from,
    upper(r.during) AS reserved_to, s.seats
FROM reservations r
CROSS JOIN LATERAL (
    SELECT sum(s.seats) AS seats FROM seats s
    WHERE s.tenant_id = r.tenant_id AND s.subject_id = r.subject_id AND s.start_at = r.start_at
        AND s.end_at = r.end_at AND s.slot = r.slot AND s.in_force
        AND (s.expires_at IS NULL OR s.expires_at > $4) AND s.holder_id <> ALL ($5::text[])
) s
WHERE r.tenant_id = $1 AND r.during && tstzrange($2, $3) AND s.seats > 0
"""
LOOK: Final = f"{_TAKEN} AND r.subject_id = ANY ($6) UNION ALL {_TAKEN} AND r.resource_id = ANY ($7)"
COUNT: Final = """
SELECT counted.slots, counted.minutes
FROM unnest($2::host_limit[]) WITH ORDINALITY
    AS l (choice, host_id, event_type_id, from_at, to_at, max_count, max_minutes, start_at, end_at, n)
CROSS JOIN LATERAL (
    SELECT count(*) AS slots, coalesce(sum(extract(epoch FROM o.end_at - o.start_at) / 60), 0)::bigint AS minutes
    FROM (
        SELECT DISTINCT s.start_at, s.end_at FROM seats s
        WHERE s.tenant_id = $1 AND s.subject_id = l.host_id AND s.slot = l.event_type_id
            AND s.start_at >= l.from_at AND s.start_at < l.to_at AND s.in_force
            AND (s.expires_at IS NULL OR s.expires_at > $3) AND s.holder_id <> ALL ($4::text[])
    ) o
) counted
ORDER BY l.n
"""


async def look(
    conn: Queryable,
    tenant: str,
    span: tuple[datetime, datetime],
    now: datetime,
    *,
    hosts: Sequence[str],
    resources: Sequence[str],
    limits: Sequence[HostLimit],
    besides: Sequence[str] = (),
) -> Seen:
    """What is reserved in the span by others than `besides`, and what is counted against each limit."""
    rows = await conn.fetch(LOOK, tenant, *span, now, besides, hosts, resources)
    taken = tuple(
        Taken(
            row["subject_id"],
            row["resource_id"],
            row["slot"],
            row["start_at"],
            row["end_at"],
            row["reserved_from"],
            row["reserved_to"],
            row["seats"],
        )
        for row in rows
    )
    counted = {}
    if distinct := list(dict.fromkeys(limits)):
        counts = await conn.fetch(COUNT, tenant, [(0, *limit) for limit in distinct], now, besides)
        counted = {limit: (row["slots"], row["minutes"]) for limit, row in zip(distinct, counts, strict=True)}
    return Seen(taken, counted)
