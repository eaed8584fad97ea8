"""HTTP as CalDAV servers want it: authentication, bounded answers, errors as ProviderError."""

import asyncio
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpx
from msgspec import Struct

from kalends_calendar_sync.providers.base import Account, Code, ProviderError
from kalends_calendar_sync.providers.caldav import xml
from kalends_shared.net import AddressNotAllowedError, Policy, UrlNotAllowedError, client

MAX_BODY: Final = 32 * 1024 * 1024
MAX_RETRY_AFTER: Final = 3600.0
USER_AGENT: Final = "Kalends"
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CODES: Final[dict[int, Code]] = {
    401: "unauthorized", 403: "forbidden", 404: "not_found", 410: "not_found", 412: "conflict",
    429: "rate_limited", 503: "rate_limited", 507: "forbidden",
}  # fmt: skip


@cache
def _tls() -> ssl.SSLContext:
    """One for all accounts: making it reads every certificate authority."""
    return ssl.create_default_context()


class Answer(Struct, frozen=True):
    """A whole answer; `url` is what was asked."""

    url: str
    status: int
    headers: httpx.Headers
    body: bytes


class Dav:
    """Requests of one account. Redirects are not followed, and the password goes to the account's own site only."""

    def __init__(self, account: Account, policy: Policy, timeout: float) -> None:
        self._policy = policy
        self._home = urlsplit(account.url).hostname or ""
        self._auth: httpx.Auth | None = None
        if account.username is not None or account.password is not None:
            self._auth = httpx.BasicAuth(account.username or "", account.password or "")
            self._digest = httpx.DigestAuth(account.username or "", account.password or "")
        self._client = client(
            policy, timeout=timeout, verify=_tls(), headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        )
        self._total = timeout * 3

    async def close(self) -> None:
        await self._client.aclose()

    async def multistatus(self, method: str, url: str, body: bytes, depth: str = "0") -> xml.Multistatus:
        """A request whose answer is a 207.

        Raises:
            ProviderError: also where it is anything else.
        """
        answer = await self.request(
            method, url, body, {"Depth": depth, "Content-Type": "application/xml; charset=utf-8"}
        )
        if answer.status != 207:
            raise refused(answer)
        return xml.parse(answer.body)

    async def request(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Any request; the answer may have any status.

        Raises:
            ProviderError: there was no answer, or one too long.
        """
        self._check(url)
        answer = await self._send(method, url, body, headers or {})
        challenge = answer.headers.get("WWW-Authenticate", "")
        if answer.status == 401 and challenge.lower().startswith("digest") and isinstance(self._auth, httpx.BasicAuth):
            self._auth = self._digest
            answer = await self._send(method, url, body, headers or {})
        return answer

    def _check(self, url: str) -> None:
        try:
            self._policy.check_url(url)
        except UrlNotAllowedError as error:
            raise ProviderError("not_allowed", f"the URL {error}") from error
        if not same_site(urlsplit(url).hostname or "", self._home):
            raise ProviderError("not_allowed", "the server refers to another site, which is not sent the password")

    async def _send(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        writes = method in {"PUT", "DELETE"}
        try:
            # The client's own timeout is for each read; a server that drips must end too.
            async with asyncio.timeout(self._total):
                request = self._client.build_request(method, url, content=body, headers=dict(headers))
                response = await self._client.send(request, auth=self._auth, stream=True)
                try:
                    whole = await _whole(response)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise ProviderError("unreachable", "the answer took too long", sent=writes) from error
        except _UnfitError as error:
            raise ProviderError("bad_answer", str(error), sent=writes) from error
        except AddressNotAllowedError as error:
            raise ProviderError("not_allowed", "the server's address may not be called") from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise ProviderError("unreachable", type(error).__name__) from error
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ValueError) as error:
            raise ProviderError("unreachable", type(error).__name__, sent=writes) from error
        return Answer(url, response.status_code, response.headers, whole)


class _UnfitError(Exception):
    """An answer that is not read to its end; says why."""


async def _whole(response: httpx.Response) -> bytes:
    """The body as it came: nothing is unpacked, as what is small may unpack to anything."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _UnfitError("the answer is packed, which was not asked for")
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > MAX_BODY:
            raise _UnfitError(f"the answer is longer than {MAX_BODY} bytes")
        parts.append(part)
    return b"".join(parts)


def redirect(answer: Answer) -> str | None:
    """Where a redirect leads, None where the answer is none."""
    location = answer.headers.get("Location")
    return urljoin(answer.url, location) if answer.status in _REDIRECTS and location else None


def refused(answer: Answer) -> ProviderError:
    """The error that an unexpected answer is."""
    code = _CODES.get(answer.status, "unreachable" if answer.status >= 500 else "bad_answer")
    retry = _retry_after(answer.headers.get("Retry-After"))
    if code == "forbidden" and retry is not None:
        code = "rate_limited"
    sent = answer.status >= 500 and answer.status != 503
    return ProviderError(code, f"the server answered {answer.status}", retry_after=retry, sent=sent)


def _retry_after(text: str | None) -> float | None:
    """Seconds from either form of Retry-After, clamped to an hour."""
    if not text:
        return None
    if text.strip().isdecimal():
        seconds = float(text.strip())
    else:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def same_site(host: str, home: str) -> bool:
    """Whether a host is the account's own, or a neighbour below the same domain of two labels or more."""
    if host == home:
        return True
    ours, theirs = home.split("."), host.split(".")
    parent = ours[1:] if len(ours) > 2 else ours
    return len(parent) >= 2 and not parent[-1].isdecimal() and theirs[-len(parent) :] == parent
