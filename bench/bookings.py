"""POST /bookings through the gateway: 32 clients, spread over 500 hosts, fsync on. Goal 400/s, p99 150 ms, 4 CPU-ms a booking
over all processes of the stack. With --webhook one webhook on each: goal 250/s. With --refusals everybody wants the same
20 starts: goal 300/s.

make up && .venv/bin/python bench/bookings.py [--webhook] [--refusals]
"""

import argparse
import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from _load import Result, closed_loop, request
from _machine import machine
from _stack import ALWAYS, Api, cpu_seconds, spent_between

HERE = Path(__file__).parent
HALF_HOUR = timedelta(minutes=30)
SETTLE = 60.0


def event_types(api: Api, hosts: int) -> list[str]:
    """As many event types, each with a host of its own who never sleeps."""
    schedule = api.post("/schedules", ALWAYS)["id"]

    def make(_: int) -> str:
        host = api.post("/hosts", {"name": "Bench", "timezone": "UTC", "schedule_id": schedule})["id"]
        title = f"Bench {os.urandom(6).hex()}"
        made = api.post("/event-types", {"title": title, "duration_minutes": 30, "hosts": [{"host_id": host}]})
        return str(made["id"])

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(make, range(hosts)))


def requests(api: Api, kinds: list[str], starts: list[datetime]) -> Iterator[bytes]:
    """Each start of each event type, host by host, so that neighbours in time are far apart in the load."""
    for start in starts:
        for n, kind in enumerate(kinds):
            body = (
                f'{{"event_type_id":"{kind}","start_at":"{start:%Y-%m-%dT%H:%M:%SZ}","booker_name":"Ada Lovelace",'
                f'"booker_email":"ada{n % 97}@example.test","metadata":{{"order":"{n}"}}}}'
            )
            headers = {"Idempotency-Key": os.urandom(12).hex()}
            yield request("POST", f"{api.url}/api/v1/bookings", api.key, body.encode(), headers)


def half_hours(first_day: int, count: int) -> list[datetime]:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return [midnight + timedelta(days=first_day) + HALF_HOUR * n for n in range(count)]


def measure(api: Api, name: str, raw: list[bytes], clients: int, settle: "Sink | None" = None) -> Result:
    """Runs the load; with a sink, CPU is counted until every webhook has arrived."""
    queue = iter(raw)
    before = cpu_seconds()
    result = asyncio.run(closed_loop(api.urls, clients, lambda: next(queue, None)))
    took = result.seconds
    if settle is not None:
        took = settle.wait(result.statuses[201], result.seconds)
    spent = spent_between(before, cpu_seconds())
    each = {part: seconds / len(raw) * 1000 for part, seconds in spent.items() if seconds}
    print(f"{name}: {result}")
    if settle is not None:
        print(f"  all webhooks received after {took:.1f} s: {result.statuses[201] / took:,.0f}/s")
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in sorted(each.items(), key=lambda pair: -pair[1]))
    print(f"  CPU-ms a request: {sum(each.values()):.2f} ({parts})")
    return result


class Sink:
    """The receiver of the webhooks, a process of its own that is not part of the stack."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HERE / "_sink.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"

    def reset(self) -> None:
        httpx.get(f"{self.url}/reset")

    def wait(self, count: int, spent: float) -> float:
        """Waits until so many have arrived; gives the seconds since the load began, which has run for `spent`."""
        began = time.perf_counter()
        while int(httpx.get(f"{self.url}/count").text) < count:
            if time.perf_counter() - began > SETTLE:
                raise SystemExit(f"of {count} webhooks {httpx.get(f'{self.url}/count').text} came in {SETTLE:.0f} s")
            threading.Event().wait(0.05)
        return spent + time.perf_counter() - began

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(5)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--requests", type=int, default=8_000)
    flags.add_argument("--clients", type=int, default=32)
    flags.add_argument("--hosts", type=int, default=500)
    flags.add_argument("--webhook", action="store_true", help="one webhook on each booking")
    flags.add_argument("--refusals", action="store_true", help="everybody wants the same 20 starts of one host")
    args = flags.parse_args()
    api = Api()
    print(machine())
    if args.refusals:
        (kind,) = event_types(api, 1)
        wanted = half_hours(2, 20)
        raw = [one for _ in range(args.requests // 20) for one in requests(api, [kind], wanted)]
        result = measure(api, "contended day", raw, args.clients)
        raise SystemExit(0 if result.statuses[201] == 20 and set(result.statuses) == {201, 409} else 1)
    kinds = event_types(api, args.hosts)
    sink = Sink() if args.webhook else None
    made = []
    if sink is not None:
        hook = api.post("/webhooks", {"url": f"{sink.url}/hook", "events": ["booking.confirmed"]})
        made.append(hook["id"])
    try:
        for day, name, count in ((2, "warm-up", 1000), (3, "measured", args.requests)):
            starts = half_hours(day, -(-count // args.hosts))
            raw = list(requests(api, kinds, starts))[:count]
            if sink is not None:
                sink.reset()
            result = measure(api, name, raw, args.clients, sink)
            if set(result.statuses) != {201}:
                raise SystemExit(f"{name}: not all were booked")
    finally:
        for hook_id in made:
            api.http.delete(f"/api/v1/webhooks/{hook_id}")
        if sink is not None:
            sink.close()


if __name__ == "__main__":
    main()
