"""Bookings as they are read one by one, each with what its booker told; for lists see `booking_lists`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from kalends_booking.store import codec, people
from kalends_shared.contracts.booking import Booking, BookingState, PersonData, public_booking
from kalends_shared.contracts.call import Call
from kalends_shared.db import Connection, Queryable

_EVER: Final = datetime(1, 1, 2, tzinfo=UTC)
PERSON: Final = "p.person_id, p.name, p.email, p.phone, p.timezone, p.guests, p.answers"
JOIN: Final = """
LEFT JOIN people p ON p.tenant_id = b.tenant_id AND p.person_id = b.person_id AND p.version = b.person_version
    AND p.email IS NOT NULL
"""

STATES: Final = """
SELECT b.tenant_id, b.id, b.state FROM unnest($1::text[], $2::text[]) AS w (tenant_id, id)
JOIN bookings b ON b.tenant_id = w.tenant_id AND b.id = w.id
"""
GET: Final = f"SELECT b.state, {PERSON} FROM bookings b {JOIN} WHERE b.tenant_id = $1 AND b.id = $2"  # noqa: S608

GET_AS_OF: Final = f"""
SELECT b.state, {PERSON}
FROM (
    SELECT e.tenant_id, e.state, e.state->>'person_id' AS person_id, e.state->>'person_version' AS person_version
    FROM events e WHERE e.tenant_id = $1 AND e.stream_id = $2 AND e.occurred_at <= $3 ORDER BY e.version DESC LIMIT 1
) b {JOIN}
"""  # noqa: S608
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


class Loaded(Struct, frozen=True):
    """A booking, and what its booker told; None where that was erased."""

    state: BookingState
    person: PersonData | None

    def public(self) -> Booking:
        return public_booking(self.state, self.person)


async def get(conn: Queryable, tenant: str, booking_id: str) -> Loaded | None:
    row = await conn.fetchrow(GET, tenant, booking_id)
    return None if row is None else loaded(row)


async def states(conn: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], BookingState]:
    """Bookings by (tenant, id), without what their bookers told; those that there are."""
    rows = await conn.fetch(STATES, [tenant for tenant, _ in keys], [key for _, key in keys]) if keys else []
    return {(row["tenant_id"], row["id"]): codec.booking_state(row["state"]) for row in rows}


async def get_as_of(conn: Queryable, tenant: str, booking_id: str, as_of: datetime) -> Loaded | None:
    """The booking as it was at a moment, with what its booker had told by then."""
    row = await conn.fetchrow(GET_AS_OF, tenant, booking_id, as_of)
    return None if row is None else loaded(row)


async def open_of_series(conn: Queryable, call: Call, one: BookingState, since: datetime | None) -> list[BookingState]:
    """The other pending and confirmed bookings of a booking's series, from a start on."""
    rows = await conn.fetch(OPEN_OF_SERIES, call.tenant, one.series_id, since or _EVER, one.id)
    return [codec.booking_state(row["state"]) for row in rows]


async def begin(conn: Queryable, call: Call, email: str) -> Any:
    """The row of BEGIN: `request_hash` is null where the key is new, `person_id` where the address is."""
    return await conn.fetchrow(
        BEGIN, call.tenant, call.method, call.path, call.idempotency_key, people.email_hash(email)
    )


def loaded(row: Any) -> Loaded:
    """A row of `state` and PERSON."""
    return Loaded(codec.booking_state(row["state"]), people.read(row) if row["person_id"] is not None else None)


def encode(loaded: Loaded) -> bytes:
    return msgspec.json.encode(loaded.public())
