"""Granian's server inside this process's own event loop."""

import asyncio
import logging
import socket
from typing import Any, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from litestar.types import ASGIApp

BACKLOG: Final = 1024
BACKPRESSURE: Final = 4096  # requests that the application is given at once; streams of changes are among them
HEADER_SECONDS: Final = 15


class HttpServer:
    """Serves the application on one address."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._app, self._host = app, host
        # Granian binds with SO_REUSEPORT: so a port that is held by a socket bound the same way is free for it alone.
        self._held = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind((host, port))
        self._port: int = self._held.getsockname()[1]

    async def ready(self, seconds: float = 10.0) -> str:
        """Waits until it takes connections; gives its address.

        Raises:
            TimeoutError: it does not come up.
        """
        async with asyncio.timeout(seconds):
            while True:
                try:
                    _, writer = await asyncio.open_connection(self._host, self._port)
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                return f"{self._host}:{self._port}"

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop`, then ends what is in flight and closes."""
        logging.getLogger("_granian").setLevel(logging.WARNING)
        server = Server(
            self._app,
            address=self._host,
            port=self._port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=BACKLOG,
            backpressure=BACKPRESSURE,
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_SECONDS * 1000, keep_alive=True, pipeline_flush=True
            ),
            log_enabled=False,
            log_level=LogLevels.warning,
        )
        serving = asyncio.ensure_future(_whole(server.serve()))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            server.stop()  # type: ignore[no-untyped-call]  # Granian leaves it out
            await serving
        finally:
            stopping.cancel()
            self._held.close()


async def _whole(serving: Any) -> None:
    await serving
