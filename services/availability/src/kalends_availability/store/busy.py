"""The projection's tables, read: reservations, external busy time, tallies and standings."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import msgspec

from kalends_availability.domain.busy import Counted, External, ExternalBusy, Reservation, Reservations, Tally
from kalends_availability.domain.rank import Standing
from kalends_shared.db import Connection

Conn: TypeAlias = "Connection | Any"

HOSTS: Final = """
SELECT subject_id, reserved_from, reserved_to, start_min, end_min, id, event_type_id, seats,
    extract(epoch FROM lapses_at)::float8 AS lapses
FROM busy b
WHERE b.tenant_id = $1 AND b.subject_id = ANY ($2) AND b.reserved_to > $3 AND b.seen_until IS NULL
"""
UNITS: Final = """
SELECT resource_id, subject_id, reserved_from, reserved_to, start_min, end_min, id, event_type_id, seats,
    extract(epoch FROM lapses_at)::float8 AS lapses
FROM busy b
WHERE b.tenant_id = $1 AND b.resource_id = ANY ($2) AND b.reserved_to > $3 AND b.seen_until IS NULL
"""
# A booking's end is never after the end of what it reserves, so that the index on the latter serves.
TALLIES: Final = """
SELECT subject_id, start_min, end_min, id, extract(epoch FROM lapses_at)::float8 AS lapses
FROM busy b
WHERE b.tenant_id = $1 AND b.subject_id = ANY ($2) AND b.event_type_id = $4 AND b.reserved_to > $3 AND b.start_min >= $3
    AND b.seen_until IS NULL
"""
STANDINGS: Final = """
SELECT subject_id, extract(epoch FROM created_at)::float8 AS created
FROM busy
WHERE tenant_id = $1 AND event_type_id = $2 AND resource_id IS NULL AND seen_until IS NULL AND lapses_at IS NULL
    AND created_at > $3
ORDER BY created_at
"""
# Of hosts without a booking in the last 90 days: when their last one was made.
LAST: Final = """
SELECT h.id, extract(epoch FROM (
    SELECT max(b.created_at) FROM busy b
    WHERE b.tenant_id = $1 AND b.subject_id = h.id AND b.event_type_id = $2 AND b.seen_until IS NULL
        AND b.lapses_at IS NULL
))::float8 AS created
FROM unnest($3::text[]) AS h (id)
"""
EXTERNAL: Final = """
SELECT b.host_id, b.id, b.intervals FROM calendar_busy b
LEFT JOIN calendars c ON c.tenant_id = b.tenant_id AND c.id = b.calendar_id AND c.seen_until IS NULL
WHERE b.tenant_id = $1 AND b.host_id = ANY ($2) AND b.busy_to > $3 AND b.seen_until IS NULL
    AND (b.calendar_id IS NULL OR coalesce(c.counts, true))
"""
CALENDARS: Final = """
SELECT host_id, extract(epoch FROM stale_since)::float8 AS stale_since,
    extract(epoch FROM last_synced_at)::float8 AS synced_at
FROM calendars c WHERE c.tenant_id = $1 AND c.host_id = ANY ($2) AND c.counts AND c.seen_until IS NULL
"""
UPCOMING: Final = """
SELECT id FROM busy
WHERE tenant_id = $1 AND ((event_type_id = $2 AND resource_id IS NULL) OR subject_id = $2 OR resource_id = $2)
    AND seen_until IS NULL AND status IN ('pending', 'confirmed') AND end_min > $3
LIMIT 1
"""

LENGTH: Final = "SELECT end_min - start_min FROM busy WHERE tenant_id = $1 AND id = $2 AND seen_until IS NULL LIMIT 1"

# The same as it was seen at a moment, which is the last parameter.
_SEEN: Final = "({0}.seen_from <= ${1} AND ({0}.seen_until IS NULL OR {0}.seen_until > ${1}))"


def _at(sql: str, parameter: int) -> str:
    for table in ("b", "c"):
        sql = sql.replace(f"{table}.seen_until IS NULL", _SEEN.format(table, parameter))
    return sql


HOSTS_AT: Final = _at(HOSTS, 4)
UNITS_AT: Final = _at(UNITS, 4)
TALLIES_AT: Final = _at(TALLIES, 5)
EXTERNAL_AT: Final = _at(EXTERNAL, 4)
CALENDARS_AT: Final = _at(CALENDARS, 3)

_INTERVALS: Final = msgspec.json.Decoder(list[tuple[int, int]])


async def _fetch(conn: Conn, now: str, then: str, at: datetime | None, *values: Any) -> list[Any]:
    """Rows as they are seen now, or were seen at a moment."""
    rows: list[Any] = await (conn.fetch(now, *values) if at is None else conn.fetch(then, *values, at))
    return rows


async def reservations(
    conn: Conn, tenant: str, hosts: Sequence[str], since: int, at: datetime | None = None
) -> dict[str, Reservations]:
    """What is reserved of each host after a minute, as seen now or `at` a moment; bookings long past are never read."""
    found: dict[str, list[Reservation]] = {id_: [] for id_ in hosts}
    for row in await _fetch(conn, HOSTS, HOSTS_AT, at, tenant, list(hosts), since):
        found[row[0]].append(Reservation(*row[1:]))
    return {id_: Reservations(entries) for id_, entries in found.items()}


async def units(
    conn: Conn, tenant: str, resources: Sequence[str], since: int, at: datetime | None = None
) -> dict[str, dict[int, Reservations]]:
    """The same of each unit of resources, by the unit's number."""
    found: dict[str, dict[int, list[Reservation]]] = {id_: defaultdict(list) for id_ in resources}
    for row in await _fetch(conn, UNITS, UNITS_AT, at, tenant, list(resources), since):
        found[row[0]][int(row[1].rpartition("#")[2])].append(Reservation(*row[2:]))
    return {id_: {n: Reservations(rows) for n, rows in by_unit.items()} for id_, by_unit in found.items()}


async def tallies(
    conn: Conn, tenant: str, hosts: Sequence[str], since: int, event_type_id: str, at: datetime | None = None
) -> dict[str, Tally]:
    """The bookings of an event type that begin after a minute, of each host."""
    found: dict[str, list[Counted]] = {id_: [] for id_ in hosts}
    for row in await _fetch(conn, TALLIES, TALLIES_AT, at, tenant, list(hosts), since, event_type_id):
        found[row[0]].append(Counted(*row[1:]))
    return {id_: Tally(entries) for id_, entries in found.items()}


async def external(
    conn: Conn, tenant: str, hosts: Sequence[str], since: int, at: datetime | None = None
) -> dict[str, ExternalBusy]:
    """External busy time of each host after a minute, and how fresh it is."""
    entries: dict[str, list[External]] = {id_: [] for id_ in hosts}
    for row in await _fetch(conn, EXTERNAL, EXTERNAL_AT, at, tenant, list(hosts), since):
        entries[row[0]] += [External(low, high, row[1]) for low, high in _INTERVALS.decode(row[2]) if high > since]
    stale: dict[str, list[float]] = defaultdict(list)
    synced: dict[str, list[float]] = defaultdict(list)
    for row in await _fetch(conn, CALENDARS, CALENDARS_AT, at, tenant, list(hosts)):
        if row["stale_since"] is not None:
            stale[row["host_id"]].append(row["stale_since"])
        if row["synced_at"] is not None:
            synced[row["host_id"]].append(row["synced_at"])
    return {
        id_: ExternalBusy(rows, min(stale[id_], default=None), min(synced[id_], default=None))
        for id_, rows in entries.items()
    }


async def standings(
    conn: Conn, tenant: str, event_type_id: str, hosts: Sequence[str], now: datetime
) -> dict[str, Standing]:
    """When each host's bookings of an event type were made: those of 90 days, and the last."""
    created: dict[str, list[float]] = {id_: [] for id_ in hosts}
    for row in await conn.fetch(STANDINGS, tenant, event_type_id, now - timedelta(days=91)):
        if row[0] in created:
            created[row[0]].append(row[1])
    found = {id_: Standing(times, times[-1]) for id_, times in created.items() if times}
    if idle := [id_ for id_ in hosts if id_ not in found]:
        for row in await conn.fetch(LAST, tenant, event_type_id, idle):
            found[row[0]] = Standing((), row[1])
    return found


async def upcoming(conn: Conn, tenant: str, id_: str, now_minute: int) -> str | None:
    """One of the upcoming bookings of an event type, host or resource."""
    found: str | None = await conn.fetchval(UPCOMING, tenant, id_, now_minute)
    return found


async def length(conn: Conn, tenant: str, booking_id: str) -> int | None:
    """Minutes that a booking or hold in force lasts."""
    found: int | None = await conn.fetchval(LENGTH, tenant, booking_id)
    return found
