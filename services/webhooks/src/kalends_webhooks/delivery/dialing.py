"""Opening connections: to checked addresses alone, directly or through the operator's proxy.

A proxy is told an address that was resolved and checked here, never a name, so it cannot be made to lead elsewhere; and
TLS runs through it to the receiver, held to the receiver's name.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import TypeVar, cast
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from kalends_shared.net import Policy
from kalends_webhooks.delivery.reader import ProtocolError, ResponseReader


class Origin(Struct, frozen=True):
    """Whom a connection leads to."""

    tls: bool
    host: str
    port: int

    @property
    def certified(self) -> str | None:
        """The name that a certificate must have: SNI and certificates know no dot at the end (RFC 6066 section 3)."""
        return self.host.rstrip(".") if self.tls else None


class ProxyError(Exception):
    """The proxy does not answer, or refuses."""


class Proxy(Struct, frozen=True):
    """Where a proxy listens, and its Proxy-Authorization, if it wants one."""

    host: str
    port: int
    authorization: str | None = None

    @classmethod
    def parse(cls, url: str) -> "Proxy":
        """Reads `http://[user:password@]host:port`.

        Raises:
            ValueError: the text has another form.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in {"", "/"}:
            raise ValueError("a proxy is http://host:port")
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + b64encode(pair.encode()).decode()
        return cls(parts.hostname, parts.port or 3128, authorization)


class Connection(asyncio.Protocol):
    """What is dialled: a protocol that can be given another transport."""

    transport: asyncio.Transport | None = None


C = TypeVar("C", bound=Connection)


class Dialer:
    def __init__(self, policy: Policy, tls: ssl.SSLContext | None = None, proxy: Proxy | None = None) -> None:
        self._policy, self._proxy = policy, proxy
        self._tls = tls or ssl.create_default_context()

    async def dial(self, origin: Origin, factory: Callable[[], C], seconds: float) -> C:
        """Connects to the first allowed address that takes it; the certificate is held to the name.

        Each address has its share of the seconds, so that one that is silent leaves some to the others.

        Raises:
            AddressNotAllowedError, ProxyError, OSError: TimeoutError is one.
        """
        problem: Exception | None = None
        addresses = await self._policy.resolve(origin.host, origin.port)
        for address in addresses:
            try:
                async with asyncio.timeout(seconds / len(addresses)):
                    return await self._to(address, origin, factory)
            except (OSError, ProxyError) as error:
                problem = error
        raise problem or OSError(f"{origin.host} has no address")

    async def _to(self, address: str, origin: Origin, factory: Callable[[], C]) -> C:
        if self._proxy is not None:
            return await self._through(self._proxy, address, origin, factory)
        _, connection = await asyncio.get_running_loop().create_connection(
            factory,
            address,
            origin.port,
            ssl=self._tls if origin.tls else None,
            server_hostname=origin.certified,
        )
        return connection

    async def _through(self, proxy: Proxy, address: str, origin: Origin, factory: Callable[[], C]) -> C:
        loop = asyncio.get_running_loop()
        try:
            transport, tunnel = await loop.create_connection(_Tunnel, proxy.host, proxy.port)
        except OSError as error:
            raise ProxyError(str(error)) from error
        try:
            await tunnel.open(proxy, f"[{address}]:{origin.port}" if ":" in address else f"{address}:{origin.port}")
            connection = factory()
            if not origin.tls:
                transport.set_protocol(connection)
                connection.connection_made(transport)
                return connection
            secured = await loop.start_tls(transport, connection, self._tls, server_hostname=origin.certified)
            connection.transport = cast("asyncio.Transport", secured)
            return connection
        except BaseException:
            transport.abort()
            raise


class _Tunnel(asyncio.Protocol):
    """The proxy's answer to CONNECT."""

    def __init__(self) -> None:
        self._reader = ResponseReader()
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except ProtocolError as error:
            self._end(error)
        if self._reader.status is not None:
            self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError("the proxy has closed"))

    def _end(self, problem: Exception | None) -> None:
        if not self._answered.done():
            if problem is None:
                self._answered.set_result(None)
            else:
                self._answered.set_exception(problem)

    async def open(self, proxy: Proxy, target: str) -> None:
        """Asks for a tunnel to an address.

        Raises:
            ProxyError: there is none.
        """
        assert self._transport is not None
        head = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.authorization is not None:
            head.append(f"Proxy-Authorization: {proxy.authorization}")
        self._transport.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        try:
            await self._answered
        except (OSError, ProtocolError) as error:
            raise ProxyError(str(error)) from error
        if self._reader.status != 200:
            raise ProxyError(f"the proxy answers {self._reader.status}")
