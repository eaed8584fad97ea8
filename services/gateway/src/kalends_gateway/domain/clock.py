"""The test clock: stopped at a moment, moved on, or let run."""

from datetime import UTC, datetime, timedelta
from typing import Final

from kalends_shared.contracts.accounts import TestClockIn
from kalends_shared.contracts.errors import FieldError, KalendsError, invalid

_MOVES: Final = ("freeze_at", "advance_seconds", "release")
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
# A client's "now" has passed by the time it arrives, and its clock may be slow.
_NOW_WITHIN: Final = timedelta(minutes=1)


def moved(body: TestClockIn, stopped_at: datetime | None, wall: datetime) -> datetime | None:
    """Where the clock stands after a move; None: it runs.

    Raises:
        KalendsError: `validation_failed` where not exactly one move is asked for, or freezing would turn the clock back,
            which only release does; `invalid_state` where a running clock is to be advanced.
    """
    asked = [name for name in _MOVES if getattr(body, name) is not None]
    if len(asked) != 1:
        fields = tuple(FieldError(f"#/{name}", "invalid", "is one of several moves") for name in asked)
        missing = (FieldError("#/freeze_at", "required", "or advance_seconds or release is required"),)
        raise KalendsError(
            "validation_failed", "One of freeze_at, advance_seconds and release is needed.", fields or missing
        )
    if body.release is not None:
        if not body.release:
            raise invalid("#/release", "invalid_choice", "must be true")
        return None
    if body.freeze_at is not None:
        if body.freeze_at < (stopped_at or wall - _NOW_WITHIN):
            raise invalid(
                "#/freeze_at", "invalid", "must not be before the time that the clock shows; only release turns it back"
            )
        return _within(body.freeze_at, "#/freeze_at")
    if stopped_at is None:
        raise KalendsError("invalid_state", "The clock runs; freeze it first.", extra={"state": "running"})
    return _within(stopped_at + timedelta(seconds=body.advance_seconds or 0), "#/advance_seconds")


def _within(at: datetime, pointer: str) -> datetime:
    if at > _LATEST:
        raise invalid(pointer, "invalid", "must not lead beyond the year 8999")
    return at
