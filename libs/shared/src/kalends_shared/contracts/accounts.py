"""The account behind a key, and API keys."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from kalends_shared.contracts.types import EMPTY, Instant, Json, Name

Scope = Literal["read", "write", "webhooks", "admin"]
Mode = Literal["live", "test"]


class Profile(Struct, kw_only=True):
    id: str
    name: str
    slug: str
    timezone: str
    mode: Mode
    scopes: list[str]


class RateLimits(Struct, kw_only=True):
    """Requests of one key; null in both is no limit, which only the operator can give."""

    per_minute: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    per_hour: Annotated[int, Meta(ge=1, le=100_000_000)] | None = None


class ApiKeyIn(Struct, kw_only=True):
    name: Name
    scopes: Annotated[list[Scope], Meta(min_length=1, max_length=4)] | None = None
    mode: Mode | None = None
    type: Literal["account", "hub"] = "account"
    expires_at: Instant | None = None
    rate_limits: RateLimits | None = None
    metadata: Json = EMPTY


class ApiKey(Struct, kw_only=True):
    """`secret` is in the creating and rolling answers only, null elsewhere."""

    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    name: str
    scopes: list[str]
    mode: Mode
    type: Literal["account", "hub"] = "account"
    expires_at: Instant | None = None
    rate_limits: RateLimits | None = None
    prefix: str
    last_used_at: Instant | None = None
    secret: str | None = None
    metadata: Json = EMPTY


class TestClock(Struct, kw_only=True):
    """`now` is null while the clock runs."""

    now: Instant | None = None


class TestClockIn(Struct, kw_only=True):
    """One of the three."""

    freeze_at: Instant | None = None
    advance_seconds: Annotated[int, Meta(ge=1, le=315_360_000)] | None = None
    release: bool | None = None


class ClockMove(Struct, kw_only=True):
    """A test clock that is moved, as the gateway tells booking (`advance_clock`), which fires what it passes; null: it runs."""

    was: Instant | None = None
    now: Instant | None = None


class ClockMoved(Struct, kw_only=True):
    """That it has, and up to where booking has written by then."""

    position: str | None = None
