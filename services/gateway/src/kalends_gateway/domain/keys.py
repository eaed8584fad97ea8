"""API keys: their secrets, their limits, and what may be asked of a new one."""

import hashlib
import secrets
from datetime import datetime
from typing import Final

from msgspec import Struct

from kalends_gateway.domain.scopes import expand, in_order
from kalends_shared.contracts.accounts import ApiKeyIn, Mode, RateLimits
from kalends_shared.contracts.errors import FieldError, KalendsError, invalid_fields

PER_MINUTE: Final = 100
PER_HOUR: Final = 1_000
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH: Final = 43  # of 62 letters: 256 bits
_SHOWN: Final = 4  # letters of the secret that its prefix shows


class Limits(Struct, frozen=True):
    """Requests a minute and an hour; null is without limit."""

    per_minute: int | None
    per_hour: int | None


class NewKey(Struct, frozen=True):
    """A key as it is to be stored."""

    name: str
    scopes: list[str]
    mode: Mode
    type: str
    expires_at: datetime | None
    limits: Limits
    metadata: bytes


def new_secret(prefix: str, mode: str) -> str:
    return f"{prefix}_{mode}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))


def digest(secret: str) -> bytes:
    """What of a secret is stored and looked up."""
    return hashlib.sha256(secret.encode()).digest()


def shown_prefix(secret: str) -> str:
    """The beginning of a secret, by which people tell keys apart."""
    return secret[: secret.rindex("_") + 1 + _SHOWN]


def admit(
    body: ApiKeyIn, maker_mode: str, maker_type: str, maker_scopes: frozenset[str], ceiling: Limits, now: datetime
) -> NewKey:
    """Judges what is asked of a new key.

    Raises:
        KalendsError: `insufficient_scope` for scopes beyond the maker's, `validation_failed` else.
    """
    scopes = in_order(frozenset(body.scopes or ["read"]))
    if beyond := expand(scopes) - maker_scopes:
        raise KalendsError(
            "insufficient_scope", f"The key that makes it has not the scopes {', '.join(sorted(beyond))} itself."
        )
    mode: Mode = body.mode or ("test" if maker_mode == "test" else "live")
    wrong: list[FieldError] = []
    if mode == "live" and maker_mode == "test":
        wrong.append(FieldError("#/mode", "invalid_choice", "must be test, as the key that makes it is a test key"))
    if body.type == "hub" and maker_type != "hub":
        wrong.append(FieldError("#/type", "invalid_choice", "must be account, as the key that makes it is no hub key"))
    if body.expires_at is not None and body.expires_at <= now:
        wrong.append(FieldError("#/expires_at", "invalid", "must be in the future"))
    limits = _limits(body.rate_limits, ceiling, wrong)
    if wrong:
        raise invalid_fields(wrong)
    return NewKey(body.name, scopes, mode, body.type, body.expires_at, limits, bytes(body.metadata))


def _limits(asked: RateLimits | None, ceiling: Limits, wrong: list[FieldError]) -> Limits:
    """The limits that were asked for, else the usual ones; neither beyond the account's ceiling."""
    asked = asked or RateLimits()
    for name in ("per_minute", "per_hour"):
        most, value = getattr(ceiling, name), getattr(asked, name)
        if most is not None and value is not None and value > most:
            wrong.append(
                FieldError(f"#/rate_limits/{name}", "too_large", f"must be at most {most}, the account's ceiling")
            )
    return Limits(
        asked.per_minute or min(PER_MINUTE, ceiling.per_minute or PER_MINUTE),
        asked.per_hour or min(PER_HOUR, ceiling.per_hour or PER_HOUR),
    )
