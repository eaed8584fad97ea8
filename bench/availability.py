"""GET availability through the gateway: 32 clients, one host, 7 days, 30-minute slots, no 304. Goal 1,500/s, p99 60 ms.

make up && .venv/bin/python bench/availability.py

Four times: one question over and over, which measures the way there and back with an answer that is kept; the same by one who
has the answer; questions each asked once, over many hosts, weeks and zones; and those while bookings of the same hosts come in, each of which takes away
what is remembered of its host.
"""

import argparse
import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import islice, product, repeat
from typing import Any

from _load import Result, closed_loop, request
from _machine import machine
from _stack import Api, cpu_seconds, spent_between

ZONES = ("Europe/Madrid", "America/New_York", "Asia/Kolkata", "Australia/Sydney", "America/Sao_Paulo", "UTC",
         "Asia/Tokyo", "Africa/Cairo", "Europe/London", "America/Los_Angeles")  # fmt: skip
OFFICE = {
    "name": "Office",
    "timezone": "Europe/Madrid",
    "weekly": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "09:00", "end": "17:00"}],
}
WEEKS_DAYS = 40


def starts_of(api: Api, kind: str, first: date, days: int) -> list[str]:
    week = api.http.get(f"/api/v1/event-types/{kind}/availability?start={first}&end={first + timedelta(days=days - 1)}")
    return [slot["start_at"] for day in week.json()["days"] for slot in day["slots"]]


def booking(kind: str, start: str) -> dict[str, Any]:
    return {"event_type_id": kind, "start_at": start, "booker_name": "Ada", "booker_email": "ada@example.test"}


def made(api: Api, first: date, bookings: int) -> str:
    """An event type with so many bookings in its first week."""
    kind = str(api.event_type(OFFICE)["id"])
    starts = starts_of(api, kind, first, 7)
    for start in starts[:: max(1, len(starts) // bookings)][:bookings]:
        api.post("/bookings", booking(kind, start))
    return kind


def asking(api: Api, kind: str, first: date, zone: str) -> bytes:
    path = f"{api.url}/api/v1/event-types/{kind}/availability?start={first}&end={first + timedelta(days=6)}"
    return request("GET", f"{path}&timezone={zone}", api.key)


def asked_by(raw: bytes) -> str:
    """The path of a request."""
    return raw.split(b" ", 2)[1].decode()


def booked(api: Api, kinds: list[str], first: date) -> Iterator[bytes]:
    """Bookings of the weeks that are asked about, host by host."""
    free = [starts_of(api, kind, first + timedelta(days=7), 28)[::2] for kind in kinds]
    for starts in zip(*free, strict=False):
        for kind, start in zip(kinds, starts, strict=True):
            body = (
                f'{{"event_type_id":"{kind}","start_at":"{start}","booker_name":"Ada","booker_email":"a@example.test"}}'
            )
            headers = {"Idempotency-Key": os.urandom(12).hex()}
            yield request("POST", f"{api.url}/api/v1/bookings", api.key, body.encode(), headers)


async def both(api: Api, clients: int, asked: Iterator[bytes], placed: Iterator[bytes]) -> tuple[Result, Result]:
    """All clients but one ask, and that one books as long as they do."""
    over = False

    async def ask() -> Result:
        nonlocal over
        result = await closed_loop(api.urls, clients - 1, lambda: next(asked, None))
        over = True
        return result

    return await asyncio.gather(ask(), closed_loop(api.urls, 1, lambda: None if over else next(placed, None)))


def report(name: str, result: Result, spent: dict[str, float]) -> None:
    requests = len(result.latencies)
    each = {part: seconds / requests * 1000 for part, seconds in spent.items() if seconds / requests > 0.000_005}
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in sorted(each.items(), key=lambda pair: -pair[1]))
    print(f"{name:34} {result}\n{'':34} CPU-ms a request: {parts}", flush=True)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--requests", type=int, default=9_000)
    flags.add_argument("--clients", type=int, default=32)
    flags.add_argument("--hosts", type=int, default=32)
    flags.add_argument("--bookings", type=int, default=20, help="how many bookings lie in a host's first week")
    args = flags.parse_args()
    api = Api()
    first = datetime.now(UTC).date() + timedelta(days=1)
    with ThreadPoolExecutor(8) as pool:
        kinds = list(pool.map(lambda _: made(api, first, args.bookings), range(args.hosts)))
    # Neighbours in the load differ in everything.
    every = product(range(WEEKS_DAYS), ZONES, kinds)
    different = [asking(api, kind, first + timedelta(days=days), zone) for days, zone, kind in every]
    same = asking(api, kinds[0], first, ZONES[0])
    print(machine())

    def measured(name: str, questions: Iterator[bytes]) -> None:
        before = cpu_seconds()
        result = asyncio.run(closed_loop(api.urls, args.clients, lambda: next(questions, None)))
        report(name, result, spent_between(before, cpu_seconds()))

    warm = repeat(same, 500)
    asyncio.run(closed_loop(api.urls, args.clients, lambda: next(warm, None)))
    measured("one question", repeat(same, args.requests))
    etag = api.http.get(asked_by(same)).headers["etag"]
    held = request("GET", f"{api.url}{asked_by(same)}", api.key, headers={"If-None-Match": etag})
    measured("one question, 304", repeat(held, args.requests))
    half = min(args.requests, len(different) // 2)
    measured("different questions", iter(different[:half]))
    placed = booked(api, kinds, first)
    before = cpu_seconds()
    asked, places = asyncio.run(both(api, args.clients, islice(different, half, 2 * half), placed))
    report("different questions, with bookings", asked, spent_between(before, cpu_seconds()))
    print(f"{'  the bookings':34} {places}")


if __name__ == "__main__":
    main()
