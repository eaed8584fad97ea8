"""A read model to consume into: the effects of each event, and what an apply can be made to do."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
from nats.aio.client import Client

from kalends_shared import events_rpc
from kalends_shared.consumer import Consumer
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection, Database, role_of
from kalends_shared.event_store import Position

from .helpers import stored_ids

CREATE = """
CREATE TABLE effects (
    seq bigint GENERATED ALWAYS AS IDENTITY, id text PRIMARY KEY, stream_id text NOT NULL, version integer NOT NULL,
    schema_version integer NOT NULL
)
"""


class Sink:
    """`broken` holds ids of events that fail, `calls` the sizes of the batches, `asked` the positions asked over RPC."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.broken: set[str] = set()
        self.failures: list[Exception] = []
        self.calls: list[int] = []
        self.told: list[str] = []
        self.asked: list[Position] = []
        self.away = False
        self.arrived: dict[str, float] = {}

    @classmethod
    async def create(cls, db: Database, database_url: str) -> "Sink":
        owner = await asyncpg.connect(database_url, server_settings={"search_path": db.schema})
        await owner.execute(CREATE)
        await owner.execute(f"GRANT ALL ON effects TO {role_of(db.schema)}")
        await owner.close()
        return cls(db)

    async def apply(self, conn: Connection, events: list[Envelope]) -> None:
        self.calls.append(len(events))
        if self.failures:
            raise self.failures.pop(0)
        for event in events:
            await conn.execute(
                "INSERT INTO effects (id, stream_id, version, schema_version) VALUES ($1, $2, $3, $4)",
                event.id, event.stream_id, event.version, event.schema_version,
            )  # fmt: skip
            if event.id in self.broken:
                await conn.execute("SELECT 1 / 0")

    async def after_commit(self, events: list[Envelope]) -> None:
        self.told += [event.id for event in events]
        self.arrived |= dict.fromkeys((event.id for event in events), time.monotonic())

    async def events_after(self, position: Position, limit: int) -> Sequence[Envelope]:
        self.asked.append(position)
        if self.away:
            raise KalendsError("unavailable")
        async with self.db.pool.acquire() as conn:
            return await events_rpc.read(conn, "source", position, limit)

    def consumer(self, bus: Client, source: str, **options: Any) -> Consumer:
        return Consumer("sink", source, self.db, bus, self.events_after, self.apply, self.after_commit, **options)

    async def ids(self) -> list[str]:
        return [row["id"] for row in await self.db.pool.fetch("SELECT id FROM effects ORDER BY seq")]

    async def whole(self) -> bool:
        return await self.ids() == await stored_ids(self.db)


async def publish(bus: Client, events: Sequence[Envelope], source: str) -> None:
    """Writes messages into the stream as they are, in whatever order, as no relay would."""
    async with asyncio.timeout(60):
        for event in events:
            subject = f"kalends.ev.{source}.{event.tenant_id}.{event.type}"
            await bus.request(subject, msgspec.json.encode(event), timeout=30)
