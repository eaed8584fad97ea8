"""The first GET availability of a host nobody has asked about, through the gateway: nothing of it is in memory. Goal 50 ms.

make up && .venv/bin/python bench/cold.py

Each call is of a host of its own. Their bookings are written where booking's events would have put them.
"""

import argparse
import asyncio
import os
import signal
import statistics
import time
from datetime import UTC, date, datetime, timedelta

import asyncpg
from _machine import machine
from _stack import Api, cpu_seconds, env, spent_between, unit

GOAL_MS = 50.0
FILL = """
INSERT INTO availability.busy (tenant_id, id, version, subject_id, event_type_id, reserved_from, reserved_to, start_min,
    end_min, seats, status, created_at, seen_from)
SELECT tenant_id, 'bkg_' || md5(random()::text || n), 1, $2, $1, at, at + 30, at, at + 30, 1, $5, now(), now()
FROM availability.objects, generate_series(1, $3::integer) n,
    LATERAL (SELECT ($4::float8 + n * $6::float8)::integer / 30 * 30 AS at) AS _
WHERE id = $1
"""
DAY = 1440
PARTS = ("gateway", "availability", "postgres", "nats")


async def fill(api: Api, past: int, upcoming: int) -> str:
    """An event type whose host has so many bookings: the upcoming ones over 92 days, the past ones over five years."""
    kind = api.event_type(booking_window=None)
    host = kind["hosts"][0]["host_id"]
    today = int(time.time()) // 60 // DAY * DAY
    connection = await asyncpg.connect(env()["KALENDS_DATABASE_URL"])
    for count, begin, length, status in (
        (past, today - 1800 * DAY, 1795 * DAY, "completed"),
        (upcoming, today, 120 * DAY, "confirmed"),
    ):
        if count:
            await connection.execute(FILL, kind["id"], host, count, float(begin), status, length / count)
    await connection.close()
    return str(kind["id"])


def first_call(api: Api, kind: str, first: date, days: int) -> float:
    """Milliseconds."""
    path = f"/api/v1/event-types/{kind}/availability?start={first}&end={first + timedelta(days=days - 1)}"
    began = time.perf_counter()
    answer = api.http.get(path)
    took = (time.perf_counter() - began) * 1000
    answer.raise_for_status()
    return took


def restart() -> None:
    """Ends the availability processes, and waits for their successors."""
    before = unit("availability")
    os.kill(before["pid"], signal.SIGTERM)
    until = time.monotonic() + 60
    while (now := unit("availability"))["pid"] in {before["pid"], None} or now["state"] != "ready":
        if time.monotonic() > until:
            raise TimeoutError("availability did not come back")
        time.sleep(0.1)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--hosts", type=int, default=7, help="how many of each kind")
    args = flags.parse_args()
    api = Api()
    first = datetime.now(UTC).date() + timedelta(days=1)
    print(machine())
    other = asyncio.run(fill(api, 0, 0))
    for name, past, upcoming, days in (
        ("no booking, 7 days", 0, 0, 7),
        ("50,000 past bookings, 7 days", 50_000, 0, 7),
        ("5,000 bookings, 7 days", 0, 5_000, 7),
        ("5,000 bookings, 92 days", 0, 5_000, 92),
        ("50,000 past, 5,000 upcoming, 92 days", 50_000, 5_000, 92),
    ):
        kinds = [asyncio.run(fill(api, past, upcoming)) for _ in range(args.hosts)]
        first_call(api, other, first, days)
        before = cpu_seconds()
        took = [first_call(api, kind, first, days) for kind in kinds]
        spent = spent_between(before, cpu_seconds())
        again = [first_call(api, kind, first, days) for kind in kinds]
        restart()
        fresh = first_call(api, kinds[0], first, days)
        # On a machine that others use too, this says more than the clock; it is counted in hundredths of a second.
        cpu = sum(spent[part] for part in PARTS) / args.hosts * 1000
        held = "held" if max(took) <= GOAL_MS else "NOT HELD"
        print(
            f"{name:38} median {statistics.median(took):6.1f} ms  worst {max(took):6.1f} ms  CPU-ms {cpu:5.1f}   asked again "
            f"{statistics.median(again):5.1f} ms   of a process just started {fresh:6.1f} ms   goal {GOAL_MS:g} ms: {held}",
            flush=True,
        )


if __name__ == "__main__":
    main()
