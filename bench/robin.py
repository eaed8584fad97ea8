"""Round robins of 20 and of 1,000 hosts with 50,000 bookings in the last 90 days, through the gateway: one client asks for a
week, books, and asks again, so that each question follows a booking, and each booking's ranking one before it.

make up && .venv/bin/python bench/robin.py
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import asyncpg
from _machine import machine
from _stack import ALWAYS, Api, cpu_seconds, env, spent_between

FILL = """
INSERT INTO availability.busy (tenant_id, id, version, subject_id, event_type_id, reserved_from, reserved_to, start_min,
    end_min, seats, status, created_at, seen_from)
SELECT tenant_id, 'bkg_' || md5(random()::text || n), 1, ($2::text[])[1 + n % cardinality($2::text[])], $1, at, at + 30, at,
    at + 30, 1, 'completed', now() - n * interval '150 seconds', now()
FROM availability.objects, generate_series(1, $3::integer) n,
    LATERAL (SELECT extract(epoch FROM now())::integer / 60 - 1440 - n * 2 AS at) AS _
WHERE id = $1
"""
PARTS = ("availability", "booking", "postgres", "gateway", "nats")


def made(api: Api, hosts: int, bookings: int) -> str:
    """A round robin that all its hosts have been in for long, with that many bookings behind it."""
    schedule = api.post("/schedules", ALWAYS)["id"]
    body = {"name": "Bench", "timezone": "UTC", "schedule_id": schedule}
    with ThreadPoolExecutor(8) as pool:
        ids = [str(one["id"]) for one in pool.map(lambda _: api.post("/hosts", body), range(hosts))]
    named = [{"host_id": id_} for id_ in ids]
    title = f"Robin {os.urandom(6).hex()}"
    settings = {"title": title, "duration_minutes": 30, "assignment": "round_robin", "hosts": named}
    kind = str(api.post("/event-types", settings)["id"])
    asyncio.run(fill(kind, ids, bookings))
    return kind


async def fill(kind: str, hosts: list[str], bookings: int) -> None:
    connection = await asyncpg.connect(env()["KALENDS_DATABASE_URL"])
    await connection.execute(FILL, kind, hosts, bookings)
    await connection.close()


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def measure(api: Api, kind: str, rounds: int) -> str:
    begin = datetime.combine(datetime.now(UTC).date() + timedelta(days=2), datetime.min.time(), UTC)
    path = f"/api/v1/event-types/{kind}/availability?start={begin.date()}&end={begin.date() + timedelta(days=6)}"
    body = {"event_type_id": kind, "booker_name": "Ada", "booker_email": "ada@example.test"}

    def ask() -> float:
        return timed(lambda: api.http.get(path).raise_for_status())

    def book(n: int) -> float:
        start = (begin + timedelta(minutes=30 * n)).isoformat()
        return timed(lambda: api.post("/bookings", body | {"start_at": start}))

    first_asked, first_booked = ask(), book(0)
    before = cpu_seconds()
    both = [(book(n), ask()) for n in range(1, rounds + 1)]
    spent = spent_between(before, cpu_seconds())
    booked, asked = (statistics.median(times) for times in zip(*both, strict=True))
    each = ", ".join(f"{part} {spent[part] / rounds * 1000:.1f}" for part in PARTS)
    return (
        f"a week {asked:.1f} ms (the first time {first_asked:.1f}), a booking {booked:.1f} ms (the first "
        f"{first_booked:.1f}); CPU-ms of both: {each}"
    )


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--bookings", type=int, default=50_000)
    flags.add_argument("--rounds", type=int, default=20)
    args = flags.parse_args()
    api = Api()
    print(machine())
    for hosts in (20, 1_000):
        kind = made(api, hosts, args.bookings)
        print(f"{hosts:5,} hosts, {args.bookings:,} bookings: {measure(api, kind, args.rounds)}", flush=True)


if __name__ == "__main__":
    main()
