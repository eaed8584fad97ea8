"""What sending webhooks costs and withstands; every figure with the machine it was measured on.

.venv/bin/python bench/webhooks.py [--only ...]     (it runs a PostgreSQL, a NATS, the service and receivers of its own)

latency     commit to receipt at 200/s, open loop, with one process of both roles and with each apart (goal: p99 60 ms)
sustained   the most that one worker process sends out of the queue, and two (goal: 1,000/s a process)
hanging     what one of 100 endpoints that hangs for 30 s costs the others, by turns with it and without (goal: p99 1.3 times)
behind      how long a new delivery takes behind 100,000 of another account that are due (goal: 1 s)
log         claiming and finishing with an empty log and with 1,000,000 deliveries in it, by turns
greedy      memory of a worker whose receivers answer with gigabytes, or a byte at a time (goal: 200 MB)
restart     NATS killed under load: how long after it is back everything has arrived (goal: 5 s)

Bodies are about 2 KB. A receipt is the moment at which the receiver, a process of its own, has read the body.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from _machine import machine
from _webhooks import BOOKING, TENANT, Bench, enrich, memory, spent, start_sink

from kalends_shared import events_rpc, migrations, nats, telemetry
from kalends_shared.contracts.ids import derived
from kalends_shared.db import Database
from kalends_shared.relay import Relay, nudge
from kalends_shared.rpc import RpcServer
from kalends_shared.servers import Nats, Postgres
from kalends_shared.service import run_loop
from kalends_shared.settings import Settings
from kalends_webhooks.schema import SCHEMA
from kalends_webhooks.store import queue

OTHER = "acc_other-live"
# What answers without end, and how: see _sink.py.
GREEDY = ("flood", "chunked", "bomb", "drip", "drip-head")
PILE = """
INSERT INTO webhooks.queue (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, due_at)
SELECT p.tenant_id, webhooks.delivery_floor(now()) || substr(md5($1 || '/' || n), 1, 16), $1, p.seq, p.id, p.type, p.stream_id, n::text, now()
FROM (SELECT * FROM webhooks.public_events WHERE tenant_id = $2 AND type = 'booking.confirmed' LIMIT 1) AS p,
    generate_series(1, $3::integer) AS n
"""
# Made over the last 30 days, so that it is in as many partitions as a log that has grown.
LOG = """
INSERT INTO webhooks.deliveries (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, status,
    created_at, attempts, log)
SELECT $1, webhooks.delivery_floor(now() - n * interval '2.5 seconds') || substr(md5(n::text), 1, 16),
    'whk_' || n % 100, n, 'msg_' || n, 'booking.confirmed', 'bkg_' || n, 'past', 'succeeded', now(), 1,
    ('[{"started_at":"2026-11-21T12:00:00Z","duration_ms":12,"status_code":200,"response_head":"' || repeat('x', 200) || '"}]')::json
FROM generate_series(1, $2::integer) AS n
"""


def told(took: list[float]) -> str:
    took = sorted(took)
    p50, p95, p99 = (share_of(took, share) * 1000 for share in (0.5, 0.95, 0.99))
    return f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, most {took[-1] * 1000:.0f} ms"


def share_of(took: list[float], share: float) -> float:
    took = sorted(took)
    return took[min(int(len(took) * share), len(took) - 1)]


async def open_loop(
    bench: Bench, rate: int, seconds: float, processes: Sequence[subprocess.Popen[bytes]]
) -> list[float]:
    """Loads, waits until all has come, and returns how long each took; the first second warms up and does not count."""
    await bench.reset()
    before = [spent(one) for one in processes]
    committed = await bench.load(rate, seconds)
    async with asyncio.timeout(120):
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
                await bench.came(count // 20)
                begun, already, cpu = time.perf_counter(), await bench.count(), [spent(one) for one in processes]
                while (now := await bench.count()) < count * 0.95:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                seconds = time.perf_counter() - begun
                cpu = [spent(one) - earlier for one, earlier in zip(processes, cpu, strict=True)]
                print(
                    f"sustained, {workers} worker process(es), {endpoints} endpoints: {(now - already) / seconds:,.0f}/s, "
                    f"{sum(cpu) / (now - already) * 1000:.2f} ms of a worker's CPU each; goal 1,000/s a process"
                )
                await bench.came(count)
            for webhook in made:
                await bench.ask("delete_webhook", None, id=webhook)


async def hanging(bench: Bench, rate: int, seconds: float, pairs: int = 3) -> None:
    """100 endpoints, each of an event type of its own; by turns all are well, and one hangs."""
    ratios: list[float] = []
    kinds = [derived("evt", str(n)) for n in range(100)]
    async with bench.service("all"):
        made = [
            await bench.subscribe(f"/hook/{n}", filters={"event_type_ids": [kinds[n]]}, timeout_seconds=30)
            for n in range(1, 100)
        ]

        async def turn(path: str) -> float:
            last = await bench.subscribe(path, filters={"event_type_ids": [kinds[0]]}, timeout_seconds=30)
            await bench.reset()
            committed = await bench.load(rate, seconds)
            healthy = {key for n, key in enumerate(committed) if n % 100}
            async with asyncio.timeout(120):
                while not healthy <= {row[0] for row in await bench.receipts()}:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            took = [at - committed[key] for key, _, at in await bench.receipts() if key in healthy]
            print(
                f"99 of 100 endpoints at {rate}/s, the last {'hangs' if path == '/hang' else 'is well'}: {told(took)}"
            )
            await bench.ask("delete_webhook", None, id=last)
            await bench.reset()  # lets go of what hangs, so that it is not in the next turn
            return share_of(took, 0.99)

        await turn("/hook/0")  # warms up
        for _ in range(pairs):
            well = await turn("/hook/0")
            ratios.append(await turn("/hang") / well)
        print(
            f"  p99 with one hanging: {statistics.median(ratios):.2f} times that without, the median of {pairs} pairs "
            f"({', '.join(f'{one:.2f}' for one in ratios)}); goal 1.3"
        )
        for webhook in made:
            await bench.ask("delete_webhook", None, id=webhook)


async def behind(bench: Bench, count: int, samples: int = 100) -> None:
    """One account has `count` deliveries due at one endpoint; another's new ones go out past them."""
    async with bench.service("dispatch", "deliver"):
        piled = await bench.subscribe("/piled", tenant=OTHER)
        mine = await bench.subscribe()
        await bench.append(0, tenant=OTHER)
        await nudge(bench.bus, "booking")
        await bench.came(1)

        async def new_ones() -> list[float]:
            committed: dict[str, float] = {}
            for n in range(samples):
                booking_id, at = await bench.append(n)
                committed[booking_id] = at
                await nudge(bench.bus, "booking")
                await asyncio.sleep(0.02)
            async with asyncio.timeout(120):
                while not committed.keys() <= {row[0] for row in await bench.receipts()}:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            return [at - committed[key] for key, _, at in await bench.receipts() if key in committed]

        await new_ones()  # warms up
        alone = await new_ones()
        conn = await asyncpg.connect(bench.postgres.url)
        await conn.execute(PILE, piled, OTHER, count)
        await bench.came(await bench.count() + 500)
        took = await new_ones()
        left = await conn.fetchval("SELECT count(*) FROM webhooks.queue WHERE webhook_id = $1", piled)
        print(f"nothing else due: {told(alone)}")
        print(f"behind another account's {count:,} due deliveries ({left:,} left at the end): {told(took)}; goal 1 s")
        await bench.ask("delete_webhook", None, id=mine)
        await bench.ask("delete_webhook", None, tenant=OTHER, id=piled)
        await conn.execute("DELETE FROM webhooks.queue")
        await conn.execute("VACUUM webhooks.queue")
        await conn.close()
        await bench.reset()


async def log(bench: Bench, rows: int, rounds: int = 60, batch: int = 200) -> None:
    """Batches claimed and finished in two databases by turns; one has a log of so many rows."""
    took: dict[str, list[tuple[float, float]]] = {"empty": [], "full": []}
    opened: dict[str, Database] = {}
    admin = await asyncpg.connect(bench.postgres.url)
    for name in took:
        await admin.execute(f"CREATE DATABASE log_{name}")
        url = bench.postgres.url.rpartition("/")[0] + f"/log_{name}"
        await migrations.migrate(url, [SCHEMA])
        opened[name] = await Database.connect(url, SCHEMA.name, size=1)
        conn = await asyncpg.connect(url)
        await conn.execute("SELECT webhooks.keep_deliveries(40, 7 - n) FROM generate_series(0, 7) AS n")
        await conn.execute(
            "INSERT INTO webhooks.public_events (tenant_id, seq, id, type, created_at, stream_id, data) "
            "VALUES ($1, 1, 'msg_1', 'booking.confirmed', now(), 'bkg_1', '{}')",
            TENANT,
        )
        for n in range(20):
            await conn.execute(PILE, f"whk_{n}", TENANT, rounds * batch // 20)
        if name == "full":
            await conn.execute(LOG, TENANT, rows, timeout=1200)
            await conn.execute("VACUUM ANALYZE webhooks.deliveries", timeout=1200)
        await conn.close()
    for n in range(rounds):
        for name, db in opened.items():
            wanted = [queue.Wanted(TENANT, f"whk_{lane}", batch // 20, 50) for lane in range(20)]
            began = time.perf_counter()
            claimed = await queue.claim(db.pool, wanted, f"bench.{n}")
            between = time.perf_counter()
            ended = [queue.Ended(TENANT, row["id"], f"bench.{n}", "succeeded", None, b"[]") for row in claimed]
            written = await queue.finish(db.pool, ended, datetime.now(UTC))
            took[name].append((between - began, time.perf_counter() - between))
            assert len(claimed) == len(written) == batch
    count = await opened["full"].pool.fetchval("SELECT count(*) FROM deliveries")
    for what, place in (("claiming", 0), ("finishing", 1)):
        empty, full = (statistics.median(one[place] for one in took[name]) * 1000 for name in ("empty", "full"))
        print(
            f"{what} {batch} deliveries: {empty:.2f} ms with an empty log, {full:.2f} ms with {count:,} deliveries in it, "
            f"{full / empty:.2f} times; medians of {rounds} by turns"
        )
    for name, db in opened.items():
        await db.close()
        await admin.execute(f"DROP DATABASE log_{name} WITH (FORCE)")
    await admin.close()


async def greedy(bench: Bench, rate: int, seconds: float) -> None:
    """Receivers that answer without end, beside a healthy one."""
    other, port = start_sink()
    async with bench.service("dispatch", "deliver") as processes:
        made = [
            await bench.subscribe(f"/{kind}/{n}", f"http://127.0.0.1:{port}", timeout_seconds=10)
            for kind in GREEDY
            for n in range(4)
        ]
        made.append(await bench.subscribe())
        took = await open_loop(bench, rate, seconds, processes)
        dispatch, deliver = (memory(process) for process in processes)
        print(f"20 endpoints that answer without end ({', '.join(GREEDY)}), at {rate}/s: the healthy one {told(took)}")
        print(
            f"  of memory at most {dispatch.peak:.0f} MB in dispatch and {deliver.peak:.0f} MB in deliver, now "
            f"{dispatch.pss:.0f} and {deliver.pss:.0f} MB of PSS; goal 200 MB"
        )
        for webhook in made:
            await bench.ask("delete_webhook", None, id=webhook)
    other.kill()


async def restart(bench: Bench, server: Nats, rate: int) -> None:
    """NATS is killed under load and started again."""
    async with bench.service("all"):
        webhook = await bench.subscribe()
        await bench.reset()
        loading = asyncio.create_task(bench.load(rate, 8))
        await asyncio.sleep(3)
        killed = time.monotonic()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        committed = await loading
        async with asyncio.timeout(120):
            while len({row[0] for row in await bench.receipts()}) < len(committed):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        receipts = await bench.receipts()
        first = min((at for _, _, at in receipts if at > back), default=back)
        late = max(at - back for key, _, at in receipts if committed[key] < back and at > back)
        print(
            f"NATS killed and started again ({back - killed:.2f} s) at {rate}/s: the first receipt {first - back:.2f} s after "
            f"it was back, all of what had waited {late:.2f} s after; {len(receipts) - len(committed)} duplicates; goal 5 s"
        )
        await bench.ask("delete_webhook", None, id=webhook)


async def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rate", type=int, default=200)
    flags.add_argument("--seconds", type=float, default=15)
    flags.add_argument("--count", type=int, default=20_000, help="deliveries that wait for the worker")
    flags.add_argument("--piled", type=int, default=100_000, help="deliveries of another account")
    flags.add_argument("--log", type=int, default=1_000_000, help="deliveries in the log")
    flags.add_argument("--only", action="append", help="of the names above; may be given several times")
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
        measurements: dict[str, Callable[[], Awaitable[Any]]] = {
            "latency": partial(latency, bench, args.rate, args.seconds),
            "sustained": partial(sustained, bench, args.count),
            "hanging": partial(hanging, bench, args.rate, args.seconds),
            "behind": partial(behind, bench, args.piled),
            "log": partial(log, bench, args.log),
            "greedy": partial(greedy, bench, args.rate // 8, args.seconds),
            "restart": partial(restart, bench, server, args.rate),
        }
        telemetry.setup("bench", Settings(log_level="error"))
        print(machine())
        for name in args.only or measurements:
            await measurements[name]()
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
