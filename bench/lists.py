"""Lists of bookings among 1,000,000, in the database. Goal: the upcoming 50 under 5 ms.

.venv/bin/python bench/lists.py        (it runs a PostgreSQL of its own)
"""

import argparse
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import msgspec
from _machine import machine

from kalends_booking.schema import SCHEMA
from kalends_booking.store import booking_lists
from kalends_shared import lists, migrations
from kalends_shared.contracts.booking import (
    BookingsQuery,
    BookingState,
    EventTypeSnapshot,
    HostSnapshot,
    Policies,
)
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.decode import query
from kalends_shared.db import Database
from kalends_shared.servers import Postgres
from kalends_shared.service import run_loop

TENANT = "acc_bench-live"
NOW = datetime.now(UTC)
# A tenth of the bookings lie ahead, one every ten minutes for each of 500 hosts in turn.
FILL = """
INSERT INTO booking.bookings (tenant_id, id, event_type_id, start_at, end_at, status, person_id, person_version, version,
    state)
SELECT $1, 'bkg_' || lpad(n::text, 26, '0'), 'evt_' || n % 500, at, at + interval '30 minutes',
    CASE WHEN n % 20 = 0 THEN 'cancelled' WHEN at < $2 THEN 'completed' ELSE 'confirmed' END,
    'per_' || n % 50000, 'v', 1, $4
FROM (SELECT n, $2::timestamptz + (n - $3::bigint * 9 / 10) * interval '1 minute' AS at FROM generate_series(1, $3) n) t
"""
PLACES = """
INSERT INTO booking.seats (tenant_id, holder_id, subject_id, slot, start_at, end_at, seats, in_force, status)
SELECT tenant_id, id, 'hst_' || substr(event_type_id, 5), event_type_id, start_at, end_at, 1, status <> 'cancelled', status
FROM booking.bookings
"""
PEOPLE = """
INSERT INTO booking.people (tenant_id, person_id, version, created_at, name, email, guests, answers)
SELECT $1, 'per_' || n, 'v', $2, 'Ada Lovelace', 'ada@example.test', '[]', '{}' FROM generate_series(0, 49999) n
"""
LISTS = (
    "upcoming=true&limit=50",
    "upcoming=true&limit=50&host_id=hst_7",
    "upcoming=false&limit=50&host_id=hst_7",
    "status=completed&limit=50&host_id=hst_7",
    "upcoming=true&limit=50&event_type_id=evt_7",
    "status=cancelled&limit=50",
    "status=confirmed,pending&limit=50",
    "upcoming=false&limit=50&order=desc",
    "limit=50&order=desc",
    "page=20&per_page=50&host_id=hst_7",
)


def state() -> bytes:
    made = BookingState(
        id="bkg_00000000000000000000000001", created_at=NOW, updated_at=NOW, version=1, event_type_id="evt_1", start_at=NOW,
        end_at=NOW + timedelta(minutes=30), status="confirmed", seats=1, host_ids=["hst_1"], resource_ids=[], person_id="per_1",
        person_version="v", policies=Policies(), hosts=[HostSnapshot(id="hst_1", name="Grace Hopper")],
        event_type=EventTypeSnapshot(id="evt_1", slug="visit", title="Visit", duration_minutes=30),
    )  # fmt: skip
    return msgspec.json.encode(made)


def spent(backend: int) -> float:
    """CPU-ms of a process so far, which other work on the machine does not change as it does the time of a page."""
    return int(Path(f"/proc/{backend}/schedstat").read_text().split()[0]) / 1e6


async def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--bookings", type=int, default=1_000_000)
    flags.add_argument("--times", type=int, default=200)
    args = flags.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kalends-bench-"))
    postgres = Postgres(folder / "postgres", durable=False)
    try:
        postgres.start()
        await migrations.migrate(postgres.url, [SCHEMA])
        owner = await asyncpg.connect(postgres.url)
        await owner.execute(FILL, TENANT, NOW, args.bookings, state().decode())
        await owner.execute(PLACES)
        await owner.execute(PEOPLE, TENANT, NOW)
        await owner.execute("VACUUM ANALYZE booking.bookings")
        await owner.execute("VACUUM ANALYZE booking.seats")
        await owner.execute("VACUUM ANALYZE booking.people")
        await owner.close()
        db = await Database.connect(postgres.url, SCHEMA.name, size=1)
        print(machine())
        print(f"{args.bookings:,} bookings; reading and decoding a page, one after the other")
        call = Call(tenant=TENANT, now=NOW)
        backend = await db.pool.fetchval("SELECT pg_backend_pid()")
        for filters in LISTS:
            asked = query(filters, BookingsQuery)
            window = lists.window(asked, booking_lists.Key)
            took = []
            before = spent(backend)
            for _ in range(args.times):
                began = time.perf_counter()
                rows = await booking_lists.page(db.pool, call, asked, window)
                took.append((time.perf_counter() - began) * 1000)
            took.sort()
            cpu = (spent(backend) - before) / args.times
            print(
                f"  {filters:45} p50 {took[len(took) // 2]:6.2f} ms  p99 {took[len(took) * 99 // 100]:6.2f} ms  "
                f"Postgres {cpu:5.2f} CPU-ms  ({len(rows)} rows)"
            )
        await db.close()
    finally:
        postgres.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_loop(main)
