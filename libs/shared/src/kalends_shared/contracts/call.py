"""A request as a service sees it, and its answer; they cross NATS as headers and a body."""

from datetime import datetime
from typing import Any

import msgspec

from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Actor


class Call(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One request of one tenant. `now` is the tenant's time: the test clock's where one is set, else the wall clock's.

    `deadline` is in Unix seconds; `body` is the caller's own bytes; `params` are the ids of the path; `query` is the
    raw query string. `min_position` is the caller's opaque `Kalends-Min-Position`.
    """

    tenant: str
    now: datetime
    method: str = "POST"
    path: str = ""
    query: str = ""
    params: dict[str, str] = {}
    account_id: str = ""
    mode: str = "live"
    timezone: str = "UTC"
    actor: Actor = Actor()
    scopes: frozenset[str] = frozenset()
    request_id: str = ""
    deadline: float = 0.0
    idempotency_key: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    min_position: str | None = None
    traceparent: str | None = None
    frozen_clock: bool = False
    body: bytes = b""


class Reply(msgspec.Struct, kw_only=True):
    """An answer: `body` is a public Struct or its bytes already encoded; `location` is a path below /api/v1."""

    status: int = 200
    body: Any = b""
    etag: str | None = None
    location: str | None = None
    position: str | None = None
    headers: dict[str, str] = {}


def encoded(body: Any) -> bytes:
    """An answer's body as bytes: already so, a public Struct, or nothing."""
    if isinstance(body, bytes):
        return body
    return b"" if body is None else msgspec.json.encode(body)


def etag(version: int) -> str:
    return f'"{version}"'


def check_match(call: Call, version: int) -> None:
    """Holds a write to the version that its If-Match names; `*` and weak tags pass as RFC 9110 13.1.1 and api.md say.

    Raises:
        KalendsError: `version_mismatch`.
    """
    if call.if_match is None:
        return
    tags = [tag.strip().removeprefix("W/") for tag in call.if_match.split(",")]
    if "*" not in tags and etag(version) not in tags:
        raise KalendsError("version_mismatch", f"The version is {version} now.")
