"""Where this installation may call out to: webhooks' receivers and calendars, whose addresses its users choose.

The check stands where it cannot be gone round, on the address that is dialled: a name is resolved once, its addresses
filtered, and one of those connected to. A URL is also judged as it is written, so that what can be known is refused
when it is configured. Nothing here follows a redirect or reads a proxy from the environment.
"""

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import httpcore
import httpx

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

RESOLVERS: Final = 256  # lookups at once
_CLOSED_V4: Final = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # the host that an Azure machine stands on, which gives out its configuration
    )
)  # fmt: skip
_OPEN_V6: Final = IPv6Network("2000::/3")  # all that is global unicast; what stands outside of it is closed
_CLOSED_V6: Final = tuple(IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "3fff::/20"))
_NAME: Final = re.compile(r"[a-z0-9._-]{1,254}")  # nothing that another reader of the URL might decode or split at
_FIRST_FREE_PORT: Final = 1024
_WEB_PORTS: Final = frozenset({80, 443})


class UrlNotAllowedError(Exception):
    """The URL may not be called; the text says why, for whoever configured it."""


class AddressNotAllowedError(Exception):
    """The name leads to no address that may be dialled."""


class Policy:
    """What may be called: public addresses by HTTPS, and what the operator allows besides."""

    def __init__(self, allow: Iterable[str] = (), *, allow_http: bool = False) -> None:
        """`allow` are networks (CIDR) that are dialled although they are not public.

        Raises:
            ValueError: one of them is no network.
        """
        self._allow: tuple[Network, ...] = tuple(ip_network(net) for net in allow)
        self._allow_http = allow_http
        self._turn = asyncio.Semaphore(RESOLVERS)
        self._lookups: dict[tuple[str, int], asyncio.Task[list[Any]]] = {}

    def allows(self, address: Address) -> bool:
        """Tells whether an address may be dialled; one that embeds an IPv4 address is judged by that."""
        inner = _embedded(address)
        if inner is None:
            return self._open(address)
        return self._open(inner) and (_wraps(address) or self._open(address))

    def _open(self, address: Address) -> bool:
        return _public(address) or any(address.version == net.version and address in net for net in self._allow)

    def check_url(self, url: str) -> None:
        """Judges a URL as it is written; a name's addresses are judged when it is dialled.

        Raises:
            UrlNotAllowedError: its scheme, credentials, port or address.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            # As it will be resolved: what looks like a name may be an address in letters of another script.
            host = host.encode("idna").decode("ascii") if host else host
        except ValueError as error:
            raise UrlNotAllowedError("is not a URL") from error
        if parts.scheme not in ({"https", "http"} if self._allow_http else {"https"}):
            raise UrlNotAllowedError("must begin with https://" + (" or http://" if self._allow_http else ""))
        if not host or any(c.isspace() or not c.isprintable() or c == "\\" for c in url):
            raise UrlNotAllowedError("is not a URL")
        if parts.username is not None or parts.password is not None:
            raise UrlNotAllowedError("must not hold credentials")
        if port is not None and port < _FIRST_FREE_PORT and port not in _WEB_PORTS:
            raise UrlNotAllowedError("must not name a port under 1024 other than 80 and 443")
        literal = _literal(host)
        if literal is None and not _NAME.fullmatch(host):
            raise UrlNotAllowedError("is not a URL")
        if literal is None and (host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost")):
            literal = IPv4Address("127.0.0.1")
        if literal is not None and not self.allows(literal):
            raise UrlNotAllowedError("must not lead to a private or reserved address")

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a name that may be dialled, in the resolver's order.

        Raises:
            AddressNotAllowedError: it has none.
            OSError: the name cannot be resolved.
        """
        found = await self._lookup(host, port)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        allowed = [text for text in addresses if self.allows(ip_address(text.partition("%")[0]))]
        if not allowed:
            raise AddressNotAllowedError(f"{host} leads to no address that may be called")
        return allowed

    async def _lookup(self, host: str, port: int) -> list[Any]:
        """What the resolver says, as a lookup holds a thread until its name server has answered.

        A name whose server hangs must not hold them all: it has one at a time, and who gives up leaves it to the next.
        """
        key = (host, port)
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = asyncio.create_task(self._ask(host, port))
            lookup.add_done_callback(partial(self._looked_up, key))
        return await asyncio.shield(lookup)

    async def _ask(self, host: str, port: int) -> list[Any]:
        """Has a thread of its own ask, which nobody waits for at the process's end, as for an executor's.

        Nor is it one of the loop's own: of uvloop's four, two may wait for names.
        """
        async with self._turn:
            answer: Future[list[Any]] = Future()
            answer.set_running_or_notify_cancel()  # it cannot be called off
            threading.Thread(target=_resolve, args=(host, port, answer), name="resolve", daemon=True).start()
            return await asyncio.wrap_future(answer)

    def _looked_up(self, key: tuple[str, int], done: "asyncio.Task[list[Any]]") -> None:
        del self._lookups[key]
        if not done.cancelled():
            done.exception()  # told to those who still wait, if any do

    async def connect(
        self, host: str, port: int, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a connection to the first allowed address that takes it; the certificate is held to the name.

        Raises:
            AddressNotAllowedError, OSError: as resolve, or none takes it.
        """
        problem: OSError | None = None
        for address in await self.resolve(host, port):
            try:
                return await asyncio.open_connection(address, port, ssl=tls, server_hostname=host if tls else None)
            except OSError as error:
                problem = error
        raise problem or OSError(f"{host} has no address")


def _resolve(host: str, port: int, answer: "Future[list[Any]]") -> None:
    try:
        answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked is told
        answer.set_exception(error)


class _Backend(httpcore.AsyncNetworkBackend):
    """httpcore's way to the network, by a policy; TLS above it is still held to the name."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await asyncio.wait_for(self._policy.resolve(host, port), timeout)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"resolving {host}") from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        problem: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class Transport(httpx.AsyncHTTPTransport):
    """httpx's transport over a policy. AddressNotAllowedError comes through as itself."""

    def __init__(
        self, policy: Policy, *, verify: ssl.SSLContext | None = None, connections: int = 100, keep: int = 20
    ) -> None:
        context = verify or ssl.create_default_context()
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=keep,
            keepalive_expiry=30,
            network_backend=_Backend(policy),
        )


def client(
    policy: Policy, *, timeout: float = 10.0, verify: ssl.SSLContext | None = None, **more: Any
) -> httpx.AsyncClient:
    """An HTTP client that dials only what the policy allows, follows no redirect and knows no proxy."""
    return httpx.AsyncClient(
        transport=Transport(policy, verify=verify), timeout=timeout, follow_redirects=False, trust_env=False, **more
    )


def _literal(host: str) -> Address | None:
    """The address that a host is, in any form that resolvers take: 127.0.0.1, 127.1, 2130706433, 0x7f.1, ::1, [::1%lo]."""
    try:
        return ip_address(host)
    except ValueError:
        pass  # perhaps one of inet_aton's forms
    try:
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None


def _public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _CLOSED_V4)
    return address in _OPEN_V6 and not any(address in net for net in _CLOSED_V6)


_MAPPED: Final = tuple(IPv6Network(net) for net in ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96"))
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})


def _wraps(address: Address) -> bool:
    """Tells whether an address is nothing but the IPv4 one inside it."""
    return isinstance(address, IPv6Address) and any(address in net for net in _MAPPED) and int(address) > 1


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address inside an IPv6 one: mapped, translated, compatible, NAT64, 6to4, ISATAP."""
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    if _wraps(address) or number >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(number & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    return None
