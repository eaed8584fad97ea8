"""A receiver on loopback that keeps what it gets and answers as it is told."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import msgspec
from msgspec import Struct

Writer = asyncio.StreamWriter


class Got(Struct):
    at: float
    path: str
    headers: dict[str, str]
    raw: str
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


Answer = Callable[[Got], "tuple[int, dict[str, str], bytes] | Awaitable[None]"]


class Receiver:
    """`answer` gives (status, headers, body), after `delay` seconds; `script`, where it is set, writes the answer itself.

    `answering` is how many requests wait for their answer.
    """

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.connections = 0
        self.open = 0
        self.delay = 0.0
        self.answering = 0
        self.answer: Callable[[Got], tuple[int, dict[str, str], bytes]] = lambda _: (200, {}, b"ok")
        self.script: dict[str, Callable[[Writer], Awaitable[None]]] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, backlog=512)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str) -> list[Got]:
        return [one for one in self.got if one.path == path]

    def types(self, path: str = "/hook") -> list[str]:
        return [one.json["type"] for one in self.at(path)]

    async def wait(self, count: int, path: str = "/hook", seconds: float = 120) -> list[Got]:
        """What has come to a path, once there is so much of it."""
        async with asyncio.timeout(seconds):
            while len(self.at(path)) < count:  # noqa: ASYNC110 - it is a list that grows elsewhere
                await asyncio.sleep(0.01)
        return self.at(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while await self._one(reader, writer):
                continue
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # the other end has gone, or the test is over
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: Writer) -> bool:
        raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = raw.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        path = first.split(" ")[1]
        got = Got(time.time(), path, headers, raw, body)
        self.got.append(got)
        if path in self.script:
            await self.script[path](writer)
            return False
        self.answering += 1
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.answering -= 1
        status, extra, out = self.answer(got)
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Content-Length": str(len(out)), **extra}.items())
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + out)
        await writer.drain()
        return True
