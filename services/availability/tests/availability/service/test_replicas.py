"""Two replicas over one database and one bus, each with what a process has: pool, connection, memory, consumer, sweep."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.client import Client as Bus

from kalends_availability.schema import SCHEMA
from kalends_availability.store import replica
from kalends_shared import nats
from kalends_shared.consumer import Consumer
from kalends_shared.contracts.booking import BookingState
from kalends_shared.db import Database
from kalends_shared.relay import Relay
from kalends_shared.servers import Nats
from kalends_shared.testkit.waiting import eventually_async

from .source import Source, running, starts_seen
from .world import Client, Node, _common, at


@asynccontextmanager
async def replica_of(database_url: str, own_nats: Nats, *, hears: bool = True) -> AsyncIterator[Node]:
    """A replica with connections of its own; one that does not hear loses every broadcast."""
    db, bus = await Database.connect(database_url, SCHEMA.name, size=4), await nats.connect(own_nats.url, "test")
    node = Node(db, bus)
    await node.replica.sweep()
    if hears:
        await node.replica.listen(bus)
        await bus.flush()
    yield node
    await bus.close()
    await db.close()


def consumer(node: Node, source: Source) -> Consumer:
    """What a process follows booking with; of several one is active."""
    return Consumer("availability", "booking", node.db, node.bus, source.events_after, node.bookings.apply,
                    node.bookings.after_commit, durable=False)  # fmt: skip


async def one_booking(source: Source, api: Client, kind: Any, hour: float) -> str:
    state = BookingState(**_common(kind, at(hour)), id=f"bkg_{hour}", version=1, status="confirmed", person_id="per_1",
                         person_version="v", resource_ids=[])  # fmt: skip
    return await source.tell(api.tenant, state, "booking.created")


@pytest.fixture
async def api(database_url: str, own_nats: Nats) -> AsyncIterator[Client]:
    async with replica_of(database_url, own_nats) as node:
        yield Client(node)


async def test_neither_replica_offers_a_taken_slot_once_its_event_is_through(
    database_url: str, own_bus: Bus, own_nats: Nats, source: Source, api: Client
) -> None:
    kind = await api.event_type()
    async with replica_of(database_url, own_nats) as second:
        other = Client(second, api.tenant)
        for client in (api, other):
            assert at(9) in await client.starts(kind["id"])
        relay = Relay("booking", database_url, "booking", own_bus)
        async with running(relay.run, consumer(api.node, source).run, consumer(second, source).run):
            await one_booking(source, api, kind, 9)

            async def gone() -> bool:
                return not any([at(9) in await client.starts(kind["id"]) for client in (api, other)])

            # Neither sweeps: the one that projected it has told the other.
            await eventually_async(gone, timeout=60)


async def test_a_lost_broadcast_is_made_good_by_the_next_sweep(
    database_url: str, own_bus: Bus, own_nats: Nats, source: Source, api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep begins a second after the last one: so what is lost lasts no longer than that and one sweep, within 2 s."""
    kind = await api.event_type()
    async with replica_of(database_url, own_nats, hears=False) as deaf:
        other = Client(deaf, api.tenant)
        assert at(9) in await other.starts(kind["id"])
        relay = Relay("booking", database_url, "booking", own_bus)
        async with running(relay.run, consumer(api.node, source).run):
            await one_booking(source, api, kind, 9)

            async def gone() -> bool:
                return at(9) not in await api.starts(kind["id"])

            await eventually_async(gone, timeout=60)
        # It was told nothing, and offers what it remembers.
        assert at(9) in await other.starts(kind["id"])
        waits: list[float] = []
        swept = asyncio.Event()
        sweep, wait = deaf.replica.sweep, replica.wait

        async def once() -> None:
            await sweep()
            swept.set()

        async def waiting(event: asyncio.Event, seconds: float) -> bool:
            waits.append(seconds)
            return await wait(event, seconds)

        monkeypatch.setattr(deaf.replica, "sweep", once)
        monkeypatch.setattr(replica, "wait", waiting)
        async with running(deaf.replica.keep_swept):
            await asyncio.wait_for(swept.wait(), 60)
            assert at(9) not in await other.starts(kind["id"])
        assert max(waits) <= 1.0


async def test_a_read_that_names_a_write_sees_it_though_the_broadcast_was_lost(
    database_url: str, own_bus: Bus, own_nats: Nats, source: Source, api: Client
) -> None:
    kind = await api.event_type()
    async with replica_of(database_url, own_nats, hears=False) as deaf:
        other = Client(deaf, api.tenant)
        assert at(9) in await other.starts(kind["id"])
        relay = Relay("booking", database_url, "booking", own_bus)
        async with running(relay.run, consumer(api.node, source).run):
            token = await one_booking(source, api, kind, 9)
            assert at(9) not in await starts_seen(other, kind["id"], token)


async def test_settings_changed_in_one_replica_hold_in_the_other(
    database_url: str, own_nats: Nats, api: Client
) -> None:
    kind = await api.event_type()
    async with replica_of(database_url, own_nats) as second, replica_of(database_url, own_nats, hears=False) as deaf:
        told, untold = Client(second, api.tenant), Client(deaf, api.tenant)
        for client in (told, untold):
            assert at(9) in await client.starts(kind["id"])
        await api.patch("event_type", kind["id"], {"slot_offset_minutes": 5})

        async def moved() -> bool:
            return at(9) not in await told.starts(kind["id"])

        await eventually_async(moved, timeout=60)
        assert at(9) in await untold.starts(kind["id"])
        await deaf.replica.sweep()
        assert at(9) not in await untold.starts(kind["id"])
