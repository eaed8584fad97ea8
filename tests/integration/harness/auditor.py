"""What must be true of bookings and their places whatever happened, in plain SQL: each query finds what breaks one rule.

It believes the events alone, and holds the other tables against them. Half of it is the promise (nobody twice, nothing
over a limit), half that the guard says what the events say, without which the promise would hold by luck. Of one tenant,
$1, at its own time, $2.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from harness.judge import Judge

# What is in force by the events: a booking or live hold a row, and one for each host or unit that it takes.
_PLACED: Final = """
WITH latest AS (
    SELECT DISTINCT ON (tenant_id, stream_id) tenant_id, stream_id, state::jsonb AS state
    FROM booking.events
    WHERE tenant_id = $1 AND (stream_id LIKE 'bkg\\_%' OR stream_id LIKE 'hld\\_%')
    ORDER BY tenant_id, stream_id, version DESC
), holders AS (
    SELECT tenant_id, stream_id AS holder, state->>'event_type_id' AS event_type, state,
        (state->>'start_at')::timestamptz AS starts, (state->>'end_at')::timestamptz AS ends,
        coalesce((state->'policies'->>'capacity')::int, 1) AS capacity, (state->>'seats')::int AS seats,
        make_interval(mins => coalesce((state->'policies'->>'buffer_before_minutes')::int, 0)) AS before,
        make_interval(mins => coalesce((state->'policies'->>'buffer_after_minutes')::int, 0)) AS after
    FROM latest
    WHERE state->>'status' IN ('pending', 'confirmed')
        OR (state->>'status' = 'active' AND (state->>'expires_at')::timestamptz > $2::timestamptz)
), placed AS (
    SELECT h.*, s.subject, s.is_host, tstzrange(starts - before, ends + after) AS during
    FROM holders h
    CROSS JOIN LATERAL (
        SELECT jsonb_array_elements_text(state->'host_ids') AS subject, true AS is_host
        UNION ALL
        SELECT jsonb_array_elements_text(coalesce(state->'units', '[]')), false
    ) s
), expired AS (
    SELECT tenant_id, stream_id AS holder FROM latest
    WHERE state->>'status' = 'active' AND (state->>'expires_at')::timestamptz <= $2
)
"""
# Two who reserve one subject at a time, and do not sit in one slot together.
OVERLAP: Final = f"""{_PLACED}
SELECT a.subject, a.holder, b.holder FROM placed a JOIN placed b ON a.tenant_id = b.tenant_id AND a.subject = b.subject
    AND a.holder < b.holder AND a.during && b.during
WHERE NOT (a.capacity > 1 AND a.event_type = b.event_type AND a.starts = b.starts AND a.ends = b.ends)
"""
OVER_CAPACITY: Final = f"""{_PLACED}
SELECT subject, event_type, starts, sum(seats) FROM placed GROUP BY tenant_id, subject, event_type, starts, ends
HAVING sum(seats) > max(capacity)
"""
# $3: the event type, $4: how many slots a host may have of it on a date of UTC.
OVER_LIMIT: Final = f"""{_PLACED}
SELECT subject, (starts AT TIME ZONE 'UTC')::date AS day, count(DISTINCT starts) FROM placed
WHERE is_host AND event_type = $3 GROUP BY 1, 2 HAVING count(DISTINCT starts) > $4
"""
# $3: the event type, $4: how many bookings of it a booker may have before them.
OVER_BOOKER: Final = f"""{_PLACED}
SELECT state->>'person_id', count(*) FROM holders
WHERE event_type = $3 AND state->>'person_id' IS NOT NULL AND ends > $2 GROUP BY 1 HAVING count(*) > $4
"""
UNRESERVED: Final = f"""{_PLACED}
SELECT p.holder, p.subject, p.starts FROM placed p WHERE NOT EXISTS (
    SELECT FROM booking.reservations r WHERE r.tenant_id = p.tenant_id AND r.subject_id = p.subject
        AND r.start_at = p.starts AND r.end_at = p.ends AND r.during @> p.during)
"""
UNSEATED: Final = f"""{_PLACED}
SELECT p.holder, p.subject, p.starts FROM placed p WHERE NOT EXISTS (
    SELECT FROM booking.seats s WHERE s.tenant_id = p.tenant_id AND s.holder_id = p.holder AND s.subject_id = p.subject
        AND s.start_at = p.starts AND s.end_at = p.ends AND s.seats = p.seats AND s.in_force)
"""
RESERVED_FOR_NOBODY: Final = f"""{_PLACED}
SELECT r.subject_id, r.start_at FROM booking.reservations r
WHERE r.start_at > $2 AND r.tenant_id = $1 AND NOT EXISTS (
    SELECT FROM placed p WHERE p.tenant_id = r.tenant_id AND p.subject = r.subject_id AND p.starts = r.start_at
        AND p.ends = r.end_at)
"""
SEATED_FOR_NOTHING: Final = f"""{_PLACED}
SELECT s.holder_id, s.subject_id, s.start_at FROM booking.seats s
WHERE s.in_force AND s.start_at > $2 AND s.tenant_id = $1 AND NOT EXISTS (
    SELECT FROM placed p WHERE p.tenant_id = s.tenant_id AND p.holder = s.holder_id AND p.subject = s.subject_id
        AND p.starts = s.start_at)
"""
# What the read model says otherwise than the last event, and streams with a hole in them.
READ_OTHERWISE: Final = f"""{_PLACED}
SELECT l.stream_id FROM latest l WHERE l.state IS DISTINCT FROM coalesce(
    (SELECT b.state::jsonb FROM booking.bookings b WHERE b.tenant_id = l.tenant_id AND b.id = l.stream_id),
    (SELECT h.state::jsonb FROM booking.holds h WHERE h.tenant_id = l.tenant_id AND h.id = l.stream_id))
"""
TORN: Final = f"""{_PLACED}
SELECT stream_id FROM booking.events WHERE tenant_id = $1 GROUP BY stream_id HAVING max(version) <> count(*) OR min(version) <> 1
"""
# $1, $2, $3, $4: ids, versions, statuses and starts as they were answered; what of it is in no event.
UNHEARD_OF: Final = """
SELECT a.id, a.version FROM unnest($1::text[], $2::int[], $3::text[], $4::timestamptz[]) AS a (id, version, status, starts)
WHERE NOT EXISTS (
    SELECT FROM booking.events e WHERE e.stream_id = a.id AND e.version = a.version
        AND e.state->>'status' = a.status AND (e.state->>'start_at')::timestamptz = a.starts)
"""
# $1, $2: ids and versions as they were answered, $3: event types; what a key did to bookings and holds of these by a
# request that was answered with none of it. Left out are the commands that have no Idempotency-Key, which may be done by
# one attempt and answered to the next, and cancelled series, whose answer tells of the booking that was named.
UNTOLD: Final = """
WITH told AS (
    SELECT DISTINCT e.tenant_id, e.correlation_id FROM booking.events e
    JOIN unnest($1::text[], $2::int[]) AS a (id, version) ON e.stream_id = a.id AND e.version = a.version
)
SELECT e.stream_id, e.version, e.type FROM booking.events e
WHERE e.actor->>'type' = 'key' AND e.state->>'event_type_id' = ANY ($3::text[])
    AND e.type NOT IN ('hold.released', 'booking.updated', 'booking.no_show_undone')
    AND NOT (e.type = 'booking.cancelled' AND e.state->>'series_id' IS NOT NULL)
    AND NOT EXISTS (SELECT FROM told t WHERE t.tenant_id = e.tenant_id AND t.correlation_id = e.correlation_id)
"""
EXPIRING: Final = f"{_PLACED} SELECT holder FROM expired"

RULES: Final = {
    "overlap": OVERLAP,
    "over capacity": OVER_CAPACITY,
    "unreserved": UNRESERVED,
    "unseated": UNSEATED,
    "reserved for nobody": RESERVED_FOR_NOBODY,
    "seated for nothing": SEATED_FOR_NOTHING,
    "read otherwise": READ_OTHERWISE,
    "torn": TORN,
}


async def findings(
    judge: Judge, tenant: str, now: datetime, *, a_day: Mapping[str, int], a_booker: Mapping[str, int]
) -> dict[str, list[tuple[object, ...]]]:
    """Rule -> what breaks it; empty where all is well. Of the event types named there may be so many a host and day, and
    a booker."""
    found = {name: await judge.fetch(sql, tenant, now) for name, sql in RULES.items()}
    for name, sql, most in (("over limit", OVER_LIMIT, a_day), ("over booker", OVER_BOOKER, a_booker)):
        found[name] = [row for limit in most.items() for row in await judge.fetch(sql, tenant, now, *limit)]
    return {name: [tuple(row) for row in rows] for name, rows in found.items() if rows}
