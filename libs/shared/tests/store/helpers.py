"""What the tests of the store share: a schema, calls and events."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
from nats import errors as nats_errors
from nats.aio.client import Client

from kalends_shared import event_store, events_rpc, jetstream
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import Envelope, NewEvent
from kalends_shared.db import Connection, Database
from kalends_shared.event_store import Position
from kalends_shared.jetstream import Feed, FeedLost, JetStreamError, stream_name
from kalends_shared.migrations import Schema
from kalends_shared.relay import Relay

SCHEMA = Schema(name="storetest", parts=("event_store", "consumer", "idempotency", "timers"))
NOW = datetime(2026, 4, 10, 9, tzinfo=UTC)
TENANT = "acc_test-live"


def call(**fields: Any) -> Call:
    return Call(**{"tenant": TENANT, "now": NOW, "path": "/things", **fields})


def event(kind: str = "thing.created", data: Any = None, state: Any = None, **fields: Any) -> NewEvent:
    return NewEvent(
        type=kind,
        data=msgspec.json.encode(data or {}),
        state=msgspec.json.encode(state or {}),
        id=fields.pop("id", None) or str(uuid.uuid4()),
        **fields,
    )


async def eventually(condition: Callable[[], bool | Awaitable[bool]], within: float = 120.0) -> None:
    """Waits until the condition holds, which may be one that is asked of a database.

    Raises:
        TimeoutError: it did not within so many seconds.
    """
    async with asyncio.timeout(within):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.02)


async def append(db: Database, stream: str, version: int, **fields: Any) -> event_store.Appended:
    """One event, in a transaction of its own."""
    async with db.pool.acquire() as conn:
        return await event_store.append(conn, call(), stream, version, [event(**fields)])


async def version_of(conn: Connection, stream: str, tenant: str = TENANT) -> int:
    """The stream's version; 0 where it is new."""
    version: int | None = await conn.fetchval(
        "SELECT version FROM streams WHERE tenant_id = $1 AND stream_id = $2", tenant, stream
    )
    return version or 0


async def fill(db: Database, count: int, streams: int = 5) -> None:
    """`count` events over some streams, which are new."""
    async with db.pool.acquire() as conn:
        for n in range(count):
            await event_store.append(conn, call(), f"thg_{n % streams}", n // streams, [event(data={"n": n})])


async def stored_ids(db: Database) -> list[str]:
    return [row["id"] for row in await db.pool.fetch("SELECT id FROM events ORDER BY tx, position")]


async def tailed(db: Database) -> list[event_store.Stored]:
    """All events as the tail has them: as soon as no transaction of another test, on the same server, holds it back."""
    found: list[event_store.Stored] = []

    async def whole() -> bool:
        async with db.pool.acquire() as conn:
            found[:] = await event_store.tail(conn, Position(), 10_000)
        return len(found) == len(await stored_ids(db))

    await eventually(whole)
    return found


async def envelopes(db: Database, source: str) -> list[Envelope]:
    await tailed(db)
    async with db.pool.acquire() as conn:
        return await events_rpc.read(conn, source, Position(), 1000)


def relay(db: Database, bus: Client, context: str) -> Relay:
    return Relay(context, db.url, db.schema, bus)


async def api(bus: Client, subject: str, body: Any = None) -> dict[str, Any]:
    """Asks JetStream, with more patience than a relay has."""
    return await jetstream.api(bus, subject, body, seconds=30)


async def published(bus: Client, context: str) -> list[Envelope]:
    """The whole stream, as it lies there; nothing while it cannot be read."""
    found: list[Envelope] = []
    try:
        async with Feed(bus, stream_name(context), None) as feed:
            count = (await api(bus, f"STREAM.INFO.{stream_name(context)}"))["state"]["messages"]
            while len(found) < count and (messages := await feed.take(1000, 20)):
                found += [msgspec.json.decode(message.data, type=Envelope) for message in messages]
    except (JetStreamError, FeedLost, nats_errors.Error):
        return []
    return found


@asynccontextmanager
async def running(*runs: Callable[[asyncio.Event], Awaitable[None]]) -> AsyncIterator[None]:
    """Runs relays and consumers while a test goes on, and ends them in order; one that raises fails the test."""
    stop = asyncio.Event()
    tasks = [asyncio.ensure_future(run(stop)) for run in runs]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)


async def cut_leader(database_url: str, application: str) -> None:
    """Ends the connection that holds a session lock, as an operator or a failing network would, as soon as one does."""
    owner = await asyncpg.connect(database_url)

    async def cut() -> bool:
        count: int = await owner.fetchval(
            "SELECT count(pg_terminate_backend(a.pid)) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted AND a.application_name = $1 AND a.datname = current_database()",
            f"kalends-{application}",
        )
        assert count < 2, "two lead"
        return count == 1

    await eventually(cut)
    await owner.close()
