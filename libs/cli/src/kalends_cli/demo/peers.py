"""The two parties that the demo stands in for: a calendar server (Radicale) and an integrator's webhook receiver."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import httpx
from standardwebhooks import Webhook

from kalends_shared.servers.ports import free_port

HOST_USER: Final = "grace"
PASSWORD: Final = "hopper"  # noqa: S105 (of a calendar server that lives as long as the demo)
START_SECONDS: Final = 60.0

# Grace's week: a stand-up every working day at half past nine, and lunch at one on the days that she is in.
CALENDAR: Final = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Kalends//Demo//EN
BEGIN:VEVENT
UID:stand-up@demo
DTSTAMP:20260101T000000Z
DTSTART;TZID=Europe/Madrid:{start}T093000
DTEND;TZID=Europe/Madrid:{start}T100000
RRULE:FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR
SUMMARY:Stand-up
END:VEVENT
BEGIN:VEVENT
UID:lunch@demo
DTSTAMP:20260101T000000Z
DTSTART;TZID=Europe/Madrid:{start}T130000
DTEND;TZID=Europe/Madrid:{start}T140000
RRULE:FREQ=DAILY
SUMMARY:Lunch
END:VEVENT
BEGIN:VEVENT
UID:reading@demo
DTSTAMP:20260101T000000Z
DTSTART;TZID=Europe/Madrid:{start}T110000
DTEND;TZID=Europe/Madrid:{start}T113000
RRULE:FREQ=DAILY
TRANSP:TRANSPARENT
SUMMARY:Reading (free)
END:VEVENT
END:VCALENDAR
"""


@dataclass
class CalendarServer:
    """A running Radicale with one calendar; `events` reads it as any other client would."""

    url: str
    http: httpx.Client

    def events(self) -> dict[str, str]:
        """Name of each item in the calendar -> its text."""
        listing = self.http.request("PROPFIND", self.url, headers={"Depth": "1"}, content=b"")
        listing.raise_for_status()
        whole = self.http.get(self.url)
        whole.raise_for_status()
        blocks = whole.text.replace("\r\n ", "").replace("\r\n", "\n").split("BEGIN:VEVENT\n")[1:]
        items = [block.partition("END:VEVENT")[0] for block in blocks]
        return {_line(item, "UID"): item for item in items}


def _line(item: str, name: str) -> str:
    for line in item.splitlines():
        head, _, value = line.partition(":")
        if head.partition(";")[0] == name:
            return value
    return ""


def line(item: str, name: str) -> str:
    """The value of a property of a calendar item."""
    return _line(item, name)


@contextlib.contextmanager
def calendar_server(folder: Path, first_day: date) -> Iterator[CalendarServer]:
    """Runs Radicale on a free port of loopback, holding Grace's recurring events from `first_day`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users").write_text(f"{HOST_USER}:{PASSWORD}\n")
    port = free_port()
    command = [
        *(sys.executable, "-m", "radicale", "--server-hosts", f"127.0.0.1:{port}", "--auth-type", "htpasswd"),
        *("--auth-htpasswd-filename", str(folder / "users"), "--auth-htpasswd-encryption", "plain"),
        *("--auth-delay", "0", "--storage-filesystem-folder", str(folder / "collections"), "--logging-level", "error"),
    ]
    with (folder / "radicale.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"PYTHONWARNINGS": "ignore"})
    url = f"http://127.0.0.1:{port}/{HOST_USER}/office/"
    try:
        with httpx.Client(auth=(HOST_USER, PASSWORD), timeout=60) as http:
            _wait_for(http, url.removesuffix(f"{HOST_USER}/office/"))
            text = CALENDAR.format(start=f"{first_day:%Y%m%d}").replace("\n", "\r\n")
            http.put(url, content=text, headers={"Content-Type": "text/calendar"}).raise_for_status()
            yield CalendarServer(url, http)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(http: httpx.Client, url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            http.get(url)
            return
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.05)


@dataclass
class Received:
    """A delivery as it came in: headers in lower case, and the body whose signature held."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """An integrator's endpoint: keeps each delivery whose signature holds, counts those whose does not."""

    url: str = ""
    secret: str = ""
    got: list[Received] = field(default_factory=list)
    refused: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, headers: dict[str, str], body: bytes) -> bool:
        """Verifies as the Standard Webhooks library does, which nobody here wrote."""
        try:
            Webhook(self.secret).verify(body, headers)
            holds = True
        except Exception:  # noqa: BLE001 (the library raises several kinds; each means that it does not hold)
            holds = False
        with self.changed:
            if holds:
                self.got.append(Received(headers, body))
            else:
                self.refused += 1
            self.changed.notify_all()
        return holds

    def wait_for(self, event: str, seconds: float = 15) -> Received | None:
        """The first delivery of that event."""
        marker = f'"type":"{event}"'.encode()

        def look() -> Received | None:
            return next((one for one in self.got if marker in one.body), None)

        with self.changed:
            self.changed.wait_for(lambda: look() is not None, seconds)
            return look()


@contextlib.contextmanager
def webhook_receiver() -> Iterator[Receiver]:
    """Serves a Receiver on a free port of loopback."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            holds = receiver.take({k.lower(): v for k, v in self.headers.items()}, body)
            self.send_response(200 if holds else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet: the demo prints what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hooks"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
