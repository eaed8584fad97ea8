"""What booking asks of availability, by rpc `quote` and `alternatives`; no part of the public contract."""

from datetime import datetime
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from kalends_shared.contracts.availability import EventType, Location
from kalends_shared.contracts.types import Instant


class QuoteRequest(Struct, kw_only=True):
    """May this start be booked, as far as availability can tell (rules 1-4, 7, 9, external busy time, ranking)?

    `booking_id` is the booking that moves, `hold_id` the hold that is converted; both are ignored as busy time.
    """

    event_type_id: str
    start_at: Instant
    end_at: Instant | None = None
    host_id: str | None = None
    location_id: str | None = None
    seats: int = 1
    booking_id: str | None = None
    hold_id: str | None = None
    # The pointers at which unknown ids are reported differ by command.
    purpose: Literal["book", "hold", "reschedule", "reassign"] = "book"
    # Further starts of a series; each gets its own QuotedStart.
    more_starts: list[Instant] = []


class QuotedHost(Struct, kw_only=True):
    """A host that the rules allow at this start, in ranked order; `limits_timezone`, its schedule's, where that is another."""

    id: str
    name: str
    email: str | None
    timezone: str
    limits_timezone: str | UnsetType = UNSET
    rank: dict[str, float] = {}


class Refusal(Struct, kw_only=True):
    """Why availability refuses: a code of api.md's refusals, and the rule."""

    code: Literal["slot_not_offered", "slot_taken"]
    rule: str
    detail: str


class QuotedStart(Struct, kw_only=True):
    """One start: the hosts to try in order, or the refusal.

    `earlier_starts`, under only_first_slot_of_day: the earlier starts of the same date that quote's rules allow, each
    with the hosts allowed there. While one of them is free, that is the refusal, also where a host is busy.
    """

    start_at: Instant
    end_at: Instant
    hosts: list[QuotedHost] = []
    refusal: Refusal | None = None
    earlier_starts: list[tuple[datetime, list[str]]] = []


class QuotedResource(Struct):
    id: str
    quantity: int


class Quote(Struct, kw_only=True):
    """Everything that booking must enforce, as of `quoted_at`. `event_type` and `location` are as they are then.

    `host_zones`, under only_first_slot_of_day: the zones in which limits count, of hosts that earlier starts may name.
    """

    quoted_at: Instant
    event_type: EventType
    timezone: str
    host_zones: dict[str, str] = {}
    location: Location | None = None
    resources: list[QuotedResource] = []
    starts: list[QuotedStart] = []


class AlternativesRequest(Struct, kw_only=True):
    """Up to `limit` next offered starts from `after` within 14 days, for a refusal.

    `seen` is the position of booking's events that the refusal knew of: what they took is not worth offering.
    """

    event_type_id: str
    after: Instant
    duration_minutes: int | None = None
    host_id: str | None = None
    seats: int = 1
    booking_id: str | None = None
    hold_id: str | None = None
    exclude: list[Instant] = []
    limit: int = 5
    seen: tuple[int, int] = (0, 0)


class Alternative(Struct):
    start_at: Instant
    end_at: Instant


class Alternatives(Struct):
    data: list[Alternative]
