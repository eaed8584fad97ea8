"""What follows an attempt: done, again after a while, or never again; and whether the subscription goes on."""

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Literal

from msgspec import Struct

DEFAULT_SCHEDULE: Final = (5, 30, 300, 1800, 7200, 21600, 43200)
JITTER: Final = 0.2
LONGEST_WAIT: Final = 86_400.0  # the most that a Retry-After is heeded, in seconds
GIVE_UP_AFTER: Final = timedelta(days=5)
# Answers by which a receiver, or what stands before it, says that it is given too much (Standard Webhooks).
TOO_MUCH: Final = frozenset({429, 502, 503, 504})
DELIVERY_HEADER: Final = "webhook-delivery"

Status = Literal["pending", "succeeded", "failed"]


class Answer(Struct, frozen=True):
    """What came of a POST: a status with the answer's headers (names in lower case), or an error's name."""

    status_code: int | None = None
    error: str | None = None
    headers: Mapping[str, str] = {}


class Next(Struct, frozen=True):
    """What follows. `wait` is in seconds, where it is tried again; `disable` is the reason why the subscription ends."""

    status: Status
    wait: float | None = None
    disable: str | None = None


def judge(
    answer: Answer,
    attempts: int,
    schedule: Sequence[int],
    now: datetime,
    spread: Callable[[float, float], float] = random.uniform,
) -> Next:
    """Decides after the `attempts`-th attempt (from 1) by the subscription's schedule, seconds before each retry."""
    code = answer.status_code
    succeeded = answer.error is None and code is not None and 200 <= code < 300
    disable = "gone" if code == 410 else None
    wish = answer.headers.get(DELIVERY_HEADER, "").strip().lower()
    if wish == "disable":
        disable = disable or "receiver_asked"
    if succeeded:
        return Next("succeeded", disable=disable)
    if disable or wish == "abort-message" or attempts > len(schedule):
        return Next("failed", disable=disable)
    # Neither the schedule nor a receiver that names a time is forestalled, and never are all tried again at once.
    wait = schedule[attempts - 1] * spread(1, 1 + JITTER)
    asked = retry_after(answer.headers.get("retry-after"), now)
    if asked is not None:
        wait = max(wait, min(asked * spread(1, 1 + JITTER), LONGEST_WAIT))
    return Next("pending", wait=wait)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After in either form (RFC 9110 10.2.3), from 0 to a day; None where it cannot be read."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max((at - now).total_seconds(), 0.0), LONGEST_WAIT)


def given_up(failing_since: datetime, now: datetime) -> bool:
    """Tells whether a subscription that has just failed again has failed for too long without a success."""
    return now - failing_since >= GIVE_UP_AFTER
