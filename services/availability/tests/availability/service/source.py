"""Booking as far as availability sees it: its events, and what brings them here."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec
from nats.aio.client import Client as Bus
from uuid_utils import uuid7

from kalends_shared import event_store, events_rpc, positions
from kalends_shared.contracts.booking import BookingState
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope, NewEvent
from kalends_shared.db import Database
from kalends_shared.event_store import Position
from kalends_shared.relay import nudge

from .world import Client


class Source:
    """Booking as far as its events go: a schema with an event store, and its relay."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self.db, self.bus = db, bus

    async def tell(self, tenant: str, state: BookingState, type_: str) -> str:
        """Appends an event, and gives the token of its position."""
        body = msgspec.json.encode(state)
        event = NewEvent(type=type_, data=b"{}", state=body, id=str(uuid7()))
        call = Call(tenant=tenant, now=state.updated_at)
        async with self.db.transaction() as conn:
            appended = await event_store.append(conn, call, state.id, state.version - 1, [event])
        await nudge(self.bus, "booking")
        return positions.token("booking", appended.at)

    async def events_after(self, after: Position, limit: int) -> Sequence[Envelope]:
        async with self.db.pool.acquire() as conn:
            return await events_rpc.read(conn, "booking", after, limit)


@asynccontextmanager
async def running(*tasks: Any) -> AsyncIterator[None]:
    """Runs what a process supervises, and ends it."""
    stop = asyncio.Event()
    going = [asyncio.create_task(task(stop)) for task in tasks]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*going)


async def starts_seen(api: Client, kind_id: str, token: str) -> list[datetime]:
    """What is offered to a read that names a write: a client that is refused because it is not seen yet asks again."""
    until = time.monotonic() + 60
    while True:
        try:
            return await api.starts(kind_id, min_position=token)
        except KalendsError as refused:
            if refused.code != "position_not_reached" or time.monotonic() > until:
                raise
