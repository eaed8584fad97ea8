"""Appends/s of one event, one round trip each, with locks and state, 32 clients, fsync on: 4,000/s and 8 x `eventsourcing`.

.venv/bin/python bench/append.py        (it runs a PostgreSQL of its own)

Beside it, in turns, the recorder of the PyPI library `eventsourcing` (psycopg, its default settings) with as many threads.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from _machine import machine
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

from kalends_shared import event_store, migrations
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import NewEvent
from kalends_shared.contracts.ids import new_id
from kalends_shared.db import Database
from kalends_shared.migrations import Schema
from kalends_shared.servers import Postgres
from kalends_shared.service import run_loop

SCHEMA = Schema(name="bench", parts=("event_store",))
DATA = msgspec.json.encode({"status": "confirmed", "note": "n" * 250})
STATE = msgspec.json.encode({"status": "confirmed", "hosts": ["h" * 30] * 2, "note": "n" * 600})


def quantile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[int(len(seconds) * share)] * 1000


class Figures:
    """Rates and latencies of one way, over the rounds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rates: list[float] = []
        self.seconds: list[float] = []

    def add(self, seconds: float, each: list[float]) -> None:
        self.rates.append(len(each) / seconds)
        self.seconds += each

    def __str__(self) -> str:
        return (
            f"{self.name}: {statistics.median(self.rates):,.0f}/s (rounds: {', '.join(f'{r:,.0f}' for r in self.rates)}), "
            f"p50 {quantile(self.seconds, 0.5):.1f} ms, p99 {quantile(self.seconds, 0.99):.1f} ms"
        )


async def ours(db: Database, clients: int, seconds: float) -> tuple[float, list[float]]:
    each: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        call = Call(tenant="acc_bench-live", now=datetime.now(UTC))
        n = number
        while (began := time.perf_counter()) < end:
            stream = new_id("bkg")
            event = NewEvent(type="booking.created", data=DATA, state=STATE, id=stream)
            async with db.pool.acquire() as conn:
                await event_store.append(conn, call, stream, 0, [event], (f"hst_{n % 500}",))
            each.append(time.perf_counter() - began)
            n += clients

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return time.perf_counter() - began, each


def theirs(recorder: PostgresApplicationRecorder, clients: int, seconds: float) -> tuple[float, list[float]]:
    end = time.perf_counter() + seconds

    def client(_: int) -> list[float]:
        each = []
        while (began := time.perf_counter()) < end:
            recorder.insert_events([StoredEvent(uuid.uuid4(), 1, "booking.created", DATA)])
            each.append(time.perf_counter() - began)
        return each

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        each = [one for many in threads.map(client, range(clients)) for one in many]
    return time.perf_counter() - began, each


def recorder_on(url: str) -> PostgresApplicationRecorder:
    parts = urlsplit(url)
    datastore = PostgresDatastore(
        parts.path.lstrip("/"), parts.hostname or "", parts.port or 0, parts.username or "", parts.password or "",
        pool_size=5, max_overflow=10,  # what the library's own factory takes by default
    )  # fmt: skip
    recorder = PostgresApplicationRecorder(datastore)
    recorder.create_table()
    return recorder


async def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--clients", type=int, default=32)
    flags.add_argument("--connections", type=int, default=8, help="of our pool; the library has its own 15")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--seconds", type=float, default=5)
    args = flags.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kalends-bench-", dir=os.environ.get("KALENDS_HOME")))
    server = Postgres(folder / "postgres")
    try:
        server.start()
        await migrations.migrate(server.url, [SCHEMA])
        db = await Database.connect(server.url, SCHEMA.name, size=args.connections)
        recorder = recorder_on(server.url)
        kalends, library = Figures("kalends append()"), Figures("eventsourcing recorder")
        await ours(db, args.clients, 1)
        await asyncio.to_thread(theirs, recorder, args.clients, 1)
        for _ in range(args.rounds):
            kalends.add(*await ours(db, args.clients, args.seconds))
            library.add(*await asyncio.to_thread(theirs, recorder, args.clients, args.seconds))
        fsync = await db.pool.fetchval("SHOW fsync")
        await db.close()
        recorder.datastore.close()
        print(machine())
        print(
            f"{args.clients} clients over {args.connections} connections (the library: 15), fsync {fsync}, data {len(DATA)} B, state {len(STATE)} B, one host locked of 500"
        )
        print(kalends)
        print(library)
        ratio = statistics.median(kalends.rates) / statistics.median(library.rates)
        print(f"{ratio:.1f} x the library; goals: 4,000/s and 8 x")
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_loop(main)
