"""Bookings as they are read: one, or lists of them, each with what its booker told."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

import msgspec
from msgspec import Struct

from kalends_booking.domain.booking import OPEN
from kalends_booking.store import codec, people
from kalends_shared.contracts.booking import Booking, BookingsQuery, BookingState, PersonData, Status, public_booking
from kalends_shared.contracts.call import Call
from kalends_shared.db import Connection
from kalends_shared.lists import Window

# The longest booking: what ends in the future began after so long ago.
_LONGEST: Final = timedelta(days=1)
_EVER: Final = datetime(1, 1, 2, tzinfo=UTC)
_PERSON: Final = "p.person_id, p.name, p.email, p.phone, p.timezone, p.guests, p.answers"
_JOIN: Final = """
LEFT JOIN people p ON p.tenant_id = b.tenant_id AND p.person_id = b.person_id AND p.version = b.person_version
    AND p.email IS NOT NULL
"""

STATES: Final = """
SELECT b.tenant_id, b.id, b.state FROM unnest($1::text[], $2::text[]) AS w (tenant_id, id)
JOIN bookings b ON b.tenant_id = w.tenant_id AND b.id = w.id
"""
GET: Final = f"SELECT b.state, {_PERSON} FROM bookings b {_JOIN} WHERE b.tenant_id = $1 AND b.id = $2"  # noqa: S608

_WALK: Final = """
(SELECT b.tenant_id, b.id, b.start_at, b.person_id, b.person_version, b.state FROM {tables}
WHERE {where} ORDER BY {order} LIMIT {take})
"""
_PAGE: Final = f"""
SELECT b.state, {_PERSON}
FROM (SELECT b.tenant_id, b.id, b.start_at, b.person_id, b.person_version, b.state FROM {{found}} b
    ORDER BY {{order}} LIMIT {{take}} OFFSET {{skip}}) b
{_JOIN} ORDER BY {{order}}
"""  # noqa: S608
_COUNT: Final = "SELECT count(*) FROM {tables} WHERE {where}"

GET_AS_OF: Final = f"""
SELECT b.state, {_PERSON}
FROM (
    SELECT e.tenant_id, e.state, e.state->>'person_id' AS person_id, e.state->>'person_version' AS person_version
    FROM events e WHERE e.tenant_id = $1 AND e.stream_id = $2 AND e.occurred_at <= $3 ORDER BY e.version DESC LIMIT 1
) b {_JOIN}
"""  # noqa: S608
# The columns of `bookings` as they were at a moment. It reads an event of each booking that the other filters leave.
_AS_OF: Final = """(
SELECT k.tenant_id, k.id, k.event_type_id, k.series_id, k.person_id, e.state,
    (e.state->>'start_at')::timestamptz AS start_at, (e.state->>'end_at')::timestamptz AS end_at,
    e.state->>'status' AS status, e.state->>'person_version' AS person_version
FROM bookings k
CROSS JOIN LATERAL (
    SELECT e.state FROM events e
    WHERE e.tenant_id = k.tenant_id AND e.stream_id = k.id AND e.occurred_at <= {as_of} ORDER BY e.version DESC LIMIT 1
) e) b"""

OPEN_OF_SERIES: Final = """
SELECT state FROM bookings
WHERE tenant_id = $1 AND series_id = $2 AND start_at >= $3 AND status IN ('pending', 'confirmed') AND id <> $4
ORDER BY start_at, id
"""

# The look before anything is done: a stored answer under the key, and who has the address.
BEGIN: Final = """
SELECT i.request_hash, i.status, i.error, i.headers, i.body, k.person_id
FROM (SELECT) one
LEFT JOIN idempotency i ON i.tenant_id = $1 AND i.method = $2 AND i.path = $3 AND i.key = $4
LEFT JOIN person_ids k ON k.tenant_id = $1 AND k.email_hash = $5
"""


class Key(Struct, frozen=True):
    """What lists are sorted by."""

    start_at: datetime
    id: str


class Loaded(Struct, frozen=True):
    """A booking, and what its booker told; None where that was erased."""

    state: BookingState
    person: PersonData | None

    def public(self) -> Booking:
        return public_booking(self.state, self.person)


async def get(conn: "Connection | Any", tenant: str, booking_id: str) -> Loaded | None:
    row = await conn.fetchrow(GET, tenant, booking_id)
    return None if row is None else _loaded(row)


async def states(conn: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], BookingState]:
    """Bookings by (tenant, id), without what their bookers told; those that there are."""
    rows = await conn.fetch(STATES, [tenant for tenant, _ in keys], [key for _, key in keys]) if keys else []
    return {(row["tenant_id"], row["id"]): codec.booking_state(row["state"]) for row in rows}


async def get_as_of(conn: "Connection | Any", tenant: str, booking_id: str, as_of: datetime) -> Loaded | None:
    """The booking as it was at a moment, with what its booker had told by then."""
    row = await conn.fetchrow(GET_AS_OF, tenant, booking_id, as_of)
    return None if row is None else _loaded(row)


async def open_of_series(
    conn: "Connection | Any", call: Call, one: BookingState, since: datetime | None
) -> list[BookingState]:
    """The other pending and confirmed bookings of a booking's series, from a start on."""
    rows = await conn.fetch(OPEN_OF_SERIES, call.tenant, one.series_id, since or _EVER, one.id)
    return [codec.booking_state(row["state"]) for row in rows]


async def begin(conn: "Connection | Any", call: Call, email: str) -> Any:
    """The row of BEGIN: `request_hash` is null where the key is new, `person_id` where the address is."""
    return await conn.fetchrow(
        BEGIN, call.tenant, call.method, call.path, call.idempotency_key, people.email_hash(email)
    )


async def page(conn: "Connection | Any", call: Call, query: BookingsQuery, window: Window[Key]) -> list[Loaded]:
    """The rows of a page and one more, by (start_at, id)."""
    if not _statuses(query):
        return []
    sql, args = _select(call, query, window)
    return [_loaded(row) for row in await conn.fetch(sql, *args)]


async def count(conn: "Connection | Any", call: Call, query: BookingsQuery) -> int:
    where = _Where(call, query)
    where.add_states(query)
    return int(await conn.fetchval(_COUNT.format(tables=where.tables, where=where.text), *where.args))


def _statuses(query: BookingsQuery) -> Sequence[Status | None]:
    """Each status that has a walk of its own; None: one walk over all, where the index does not know the status."""
    if query.as_of is not None or query.host_id is not None:
        return [None]
    asked = sorted(set(query.status)) if query.status else None
    if query.upcoming is None:
        return asked or [None]
    return [status for status in asked or get_args(Status) if status in OPEN or not query.upcoming]


def _select(call: Call, query: BookingsQuery, window: Window[Key]) -> tuple[str, list[Any]]:
    """One indexed walk for each status, merged in order: a list never sorts more than its pages.

    What is over has another status within moments, so that what is upcoming, or is not, is found without walking past
    the other.
    """
    direction, beyond = ("DESC", "<") if query.order == "desc" else ("ASC", ">")
    where = _Where(call, query)
    if _statuses(query) == [None]:
        where.add_states(query)
    if window.after is not None:
        where.add(f"({where.sorted_by}) {beyond} ({{}}, {{}})", window.after.start_at, window.after.id)
    take = where.bind(window.take + window.offset)
    walks = []
    for status in _statuses(query):
        narrowed = [] if status is None else [f"b.status = {where.bind(status)}", *where.of_time(query, status)]
        text = " AND ".join([where.text, *narrowed])
        walks.append(_WALK.format(where=text, tables=where.tables, order=where.ordered(direction), take=take))
    order = f"b.start_at {direction}, b.id {direction}"
    found = f"({' UNION ALL '.join(walks)})"
    return _PAGE.format(
        found=found, order=order, take=where.bind(window.take), skip=where.bind(window.offset)
    ), where.args


class _Where:
    """The conditions of a list's query, each with its arguments; the first is always the tenant."""

    def __init__(self, call: Call, query: BookingsQuery) -> None:
        self.args: list[Any] = []
        self._parts: list[str] = []
        self.tables = "bookings b"
        self.sorted_by = "b.start_at, b.id"
        self.add("b.tenant_id = {}", call.tenant)
        self.now = query.as_of or call.now
        if query.as_of is not None:
            self.tables = _AS_OF.format(as_of=self.bind(query.as_of))
            if query.host_id is not None:
                self.add("{} IN (SELECT json_array_elements_text(b.state->'host_ids'))", query.host_id)
        elif query.host_id is not None:
            # Walks the host's places, which have the same order, and looks each booking up.
            self.tables = "seats s JOIN bookings b ON b.tenant_id = s.tenant_id AND b.id = s.holder_id"
            self.sorted_by = "s.start_at, s.holder_id"
            self.add("s.tenant_id = {} AND s.subject_id = {}", call.tenant, query.host_id)
        if query.event_type_id is not None:
            self.add("b.event_type_id = {}", query.event_type_id)
        if query.series_id is not None:
            self.add("b.series_id = {}", query.series_id)
        if query.booker_email is not None:
            self.add(
                f"b.person_id = ({people.PERSON_OF.replace('$1', '{}').replace('$2', '{}')})",
                call.tenant,
                people.email_hash(query.booker_email),
            )
        if query.start_after is not None:
            self.add(f"{self._start} >= {{}}", query.start_after)
        if query.start_before is not None:
            self.add(f"{self._start} < {{}}", query.start_before)

    def add_states(self, query: BookingsQuery) -> None:
        """What is asked of status and time, for all statuses at once."""
        if query.status:
            self.add("b.status = ANY ({})", sorted(set(query.status)))
        if query.upcoming is True:
            self.add(f"{self._start} > {{}}", self.now - _LONGEST)
            self.add("b.end_at > {} AND b.status IN ('pending', 'confirmed')", self.now)
        elif query.upcoming is False:
            self.add("(b.end_at <= {} OR b.status NOT IN ('pending', 'confirmed'))", self.now)

    def of_time(self, query: BookingsQuery, status: Status) -> list[str]:
        """What `upcoming` asks of bookings that have this status."""
        if query.upcoming is True:
            since, now = self.bind(self.now - _LONGEST), self.bind(self.now)
            return [f"{self._start} > {since}", f"b.end_at > {now}"]
        if query.upcoming is False and status in OPEN:
            now = self.bind(self.now)
            return [f"{self._start} < {now}", f"b.end_at <= {now}"]
        return []

    @property
    def _start(self) -> str:
        return self.sorted_by.partition(",")[0]

    @property
    def text(self) -> str:
        return " AND ".join(self._parts)

    def add(self, condition: str, *values: Any) -> None:
        self._parts.append(condition.format(*(self.bind(value) for value in values)))

    def bind(self, value: Any) -> str:
        self.args.append(value)
        return f"${len(self.args)}"

    def ordered(self, direction: str) -> str:
        return ", ".join(f"{column} {direction}" for column in self.sorted_by.split(", "))


def _loaded(row: Any) -> Loaded:
    return Loaded(codec.booking_state(row["state"]), people.read(row) if row["person_id"] is not None else None)


def encode(loaded: Loaded) -> bytes:
    return msgspec.json.encode(loaded.public())
