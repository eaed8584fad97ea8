"""A small HTTP/1.1 client for POSTs: pooled connections to checked addresses, bounded responses, nothing followed.

It stands in for httpx, which at our rates would take most of a worker's time (docs/adr, bench/webhooks.py): a delivery
is one write of bytes that are known beforehand, and of the answer a status, a few headers and a short head matter.
"""

import asyncio
import socket
import ssl
from collections import defaultdict, deque
from typing import Final, cast
from urllib.parse import urlsplit

from msgspec import Struct

from kalends_shared.net import AddressNotAllowedError
from kalends_webhooks.delivery.dialing import Connection, Dialer, Origin, ProxyError
from kalends_webhooks.delivery.reader import ProtocolError, ResponseReader

IDLE_SECONDS: Final = 4.0  # below the five after which many servers close a quiet connection
AGE_SECONDS: Final = 300.0  # then a name is resolved, and its address checked, anew
IDLE_CONNECTIONS: Final = 512


class Failed(Exception):  # noqa: N818  # it is an outcome, told in the log of the delivery
    """No status came. `name` is what the log of a delivery says: `timeout`, `address_not_allowed`, `connection_failed` ..."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Response(Struct, frozen=True):
    """`head` is the beginning of the body, at most 16 KiB; headers' names are in lower case."""

    status: int
    headers: dict[str, str]
    head: bytes


class Url(Struct, frozen=True):
    """A URL in the parts that a request is made of: `authority` is the Host header, `target` the request line's."""

    origin: Origin
    authority: str
    target: str


def parse_url(url: str) -> Url:
    """Takes apart a URL that the policy has checked; IDNA names go out in their ASCII form."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    tls = parts.scheme == "https"
    default = 443 if tls else 80
    shown = f"[{host}]" if ":" in host else host
    target = _quoted((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    port = parts.port or default
    return Url(Origin(tls, host, port), shown if port == default else f"{shown}:{port}", target)


def _quoted(target: str) -> str:
    """Characters that may not stand in a request line, as their UTF-8 in percent form."""
    return "".join(c if "!" <= c <= "~" else "".join(f"%{byte:02X}" for byte in c.encode()) for c in target)


class _Connection(Connection):
    """One connection, which carries one request at a time."""

    def __init__(self) -> None:
        self.reader = ResponseReader()
        self.closed = False
        self.used = 0
        self.born = self.idle_since = asyncio.get_running_loop().time()
        self._waiter: asyncio.Future[None] | None = None
        self._problem: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none of asyncio's classes

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()  # bytes that nobody asked for: not a connection to go on with
            return
        try:
            self.reader.feed(data)
        except ProtocolError as problem:
            self._end(problem)
            return
        if self.reader.done:
            self._end(None)

    def eof_received(self) -> bool:
        try:
            if not self.reader.begun:
                raise ConnectionResetError("closed without an answer")
            self.reader.eof()
        except (ProtocolError, OSError) as problem:
            self._end(problem)
        else:
            self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._waiter is not None:
            self.eof_received() if exc is None else self._end(exc)

    def _end(self, problem: Exception | None) -> None:
        """Ends the request under way, once; what comes after it, as the connection's own end does, changes nothing."""
        if self._waiter is not None and not self._waiter.done():
            self._problem = problem
            self._waiter.set_result(None)
        if problem is not None or not self.reader.reusable:
            self.abort()

    async def send(self, request: bytes) -> None:
        """Writes a request and waits until `reader` is done.

        Raises:
            ProtocolError, OSError: there is no whole response.
        """
        assert self.transport is not None
        self.used += 1
        self.reader = ResponseReader()
        self._problem = None
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._problem is not None:
            raise self._problem

    def abort(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()


class Client:
    """Posts to whatever may be dialled, and keeps connections for the next post to the same origin."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._idle: defaultdict[Origin, deque[_Connection]] = defaultdict(deque)
        self._idle_count = 0

    async def post(self, url: Url, request: bytes, seconds: float) -> Response:
        """Sends a whole request, head and body, and reads the answer, all within `seconds`.

        An answer whose status came in time counts, though its body was cut off.

        Raises:
            Failed: no status came.
        """
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    connection = self._kept(url.origin) or await self._dialer.dial(url.origin, _Connection, seconds)
                    try:
                        await connection.send(request)
                        break
                    except (ProtocolError, OSError):
                        # A kept connection may have been closed as we wrote; what is sent again carries the same id.
                        if connection.used == 1 or connection.reader.status is not None:
                            raise
        except TimeoutError as error:
            return self._partial(connection, "timeout", error)
        except AddressNotAllowedError as error:
            raise Failed("address_not_allowed") from error
        except ProxyError as error:
            raise Failed("proxy_failed") from error
        except ProtocolError as error:
            return self._partial(connection, "protocol_error", error)
        except ssl.SSLCertVerificationError as error:
            raise Failed("certificate_not_valid") from error
        except ssl.SSLError as error:
            raise Failed("tls_failed") from error
        except ConnectionRefusedError as error:
            raise Failed("connection_refused") from error
        except (socket.gaierror, UnicodeError) as error:
            raise Failed("name_not_resolved") from error
        except OSError as error:
            return self._partial(connection, "connection_failed", error)
        finally:
            if connection is not None and not (connection.reader.done and connection.reader.reusable):
                connection.abort()
        self._keep(url.origin, connection)
        return _response(connection.reader)

    @staticmethod
    def _partial(connection: _Connection | None, name: str, error: Exception) -> Response:
        if connection is not None and connection.reader.status is not None:
            return _response(connection.reader)
        raise Failed(name) from error

    def _kept(self, origin: Origin) -> _Connection | None:
        kept = self._idle.get(origin)
        now = asyncio.get_running_loop().time()
        while kept:
            connection = kept.pop()
            self._idle_count -= 1
            if not kept:
                del self._idle[origin]
            if not connection.closed and now - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    def _keep(self, origin: Origin, connection: _Connection) -> None:
        now = asyncio.get_running_loop().time()
        usable = connection.reader.reusable and not connection.closed and now - connection.born < AGE_SECONDS
        if not usable or self._idle_count >= IDLE_CONNECTIONS:
            connection.abort()
            return
        connection.idle_since = now
        self._idle[origin].append(connection)
        self._idle_count += 1

    def sweep(self) -> None:
        """Closes what has been idle too long; called now and then."""
        limit = asyncio.get_running_loop().time() - IDLE_SECONDS
        for origin in list(self._idle):
            kept = self._idle[origin]
            while kept and (kept[0].closed or kept[0].idle_since < limit):
                kept.popleft().abort()
                self._idle_count -= 1
            if not kept:
                del self._idle[origin]

    def close(self) -> None:
        for kept in self._idle.values():
            for connection in kept:
                connection.abort()
        self._idle.clear()
        self._idle_count = 0


def _response(reader: ResponseReader) -> Response:
    assert reader.status is not None
    return Response(reader.status, reader.headers, bytes(reader.body))
