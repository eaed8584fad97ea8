"""The one error that services answer with, and the one table that maps its codes to HTTP statuses."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

STATUS: Final[dict[str, int]] = {
    "malformed": 400,
    "idempotency_key_required": 400,
    "unauthenticated": 401,
    "insufficient_scope": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "in_use": 409,
    "slug_in_use": 409,
    "invalid_state": 409,
    "hold_expired": 409,
    "cutoff_passed": 409,
    "inactive": 409,
    "slot_taken": 409,
    "limit_reached": 409,
    "booker_limit_reached": 409,
    "idempotency_in_flight": 409,
    "version_mismatch": 412,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "validation_failed": 422,
    "slot_not_offered": 422,
    "idempotency_key_reused": 422,
    "rate_limited": 429,
    "internal": 500,
    "unavailable": 503,
    "position_not_reached": 503,
    "timeout": 504,
}

TITLES: Final[dict[str, str]] = {code: code.replace("_", " ").capitalize() for code in STATUS}


class FieldError(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one field: `pointer` is RFC 6901 as a fragment (`#/hosts/0`) for a body, `?name` for a query."""

    pointer: str
    code: str
    detail: str
    rule: str | None = None


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """A KalendsError as it crosses a process boundary."""

    code: str
    detail: str = ""
    fields: tuple[FieldError, ...] = ()
    retry_after: int | None = None
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}


class KalendsError(Exception):
    """A refusal that the caller may see whole: code, detail, fields, seconds after which to try again, extra members.

    `headers` go out with it (a stored refusal says `Idempotent-Replayed`).
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        fields: tuple[FieldError, ...] = (),
        retry_after: int | None = None,
        extra: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail or TITLES.get(code, code)
        self.fields = fields
        self.retry_after = retry_after
        self.extra = extra or {}
        self.headers = headers or {}

    @property
    def status(self) -> int:
        return STATUS.get(self.code, 500)

    def body(self) -> ErrorBody:
        return ErrorBody(self.code, self.detail, self.fields, self.retry_after, self.extra, self.headers)

    @classmethod
    def of(cls, body: ErrorBody) -> "KalendsError":
        return cls(body.code, body.detail, body.fields, body.retry_after, body.extra, body.headers)


def invalid_fields(errors: Sequence[FieldError]) -> KalendsError:
    """422 with every field at fault, at least one; its own detail is the first of them, as a sentence."""
    first = errors[0]
    return KalendsError("validation_failed", f"{first.pointer} {first.detail}.", tuple(errors))


def invalid(pointer: str, code: str, detail: str) -> KalendsError:
    """422 with one field at fault. `detail` goes on from the field's name: `must be in the future`."""
    return invalid_fields([FieldError(pointer, code, detail)])


def not_found(what: str = "It") -> KalendsError:
    return KalendsError("not_found", f"{what} does not exist.")
