"""Subscriptions, deliveries and the public events that they carry."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from kalends_shared.contracts.types import EMPTY, Description, Instant, Json, Url, Verbatim

EVENT_TYPES = (
    "booking.created",
    "booking.pending",
    "booking.confirmed",
    "booking.declined",
    "booking.rescheduled",
    "booking.updated",
    "booking.cancelled",
    "booking.completed",
    "booking.no_show",
    "booking.reassigned",
    "hold.expired",
    "meeting.started",
    "meeting.ended",
    "recording.ready",
    "payment.updated",
    "event.created",
    "event.updated",
    "event.deleted",
    "calendar.synced",
    "calendar.disconnected",
    "webhook.disabled",
    "person.erased",
)
PublicEventType = Literal[EVENT_TYPES]  # type: ignore[valid-type]
Subscribable = Literal[("*", *EVENT_TYPES)]  # type: ignore[valid-type]
Profile = Literal["kalends", "timestamped", "sha256-prefixed", "hex", "sha256-bare"]
Signature = Profile
Payload = Literal["kalends", "service", "trigger"]


class WebhookFilters(Struct, kw_only=True, frozen=True):
    event_type_ids: Annotated[list[str], Meta(max_length=100)] = []
    host_ids: Annotated[list[str], Meta(max_length=100)] = []
    metadata: Json = EMPTY


class WebhookIn(Struct, kw_only=True):
    """`retry_schedule` is in seconds before each retry; `signature` and `payload` default to the profile's own."""

    url: Url
    events: Annotated[list[Subscribable], Meta(min_length=1, max_length=50)]
    description: Description | None = None
    profile: Profile | None = None
    signature: Signature | None = None
    payload: Payload | None = None
    filters: WebhookFilters = WebhookFilters()
    headers: Json = EMPTY
    retry_schedule: Annotated[list[Annotated[int, Meta(ge=1, le=604_800)]], Meta(max_length=20)] | None = None
    timeout_seconds: Annotated[int, Meta(ge=1, le=30)] = 10
    rate_limit_per_second: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    max_in_flight: Annotated[int, Meta(ge=1, le=1000)] | None = None
    ordered: bool = False
    enabled: bool = True
    secret: Verbatim | None = None
    metadata: Json = EMPTY


class Webhook(Struct, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    url: str
    events: list[str]
    description: str | None = None
    profile: str
    signature: str
    payload: str
    filters: WebhookFilters
    headers: Json = EMPTY
    retry_schedule: list[int]
    timeout_seconds: int = 10
    rate_limit_per_second: int | None = None
    max_in_flight: int | None = None
    ordered: bool = False
    enabled: bool = True
    secret: str | None = None
    secret_hint: str | None = None
    disabled_reason: str | None = None
    metadata: Json = EMPTY


class RotateIn(Struct, kw_only=True):
    immediate: bool = False


class TestIn(Struct, kw_only=True):
    type: PublicEventType = "booking.confirmed"


class ReplayIn(Struct, kw_only=True):
    start_at: Instant | None = None
    end_at: Instant | None = None
    events: Annotated[list[Subscribable], Meta(max_length=50)] | None = None
    only_failed: bool = False


class Replayed(Struct, kw_only=True):
    """`deliveries` are those queued so far; where not `complete`, the rest follows by itself."""

    id: str
    webhook_id: str
    deliveries: int
    complete: bool


class Attempt(Struct, kw_only=True):
    started_at: Instant
    duration_ms: int
    status_code: int | None = None
    error: str | None = None
    response_head: str | None = None
    request_headers: dict[str, str] = {}


class Delivery(Struct, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    webhook_id: str
    event_id: str
    event_type: str
    status: Literal["pending", "succeeded", "failed"]
    attempts: list[Attempt] = []
    next_attempt_at: Instant | None = None
    metadata: Json = EMPTY


class DeliveriesQuery(Struct, kw_only=True):
    status: list[Literal["pending", "succeeded", "failed"]] | None = None
    event_type: str | None = None
    after: Instant | None = None
    before: Instant | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] | None = None
    cursor: str | None = None
    page: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    per_page: Annotated[int, Meta(ge=1, le=100)] | None = None


class PublicEvent(Struct, kw_only=True):
    """The default payload of a delivery and a row of GET /changes."""

    id: str
    type: str
    created_at: Instant
    account_id: str
    mode: Literal["live", "test"]
    data: Any = msgspec.Raw(b"{}")


class ChangesQuery(Struct, kw_only=True):
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 25


class ChangeRow(Struct, array_like=True):
    """A public event and the cursor of its place, as the gateway reads them for a stream (`stream_changes`)."""

    cursor: str
    event: msgspec.Raw


class ChangeRows(Struct):
    """What comes after a cursor, and where to read on; it is asked for by a ChangesQuery in the call's `query`."""

    rows: list[ChangeRow]
    next_cursor: str
