"""The events of an installation as they commit, out of each source's own event store."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Final

import msgspec

from kalends_cli.installation import schema
from kalends_shared import event_store
from kalends_shared.event_store import Stored
from kalends_shared.events_rpc import OWNERS

COMMAND: Final = "tail"
PAGE: Final = 500
LOOK_SECONDS: Final = 0.25


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is shown of an event: who did what to which stream, and nothing of what it carries."""

    recorded_at: datetime
    source: str
    at: str
    tenant_id: str
    stream_id: str
    version: int
    type: str
    id: str
    actor: msgspec.Raw
    correlation_id: str | None = None
    causation_id: str | None = None

    @classmethod
    def of(cls, source: str, event: Stored) -> "Line":
        return cls(
            recorded_at=event.recorded_at,
            source=source,
            at=str(event.at),
            tenant_id=event.tenant_id,
            stream_id=event.stream_id,
            version=event.version,
            type=event.type,
            id=event.id,
            actor=msgspec.Raw(event.actor),
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
        )


async def lines(url: str, sources: Sequence[str], since: timedelta | None, *, follow: bool) -> AsyncIterator[Line]:
    """The events not older than `since`, each source's in its order; with `follow` also those to come, without end.

    Raises:
        OSError, asyncpg.PostgresError: the database cannot be read.
    """
    async with AsyncExitStack() as stack:
        conns = {source: await stack.enter_async_context(schema(url, OWNERS[source], COMMAND)) for source in sources}
        at = {
            source: await (event_store.last(conn) if since is None else event_store.older_than(conn, since))
            for source, conn in conns.items()
        }
        while True:
            whole = False
            for source, conn in conns.items():
                page = await event_store.tail(conn, at[source], PAGE)
                for event in page:
                    at[source] = event.at
                    yield Line.of(source, event)
                whole |= len(page) == PAGE
            if not whole:
                if not follow:
                    return
                await asyncio.sleep(LOOK_SECONDS)
