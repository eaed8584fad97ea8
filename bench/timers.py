"""10,000 timers due at once, as after downtime, worked off by two replicas of the booking service. Goal: under 10 s, each once.

.venv/bin/python bench/timers.py        (it runs a PostgreSQL, fsync on, a NATS and two processes of its own)

Each timer is a confirmed booking that has ended: its firing appends meeting.started, meeting.ended and booking.completed.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from _machine import machine
from _stack import _spent, _tree

from kalends_booking.domain import choosing, placing
from kalends_booking.domain.choosing import Wish
from kalends_booking.domain.placing import Booker
from kalends_booking.schema import SCHEMA
from kalends_booking.store.commit import commit
from kalends_booking.store.people import PersonVersion, new_version
from kalends_shared import migrations
from kalends_shared.contracts.availability import EventType, EventTypeHost
from kalends_shared.contracts.booking import BookingIn
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.ids import new_id
from kalends_shared.contracts.quotes import Quote, QuotedHost, QuotedStart
from kalends_shared.db import Database
from kalends_shared.servers import Nats, Postgres
from kalends_shared.service import run_loop

THEN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=2)
PERSON = new_id("per")
COUNTS = """
SELECT (SELECT count(*) FROM timers), (SELECT count(*) FROM events WHERE type = 'booking.completed'),
    (SELECT count(DISTINCT stream_id) FROM events WHERE type = 'booking.completed')
"""


async def book(db: Database, n: int, tenants: int) -> None:
    """A booking of one of the tenants, made two days ago, for an hour later."""
    host = f"hst_{n % 500}"
    start = THEN + timedelta(hours=1, minutes=30 * (n // 500))
    kind = EventType(
        id=f"evt_{n % 500}", created_at=THEN, updated_at=THEN, version=1, title="Visit", duration_minutes=30,
        hosts=[EventTypeHost(host)],
    )  # fmt: skip
    only = QuotedHost(id=host, name="Grace Hopper", email=None, timezone="UTC")
    quoted = QuotedStart(start_at=start, end_at=start + timedelta(minutes=30), hosts=[only])
    wish = Wish(quote=Quote(quoted_at=THEN, event_type=kind, timezone="UTC", starts=[quoted]), start=quoted)
    request = BookingIn(event_type_id=kind.id, start_at=start, booker_name="Ada", booker_email="ada@example.test")
    person = PersonVersion(
        person_id=PERSON, known=n >= tenants, version=new_version(), name="Ada", email="ada@example.test"
    )
    booker = Booker(person_id=PERSON, version=person.version, email=person.email)
    option = choosing.plain(wish)
    assert option is not None
    made = placing.create(new_id("bkg"), request, wish, [option], booker, THEN)
    call = Call(tenant=f"acc_bench{n % tenants}-live", now=THEN)
    outcome = await commit(db.pool, call, made, person=person)
    assert outcome.kind == "done"


async def fill(db: Database, count: int, tenants: int) -> None:
    for n in range(tenants):
        await book(db, n, tenants)  # the tenant's person is made by its first booking
    left = iter(range(tenants, count))

    async def client() -> None:
        for n in left:
            await book(db, n, tenants)

    await asyncio.gather(*(client() for _ in range(16)))


def spent(pid: int | None) -> float:
    """CPU seconds of a process and all below it."""
    assert pid is not None
    return sum(_spent(one) for one in _tree(pid))


async def counts(db: Database) -> tuple[int, int, int]:
    """Timers left, completions, bookings completed."""
    return tuple(await db.pool.fetchrow(COUNTS))  # type: ignore[return-value]


async def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--timers", type=int, default=10_000)
    flags.add_argument("--replicas", type=int, default=2)
    flags.add_argument("--tenants", type=int, default=1, help="whose bookings they are, in turn")
    args = flags.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kalends-bench-"))
    postgres, nats = Postgres(folder / "postgres"), Nats(folder / "nats")
    running: list[subprocess.Popen[bytes]] = []
    try:
        postgres.start()
        nats.start()
        await migrations.migrate(postgres.url, [SCHEMA])
        db = await Database.connect(postgres.url, SCHEMA.name, size=5)
        await fill(db, args.timers, args.tenants)
        print(machine())
        for n in range(args.replicas):
            environment = os.environ | {
                "KALENDS_DATABASE_URL": postgres.url, "KALENDS_NATS_URL": nats.url, "KALENDS_RUN_DIR": str(folder),
                "KALENDS_PROCESS_NAME": f"booking-{n}",
            }  # fmt: skip
            with (folder / f"booking-{n}.log").open("wb") as log:
                running.append(subprocess.Popen([sys.executable, "-m", "kalends_booking"], env=environment, stderr=log))  # noqa: ASYNC220
        while not (await counts(db))[1]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        parts = {"postgres": [postgres.pid], "booking": [process.pid for process in running]}
        before = {name: sum(spent(pid) for pid in pids) for name, pids in parts.items()}
        began = time.perf_counter()
        while (row := await counts(db))[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        seconds = time.perf_counter() - began
        print(f"{args.timers:,} timers by {args.replicas} replicas: {seconds:.1f} s ({args.timers / seconds:,.0f}/s)")
        each = {
            name: (sum(spent(pid) for pid in pids) - before[name]) / args.timers * 1000 for name, pids in parts.items()
        }
        print("CPU-ms a timer: " + ", ".join(f"{name} {ms:.2f}" for name, ms in each.items()))
        if (row[1], row[2]) != (args.timers, args.timers):
            raise SystemExit(f"{row[1]} completions of {row[2]} bookings")
        await db.close()
    finally:
        for process in running:
            process.terminate()
        for process in running:
            await asyncio.to_thread(process.wait, 30)
        nats.kill()
        postgres.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_loop(main)
