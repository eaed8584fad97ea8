"""A subscription: what it wants, how it is called, and which values it may have."""

import re
import secrets
from base64 import b64encode
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from kalends_shared.contracts.errors import KalendsError, invalid
from kalends_shared.contracts.types import EMPTY
from kalends_shared.contracts.webhooks import Webhook, WebhookFilters, WebhookIn
from kalends_webhooks.domain.outcome import DEFAULT_SCHEDULE
from kalends_webhooks.domain.signing import WHSEC, WHSK, Brand, readable

SECRET_BYTES: Final = 32
MOST: Final = 100  # subscriptions an account
OVERLAP_SECONDS: Final = 86_400
RETIRING_MOST: Final = 9  # replaced secrets that sign on; more would not fit a header
PROFILE_PAYLOADS: Final = {
    "kalends": "kalends",
    "timestamped": "kalends",
    "sha256-prefixed": "service",
    "hex": "service",
    "sha256-bare": "trigger",
}
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # a field name of RFC 9110 5.1
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,1000}")
# What HTTP/1.1 or a proxy on the way acts upon, and what we say of ourselves.
_OWNED: Final = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "traceparent",
        "tracestate",
        "date",
        "via",
        "forwarded",
        "max-forwards",
    ]
)
_OWNED_PREFIXES: Final = ("webhook-", "proxy-", "kalends-", "x-kalends-", "x-forwarded-", "svix-")


class Retiring(Struct, frozen=True):
    """A sealed secret that was replaced, and signs on until a moment."""

    secret: bytes
    until: datetime


class Subscription(Struct, kw_only=True):
    """A webhook as it is stored, its secrets sealed; `retiring` are those that were replaced, the newest first."""

    id: str
    tenant_id: str
    version: int
    created_at: datetime
    updated_at: datetime
    wanted: WebhookIn
    disabled_reason: str | None
    secret: bytes
    secret_hint: str
    retiring: tuple[Retiring, ...] = ()

    @property
    def profile(self) -> str:
        assert self.wanted.profile is not None
        return self.wanted.profile

    @property
    def signature(self) -> str:
        return self.wanted.signature or self.profile

    @property
    def payload(self) -> str:
        return self.wanted.payload or PROFILE_PAYLOADS[self.profile]

    @property
    def schedule(self) -> list[int]:
        return list(DEFAULT_SCHEDULE) if self.wanted.retry_schedule is None else self.wanted.retry_schedule


def public(subscription: Subscription, secret: str | None = None) -> Webhook:
    """The webhook as the API shows it; `secret` is given in the answer that made it, and in no other."""
    wanted = subscription.wanted
    return Webhook(
        id=subscription.id,
        created_at=subscription.created_at,
        updated_at=subscription.updated_at,
        version=subscription.version,
        url=wanted.url,
        events=wanted.events,
        description=wanted.description,
        profile=subscription.profile,
        signature=subscription.signature,
        payload=subscription.payload,
        filters=wanted.filters,
        headers=wanted.headers,
        retry_schedule=subscription.schedule,
        timeout_seconds=wanted.timeout_seconds,
        rate_limit_per_second=wanted.rate_limit_per_second,
        max_in_flight=wanted.max_in_flight,
        ordered=wanted.ordered,
        enabled=wanted.enabled,
        secret=secret,
        secret_hint=subscription.secret_hint,
        disabled_reason=subscription.disabled_reason,
        metadata=wanted.metadata,
    )


def make_secret() -> str:
    return WHSEC + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def hint(secret: str) -> str:
    """The end of a secret, by which its owner knows it; of a short one nothing."""
    return f"...{secret[-4:]}" if len(secret) >= 16 else "..."


def check(wanted: WebhookIn, brand: Brand) -> None:
    """Holds a subscription to the rules that its fields' types do not tell.

    Raises:
        KalendsError: `validation_failed` at `#/headers` or `#/secret`.
    """
    if (problem := headers_problem(wanted.headers, brand)) is not None:
        raise invalid("#/headers", "invalid", problem)
    if wanted.secret is not None and not readable(wanted.secret):
        raise invalid("#/secret", "invalid", f"must be base64 after {WHSEC}, or of an ed25519 private key after {WHSK}")


def headers_problem(headers: msgspec.Raw, brand: Brand) -> str | None:
    """What is wrong with a subscription's own headers, or None."""
    ours = {name.lower() for name in (brand.signature, brand.timestamp, brand.x_signature, brand.x_signature_256)}
    given: dict[str, Any] = msgspec.json.decode(headers)
    for name, value in given.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            return f"must not hold {name!r}, which is no name of a header"
        if lower in _OWNED or lower in ours or lower.startswith(_OWNED_PREFIXES):
            return f"must not hold {name}, which the sender sets"
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            return f"must hold text that a header can carry, as {name} does not"
    if len({name.lower() for name in given}) < len(given):
        return "must not name a header twice"
    return None


def url_refused(detail: str) -> KalendsError:
    return invalid("#/url", "url_not_allowed", detail)


class Chosen(Protocol):
    """What events are chosen by: Drafted and facts.Traits have it."""

    @property
    def type(self) -> str: ...
    @property
    def event_type_id(self) -> str | None: ...
    @property
    def host_ids(self) -> tuple[str, ...]: ...
    @property
    def metadata(self) -> msgspec.Raw: ...


def wants(subscription: Subscription, event: Chosen) -> bool:
    """Tells whether a subscription is for an event: its type named, and within the filters; enabled or not.

    The other engines' payloads know no event between request and confirmation: there `booking.confirmed` goes by the
    name of `booking.created`, and the event of that name does not go out.
    """
    wanted = subscription.wanted
    names: tuple[str, ...] = (event.type,)
    payload = subscription.payload
    if payload != "kalends":
        if event.type == "booking.created":
            return False
        if event.type == "booking.confirmed":
            names = ("booking.created",) if payload == "service" else ("booking.created", "booking.confirmed")
    events = wanted.events
    return ("*" in events or any(name in events for name in names)) and _passes(wanted.filters, event)


def _passes(filters: WebhookFilters, event: Chosen) -> bool:
    if filters.event_type_ids and event.event_type_id not in filters.event_type_ids:
        return False
    if filters.host_ids and not any(host in filters.host_ids for host in event.host_ids):
        return False
    if filters.metadata == EMPTY or bytes(filters.metadata) == b"{}":
        return True
    asked, have = _members(filters.metadata), _members(event.metadata)
    return asked.items() <= have.items()


def _members(metadata: msgspec.Raw) -> dict[str, bytes]:
    """Each value as JSON with its members sorted, for Python takes `true` for 1."""
    return {name: _sorted(value) for name, value in msgspec.json.decode(metadata).items()}


_sorted: Final = msgspec.json.Encoder(order="sorted").encode
