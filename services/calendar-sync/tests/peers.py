"""Real calendar servers as subprocesses, and a proxy that spoils their answers."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Self

import httpx

from kalends_shared.servers.ports import free_port

USER, PASSWORD = "ana", "a pass:word"
START_SECONDS = 120.0


class CalendarServer:
    """One empty calendar of its own at `url`, on a running server; `http` is another client of it."""

    def __init__(self, home: str, http: httpx.Client) -> None:
        self.home, self.http = home, http
        self.url = self.another()

    def another(self) -> str:
        """Makes another empty calendar; returns its URL."""
        url = f"{self.home}{secrets.token_hex(8)}/"
        self.http.request("MKCALENDAR", url).raise_for_status()
        return url

    @property
    def root(self) -> str:
        return str(httpx.URL(self.url).join("/"))

    def put(self, uid: str, event: str, name: str | None = None, extra: str = "") -> None:
        self.http.put(self.url + (name or uid) + ".ics", content=calendar(uid, event, extra)).raise_for_status()

    def delete(self, uid: str) -> None:
        self.http.delete(self.url + uid + ".ics").raise_for_status()

    def items(self) -> dict[str, str]:
        """The texts of all items, unfolded, by href."""
        body = '<propfind xmlns="DAV:"><prop><getetag/><resourcetype/></prop></propfind>'
        listing = self.http.request(
            "PROPFIND", self.url, headers={"Depth": "1", "Content-Type": "text/xml"}, content=body
        )
        listing.raise_for_status()
        from lxml import etree

        hrefs = [h.text for h in etree.fromstring(listing.content).iter("{DAV:}href")]
        own = httpx.URL(self.url).path
        out = {}
        for href in hrefs:
            if href and href.rstrip("/") != own.rstrip("/"):
                answer = self.http.get(str(httpx.URL(self.url).join(href)))
                if answer.status_code == 200:
                    out[href] = answer.text.replace("\r\n ", "").replace("\r\n", "\n")
        return out


def calendar(uid: str, event: str, extra: str = "") -> str:
    text = (
        f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:test\nBEGIN:VEVENT\nUID:{uid}\nDTSTAMP:20260101T000000Z\n"
        f"{event.strip()}\nEND:VEVENT\n{extra}END:VCALENDAR\n"
    )
    return text.replace("\n", "\r\n")


SERVERS = ("radicale", "xandikos")


@contextmanager
def serve(name: str, folder: Path) -> Iterator[Callable[[], CalendarServer]]:
    """Runs a server; what is given makes a calendar on it."""
    port = free_port()
    if name == "radicale":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "users").write_text(f"{USER}:{PASSWORD}\n")
        command = [
            *(sys.executable, "-m", "radicale", "--config", "", "--server-hosts", f"127.0.0.1:{port}"),
            *("--auth-type", "htpasswd", "--auth-htpasswd-filename", str(folder / "users")),
            *("--auth-htpasswd-encryption", "plain", "--auth-delay", "0"),
            *("--storage-filesystem-folder", str(folder / "collections"), "--logging-level", "error"),
        ]
        path = f"/{USER}/"
    else:
        command = [
            *(sys.executable, "-m", "xandikos", "serve", "-l", "127.0.0.1", "-p", str(port), "-d", str(folder)),
            *("--defaults", "--current-user-principal", "/host/"),
        ]
        path = "/host/calendars/"
    root = f"http://127.0.0.1:{port}"
    with running(command, folder.parent / f"{name}.log"), httpx.Client(auth=(USER, PASSWORD), timeout=60) as http:
        wait_for(lambda: http.get(root + "/").status_code < 500)
        yield lambda: CalendarServer(root + path, http)


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(holds: Callable[[], bool]) -> None:
    deadline, pause = monotonic() + START_SECONDS, Event()
    while True:
        with suppress(httpx.TransportError):
            if holds():
                return
        assert monotonic() < deadline, "the server did not start"
        pause.wait(0.05)


class Proxy:
    """Stands before a server on one port and does to each exchange what `spoil` says.

    `spoil(request head)` gives None to pass it on, `drop` to pass the request on and cut the connection instead of
    answering, `refuse` to cut it at once, or bytes, which are answered instead. One request a connection.
    """

    def __init__(self, url: str) -> None:
        self._target = httpx.URL(url)
        self.spoil: Callable[[str], str | bytes | None] = lambda _: None
        self.seen: list[str] = []
        self.hold: str | None = None  # the method whose answers are kept back, for ever
        self.holding = asyncio.Event()
        self.open = 0  # connections
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = str(self._target.copy_with(port=port))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-length:")), 0
            )
            body = await reader.readexactly(length)
            line = head.split("\r\n", 1)[0]
            self.seen.append(line)
            what = self.spoil(head)
            if isinstance(what, bytes):
                writer.write(what)
                await writer.drain()
            elif what != "refuse":
                answer = await self._ask(head, body)
                if self.hold is not None and line.startswith(self.hold):
                    self.holding.set()
                    await reader.read()
                    return
                if what != "drop":
                    writer.write(answer)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away, as clients do
        finally:
            self.open -= 1
            writer.close()

    async def _ask(self, head: str, body: bytes) -> bytes:
        lines = [x for x in head.rstrip("\r\n").split("\r\n") if not x.lower().startswith("connection:")]
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer


def answered(status: str, body: str = "", headers: str = "") -> bytes:
    """A raw HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body.encode())}\r\nConnection: close\r\n{headers}\r\n{body}".encode()
