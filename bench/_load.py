"""A load generator that costs little beside what it measures: raw HTTP/1.1 over kept-alive sockets, closed loop."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Result:
    """Latencies in seconds, by request, in the order they ended."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """In milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        ms = "  ".join(f"p{int(share * 100)} {self.percentile(share):.1f} ms" for share in (0.5, 0.95, 0.99))
        return f"{self.rate:,.0f}/s  {ms}  ({statuses})"


def request(method: str, url: str, key: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of one request."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {parts.netloc}", f"Authorization: Bearer {key}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    if status in {204, 304}:
        return status, b""
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        size = int(lower[at + 15 : lower.index(b"\r\n", at)])
        return status, await reader.readexactly(size) if size else b""
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size + 2)
    await reader.readexactly(2)
    return status, body


async def closed_loop(
    urls: list[str], clients: int, next_request: Callable[[], bytes | None], *, keep_bodies: bool = False
) -> Result:
    """Runs `clients` connections, each sending its next request when the last was answered, until there is none."""
    result = Result()

    async def client(number: int) -> None:
        parts = urlsplit(urls[number % len(urls)])
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**22)
        while (raw := next_request()) is not None:
            began = time.perf_counter()
            writer.write(raw)
            status, body = await _read(reader)
            result.latencies.append(time.perf_counter() - began)
            result.statuses[status] += 1
            if keep_bodies:
                result.bodies.append(body)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client(n) for n in range(clients)))
    result.seconds = time.perf_counter() - began
    return result
