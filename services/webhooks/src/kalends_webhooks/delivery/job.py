"""One delivery in the hands of a worker."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec import Struct, field

Clock = Callable[[], datetime]


def wall() -> datetime:
    """The time by which attempts are made, signed and judged; never the test clock, which is the accounts'."""
    return datetime.now(UTC)


class Lane(NamedTuple):
    """One endpoint's part of the queue."""

    tenant_id: str
    webhook_id: str


class Job(Struct, kw_only=True):
    """A claimed delivery with the event that it carries. `log` is the JSON list of the attempts so far.

    `subscription_version` is None where the subscription is gone. `since` is when its claim was asked for, in seconds of
    the monotonic clock.
    """

    lane: Lane
    id: str
    claim: str
    event_id: str
    type: str
    created_at: datetime
    data: bytes
    attendees: bytes | None
    traceparent: str | None
    subscription_version: int | None
    attempts: int = 0
    log: bytes = b"[]"
    forced: bool = False
    since: float = field(default_factory=time.monotonic)
