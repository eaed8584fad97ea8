"""POST /bookings through the gateway: 32 clients, spread over 500 hosts, fsync on. Goal 400/s, p99 150 ms, 4 CPU-ms a booking
over all processes of the stack. With --webhook one webhook on each: goal 250/s. With --refusals everybody wants the same
20 starts: goal 300/s. With --replicas 1,2,4 on a fresh stack of its own for each, as a table.

make up && .venv/bin/python bench/bookings.py [--webhook] [--refusals]
.venv/bin/python bench/bookings.py --replicas 1,2,4
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import _stack
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


def measure(
    api: Api, name: str, raw: list[bytes], clients: int, settle: "Sink | None" = None
) -> tuple[Result, dict[str, float]]:
    """Runs the load; gives the CPU-ms a request of each part. With a sink it is counted until every webhook has arrived."""
    queue = iter(raw)
    before = cpu_seconds()
    result = asyncio.run(closed_loop(api.urls, clients, lambda: next(queue, None)))
    took = result.seconds
    if settle is not None:
        took = settle.wait(result.statuses[201], result.seconds)
    spent = spent_between(before, cpu_seconds())
    each: dict[str, float] = defaultdict(float)
    for unit, seconds in spent.items():
        each[unit.partition("-")[0]] += seconds / len(raw) * 1000  # all replicas of a service
    each = {part: ms for part, ms in each.items() if ms}
    print(f"{name}: {result}")
    if settle is not None:
        print(f"  all webhooks received after {took:.1f} s: {result.statuses[201] / took:,.0f}/s")
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in sorted(each.items(), key=lambda pair: -pair[1]))
    print(f"  CPU-ms a request: {sum(each.values()):.2f} ({parts})")
    return result, each


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


def refusals(api: Api, count: int, clients: int) -> bool:
    """Everybody wants the same 20 starts of one host; tells whether each was booked once."""
    (kind,) = event_types(api, 1)
    wanted = half_hours(2, 20)
    raw = [one for _ in range(count // 20) for one in requests(api, [kind], wanted)]
    result, _ = measure(api, "contended day", raw, clients)
    return result.statuses[201] == 20 and set(result.statuses) == {201, 409}


def spread(api: Api, count: int, clients: int, hosts: int, *, webhook: bool = False) -> tuple[Result, dict[str, float]]:
    """Bookings spread over as many hosts, after a warm-up."""
    kinds = event_types(api, hosts)
    sink = Sink() if webhook else None
    made = []
    if sink is not None:
        hook = api.post("/webhooks", {"url": f"{sink.url}/hook", "events": ["booking.confirmed"]})
        made.append(hook["id"])
    try:
        for day, name, number in ((2, "warm-up", min(1000, count)), (3, "measured", count)):
            starts = half_hours(day, -(-number // hosts))
            raw = list(requests(api, kinds, starts))[:number]
            if sink is not None:
                sink.reset()
            measured = measure(api, name, raw, clients, sink)
            if set(measured[0].statuses) != {201}:
                raise SystemExit(f"{name}: not all were booked")
    finally:
        for hook_id in made:
            api.http.delete(f"/api/v1/webhooks/{hook_id}")
        if sink is not None:
            sink.close()
    return measured


def over_replicas(counts: list[int], requests_: int, clients: int, hosts: int) -> None:
    """The same load on stacks of so many processes of every service, one after the other."""
    _stack.FOLDER = _stack.FOLDER / "replicas"
    rows = []
    for count in counts:
        kalends("up", "--replicas", str(count))
        try:
            result, each = spread(Api(), requests_, clients, hosts)
        finally:
            kalends("down")
            shutil.rmtree(_stack.FOLDER)
        postgres = each.get("postgres", 0.0)
        rows.append((count, result, sum(each.values()), postgres))
    print(
        f"\nreplicas   bookings/s    p50 ms    p99 ms   CPU-ms a booking (Postgres)    {clients} clients, {hosts} hosts"
    )
    for count, result, total, postgres in rows:
        p50, p99 = result.percentile(0.5), result.percentile(0.99)
        print(f"{count:8}   {result.rate:10,.0f}   {p50:7.1f}   {p99:7.1f}   {total:16.2f} ({postgres:.2f})")


def kalends(command: str, *arguments: str) -> None:
    data = ("--data-dir", str(_stack.FOLDER))
    subprocess.run([sys.executable, "-m", "kalends_cli", command, *data, *arguments], check=True)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--requests", type=int, default=8_000)
    flags.add_argument("--clients", type=int, default=32)
    flags.add_argument("--hosts", type=int, default=500)
    flags.add_argument("--webhook", action="store_true", help="one webhook on each booking")
    flags.add_argument("--refusals", action="store_true", help="everybody wants the same 20 starts of one host")
    flags.add_argument("--replicas", metavar="N,N", help="on fresh stacks of so many processes of every service")
    args = flags.parse_args()
    print(machine())
    if args.replicas:
        over_replicas([int(n) for n in args.replicas.split(",")], args.requests, args.clients, args.hosts)
    elif args.refusals:
        raise SystemExit(0 if refusals(Api(), args.requests, args.clients) else 1)
    else:
        spread(Api(), args.requests, args.clients, args.hosts, webhook=args.webhook)


if __name__ == "__main__":
    main()
