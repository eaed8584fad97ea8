"""A source's events out of its database: `events_after`, for consumers with a gap and for rebuilds, and `last_event`.

The service that owns the events serves both (`handlers`), the others ask (`over_rpc`, `last_over_rpc`).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from kalends_shared import event_store, rpc
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection, Database
from kalends_shared.event_store import Position
from kalends_shared.positions import LastEvent
from kalends_shared.projection import EventsAfter
from kalends_shared.relay import Enrich, encoded

METHOD: Final = "events_after"
LAST: Final = "last_event"
MAX_EVENTS: Final = 500
MAX_BYTES: Final = 2 * 1024 * 1024
OWNERS: Final = {"booking": "booking", "availability": "availability", "calendar": "calendar_sync"}
"""Which service owns the events of a source."""


class EventsQuery(msgspec.Struct, frozen=True):
    """Asks for events after (tx, position), at most `limit` of them and about two megabytes."""

    tx: int
    position: int
    limit: int = MAX_EVENTS


class EventsPage(msgspec.Struct, frozen=True):
    """Events in order; none where there are no more."""

    events: list[Envelope]


class LastQuery(msgspec.Struct, frozen=True):
    """Asks for the last event's place."""


class Last(msgspec.Struct, frozen=True):
    """Where the last committed event stands."""

    tx: int
    position: int


class _Encoded(msgspec.Struct, frozen=True):
    events: list[msgspec.Raw]


async def read(
    conn: Connection, source: str, after: Position, limit: int, enrich: Enrich | None = None
) -> list[Envelope]:
    """The same out of one's own database."""
    rows = await event_store.tail(conn, after, limit)
    return [msgspec.json.decode(body, type=Envelope) for _, body in await encoded(conn, rows, source, after, enrich)]


def handlers(db: Database, source: str, enrich: Enrich | None = None) -> dict[str, rpc.Handler]:
    """What the service that owns `source` serves, by method; `enrich` is the relay's."""

    async def events_after(call: Call) -> Reply:
        query = msgspec.json.decode(call.body, type=EventsQuery)
        after = Position(query.tx, query.position)
        async with db.pool.acquire() as conn:
            rows = await event_store.tail(conn, after, min(query.limit, MAX_EVENTS))
            messages = await encoded(conn, rows, source, after, enrich)
        bodies: list[msgspec.Raw] = []
        size = 0
        for _, body in messages:
            if bodies and size + len(body) > MAX_BYTES:
                break
            bodies.append(msgspec.Raw(body))
            size += len(body)
        return Reply(body=msgspec.json.encode(_Encoded(bodies)))

    async def last_event(_: Call) -> Reply:
        async with db.pool.acquire() as conn:
            return Reply(body=Last(*await event_store.last(conn)))

    return {METHOD: events_after, LAST: last_event}


def over_rpc(client: rpc.RpcClient, source: str) -> EventsAfter:
    """What a Consumer of `source` asks."""

    async def events_after(position: Position, limit: int) -> Sequence[Envelope]:
        query = EventsQuery(position.tx, position.position, limit)
        page = await client.ask(OWNERS[source], METHOD, query, EventsPage)
        return page.events

    return events_after


def last_over_rpc(client: rpc.RpcClient, source: str) -> LastEvent:
    """What `positions.caught_up` asks."""

    async def last_event() -> Position:
        last = await client.ask(OWNERS[source], LAST, LastQuery(), Last)
        return Position(last.tx, last.position)

    return last_event
