"""What a request says of itself: its key, its headers, its body; held to bounds before anybody works for it."""

import asyncio
import random
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from kalends_shared.contracts.errors import KalendsError

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_IDEMPOTENCY_KEY: Final = re.compile(rb"[\x20-\x7e]{1,255}")
_POSITION: Final = re.compile(r"[a-z_]{1,32}:[0-9]{1,20}\.[0-9]{1,20}(?:,[a-z_]{1,32}:[0-9]{1,20}\.[0-9]{1,20}){0,15}")
_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAGS: Final = re.compile(rf"\*|{_TAG}(?:[ \t]*,[ \t]*{_TAG})*")
_JSON_TYPES: Final = frozenset({b"application/json", b"application/merge-patch+json"})
_DRAINED_BYTES: Final = 16 * 1024 * 1024
_DRAIN_SECONDS: Final = 5.0

Head = dict[bytes, bytes]
Headers = Iterable[tuple[bytes, bytes]]


def head(headers: Headers) -> Head:
    """The headers by name; several of one name are one list (RFC 9110 5.3), so that of two keys neither is the key."""
    found: Head = {}
    for name, value in headers:
        found[name] = found[name] + b", " + value if name in found else value
    return found


def request_id(head: Head) -> str:
    """The caller's own, where it is one, else a new one."""
    given = head.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"req_{random.getrandbits(96):024x}"


def secret(head: Head) -> str | None:
    """The API key that came along: as a bearer token, or by X-API-Key."""
    given = head.get(b"authorization")
    if given is not None:
        scheme, _, token = given.partition(b" ")
        return token.strip().decode("latin-1") if scheme.lower() == b"bearer" and token.strip() else None
    given = head.get(b"x-api-key")
    return given.strip().decode("latin-1") if given else None


def idempotency_key(headers: Headers) -> str | None:
    """Raises: KalendsError: `malformed` where it has not 1 to 255 printable characters, or there are several."""
    given = [value for name, value in headers if name == b"idempotency-key"]
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        raise KalendsError("malformed", "Idempotency-Key must be one, of 1 to 255 characters of printable ASCII.")
    return given[0].decode()


def min_position(head: Head) -> str | None:
    """Raises: KalendsError: `malformed` where it is no position that an answer carried."""
    given = head.get(b"kalends-min-position")
    if given is None:
        return None
    text = given.decode("latin-1").replace(" ", "")
    if not _POSITION.fullmatch(text):
        raise KalendsError("malformed", "Kalends-Min-Position is no position that an answer carried.")
    return text


def if_match(head: Head) -> str | None:
    """Raises: KalendsError: `malformed` where it is no list of ETags (RFC 9110 13.1.1): no version could ever be meant."""
    given = text(head, b"if-match")
    if given is not None and not _TAGS.fullmatch(given):
        raise KalendsError("malformed", 'If-Match must be an ETag as an answer carried it, like "3", quotes and all.')
    return given


def text(head: Head, name: bytes) -> str | None:
    given = head.get(name)
    return given.decode("latin-1") if given is not None else None


class Body:
    """The body of one request, read at most once."""

    def __init__(self, head: Head, receive: Any) -> None:
        self._head, self._receive = head, receive
        declared = head.get(b"content-length", b"0")
        self._size = int(declared) if declared.isdigit() else 0
        self._ended = self._size == 0 and b"transfer-encoding" not in head

    async def read(self, limit: int) -> bytes:
        """The body, whole.

        Raises:
            KalendsError: `payload_too_large`, also where it comes in chunks; `unsupported_media_type`; `malformed` where
                its sender left off.
        """
        parts: list[bytes] = []
        read = 0
        while not self._ended:
            if max(read, self._size) > limit:
                raise KalendsError("payload_too_large", f"A body may have at most {limit} bytes.")
            part = await self._next()
            read += len(part)
            parts.append(part)
        if read > limit:
            raise KalendsError("payload_too_large", f"A body may have at most {limit} bytes.")
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        if whole and self._head.get(b"content-encoding", b"identity").lower() != b"identity":
            raise KalendsError("unsupported_media_type", "A body must not be compressed.")
        kind = self._head.get(b"content-type")
        if whole and kind is not None and kind.split(b";")[0].strip().lower() not in _JSON_TYPES:
            raise KalendsError("unsupported_media_type", "A body must be application/json.")
        return whole

    async def drain(self) -> None:
        """Reads on what nobody wants, within bounds: a sender that is cut off may never see why it was refused."""
        if self._ended:
            return
        read = 0
        with suppress(KalendsError, TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._ended and read < _DRAINED_BYTES:
                    read += len(await self._next())

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._ended = True
            raise KalendsError("malformed", "The body ended early.")
        self._ended = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part
