"""A receiver for storms: it costs little, and keeps of what it gets how often each delivery came."""

import asyncio
from collections import Counter, defaultdict
from typing import Self

BOOKING = b'"booking":{"id":"'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Sink:
    """`came` counts (path, id of the event); `events` has the ids that told of each booking.

    `answering` is how many requests wait for their answer, which each gets after `delay` seconds.
    """

    def __init__(self, delay: float = 0.02) -> None:
        self.delay = delay
        self.came: Counter[tuple[str, str]] = Counter()
        self.events: defaultdict[str, set[str]] = defaultdict(set)
        self.answering = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._port}{path}"

    def got(self, path: str, event: str, booking: str) -> None:
        self.came[path, event] += 1
        self.events[booking].add(event)


class _Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = b""
        self._answers: set[asyncio.TimerHandle] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        for answer in self._answers:
            answer.cancel()
        self._sink.answering -= len(self._answers)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            whole = end + 4 + int(headers["content-length"])
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            at = body.index(BOOKING) + len(BOOKING)
            self._sink.got(first.split(" ")[1], headers["webhook-id"], body[at : body.index(b'"', at)].decode())
            self._answer()

    def _answer(self) -> None:
        def write() -> None:
            self._answers.discard(later)
            self._sink.answering -= 1
            self._transport.write(OK)  # type: ignore[attr-defined]  # a socket's

        later = asyncio.get_running_loop().call_later(self._sink.delay, write)
        self._answers.add(later)
        self._sink.answering += 1
