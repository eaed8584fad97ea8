"""Domain events: as a service appends them, and as they travel over JetStream."""

from datetime import datetime

import msgspec


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who did it: `key`, `oauth_client`, `user`, `system` or `external_calendar`, with its id and name where it has them."""

    type: str = "system"
    id: str | None = None
    name: str | None = None


class NewEvent(msgspec.Struct, frozen=True):
    """An event to be appended; `data` and `state` (the whole aggregate after it) are encoded JSON."""

    type: str
    data: bytes
    state: bytes
    id: str
    schema_version: int = 1


class Envelope(msgspec.Struct, kw_only=True, frozen=True):
    """A published event. `tx, position` is its place in its source, `prev_*` the place of the one published before it.

    `people` holds what the relay joined in, by person version, each the JSON of a PersonData, whose answers stay byte
    for byte; it is never stored with the event.
    """

    id: str
    type: str
    source: str
    tenant_id: str
    stream_id: str
    version: int
    tx: int
    position: int
    prev_tx: int = 0
    prev_position: int = 0
    schema_version: int = 1
    occurred_at: datetime
    actor: Actor = Actor()
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    state: msgspec.Raw = msgspec.Raw(b"null")
    people: dict[str, msgspec.Raw] = {}
