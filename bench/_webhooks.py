"""What bench/webhooks.py measures in: the service's processes, booking's events appended and relayed by this one, receivers."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
import msgspec
from nats.aio.client import Client

from kalends_shared import event_store
from kalends_shared.contracts.booking import (
    BookingState,
    EventTypeSnapshot,
    Guest,
    HostSnapshot,
    PersonData,
    Policies,
)
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import NewEvent
from kalends_shared.contracts.ids import derived, new_id
from kalends_shared.db import Connection, Database
from kalends_shared.event_store import Stored
from kalends_shared.migrations import Schema
from kalends_shared.relay import nudge
from kalends_shared.rpc import RpcClient
from kalends_shared.seal import Keyring
from kalends_shared.servers import Postgres

BOOKING = Schema(name="booking", parts=("event_store",))
TENANT = "acc_bench-live"
HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")
NOTE = "A sentence that somebody wrote about what they would like to talk about. " * 6


def booking(number: int) -> BookingState:
    now = datetime.now(UTC)
    kind, host = derived("evt", str(number % 100)), derived("hst", str(number % 100))
    person = new_id("per")
    return BookingState(
        id=new_id("bkg"), created_at=now, updated_at=now, version=1, event_type_id=kind, start_at=now + timedelta(days=1),
        end_at=now + timedelta(days=1, minutes=30), status="confirmed", seats=1, host_ids=[host], resource_ids=[],
        person_id=person, person_version=person, policies=Policies(), metadata=msgspec.Raw(b'{"plan":"gold","source":"bench"}'),
        event_type=EventTypeSnapshot(id=kind, slug="visit", title="Visit", duration_minutes=30),
        hosts=[HostSnapshot(id=host, name="Grace Hopper", email="grace@example.test")],
    )  # fmt: skip


def person(state: dict[str, Any]) -> PersonData:
    answers = msgspec.Raw(msgspec.json.encode({"topic": NOTE}))
    return PersonData(
        person_id=state["person_id"], name="Ada Lovelace", email="ada@example.test", timezone="Europe/London",
        guests=[Guest(name="Bob", email="bob@example.test")], answers=answers,
    )  # fmt: skip


async def enrich(_: Connection, events: Sequence[Stored]) -> list[dict[str, Any]]:
    states = [msgspec.json.decode(event.state) for event in events]
    return [{state["person_version"]: person(state)} for state in states]


class Bench:
    """What is shared by the measurements. `committed` is when each booking was, by the machine's monotonic clock."""

    def __init__(
        self, folder: Path, postgres: Postgres, bus: Client, booking_db: Database, sink: str, bus_url: str
    ) -> None:
        self.folder, self.postgres, self.bus, self.bus_url = folder, postgres, bus, bus_url
        self.db, self.sink = booking_db, sink
        self.key = Keyring.generate()
        self.http = httpx.AsyncClient(base_url=sink, timeout=30)
        self.rpc = RpcClient(bus)
        self.started = 0

    @asynccontextmanager
    async def service(self, *roles: str) -> AsyncIterator[list[subprocess.Popen[bytes]]]:
        """Processes of the service, one a role."""
        running = []
        for role in roles:
            self.started += 1
            name = f"webhooks-{self.started}"
            environment = os.environ | {
                "KALENDS_DATABASE_URL": self.postgres.url, "KALENDS_NATS_URL": self.bus_url, "KALENDS_SECRET_KEY": self.key,
                "KALENDS_ROLE": role, "KALENDS_WEBHOOKS_ALLOW_HTTP": "true", "KALENDS_ALLOW_ADDRESSES": "127.0.0.0/8",
                "KALENDS_RUN_DIR": str(self.folder), "KALENDS_PROCESS_NAME": name,
            }  # fmt: skip
            with (self.folder / f"{name}.log").open("wb") as log:
                running.append(
                    subprocess.Popen([sys.executable, "-m", "kalends_webhooks"], env=environment, stderr=log)  # noqa: ASYNC220
                )
            await until(lambda name=name: (self.folder / f"{name}.ops").exists())
        try:
            yield running
        finally:
            for process in running:
                process.terminate()
            for process in running:
                await asyncio.to_thread(process.wait, 30)

    async def ask(self, method: str, body: Any, *, tenant: str = TENANT, **params: str) -> Any:
        call = Call(tenant=tenant, now=datetime.now(UTC), path=f"/{method}", params=params, deadline=time.time() + 60)
        reply = await self.rpc.request(
            "webhooks", method, msgspec.structs.replace(call, body=msgspec.json.encode(body))
        )
        return msgspec.json.decode(reply.body) if reply.body else None

    async def subscribe(self, path: str = "/hook", sink: str = "", *, tenant: str = TENANT, **more: Any) -> str:
        wanted = {"url": (sink or self.sink) + path, "events": ["booking.confirmed"], **more}
        made = await self.ask("create_webhook", wanted, tenant=tenant)
        return str(made["id"])

    async def append(self, number: int, tenant: str = TENANT) -> tuple[str, float]:
        state = booking(number)
        event = NewEvent("booking.created", b'{"previous":null}', msgspec.json.encode(state), new_id("ev"))
        call = Call(tenant=tenant, now=datetime.now(UTC))
        async with self.db.pool.acquire() as conn:
            await event_store.append(conn, call, state.id, 0, [event], (state.host_ids[0],))
        return state.id, time.monotonic()

    async def load(self, rate: int, seconds: float) -> dict[str, float]:
        """Open loop: when each booking was committed, in the order of their numbers."""

        async def one(number: int) -> tuple[str, float]:
            done = await self.append(number)
            await nudge(self.bus, "booking")
            return done

        begin = time.perf_counter()
        tasks = []
        for n in range(int(rate * seconds)):
            await asyncio.sleep(max(begin + n / rate - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(one(n)))
        return dict(await asyncio.gather(*tasks))

    async def waiting(self) -> int:
        """Deliveries in the queue."""
        conn = await asyncpg.connect(self.postgres.url)
        try:
            return int(await conn.fetchval("SELECT count(*) FROM webhooks.queue"))
        finally:
            await conn.close()

    async def count(self) -> int:
        return int((await self.http.get("/count")).text)

    async def came(self, count: int) -> None:
        """Waits for so many receipts."""
        async with asyncio.timeout(120):
            while await self.count() < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def receipts(self) -> list[tuple[str, str, float]]:
        rows = (line.split() for line in (await self.http.get("/")).text.splitlines())
        return [(row[0], row[1], float(row[2])) for row in rows]

    async def reset(self) -> None:
        await self.http.get("/reset")


async def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def spent(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12)) / TICK


def start_sink() -> tuple[subprocess.Popen[bytes], int]:
    """A receiver's process, and its port."""
    sink = subprocess.Popen([sys.executable, str(HERE / "_sink.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sink.stdout is not None
    return sink, int(sink.stdout.readline())


class Memory(NamedTuple):
    """What a process has held at most, and its share of what it holds now, in MB."""

    peak: float
    pss: float


def memory(process: subprocess.Popen[bytes]) -> Memory:
    def megabytes(file: str, name: str) -> float:
        return int(Path(f"/proc/{process.pid}/{file}").read_text().split(f"{name}:")[1].split()[0]) / 1024

    return Memory(megabytes("status", "VmHWM"), megabytes("smaps_rollup", "Pss"))
