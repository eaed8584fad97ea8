"""The projection's tables, read: reservations, external busy time, tallies and standings."""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from sys import byteorder
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from kalends_availability.domain.busy import (
    Counted,
    External,
    ExternalBusy,
    Held,
    Reservation,
    Reservations,
    Reserved,
    Tally,
)
from kalends_availability.domain.rank import Standing
from kalends_availability.domain.zones import Interval, instant_of, minute_of
from kalends_shared.db import Queryable

Conn: TypeAlias = Queryable

# Both bounds are on the index: neither past bookings are read nor those far ahead.
HOSTS: Final = """
SELECT subject_id, extract(epoch FROM lapses_at)::float8, string_agg(int4send(reserved_from) || int4send(reserved_to), NULL)
FROM busy
WHERE tenant_id = $1 AND subject_id = ANY ($2) AND reserved_to > $3 AND reserved_to < $4 AND seen_until IS NULL
GROUP BY subject_id, lapses_at
"""
UNITS: Final = """
SELECT resource_id, subject_id, extract(epoch FROM lapses_at)::float8,
    string_agg(int4send(reserved_from) || int4send(reserved_to), NULL)
FROM busy
WHERE tenant_id = $1 AND resource_id = ANY ($2) AND reserved_to > $3 AND reserved_to < $4 AND seen_until IS NULL
GROUP BY resource_id, subject_id, lapses_at
"""
HOSTS_NAMED: Final = """
SELECT subject_id, reserved_from, reserved_to, start_min, end_min, id, event_type_id, seats,
    extract(epoch FROM lapses_at)::float8
FROM busy b
WHERE tenant_id = $1 AND subject_id = ANY ($2) AND reserved_to > $3 AND reserved_to < $4 AND b.seen_until IS NULL
"""
UNITS_NAMED: Final = """
SELECT resource_id, subject_id, reserved_from, reserved_to, start_min, end_min, id, event_type_id, seats,
    extract(epoch FROM lapses_at)::float8
FROM busy b
WHERE tenant_id = $1 AND resource_id = ANY ($2) AND reserved_to > $3 AND reserved_to < $4 AND b.seen_until IS NULL
"""
# A booking's end is never after the end of what it reserves, so that the index on the latter serves.
TALLIES: Final = """
SELECT subject_id, start_min, end_min, id, extract(epoch FROM lapses_at)::float8
FROM busy b
WHERE tenant_id = $1 AND subject_id = ANY ($2) AND event_type_id = $5 AND reserved_to > $3 AND reserved_to < $4
    AND start_min >= $3 AND b.seen_until IS NULL
"""
STANDINGS: Final = """
SELECT h.id, lately.created, extract(epoch FROM ever.last)::float8
FROM unnest($2::text[]) AS h (id)
CROSS JOIN LATERAL (
    SELECT string_agg(timestamptz_send(b.created_at), NULL ORDER BY b.created_at) AS created FROM busy b
    WHERE b.tenant_id = $1 AND b.event_type_id = $3 AND b.subject_id = h.id AND b.created_at > $4
        AND b.resource_id IS NULL AND b.lapses_at IS NULL AND b.seen_until IS NULL
) AS lately
CROSS JOIN LATERAL (
    SELECT max(b.created_at) AS last FROM busy b
    WHERE b.tenant_id = $1 AND b.event_type_id = $3 AND b.subject_id = h.id
        AND b.resource_id IS NULL AND b.lapses_at IS NULL AND b.seen_until IS NULL
) AS ever
"""
EXTERNAL: Final = """
SELECT b.host_id, b.id, b.intervals FROM calendar_busy b
LEFT JOIN calendars c ON c.tenant_id = b.tenant_id AND c.id = b.calendar_id AND c.seen_until IS NULL
WHERE b.tenant_id = $1 AND b.host_id = ANY ($2) AND b.busy_to > $3 AND b.busy_from < $4 AND b.seen_until IS NULL
    AND (b.calendar_id IS NULL OR coalesce(c.counts, true))
"""
CALENDARS: Final = """
SELECT host_id, extract(epoch FROM stale_since)::float8 AS stale_since,
    extract(epoch FROM last_synced_at)::float8 AS synced_at
FROM calendars c WHERE c.tenant_id = $1 AND c.host_id = ANY ($2) AND c.counts AND c.seen_until IS NULL
"""
UPCOMING: Final = """
(SELECT id FROM busy
WHERE tenant_id = $1 AND ((event_type_id = $2 AND resource_id IS NULL) OR subject_id = $2 OR resource_id = $2)
    AND seen_until IS NULL AND lapses_at IS NULL AND status IN ('pending', 'confirmed') AND end_min > $3 AND reserved_to > $3
LIMIT 1)
UNION ALL
(SELECT id FROM busy
WHERE tenant_id = $1 AND $2 IN (event_type_id, subject_id, resource_id) AND seen_until IS NULL AND lapses_at > $4
LIMIT 1)
LIMIT 1
"""

LENGTH: Final = "SELECT end_min - start_min FROM busy WHERE tenant_id = $1 AND id = $2 AND seen_until IS NULL LIMIT 1"

# The same as it was seen at a moment, which is the last parameter.
_SEEN: Final = "({0}.seen_from <= ${1} AND ({0}.seen_until IS NULL OR {0}.seen_until > ${1}))"


def _at(sql: str, parameter: int) -> str:
    for table in ("b", "c"):
        sql = sql.replace(f"{table}.seen_until IS NULL", _SEEN.format(table, parameter))
    return sql


HOSTS_AT: Final = _at(HOSTS_NAMED, 5)
UNITS_AT: Final = _at(UNITS_NAMED, 5)
TALLIES_AT: Final = _at(TALLIES, 6)
EXTERNAL_AT: Final = _at(EXTERNAL, 5)
CALENDARS_AT: Final = _at(CALENDARS, 3)

_INTERVALS: Final = msgspec.json.Decoder(list[tuple[int, int]])


_UNIX_2000: Final = 946_684_800_000_000


class Stretch(NamedTuple):
    """What lies in `(since, until)`, in minutes, is read."""

    since: int
    until: int


class _Packed:
    """What is reserved of several, as it comes: for each, and each moment at which holds lapse, all intervals in one value."""

    def __init__(self) -> None:
        self._intervals: dict[str, list[Interval]] = {}
        self._holds: dict[str, list[Held]] = defaultdict(list)

    def add(self, id_: str, lapses: float | None, packed: bytes) -> None:
        intervals = self._intervals.setdefault(id_, [])
        if lapses is None:
            intervals += _unpacked(packed)
        else:
            self._holds[id_] += [Held(low, high, lapses) for low, high in _unpacked(packed)]

    def ids(self) -> Iterable[str]:
        return self._intervals

    def of(self, id_: str) -> Reserved:
        return Reserved(self._intervals.get(id_, ()), self._holds.get(id_, ()))


def _unpacked(packed: bytes) -> Iterable[Interval]:
    """Pairs of minutes out of the numbers that Postgres has put one behind the other, in the network's byte order."""
    numbers = _numbers("i", packed)
    return zip(numbers[::2], numbers[1::2], strict=True)


def _instants(packed: bytes) -> "array[float]":
    """Unix times out of Postgres's, which are microseconds since 2000."""
    return array("d", [(number + _UNIX_2000) / 1_000_000 for number in _numbers("q", packed)])


def _numbers(kind: str, packed: bytes) -> "array[int]":
    numbers: array[int] = array(kind, packed)
    if byteorder == "little":
        numbers.byteswap()
    return numbers


def _number(unit: str) -> int:
    """A unit's number within its resource."""
    return int(unit.rpartition("#")[2])


async def _fetch(conn: Conn, now: str, then: str, at: datetime | None, *values: Any) -> list[Any]:
    """Rows as they are seen now, or were seen at a moment."""
    rows: list[Any] = await (conn.fetch(now, *values) if at is None else conn.fetch(then, *values, at))
    return rows


async def reserved(conn: Conn, tenant: str, hosts: Sequence[str], stretch: Stretch) -> dict[str, Reserved]:
    """What is reserved of each host in a stretch of time."""
    found = _Packed()
    for host, lapses, packed in await conn.fetch(HOSTS, tenant, list(hosts), *stretch):
        found.add(host, lapses, packed)
    return {id_: found.of(id_) for id_ in hosts}


async def units(
    conn: Conn, tenant: str, resources: Sequence[str], stretch: Stretch
) -> dict[str, Mapping[int, Reserved]]:
    """The same of each unit of resources, by the unit's number."""
    found: dict[str, _Packed] = {id_: _Packed() for id_ in resources}
    for resource, unit, lapses, packed in await conn.fetch(UNITS, tenant, list(resources), *stretch):
        found[resource].add(unit, lapses, packed)
    return {id_: {_number(unit): packed.of(unit) for unit in packed.ids()} for id_, packed in found.items()}


async def reservations(
    conn: Conn, tenant: str, hosts: Sequence[str], stretch: Stretch, at: datetime | None = None
) -> dict[str, Reserved]:
    """What is reserved of each host and who by, as seen now or `at` a moment."""
    found: dict[str, list[Reservation]] = {id_: [] for id_ in hosts}
    for row in await _fetch(conn, HOSTS_NAMED, HOSTS_AT, at, tenant, list(hosts), *stretch):
        found[row[0]].append(Reservation(*row[1:]))
    return {id_: Reservations(entries) for id_, entries in found.items()}


async def unit_reservations(
    conn: Conn, tenant: str, resources: Sequence[str], stretch: Stretch, at: datetime | None = None
) -> dict[str, Mapping[int, Reserved]]:
    """The same of each unit of resources, by the unit's number."""
    found: dict[str, dict[int, list[Reservation]]] = {id_: defaultdict(list) for id_ in resources}
    for row in await _fetch(conn, UNITS_NAMED, UNITS_AT, at, tenant, list(resources), *stretch):
        found[row[0]][_number(row[1])].append(Reservation(*row[2:]))
    return {id_: {n: Reservations(rows) for n, rows in by_unit.items()} for id_, by_unit in found.items()}


async def tallies(
    conn: Conn, tenant: str, hosts: Sequence[str], stretch: Stretch, event_type_id: str, at: datetime | None = None
) -> dict[str, Tally]:
    """The bookings of an event type that begin in a stretch of time, of each host."""
    found: dict[str, list[Counted]] = {id_: [] for id_ in hosts}
    for row in await _fetch(conn, TALLIES, TALLIES_AT, at, tenant, list(hosts), *stretch, event_type_id):
        found[row[0]].append(Counted(*row[1:]))
    return {id_: Tally(entries) for id_, entries in found.items()}


async def external(
    conn: Conn, tenant: str, hosts: Sequence[str], stretch: Stretch, at: datetime | None = None
) -> dict[str, ExternalBusy]:
    """External busy time of each host in a stretch of time, and how fresh it is."""
    entries: dict[str, list[External]] = {id_: [] for id_ in hosts}
    since, until = stretch
    for host, id_, intervals in await _fetch(conn, EXTERNAL, EXTERNAL_AT, at, tenant, list(hosts), since, until):
        entries[host] += [
            External(low, high, id_) for low, high in _INTERVALS.decode(intervals) if low < until and high > since
        ]
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
    conn: Conn, tenant: str, hosts: Sequence[str], stretch: Stretch, event_type_id: str
) -> dict[str, Standing]:
    """When each host's bookings of an event type were made: those since the stretch began, and the last ever."""
    rows = await conn.fetch(STANDINGS, tenant, list(hosts), event_type_id, instant_of(stretch.since))
    return {host: Standing(_instants(packed or b""), last) for host, packed, last in rows}


async def upcoming(conn: Conn, tenant: str, id_: str, now: datetime) -> str | None:
    """One of the upcoming bookings or live holds of an event type, host or resource."""
    found: str | None = await conn.fetchval(UPCOMING, tenant, id_, minute_of(now), now)
    return found


async def length(conn: Conn, tenant: str, booking_id: str) -> int | None:
    """Minutes that a booking or hold in force lasts."""
    found: int | None = await conn.fetchval(LENGTH, tenant, booking_id)
    return found
