"""The operations port: /health/live, /health/ready and /metrics, on an event loop of its own in a thread.

A main loop that is busy or stuck therefore still answers: live tells whether that loop has beaten lately, ready whether
every dependency is there and the process is not draining. Nothing here asks the main loop for anything.
"""

import asyncio
import threading
import time
from typing import Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

STUCK_SECONDS: Final = 10.0  # a main loop that has not run for so long is as good as dead
_READY: Final = Gauge("kalends_ready", "1 while the process is ready for work.")
_LAG: Final = Gauge("kalends_loop_lag_seconds", "How late the main loop's last beat was.")


class Health:
    """What readiness is judged by. Written by the main loop, read by the operations thread; each write is one assignment."""

    def __init__(self) -> None:
        self._problems: dict[str, str] = {"start": "starting"}
        self._beat = time.monotonic()
        self.draining = False

    def set(self, name: str, problem: str | None) -> None:
        """Says what is wrong with a dependency, or, by None, that nothing is."""
        problems = {key: value for key, value in self._problems.items() if key != name}
        self._problems = problems if problem is None else problems | {name: problem}

    def problems(self) -> dict[str, str]:
        return self._problems | ({"drain": "draining"} if self.draining else {})

    @property
    def ready(self) -> bool:
        return not self.problems()

    @property
    def live(self) -> bool:
        return time.monotonic() - self._beat < STUCK_SECONDS

    async def beat(self, every: float = 0.5) -> None:
        """Beats for ever, on the main loop."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(every)
            _LAG.set(max(0.0, time.monotonic() - self._beat - every))


class OpsServer:
    """Serves one process's health and metrics; `address` is host:port once started."""

    def __init__(self, health: Health, host: str = "127.0.0.1", port: int = 0) -> None:
        self._health, self._host, self._port = health, host, port
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="ops", daemon=True)
        self.address = ""

    def start(self) -> None:
        """Starts to serve.

        Raises:
            OSError: the port is taken.
        """
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            server = self._loop.run_until_complete(asyncio.start_server(self._serve, self._host, self._port))
        except OSError as error:
            self._error = error
            self._started.set()
            return
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        self._started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection; a probe opens a new one each time anyway."""
        try:
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._answer(head.split(b" ", 2)[:2])
                writer.write(
                    b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
                    % (status.encode(), kind.encode(), len(body), body)
                )
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # a prober that went away has nobody to be told
        finally:
            writer.close()

    def _answer(self, request: list[bytes]) -> tuple[str, str, bytes]:
        if request[0] not in {b"GET", b"HEAD"}:
            return "405 Method Not Allowed", "text/plain", b""
        path = request[1].split(b"?")[0] if len(request) > 1 else b""
        if path == b"/metrics":
            _READY.set(self._health.ready)
            return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
        if path == b"/health/live":
            return _verdict(live=self._health.live, problems={})
        if path == b"/health/ready":
            return _verdict(live=self._health.live and self._health.ready, problems=self._health.problems())
        return "404 Not Found", "text/plain", b""


def _verdict(*, live: bool, problems: dict[str, str]) -> tuple[str, str, bytes]:
    return (
        "200 OK" if live else "503 Service Unavailable",
        "application/json",
        msgspec.json.encode({"ok": live, "problems": problems}),
    )
