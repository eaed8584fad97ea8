"""The service as processes, on real PostgreSQL, NATS and Radicale, and killed in the middle of its work."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from peers import PASSWORD, USER, CalendarServer, Proxy
from world import HOST, KEY, TENANT, World, at, shown, tomorrow

from kalends_shared import events_rpc, nats
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Database
from kalends_shared.rpc import RpcClient, RpcServer
from kalends_shared.testkit.waiting import eventually_async


class Neighbours:
    """Booking and availability, as far as this service asks them: events in order, and a host's zone."""

    def __init__(self, bus: Client) -> None:
        self.told: list[Envelope] = []
        self._stream = bus.jetstream(timeout=30)
        self._servers = [
            RpcServer(bus, "booking", {events_rpc.METHOD: self._booking}),
            RpcServer(bus, "availability", {events_rpc.METHOD: self._nothing, "get_host": self._host}),
        ]

    async def start(self) -> None:
        for stream in ("KALENDS_BOOKING", "KALENDS_CALENDAR"):
            with suppress(NotFoundError):
                await self._stream.delete_stream(stream)
        await self._stream.add_stream(name="KALENDS_BOOKING", subjects=["kalends.ev.booking.>"])
        for server in self._servers:
            await server.start()

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop()

    async def tell(self, event: Envelope) -> None:
        self.told.append(event)
        subject = f"kalends.ev.booking.{event.tenant_id}.{event.type}"
        await self._stream.publish(subject, msgspec.json.encode(event))

    async def _booking(self, call: Call) -> Reply:
        asked = msgspec.json.decode(call.body, type=events_rpc.EventsQuery)
        return Reply(body=events_rpc.EventsPage([e for e in self.told if e.position > asked.position]))

    async def _nothing(self, _: Call) -> Reply:
        return Reply(body=events_rpc.EventsPage([]))

    async def _host(self, call: Call) -> Reply:
        assert call.params == {"id": HOST}
        return Reply(body=b'{"id":"%s","timezone":"Europe/Madrid"}' % HOST.encode())


class Teller(World):
    """Makes bookings that the neighbour tells of, in place of applying them here."""

    def __init__(self, db: Database, neighbours: Neighbours) -> None:
        super().__init__(db)
        self._neighbours = neighbours

    async def tell(
        self, kind: str, stream: str, state: Any, people: dict[str, Any] | None = None, tenant: str = TENANT
    ) -> None:
        await self._neighbours.tell(
            Envelope(
                id=stream, type=kind, source="booking", tenant_id=tenant, stream_id=stream,
                version=self._versions[stream], tx=1, position=len(self._neighbours.told) + 1,
                prev_tx=1, prev_position=len(self._neighbours.told), occurred_at=datetime.now(UTC),
                state=msgspec.Raw(msgspec.json.encode(state)), people=people or {},
            )
        )  # fmt: skip


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Client]:
    made = await nats.connect(nats_url, "test")
    yield made
    await made.close()


@pytest.fixture
async def teller(database_url: str, bus: Client) -> AsyncIterator[Teller]:
    neighbours = Neighbours(bus)
    await neighbours.start()
    db = await Database.connect(database_url, "calendar_sync")
    yield Teller(db, neighbours)
    await db.close()
    await neighbours.stop()
    await bus.jetstream(timeout=30).delete_stream("KALENDS_BOOKING")


def started(database_url: str, nats_url: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    env = os.environ | {
        "KALENDS_DATABASE_URL": database_url,
        "KALENDS_NATS_URL": nats_url,
        "KALENDS_SECRET_KEY": KEY,
        "KALENDS_CALENDARS_ALLOW_HTTP": "true",
        "KALENDS_ALLOW_ADDRESSES": "127.0.0.0/8",
        "KALENDS_CALENDARS_POLL_SECONDS": "0.5",
        "KALENDS_CALENDARS_LEASE_SECONDS": "2",
        "KALENDS_PROCESS_NAME": name,
        "KALENDS_RUN_DIR": str(folder),
    }
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "kalends_calendar_sync"], env=env, stdout=log, stderr=log)


@asynccontextmanager
async def process(
    database_url: str, nats_url: str, folder: Path, name: str = "one"
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """One that is ready, ended in order where it still runs."""
    made = started(database_url, nats_url, folder, name)
    try:
        await until(lambda: (folder / f"{name}.ops").exists() or made.poll() is not None)
        assert made.poll() is None, (folder / f"{name}.log").read_text()
        yield made
    finally:
        if made.poll() is None:
            made.send_signal(signal.SIGTERM)
            try:
                assert await asyncio.to_thread(made.wait, 60) == 0
            except subprocess.TimeoutExpired:
                made.kill()
                made.wait()
                raise


async def connect(bus: Client, server_url: str, **more: Any) -> str:
    body = {"host_id": HOST, "provider": "caldav", "url": server_url, "username": USER, "password": PASSWORD}
    call = Call(tenant=TENANT, now=datetime.now(UTC), body=msgspec.json.encode(body | {"writes_bookings": True} | more))
    return str(shown(await RpcClient(bus).request("calendar_sync", "create_calendar", call))["id"])


async def until(holds: Callable[[], object]) -> None:
    async def look() -> bool:
        return bool(await asyncio.to_thread(holds))

    await eventually_async(look)


async def test_from_a_booking_to_the_calendar_and_from_the_calendar_to_the_stream(
    teller: Teller, bus: Client, radicale: CalendarServer, database_url: str, nats_url: str, tmp_path: Path
) -> None:
    lunch = tomorrow(12)
    radicale.put("lunch", at(lunch))
    async with process(database_url, nats_url, tmp_path), process(database_url, nats_url, tmp_path, "two"):
        calendar = await connect(bus, radicale.url)
        for number in range(5):
            await teller.booking(f"b{number}", start_at=tomorrow(14 + number))
        await until(lambda: len(radicale.items()) == 6)

        async def synced() -> bool:
            return "calendar.synced" in await teller.types()

        await eventually_async(synced)
        stream = bus.jetstream(timeout=30)
        told: list[bytes] = []

        async def streamed() -> bool:
            """Later than it is in the table, where another test's transaction holds the tail back."""
            with suppress(NotFoundError):
                subject = f"kalends.ev.calendar.{TENANT}.calendar_event.upserted"
                told.append((await stream.get_last_msg("KALENDS_CALENDAR", subject)).data or b"")
            return bool(told)

        await eventually_async(streamed)
        event = msgspec.json.decode(told[0], type=Envelope)
        assert msgspec.json.decode(event.state)["calendar_id"] == calendar
        ops = (tmp_path / "one.ops").read_text().strip()
        import httpx

        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:

            async def ready() -> bool:
                return (await http.get(f"http://{ops}/health/ready")).status_code == 200

            await eventually_async(ready)
            assert "kalends_calendar_readings_total" in (await http.get(f"http://{ops}/metrics")).text
        await teller.booking("b0", start_at=tomorrow(9))
        await teller.booking("b1", status="cancelled")
        await until(lambda: len(radicale.items()) == 5)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_killed_between_a_write_and_its_record(
    teller: Teller, bus: Client, radicale: CalendarServer, database_url: str, nats_url: str, tmp_path: Path, method: str
) -> None:
    """The answer to the write is kept back until the process is dead, so it had its work in flight."""
    async with Proxy(radicale.url) as proxy:
        async with process(database_url, nats_url, tmp_path) as victim:
            await connect(bus, proxy.url)
            proxy.hold = method
            booking = await teller.booking("b", start_at=tomorrow(10))
            if method == "DELETE":
                await until(lambda: len(radicale.items()) == 1)
                await eventually_async(lambda: _idle(teller))
                await teller.booking("b", start_at=tomorrow(10), status="cancelled")
            await asyncio.wait_for(proxy.holding.wait(), 120)
            assert victim.poll() is None
            victim.kill()
            victim.wait()
        # What the dead one had sent besides is through: its lease is short, so it may have begun once more.
        await until(lambda: proxy.open == 0)
        proxy.hold = None
        assert len(radicale.items()) == (1 if method == "PUT" else 0)
        writes = sum(line.startswith(method) for line in proxy.seen)
        async with process(database_url, nats_url, tmp_path, "two"):
            await eventually_async(lambda: _idle(teller))
            assert sum(line.startswith(method) for line in proxy.seen) == writes
            items = radicale.items()
            assert len(items) == (1 if method == "PUT" else 0)
            assert all(booking in text for text in items.values())


async def _idle(teller: Teller) -> bool:
    rows = await teller.mirrors()
    return bool(rows) and all(row["wake_at"] is None and row["lease_until"] is None for row in rows)
