"""Attendee data: versions of people, and which address belongs to whom."""

from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from kalends_shared import event_store
from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import Guest, Person, PersonData
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import NewEvent
from kalends_shared.contracts.types import EMPTY, Object
from kalends_shared.db import Connection, Queryable
from kalends_shared.event_store import Position, Stored

FIND_MANY: Final = """
SELECT p.tenant_id, p.person_id, p.version, p.name, p.email, p.phone, p.timezone, p.guests, p.answers
FROM unnest($1::text[], $2::text[], $3::text[]) AS w (tenant_id, person_id, version)
JOIN people p ON p.tenant_id = w.tenant_id AND p.person_id = w.person_id AND p.version = w.version
WHERE p.email IS NOT NULL
"""
_SHOWN: Final = """
SELECT k.person_id, k.created_at, p.created_at AS told_at, p.name, p.email, p.phone, p.timezone,
    (SELECT count(*) FROM people t WHERE t.tenant_id = k.tenant_id AND t.person_id = k.person_id) AS tellings
FROM person_ids k
CROSS JOIN LATERAL (
    SELECT p.created_at, p.name, p.email, p.phone, p.timezone FROM people p
    WHERE p.tenant_id = k.tenant_id AND p.person_id = k.person_id ORDER BY p.version DESC LIMIT 1
) p
WHERE k.tenant_id = $1
"""
GET: Final = f"{_SHOWN} AND k.person_id = $2"
# Newest first: ids sort by the time of their making.
LIST: Final = f"{_SHOWN} AND ($2::text IS NULL OR k.person_id < $2) ORDER BY k.person_id DESC LIMIT $3 OFFSET $4"
COUNT: Final = "SELECT count(*) FROM person_ids WHERE tenant_id = $1"
FORGET: Final = "DELETE FROM person_ids WHERE tenant_id = $1 AND person_id = $2"
EMPTY_VERSIONS: Final = """
UPDATE people SET name = NULL, email = NULL, phone = NULL, timezone = NULL, guests = NULL, answers = NULL
WHERE tenant_id = $1 AND person_id = $2
"""
ANSWERS: Final = "SELECT method, path, key, body FROM idempotency WHERE tenant_id = $1 AND person_id = $2"
SCRUB_ANSWER: Final = """
UPDATE idempotency SET body = $5 WHERE tenant_id = $1 AND method = $2 AND path = $3 AND key = $4
"""
PERSON_OF: Final = "SELECT person_id FROM person_ids WHERE tenant_id = $1 AND email_hash = $2"


class PersonVersion(Struct, frozen=True, kw_only=True):
    """What a booker tells about themself, to be kept; `known` where the person was found by their address."""

    person_id: str
    known: bool
    version: str
    name: str
    email: str
    phone: str | None = None
    timezone: str | None = None
    guests: list[Guest] = []
    answers: Object = EMPTY

    def columns(self) -> tuple[Any, ...]:
        return (
            self.person_id,
            self.known,
            email_hash(self.email),
            self.version,
            self.name,
            self.email,
            self.phone,
            self.timezone,
            msgspec.json.encode(self.guests),
            bytes(self.answers),
        )

    def data(self) -> PersonData:
        return PersonData(
            person_id=self.person_id,
            name=self.name,
            email=self.email,
            phone=self.phone,
            timezone=self.timezone,
            guests=self.guests,
            answers=self.answers,
        )


def email_hash(email: str) -> bytes:
    """By which a person is found again, whatever the case of their address."""
    return blake2b(email.strip().lower().encode(), digest_size=16).digest()


def new_version() -> str:
    """A version's name; those made later sort later."""
    return ids.new_id("v")


async def get(conn: Queryable, tenant: str, person_id: str) -> Person | None:
    row = await conn.fetchrow(GET, tenant, person_id)
    return None if row is None else shown(row)


async def page(conn: Queryable, tenant: str, before: str | None, take: int, offset: int) -> list[Person]:
    return [shown(row) for row in await conn.fetch(LIST, tenant, before, take, offset)]


async def count(conn: Queryable, tenant: str) -> int:
    return int(await conn.fetchval(COUNT, tenant))


async def lock(conn: Connection, tenant: str, person_id: str) -> None:
    """Holds off every command that would tell more of the person, until the transaction ends."""
    await event_store.lock(conn, tenant, [person_id])


async def erase(conn: Connection, call: Call, person_id: str, event_id: str) -> Position:
    """Empties what is known of a person, and appends `person.erased`; under `lock`. Gives where the event stands."""
    state = msgspec.json.encode({"id": person_id})
    event = NewEvent("person.erased", b"{}", state, event_id)
    appended = await event_store.append(conn, call, person_id, 0, [event])
    await conn.execute(FORGET, call.tenant, person_id)
    await conn.execute(EMPTY_VERSIONS, call.tenant, person_id)
    for row in await conn.fetch(ANSWERS, call.tenant, person_id):
        body = msgspec.json.decode(row["body"], type=dict[str, msgspec.Raw])
        scrubbed = msgspec.json.encode({name: _SCRUBBED.get(name, value) for name, value in body.items()})
        await conn.execute(SCRUB_ANSWER, call.tenant, row["method"], row["path"], row["key"], scrubbed)
    return appended.at


# The members of a booking that tell of its booker, as they are once nothing is known.
_SCRUBBED: Final[dict[str, Any]] = {
    "booker_name": None,
    "booker_email": None,
    "booker_phone": None,
    "booker_timezone": None,
    "guests": [],
    "answers": {},
}


async def join(conn: Connection, events: list[Stored]) -> list[dict[str, msgspec.Raw] | None]:
    """What the relay joins into each event: the PersonData of the versions that it names, but for erased ones."""
    named = [_named(event) for event in events]
    wanted = [(e.tenant_id, one.person_id, v) for e, one in zip(events, named, strict=True) for v in one.versions]
    if not wanted:
        return [None] * len(events)
    rows = await conn.fetch(FIND_MANY, *map(list, zip(*wanted, strict=True)))
    found = {(row["tenant_id"], row["version"]): msgspec.Raw(msgspec.json.encode(read(row))) for row in rows}
    return [
        {v: found[e.tenant_id, v] for v in one.versions if (e.tenant_id, v) in found} or None
        for e, one in zip(events, named, strict=True)
    ]


class _State(Struct):
    person_id: str = ""
    person_version: str | None = None


class _Data(Struct):
    previous_person_version: str | None = None


class _Named(NamedTuple):
    person_id: str
    versions: tuple[str, ...]


_read_state: Final = msgspec.json.Decoder(_State).decode
_read_data: Final = msgspec.json.Decoder(_Data).decode


def _named(event: Stored) -> _Named:
    """The versions of a person that an event of a booking names; none in other events."""
    if not event.stream_id.startswith("bkg_"):
        return _Named("", ())
    state = _read_state(event.state)
    before = _read_data(event.data).previous_person_version if event.type == "booking.updated" else None
    return _Named(state.person_id, tuple(filter(None, (state.person_version, before))))


def read(row: Any) -> PersonData:
    """A row of `people` that was not erased."""
    return PersonData(
        person_id=row["person_id"],
        name=row["name"],
        email=row["email"],
        phone=row["phone"],
        timezone=row["timezone"],
        guests=msgspec.json.decode(row["guests"], type=list[Guest]),
        answers=msgspec.Raw(row["answers"]),
    )


def shown(row: Any) -> Person:
    """A person as the API shows them: as they described themself last. The version is how often they have."""
    return Person(
        id=row["person_id"],
        created_at=row["created_at"],
        updated_at=row["told_at"],
        version=row["tellings"],
        name=row["name"],
        email=row["email"],
        phone=row["phone"],
        timezone=row["timezone"],
    )
