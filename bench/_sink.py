"""A receiver of webhooks that costs little, as a process of its own: `python bench/_sink.py`.

The first line it prints is its port. It keeps when each booking's body came (the machine's monotonic clock), and says it
by `GET /`: one line a receipt, `<booking id> <webhook id> <seconds>`; `GET /count` how many there are, `GET /reset`
forgets them and lets go of what hangs. What is posted to /hang is never answered; others are answered without end:
/flood by a body of a gigabyte, /chunked by one of chunks, /bomb by a small one that unpacks to a gigabyte, /drip by one
that comes a byte at a time, /drip-head by headers that do.
"""

import asyncio
import functools
import gzip
import sys
import time

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SIZE = 1 << 30
MARK = b'"booking":{"id":"'
CHUNK = b"x" * 262_144
got: list[tuple[bytes, bytes, float]] = []
hung: list[asyncio.Transport] = []


@functools.cache
def bomb() -> bytes:
    """A gigabyte of zeros, packed."""
    packed = gzip.compress(bytes(1 << 26), 1)  # members one after the other are one file
    return packed * (SIZE >> 26)


@functools.cache
def endless() -> dict[bytes, tuple[bytes, bytes, float, int]]:
    """How a kind answers: its head, what is repeated after it, how many seconds apart, how often."""
    head = b"HTTP/1.1 200 OK\r\n"
    told = head + b"Content-Length: %d\r\n\r\n" % SIZE
    packed = head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb())
    return {
        b"flood": (told, CHUNK, 0.001, SIZE // len(CHUNK)),
        b"chunked": (head + b"Transfer-Encoding: chunked\r\n\r\n", b"40000\r\n" + CHUNK + b"\r\n", 0.001, 1 << 30),
        b"bomb": (packed, bomb(), 0.0, 1),
        b"drip": (told, b".", 0.05, SIZE),
        b"drip-head": (head, b"X: y\r\n", 0.05, SIZE),
    }


class Sink(asyncio.Protocol):
    def __init__(self) -> None:
        self.buffer = b""
        self.transport: asyncio.Transport | None = None
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a socket's

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self._answer(head, lower, body)

    def _answer(self, head: bytes, lower: bytes, body: bytes) -> None:
        assert self.transport is not None
        path = head.split(b" ", 2)[1]
        if head.startswith(b"GET"):
            out = b""
            if path == b"/reset":
                got.clear()
                while hung:
                    hung.pop().abort()
            elif path == b"/count":
                out = b"%d" % len(got)
            else:
                out = b"\n".join(b"%b %b %.6f" % row for row in got)
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(out) + out)
            return
        if path.startswith(b"/hang"):
            hung.append(self.transport)
            return
        if (kind := path.split(b"/")[1]) in endless():
            start, again, pause, times = endless()[kind]
            self.transport.write(start)
            self._repeat(again, pause, times)
            return
        at, name = body.find(MARK), lower.find(b"webhook-id: ")
        got.append((body[at + 17 : at + 47], head[name + 12 :].split(b"\r\n", 1)[0], time.monotonic()))
        self.transport.write(OK)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def _repeat(self, again: bytes, pause: float, times: int) -> None:
        assert self.transport is not None
        if self.transport.is_closing() or times <= 0:
            return
        if not self.paused:
            self.transport.write(again)
            times -= 1
        asyncio.get_running_loop().call_later(pause, self._repeat, again, pause, times)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # ends with whoever started it


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
