"""Read models made again out of the events alone, in a database of their own, and how they differ from the live ones."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from booking_kit import misplaced

from kalends_availability.projections import bookings
from kalends_availability.schema import SCHEMA as AVAILABILITY
from kalends_booking.schema import SCHEMA as BOOKING
from kalends_booking.store import people
from kalends_booking.store.rebuild import rebuild
from kalends_shared import events_rpc
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection, Database
from kalends_shared.event_store import Position
from kalends_shared.migrations import migrate
from kalends_shared.projection import Projection, replay
from kalends_webhooks.dispatch import Dispatcher
from kalends_webhooks.schema import SCHEMA as WEBHOOKS
from kalends_webhooks.subscribers import Subscribers

Apply = Callable[[Connection, list[Envelope]], Awaitable[Any]]

BUSY: Final = """
SELECT tenant_id, id, version, subject_id, resource_id, event_type_id, reserved_from, reserved_to, start_min, end_min,
    seats, status, lapses_at, created_at, seen_from, seen_until
FROM busy ORDER BY tenant_id, id, version, subject_id
"""
# What booking's events gave rise to, in each account's order; calendars' events have places between them.
PUBLIC: Final = """
SELECT tenant_id, id, type, created_at, stream_id, data::text, person_id, attendees::text FROM public_events
WHERE seq > 0 AND split_part(stream_id, '_', 1) IN ('bkg', 'hld', 'per') ORDER BY tenant_id, seq
"""


# The last event of booking, and how far those that are compared have read.
STAND: Final = """
SELECT (SELECT (tx, position)::text FROM booking.events ORDER BY tx DESC, position DESC LIMIT 1),
    (SELECT (tx, position)::text FROM availability.checkpoints WHERE source = 'booking'),
    (SELECT (tx, position)::text FROM webhooks.checkpoints WHERE source = 'booking')
"""


async def differences(url: str, seconds: float = 240) -> dict[str, list[Any]]:
    """Read model -> rows that are in only one of the live and the rebuilt one; empty where they are the same.

    What happens meanwhile, as a hold of an earlier test that runs out, is in one of them only: then they are compared again.
    """
    conn = await asyncpg.connect(url)
    give_up = time.monotonic() + seconds
    try:
        while True:
            stand = tuple(await conn.fetchrow(STAND))
            if len(set(stand)) == 1:
                found = await _compared(url)
                if not found or tuple(await conn.fetchrow(STAND)) == stand:
                    return found
            assert time.monotonic() < give_up, f"it never stands still: {stand}"
            await asyncio.sleep(0.1)
    finally:
        await conn.close()


async def _compared(url: str) -> dict[str, list[Any]]:
    source = await Database.connect(url, BOOKING.name, size=1)
    fresh = await _fresh_database(url)
    try:
        await migrate(fresh, [AVAILABILITY, WEBHOOKS])

        async def events_after(position: Position, limit: int) -> Sequence[Envelope]:
            async with source.pool.acquire() as conn:
                return await events_rpc.read(conn, "booking", position, limit, people.join)

        async def silent(*_: object) -> None:
            """Nobody is told of what is only rebuilt."""

        found: dict[str, list[Any]] = {
            "bookings and holds": list(await rebuild(source, write=False)),
            "places": list(await misplaced(source)),
        }
        for schema, apply, rows in (
            (AVAILABILITY.name, bookings.apply, BUSY),
            (WEBHOOKS.name, Dispatcher(Subscribers(), silent).apply, PUBLIC),
        ):
            again = await Database.connect(fresh, schema, size=2)
            live = await Database.connect(url, schema, size=1)
            try:
                assert await replay(Projection(again, "booking", apply), events_after) > 0
                found[schema] = _unlike(await live.pool.fetch(rows), await again.pool.fetch(rows))
            finally:
                await again.close()
                await live.close()
        return {name: rows for name, rows in found.items() if rows}
    finally:
        await source.close()
        await _drop(url, fresh)


def _unlike(live: list[asyncpg.Record], again: list[asyncpg.Record]) -> list[Any]:
    ours, theirs = [tuple(row) for row in live], [tuple(row) for row in again]
    if ours == theirs:
        return []
    return sorted(set(ours) ^ set(theirs), key=str)[:10] or ["the same rows in another order"]


async def _fresh_database(url: str) -> str:
    name = f"rebuilt_{secrets.token_hex(4)}"
    conn = await asyncpg.connect(url)
    await conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    await conn.close()
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _drop(url: str, fresh: str) -> None:
    conn = await asyncpg.connect(url)
    await conn.execute(f"DROP DATABASE {urlsplit(fresh).path[1:]} WITH (FORCE)")
    await conn.close()
