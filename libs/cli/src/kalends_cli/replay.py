"""A stream deleted, and filled again by its relay out of PostgreSQL; consumers lose and repeat nothing by it."""

import asyncio
from typing import Final

import msgspec
from nats import errors
from nats.aio.client import Client

from kalends_cli.installation import schema
from kalends_cli.problem import Problem
from kalends_shared import event_store, nats, publisher
from kalends_shared.event_store import Position
from kalends_shared.events_rpc import OWNERS
from kalends_shared.jetstream import JetStreamError, LastMessage, last_message
from kalends_shared.relay import RETENTION

COMMAND: Final = "replay"
LOOK_SECONDS: Final = 0.1


async def replay(url: str, nats_url: str, source: str, seconds: float) -> None:
    """Returns once the stream reaches again to what was the source's last event at the beginning.

    Raises:
        Problem: NATS does not answer, or no relay has filled the stream within so many seconds.
        asyncpg.PostgresError, OSError: the database cannot be read.
    """
    async with schema(url, OWNERS[source], COMMAND) as conn:
        upto = await event_store.last(conn)
        any_young = await event_store.older_than(conn, RETENTION) < upto
    try:
        async with asyncio.timeout(seconds):
            bus = await nats.connect(nats_url, COMMAND)
            try:
                await publisher.wipe(bus, source)
                while any_young and await _end(bus, source) < upto:  # noqa: ASYNC110 - it is the server that is asked
                    await asyncio.sleep(LOOK_SECONDS)
            finally:
                await nats.close(bus)
    except TimeoutError as error:
        raise Problem(f"{source} is not published again yet: its service fills the stream, once it runs") from error
    except (errors.Error, JetStreamError) as error:
        raise Problem(f"NATS does not answer: {type(error).__name__} {error}") from error


async def _end(bus: Client, source: str) -> Position:
    """Where the stream's last event stands; `0.0` while there is none."""
    found = await last_message(bus, source)
    if found is None:
        return Position()
    last = msgspec.json.decode(found[1], type=LastMessage)
    return Position(last.tx, last.position)
