"""Webhooks: commit to receipt at 200/s (goal p99 60 ms), the most one worker process sends (goal 1,000/s), and how much a
hanging endpoint among 100 costs the others (goal: p99 within 1.3 times); what a worker takes of memory while receivers
answer with a gigabyte or a byte at a time (goal 200 MB); and how long after a restart of NATS events arrive (goal 5 s).

.venv/bin/python bench/webhooks.py        (it runs a PostgreSQL, a NATS, the service and a receiver of its own)

Events are appended to booking's event store and relayed by this process; the receiver is another, and the service one or
more. Bodies are about 2 KB. A receipt is the moment at which the receiver has read the body.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec
from _machine import machine
from nats.aio.client import Client

from kalends_shared import event_store, events_rpc, migrations, nats
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
from kalends_shared.relay import Relay, nudge
from kalends_shared.rpc import RpcClient, RpcServer
from kalends_shared.seal import Keyring
from kalends_shared.servers import Nats, Postgres
from kalends_shared.service import run_loop
from kalends_webhooks.schema import SCHEMA

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
        guests=[Guest("Bob", "bob@example.test")], answers=answers,
    )  # fmt: skip


async def enrich(_: Connection, events: Sequence[Stored]) -> list[dict[str, Any]]:
    states = [msgspec.json.decode(event.state) for event in events]
    return [{state["person_version"]: person(state)} for state in states]


class Bench:
    """What is shared by the measurements. `committed` is when each booking was, by the machine's monotonic clock."""

    def __init__(
        self, folder: Path, postgres: Postgres, bus: Client, booking_db: Database, sink: str, bus_url: str
    ) -> None:
        self.folder, self.postgres, self.bus, self.db, self.sink, self.bus_url = (
            folder,
            postgres,
            bus,
            booking_db,
            sink,
            bus_url,
        )
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

    async def ask(self, method: str, body: Any, **params: str) -> Any:
        call = Call(tenant=TENANT, now=datetime.now(UTC), path=f"/{method}", params=params, deadline=time.time() + 10)
        reply = await self.rpc.request(
            "webhooks", method, msgspec.structs.replace(call, body=msgspec.json.encode(body))
        )
        return msgspec.json.decode(reply.body) if reply.body else None

    async def subscribe(self, path: str = "/hook", sink: str = "", **more: Any) -> str:
        made = await self.ask(
            "create_webhook", {"url": (sink or self.sink) + path, "events": ["booking.confirmed"], **more}
        )
        return str(made["id"])

    async def append(self, number: int) -> tuple[str, float]:
        state = booking(number)
        event = NewEvent("booking.created", b'{"previous":null}', msgspec.json.encode(state), new_id("ev"))
        call = Call(tenant=TENANT, now=datetime.now(UTC))
        async with self.db.pool.acquire() as conn:
            await event_store.append(conn, call, state.id, 0, [event], (state.host_ids[0],))
        return state.id, time.monotonic()

    async def load(self, rate: int, seconds: float) -> dict[str, float]:
        """Open loop: when each booking was committed."""
        committed: dict[str, float] = {}

        async def one(number: int) -> None:
            booking_id, at = await self.append(number)
            committed[booking_id] = at
            await nudge(self.bus, "booking")

        begin = time.perf_counter()
        tasks = []
        for n in range(int(rate * seconds)):
            await asyncio.sleep(max(begin + n / rate - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(one(n)))
        await asyncio.gather(*tasks)
        return committed

    async def waiting(self) -> int:
        """Deliveries in the queue."""
        conn = await asyncpg.connect(self.postgres.url)
        try:
            return int(await conn.fetchval("SELECT count(*) FROM webhooks.queue"))
        finally:
            await conn.close()

    async def count(self) -> int:
        return int((await self.http.get("/count")).text)

    async def receipts(self) -> list[tuple[str, str, float]]:
        rows = (line.split() for line in (await self.http.get("/")).text.splitlines())
        return [(row[0], row[1], float(row[2])) for row in rows]

    async def reset(self) -> None:
        await self.http.get("/reset")


async def until(holds: Any, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def spent(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12)) / TICK


def told(took: list[float]) -> str:
    took = sorted(took)
    p50, p95, p99 = (took[min(int(len(took) * share), len(took) - 1)] * 1000 for share in (0.5, 0.95, 0.99))
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, most {took[-1] * 1000:.0f} ms"


async def open_loop(
    bench: Bench, rate: int, seconds: float, processes: Sequence[subprocess.Popen[bytes]]
) -> list[float]:
    """Loads, waits until all has come, and returns how long each took; the first second warms up and does not count."""
    await bench.reset()
    before = [spent(one) for one in processes]
    committed = await bench.load(rate, seconds)
    async with asyncio.timeout(60):
        while len({row[0] for row in await bench.receipts()} & committed.keys()) < len(committed):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    cpu = sum(spent(one) - earlier for one, earlier in zip(processes, before, strict=True))
    first: dict[str, float] = {}
    for booking_id, _, at in await bench.receipts():
        first.setdefault(booking_id, at)
    extra = len(await bench.receipts()) - len(first)
    print(f"  service {cpu / len(committed) * 1000:.2f} ms of CPU a booking; {extra} duplicates")
    return [first[key] - at for key, at in list(committed.items())[rate:]]


async def latency(bench: Bench, rate: int, seconds: float) -> None:
    for roles in (("all",), ("dispatch", "deliver")):
        async with bench.service(*roles) as processes:
            webhook = await bench.subscribe()
            await open_loop(bench, rate, 2, processes)
            took = await open_loop(bench, rate, seconds, processes)
            print(f"commit to receipt at {rate}/s, roles {'+'.join(roles)}: {told(took)}; goal p99 60 ms")
            await bench.ask("delete_webhook", None, id=webhook)


async def sustained(bench: Bench, count: int, endpoints: int = 20) -> None:
    """The most that workers send out of the queue, `count` deliveries waiting for them."""
    for workers in (1, 2):
        async with bench.service("dispatch"):
            made = [await bench.subscribe(f"/hook/{n}") for n in range(endpoints)]
            await bench.reset()
            await asyncio.gather(*(bench.append(n) for n in range(count // endpoints)))
            await nudge(bench.bus, "booking")
            async with asyncio.timeout(120):
                while await bench.waiting() < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            async with bench.service(*["deliver"] * workers) as processes:
                async with asyncio.timeout(120):
                    while await bench.count() < count // 20:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                    begun, already, cpu = time.perf_counter(), await bench.count(), [spent(one) for one in processes]
                    while (now := await bench.count()) < count * 0.95:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                    seconds = time.perf_counter() - begun
                    cpu = [spent(one) - earlier for one, earlier in zip(processes, cpu, strict=True)]
                print(
                    f"sustained, {workers} worker process(es), {endpoints} endpoints: {(now - already) / seconds:,.0f}/s, "
                    f"{sum(cpu) / (now - already) * 1000:.2f} ms of a worker's CPU each; goal 1,000/s a process"
                )
                async with asyncio.timeout(60):
                    while await bench.count() < count:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
            for webhook in made:
                await bench.ask("delete_webhook", None, id=webhook)


async def hanging(bench: Bench, rate: int, seconds: float) -> None:
    """100 endpoints, each of an event type of its own; then one of them hangs."""
    p99: list[float] = []
    async with bench.service("all") as processes:
        kinds = [derived("evt", str(n)) for n in range(100)]
        made = [
            await bench.subscribe(f"/hook/{n}", filters={"event_type_ids": [kinds[n]]}, timeout_seconds=30)
            for n in range(1, 100)
        ]
        for path in ("/hook/0", "/hang"):
            last = await bench.subscribe(path, filters={"event_type_ids": [kinds[0]]}, timeout_seconds=30)
            await bench.reset()
            committed = await bench.load(rate, seconds)
            want = len(committed) - (len(committed) // 100 if path == "/hang" else 0)
            async with asyncio.timeout(60):
                while await bench.count() < want:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            took = sorted(at - committed[key] for key, _, at in await bench.receipts())[:want]
            print(f"100 endpoints at {rate}/s, {'one hangs' if path == '/hang' else 'all well'}: {told(took)}")
            p99.append(took[int(len(took) * 0.99)])
            await bench.ask("delete_webhook", None, id=last)
        print(f"  p99 with one hanging: {p99[1] / p99[0]:.2f} times; goal 1.3; service processes: {len(processes)}")
        for webhook in made:
            await bench.ask("delete_webhook", None, id=webhook)


async def greedy(bench: Bench, rate: int, seconds: float) -> None:
    """Receivers that answer without end, beside a healthy one."""
    other, port = start_sink()
    async with bench.service("dispatch", "deliver") as processes:
        made = [
            await bench.subscribe(f"/{kind}/{n}", f"http://127.0.0.1:{port}")
            for kind in ("flood", "drip")
            for n in range(10)
        ]
        made.append(await bench.subscribe())
        took = await open_loop(bench, rate, seconds, processes)
        memory = [peak(process) for process in processes]
        print(f"20 endpoints that answer without end, at {rate}/s: the healthy one {told(took)}")
        print(f"  memory at most, dispatch and deliver: {memory[0]:.0f} and {memory[1]:.0f} MB; goal 200 MB")
        for webhook in made:
            await bench.ask("delete_webhook", None, id=webhook)
    other.kill()


def start_sink() -> tuple[subprocess.Popen[bytes], int]:
    """A receiver's process, and its port."""
    sink = subprocess.Popen([sys.executable, str(HERE / "_sink.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert sink.stdout is not None
    return sink, int(sink.stdout.readline())


def peak(process: subprocess.Popen[bytes]) -> float:
    """The most that a process has held in memory, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


async def restart(bench: Bench, server: Nats, rate: int) -> None:
    """NATS is killed under load and started again."""
    async with bench.service("all"):
        webhook = await bench.subscribe()
        await bench.reset()
        loading = asyncio.create_task(bench.load(rate, 8))
        await asyncio.sleep(3)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        committed = await loading
        async with asyncio.timeout(60):
            while await bench.count() < len(committed):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        receipts = await bench.receipts()
        first = min((at for _, _, at in receipts if at > back), default=back)
        late = max(at - max(committed[key], back) for key, _, at in receipts if committed[key] < back and at > back)
        print(
            f"NATS killed and started again at {rate}/s: the first receipt {first - back:.2f} s after it was back, all of "
            f"what had waited {late:.2f} s after; {len(receipts) - len(committed)} duplicates; goal 5 s"
        )
        await bench.ask("delete_webhook", None, id=webhook)


async def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--rate", type=int, default=200)
    flags.add_argument("--seconds", type=float, default=15)
    flags.add_argument("--count", type=int, default=20_000, help="deliveries that wait for the worker")
    flags.add_argument("--only", choices=["latency", "sustained", "hanging", "greedy", "restart"])
    args = flags.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kalends-bench-", dir=os.environ.get("KALENDS_HOME")))
    postgres, server = Postgres(folder / "postgres"), Nats(folder / "nats")
    sink, port = start_sink()
    try:
        postgres.start()
        server.start()
        await migrations.migrate(postgres.url, [BOOKING, SCHEMA])
        db = await Database.connect(postgres.url, BOOKING.name, size=6)
        bus = await nats.connect(server.url, "bench")
        stop = asyncio.Event()
        relay = asyncio.create_task(Relay("booking", db.url, db.schema, bus, enrich=enrich).run(stop))
        source = RpcServer(bus, "booking", events_rpc.handlers(db, "booking", enrich))
        await source.start()
        bench = Bench(folder, postgres, bus, db, f"http://127.0.0.1:{port}", server.url)
        print(machine())
        if args.only in {None, "latency"}:
            await latency(bench, args.rate, args.seconds)
        if args.only in {None, "sustained"}:
            await sustained(bench, args.count)
        if args.only in {None, "hanging"}:
            await hanging(bench, args.rate, args.seconds)
        if args.only in {None, "greedy"}:
            await greedy(bench, args.rate // 4, args.seconds)
        if args.only in {None, "restart"}:
            await restart(bench, server, args.rate)
        stop.set()
        await relay
        await source.stop()
        await bench.http.aclose()
        await bus.close()
        await db.close()
    finally:
        sink.kill()
        server.kill()
        postgres.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_loop(main)
