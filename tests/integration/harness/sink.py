"""A webhook receiver on loopback: keeps every delivery, answers after a while if asked to."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass
class Sink:
    """`got` holds (path, headers in lower case, body); `open` counts requests that have no answer yet.

    One that `echoes` answers with the body that it was sent.
    """

    url: str = ""
    delay: float = 0.0
    echoes: bool = False
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    open: int = 0

    def bookings(self, event: str) -> Counter[str]:
        """Booking id -> how often that event of it came."""
        return Counter(body["data"]["booking"]["id"] for body in self.bodies() if body["type"] == event)

    def bodies(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(raw) for _, _, raw in self.got]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.open += 1
                try:
                    await asyncio.sleep(self.delay)
                    self.got.append((lines[0].split()[1], headers, body))
                    answer = body if self.echoes else b"ok"
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
                    await writer.drain()
                finally:
                    self.open -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the sender closed the connection, or died
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def sink(delay: float = 0.0) -> AsyncIterator[Sink]:
    one = Sink(delay=delay)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, backlog=256)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
