"""A receiver of webhooks that costs little, as a process of its own: `python bench/_sink.py`.

The first line it prints is its port. It keeps when each booking's body came (the machine's monotonic clock), and says it
by `GET /`: one line a receipt, `<booking id> <webhook id> <seconds>`; `GET /count` how many there are, `GET /reset`
forgets them. What is posted to /hang is never answered, what is posted to /flood by a body of a gigabyte, what is posted
to /drip by one that comes a byte at a time.
"""

import asyncio
import sys
import time

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SIZE = 1 << 30
MARK = b'"booking":{"id":"'
got: list[tuple[bytes, bytes, float]] = []


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
            elif path == b"/count":
                out = b"%d" % len(got)
            else:
                out = b"\n".join(b"%b %b %.6f" % row for row in got)
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(out) + out)
            return
        if path.startswith(b"/hang"):
            return
        if path.startswith((b"/flood", b"/drip")):
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            chunk, pause = (b"x" * 262_144, 0.0) if path.startswith(b"/flood") else (b".", 0.05)
            self._stream(chunk, pause, SIZE)
            return
        at, name = body.find(MARK), lower.find(b"webhook-id: ")
        got.append((body[at + 17 : at + 47], head[name + 12 :].split(b"\r\n", 1)[0], time.monotonic()))
        self.transport.write(OK)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def _stream(self, chunk: bytes, pause: float, left: int) -> None:
        assert self.transport is not None
        if self.transport.is_closing() or left <= 0:
            return
        if not self.paused:
            self.transport.write(chunk)
            left -= len(chunk)
        asyncio.get_running_loop().call_later(pause or 0.001, self._stream, chunk, pause, left)


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
