"""What has to be done between a restore of the database and the start of the services; done again it does no harm.

A dump that is loaded into another server meets a transaction counter that begins anew, so the epoch is raised until new
events sort after the old ones. And the streams may end in events that the restore has lost: they are deleted, and their
relays make them again out of the database.
"""

import asyncio
from typing import Any, Final

import asyncpg
from nats import errors

from kalends_cli.problem import Problem
from kalends_shared import event_store, nats, publisher
from kalends_shared.events_rpc import OWNERS
from kalends_shared.jetstream import JetStreamError

NATS_SECONDS: Final = 10.0
CONNECTED: Final = """
SELECT DISTINCT application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'kalends-%' ORDER BY 1
"""


async def settle(url: str, nats_url: str) -> list[str]:
    """Raises the epochs and deletes the streams; returns the contexts. `url` is of the schemas' owner.

    Raises:
        Problem: services are running, and nothing was done; or NATS does not answer: do it again.
        asyncpg.PostgresError, OSError: the database cannot be read.
    """
    contexts: list[str] = []
    for source, schema in sorted(OWNERS.items()):
        conn: asyncpg.Connection[Any] = await asyncpg.connect(
            url, server_settings={"search_path": schema, "application_name": "restored"}
        )
        try:
            if running := [row[0] for row in await conn.fetch(CONNECTED)]:
                raise Problem(f"end the services first: {', '.join(running)}")
            await event_store.raise_epoch(conn)
            contexts.append(source)
        finally:
            await conn.close()
    try:
        async with asyncio.timeout(NATS_SECONDS):
            bus = await nats.connect(nats_url, "restored")
            try:
                for context in contexts:
                    await publisher.wipe(bus, context)
            finally:
                await nats.close(bus)
    except (TimeoutError, errors.Error, JetStreamError) as error:
        raise Problem(f"the epochs are raised, but NATS does not answer: {type(error).__name__} {error}") from error
    return contexts
