"""The event store: append at an expected version, history, and the tail that the relay reads.

The SQL is in sql/event_store. Everything a transaction will touch is locked before its first write (`lock`, or the
`locks` of `append`), so that the order of transaction ids is the order of every stream; `tail` depends on it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Self

import asyncpg
import msgspec

from kalends_shared import telemetry
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import Actor, Envelope, NewEvent
from kalends_shared.db import Connection

VERSION_CONFLICT: Final = "KE001"

APPEND: Final = """
SELECT version, tx, position FROM append_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
"""
LOCK: Final = "SELECT lock_keys($1, $2)"
LOCK_ALL: Final = "SELECT lock_all($1, $2)"
HISTORY: Final = """
SELECT tenant_id, stream_id, version, tx, position, id, type, schema_version, occurred_at, recorded_at,
    actor, correlation_id, causation_id, traceparent, data, state
FROM events
WHERE tenant_id = $1 AND stream_id = $2 AND version > $3 ORDER BY version LIMIT $4
"""
TAIL: Final = """
SELECT tenant_id, stream_id, version, tx, position, id, type, schema_version, occurred_at, recorded_at,
    actor, correlation_id, causation_id, traceparent, data, state
FROM events
WHERE (tx, position) > ($1, $2) AND tx < tail_horizon() ORDER BY tx, position LIMIT $3
"""
LATEST: Final = """
SELECT version, tx, position FROM events WHERE tenant_id = $1 AND stream_id = $2 ORDER BY version DESC LIMIT 1
"""
LAST: Final = "SELECT tx, position FROM events ORDER BY tx DESC, position DESC LIMIT 1"
TX_RANGE: Final = "SELECT coalesce(min(tx), 0), coalesce(max(tx), 0) FROM events"
FIRST_FROM: Final = (
    "SELECT tx, recorded_at < now() - $2::interval AS old FROM events WHERE tx >= $1 ORDER BY tx, position LIMIT 1"
)
LAST_BELOW: Final = "SELECT tx, position FROM events WHERE tx < $1 ORDER BY tx DESC, position DESC LIMIT 1"
RAISE_EPOCH: Final = """
UPDATE epoch SET tx_offset = greatest(tx_offset, (SELECT coalesce(max(tx), 0) + 1 FROM events)
    - pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
RETURNING tx_offset
"""


class Position(NamedTuple):
    """A place in a source's order of events; `0.0` is before the first."""

    tx: int = 0
    position: int = 0

    def __str__(self) -> str:
        return f"{self.tx}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `tx.position`.

        Raises:
            ValueError: the text has another form.
        """
        tx, dot, position = text.partition(".")
        if not (dot and tx.isascii() and tx.isdigit() and position.isascii() and position.isdigit()):
            raise ValueError(f"{text!r} is no position")
        return cls(int(tx), int(position))


class Appended(NamedTuple):
    """What an append did: the stream's version now, and where the last event stands."""

    version: int
    tx: int
    position: int

    @property
    def at(self) -> Position:
        return Position(self.tx, self.position)


class Stored(NamedTuple):
    """An event as it lies in the table; `actor`, `data`, `state` are JSON."""

    tenant_id: str
    stream_id: str
    version: int
    tx: int
    position: int
    id: str
    type: str
    schema_version: int
    occurred_at: datetime
    recorded_at: datetime
    actor: bytes
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    data: bytes
    state: bytes

    @property
    def at(self) -> Position:
        return Position(self.tx, self.position)


class VersionConflict(Exception):  # noqa: N818  # it is an outcome that callers expect
    """The stream is not at the version that was expected: load it again and decide again."""


async def append(
    conn: Connection,
    call: Call,
    stream_id: str,
    expected_version: int,
    events: Sequence[NewEvent],
    locks: Sequence[str] = (),
    *,
    causation_id: str | None = None,
) -> Appended:
    """Appends to one stream in one round trip; outside a transaction it commits by itself.

    `expected_version` 0 means a new stream. `locks` are further keys to hold (ids of hosts, resources); the stream's own
    is always taken. A transaction that writes anything before this, or appends to several streams, calls `lock` with all
    of its keys first. Tenant, actor, time, request id (as the correlation id) and trace come from the call.

    Raises:
        VersionConflict: the stream has another version; nothing was written.
    """
    try:
        row = await conn.fetchrow(
            APPEND, *append_arguments(call, stream_id, expected_version, events, locks, causation_id)
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate == VERSION_CONFLICT:
            raise VersionConflict(str(error)) from error
        raise
    assert row is not None
    return Appended(*row)


def append_arguments(
    call: Call,
    stream_id: str,
    expected_version: int,
    events: Sequence[NewEvent],
    locks: Sequence[str] = (),
    causation_id: str | None = None,
) -> tuple[Any, ...]:
    """The 14 arguments of the SQL function `append_events`, for a service whose own function calls it."""
    return (
        call.tenant,
        stream_id,
        expected_version,
        list(locks),
        [event.id for event in events],
        [event.type for event in events],
        [event.schema_version for event in events],
        [event.data for event in events],
        [event.state for event in events],
        call.now,
        msgspec.json.encode(call.actor),
        call.request_id or None,
        causation_id,
        telemetry.traceparent() or call.traceparent,
    )


async def lock(conn: Connection, tenant: str, keys: Sequence[str]) -> None:
    """Takes the transaction's locks on these keys, sorted; call it before the first write."""
    await conn.execute(LOCK, tenant, list(keys))


async def lock_all(conn: Connection, keys: Sequence[tuple[str, str]]) -> None:
    """The same for keys of several tenants, each (tenant, key)."""
    await conn.execute(LOCK_ALL, [tenant for tenant, _ in keys], [key for _, key in keys])


async def history(
    conn: Connection, tenant: str, stream_id: str, after_version: int = 0, limit: int = 100
) -> list[Stored]:
    """The stream's events after a version, oldest first."""
    return [Stored(*row) for row in await conn.fetch(HISTORY, tenant, stream_id, after_version, limit)]


async def latest(conn: Connection, tenant: str, stream_id: str) -> Appended | None:
    """What the last append to the stream did: where it stands, for a write that changes nothing; None where it is empty."""
    row = await conn.fetchrow(LATEST, tenant, stream_id)
    return Appended(*row) if row is not None else None


async def raise_epoch(conn: Connection) -> int:
    """After a restore: sees to it that new events sort after all that are there. Returns the offset of `tx`.

    `conn` is the owner's, its search path the schema; the service must not be running. The streams are wiped with it
    (`relay.wipe`), since they may end in events that the restore has lost.
    """
    offset: int = await conn.fetchval(RAISE_EPOCH)
    return offset


async def tail(conn: Connection, after: Position, limit: int) -> list[Stored]:
    """All tenants' events after a position, in the order of (tx, position).

    Nothing can still appear before what this returns: it stops below the oldest transaction that is open anywhere on
    the server, so one that stays open holds it back.
    """
    return [Stored(*row) for row in await conn.fetch(TAIL, after.tx, after.position, limit)]


async def last(conn: Connection) -> Position:
    """Where the last committed event stands, also one that `tail` does not show yet; `0.0` where there is none."""
    row = await conn.fetchrow(LAST)
    return Position(*row) if row is not None else Position()


async def older_than(conn: Connection, age: timedelta) -> Position:
    """Where the last event older than this stands, found by halving: times ascend with transaction ids but for moments."""
    row = await conn.fetchrow(TX_RANGE)
    assert row is not None
    low, high = row[0], row[1] + 1
    while low < high:
        middle = (low + high) // 2
        first = await conn.fetchrow(FIRST_FROM, middle, age)
        if first is not None and first["old"]:
            low = first["tx"] + 1
        else:
            high = middle
    below = await conn.fetchrow(LAST_BELOW, low)
    return Position() if below is None else Position(*below)


def envelope(stored: Stored, source: str, previous: Position, people: dict[str, msgspec.Raw] | None = None) -> Envelope:
    """The event as it is published: with its source, the position before it, and what `enrich` joined in."""
    return Envelope(
        id=stored.id,
        type=stored.type,
        source=source,
        tenant_id=stored.tenant_id,
        stream_id=stored.stream_id,
        version=stored.version,
        tx=stored.tx,
        position=stored.position,
        prev_tx=previous.tx,
        prev_position=previous.position,
        schema_version=stored.schema_version,
        occurred_at=stored.occurred_at,
        actor=_ACTOR.decode(stored.actor),
        correlation_id=stored.correlation_id,
        causation_id=stored.causation_id,
        traceparent=stored.traceparent,
        data=msgspec.Raw(stored.data),
        state=msgspec.Raw(stored.state),
        people=people or {},
    )


_ACTOR: Final = msgspec.json.Decoder(Actor)
