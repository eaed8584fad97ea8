"""GET /changes as server-sent events, held open by many at once: what a stream costs the gateway of memory, what all of them
cost at rest of CPU, and how long after a booking's answer its event has come to the first, the middle and the last of them.
A tenth of the streams never read what they are sent.

make up && .venv/bin/python bench/streams.py
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from _machine import machine
from _stack import Api, cpu_seconds, spent_between, unit

from kalends_cli.memory import pss
from kalends_shared.service import allow_connections


class Reader(asyncio.Protocol):
    """One stream; `came` is when the text that is looked for did. One that is `deaf` takes nothing more once it is open."""

    def __init__(self, request: bytes, *, deaf: bool) -> None:
        self._request, self.deaf = request, deaf
        self._head = self._tail = b""
        self.opened = asyncio.get_running_loop().create_future()
        self.wanted = b"\0"
        self.came: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        seen = self._tail + data
        self._head = self._head or data[:12]
        if not self.opened.done() and b"retry:" in seen:
            self.opened.set_result(self._head == b"HTTP/1.1 200")
            if self.deaf:
                self._transport.pause_reading()
        if self.wanted in seen and not self.came.done():
            self.came.set_result(time.perf_counter())
        self._tail = seen[-200:]

    def connection_lost(self, _: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_result(False)

    def want(self, text: bytes) -> None:
        self.wanted, self.came = text, asyncio.get_running_loop().create_future()

    def close(self) -> None:
        self._transport.abort()


async def opened(api: Api, count: int) -> list[Reader]:
    parts = urlsplit(api.url)
    head = f"GET /api/v1/changes?after=latest HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {api.key}\r\n"
    request = (head + "Accept: text/event-stream\r\n\r\n").encode()
    readers: list[Reader] = []
    for number in range(count):
        _, reader = await asyncio.get_running_loop().create_connection(
            lambda number=number: Reader(request, deaf=number % 10 == 9), parts.hostname, parts.port
        )
        readers.append(reader)
        if number % 50 == 49:
            await asyncio.gather(*(one.opened for one in readers))
    if not all(await asyncio.gather(*(one.opened for one in readers))):
        raise SystemExit("some streams were refused")
    return readers


async def latencies(api: Api, readers: list[Reader], bookings: int) -> list[tuple[float, float, float]]:
    """(first, middle, last) of the streams that read, in milliseconds, for each booking."""
    kind = api.event_type(booking_window={"rolling_days": 700})
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=2)
    listening = [one for one in readers if not one.deaf]
    found = []
    for number in range(bookings):
        name = f"bench-{os.urandom(8).hex()}"
        for one in listening:
            one.want(f'"booker_name":"{name}"'.encode())
        body = {
            "event_type_id": kind["id"],
            "start_at": (start + timedelta(minutes=30 * number)).isoformat(),
            "booker_name": name,
            "booker_email": "ada@example.test",
        }
        await asyncio.to_thread(api.post, "/bookings", body)
        answered = time.perf_counter()
        async with asyncio.timeout(60):
            came = sorted([await one.came for one in listening])
        found.append(tuple(1000 * (at - answered) for at in (came[0], came[len(came) // 2], came[-1])))
        await asyncio.sleep(0.3)
    return found  # type: ignore[return-value]


def gateway_memory() -> float:
    return (pss(unit("gateway")["pid"]) or 0) / 1e6


async def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--streams", type=int, default=1000)
    flags.add_argument("--rest", type=float, default=30, help="seconds at rest over which CPU is counted")
    flags.add_argument("--bookings", type=int, default=20)
    args = flags.parse_args()
    print(machine())
    allow_connections()
    api = Api()
    await asyncio.to_thread(api.event_type)
    before = gateway_memory()
    readers = await opened(api, args.streams)
    await asyncio.sleep(2)
    held = gateway_memory()
    print(
        f"{args.streams} streams: gateway {before:.0f} MB, then {held:.0f} MB, "
        f"{1000 * (held - before) / args.streams:.0f} KB a stream"
    )
    started, spent = time.perf_counter(), cpu_seconds()
    await asyncio.sleep(args.rest)
    seconds = time.perf_counter() - started
    spending = spent_between(spent, cpu_seconds())
    print("at rest, CPU of a core: " + ", ".join(f"{name} {100 * s / seconds:.1f} %" for name, s in spending.items()))
    spent = cpu_seconds()
    came = await latencies(api, readers, args.bookings)
    spending = spent_between(spent, cpu_seconds())
    for name, column in zip(("first", "middle", "last"), zip(*came, strict=True), strict=True):
        print(f"answer to the {name} stream: median {statistics.median(column):.0f} ms, most {max(column):.0f} ms")
    print("CPU-ms a booking: " + ", ".join(f"{name} {1000 * s / len(came):.0f}" for name, s in spending.items()))
    print(f"gateway afterwards {gateway_memory():.0f} MB")
    for one in readers:
        one.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
