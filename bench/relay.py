"""The relay: events/s in bulk (goal 10,000), and commit to consumer at 200/s (goal p99 40 ms), sync_interval always.

.venv/bin/python bench/relay.py        (it runs a PostgreSQL and a NATS of its own)
"""

import argparse
import asyncio
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import msgspec
from _machine import machine
from nats.aio.client import Client

from kalends_shared import event_store, events_rpc, migrations, nats
from kalends_shared.consumer import Consumer
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import Envelope, NewEvent
from kalends_shared.contracts.ids import new_id
from kalends_shared.db import Connection, Database, role_of
from kalends_shared.event_store import Position
from kalends_shared.jetstream import JetStreamError, api, stream_name
from kalends_shared.migrations import Schema
from kalends_shared.relay import Relay, nudge
from kalends_shared.servers import Nats, Postgres
from kalends_shared.service import run_loop

SCHEMA = Schema(name="bench", parts=("event_store", "consumer"))
CONTEXT = "bench"
DATA = msgspec.json.encode({"status": "confirmed", "note": "n" * 250})
STATE = msgspec.json.encode({"status": "confirmed", "hosts": ["h" * 30] * 2, "note": "n" * 600})
UPSERT = """
INSERT INTO seen (id, stream_id, version) SELECT * FROM unnest($1::text[], $2::text[], $3::int[]) ON CONFLICT DO NOTHING
"""


def new_event() -> NewEvent:
    return NewEvent(type="booking.created", data=DATA, state=STATE, id=new_id("ev"))


async def bulk(db: Database, bus: Client, count: int) -> None:
    """Publishes what a wiped stream, or a relay that was away, leaves to publish."""
    call = Call(tenant="acc_bench-live", now=datetime.now(UTC))
    async with db.pool.acquire() as conn:
        for _ in range(count // 100):
            await event_store.append(conn, call, new_id("bkg"), 0, [new_event() for _ in range(100)])
    relay, stop = Relay(CONTEXT, db.url, db.schema, bus), asyncio.Event()
    cpu, began = time.process_time(), time.perf_counter()
    running = asyncio.create_task(relay.run(stop))
    while await _published(bus) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    size = (await api(bus, f"STREAM.INFO.{stream_name(CONTEXT)}"))["state"]["bytes"] / count
    print(
        f"bulk: {count:,} events of {size:,.0f} B in {seconds:.2f} s: {count / seconds:,.0f}/s, relay {cpu / count * 1e6:.0f} us of CPU each; goal 10,000/s"
    )
    stop.set()
    await running


async def _published(bus: Client) -> int:
    try:
        return int((await api(bus, f"STREAM.INFO.{stream_name(CONTEXT)}"))["state"]["messages"])
    except JetStreamError:
        return 0


async def latency(db: Database, bus: Client, rate: int, seconds: float) -> None:
    """From the return of the commit to the commit of the effects, in another service's read model."""
    committed: dict[str, float] = {}
    arrived: dict[str, float] = {}

    async def apply(conn: Connection, events: list[Envelope]) -> None:
        await conn.execute(UPSERT, [e.id for e in events], [e.stream_id for e in events], [e.version for e in events])

    async def after_commit(events: list[Envelope]) -> None:
        now = time.perf_counter()
        arrived.update((event.id, now) for event in events)

    async def events_after(position: Position, limit: int) -> list[Envelope]:
        async with db.pool.acquire() as conn:
            return await events_rpc.read(conn, CONTEXT, position, limit)

    async def write() -> None:
        event = new_event()
        call = Call(tenant="acc_bench-live", now=datetime.now(UTC))
        async with db.pool.acquire() as conn:
            await event_store.append(conn, call, event.id, 0, [event], ("hst_1",))
        committed[event.id] = time.perf_counter()
        await nudge(bus, CONTEXT)

    relay, stop = Relay(CONTEXT, db.url, db.schema, bus), asyncio.Event()
    consumer = Consumer("bench", CONTEXT, db, bus, events_after, apply, after_commit)
    tasks = [asyncio.create_task(relay.run(stop)), asyncio.create_task(consumer.run(stop))]
    while not (relay.active and consumer.active and consumer.position >= await _end(db)):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    writes = []
    cpu, begin = time.process_time(), time.perf_counter()
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(begin + n / rate - time.perf_counter(), 0))
        writes.append(asyncio.create_task(write()))
    await asyncio.gather(*writes)
    async with asyncio.timeout(30):
        while not committed.keys() <= arrived.keys():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    cpu = time.process_time() - cpu
    took = sorted((arrived[key] - at) * 1000 for key, at in list(committed.items())[rate:])  # the first second warms up
    p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
    print(
        f"commit to consumer at {rate}/s for {seconds:g} s: p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {took[-1]:.1f} ms, "
        f"writer, relay and consumer {cpu / len(committed) * 1000:.2f} ms of CPU each; goal p99 40 ms"
    )
    stop.set()
    await asyncio.gather(*tasks)


async def _end(db: Database) -> Position:
    row = await db.pool.fetchrow("SELECT tx, position FROM events ORDER BY tx DESC, position DESC LIMIT 1")
    return Position() if row is None else Position(*row)


async def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--bulk", type=int, default=40_000)
    flags.add_argument("--rate", type=int, default=200)
    flags.add_argument("--seconds", type=float, default=15)
    args = flags.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kalends-bench-", dir=os.environ.get("KALENDS_HOME")))
    postgres, server = Postgres(folder / "postgres"), Nats(folder / "nats")
    try:
        postgres.start()
        server.start()
        await migrations.migrate(postgres.url, [SCHEMA])
        owner = await asyncpg.connect(postgres.url, server_settings={"search_path": SCHEMA.name})
        await owner.execute(
            "CREATE TABLE seen (id text PRIMARY KEY, stream_id text NOT NULL, version integer NOT NULL)"
        )
        await owner.execute(f"GRANT ALL ON seen TO {role_of(SCHEMA.name)}")
        await owner.close()
        db = await Database.connect(postgres.url, SCHEMA.name, size=6)
        bus = await nats.connect(server.url, "bench")
        print(machine())
        await bulk(db, bus, args.bulk)
        await latency(db, bus, args.rate, args.seconds)
        await bus.close()
        await db.close()
    finally:
        server.kill()
        postgres.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_loop(main)
