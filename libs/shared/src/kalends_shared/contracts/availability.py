"""Hosts, schedules, event types and what is computed from them."""

from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from kalends_shared.contracts.types import (
    EMPTY,
    ClockTime,
    Count,
    Currency,
    Day,
    Description,
    Email,
    Instant,
    Json,
    Minutes,
    Name,
    Object,
    ShortKey,
    Slug,
    Start,
    Url,
    Zone,
)

Problem = tuple[str, str, str]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Period = Literal["day", "week", "month", "year"]


class HostIn(Struct, kw_only=True):
    name: Name
    email: Email | None = None
    timezone: Zone | None = None
    schedule_id: str | None = None
    active: bool = True
    metadata: Json = EMPTY


class Host(HostIn, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int


class Window(Struct):
    """Part of a day in wall time; `end` is after `start`, so work across midnight is two windows."""

    start: ClockTime
    end: ClockTime

    def problems(self) -> Iterator[Problem]:
        if self.end <= self.start:
            yield "end", "invalid", "must be after start"


class WeeklyWindow(Struct):
    days: Annotated[list[Weekday], Meta(min_length=1, max_length=7)]
    start: ClockTime
    end: ClockTime

    def problems(self) -> Iterator[Problem]:
        if self.end <= self.start:
            yield "end", "invalid", "must be after start"


class Override(Struct):
    """The windows of one date, in place of the weekly ones; none closes the date."""

    date: Day
    windows: Annotated[list[Window], Meta(max_length=50)] = []


class Away(Struct, kw_only=True):
    """A time without work: instants, or whole local dates, both included."""

    start_at: Instant | None = None
    end_at: Instant | None = None
    start_date: Day | None = None
    end_date: Day | None = None
    reason: Name | None = None

    def problems(self) -> Iterator[Problem]:
        instants, dates = (self.start_at, self.end_at), (self.start_date, self.end_date)
        if all(instants) and not any(dates):
            if instants[1] <= instants[0]:  # type: ignore[operator]
                yield "end_at", "invalid", "must be after start_at"
        elif all(dates) and not any(instants):
            if dates[1] < dates[0]:  # type: ignore[operator]
                yield "end_date", "invalid", "must not be before start_date"
        else:
            yield "", "invalid", "must have start_at and end_at, or start_date and end_date"


class Travel(Struct):
    """Dates, both included, on which the schedule's wall times are those of another zone."""

    start_date: Day
    end_date: Day
    timezone: Zone

    def problems(self) -> Iterator[Problem]:
        if self.end_date < self.start_date:
            yield "end_date", "invalid", "must not be before start_date"


class Holidays(Struct):
    """Public holidays as PyPI `holidays` has them: ISO 3166 country, and its subdivision."""

    country: Annotated[str, Meta(min_length=2, max_length=3)]
    subdivision: Annotated[str, Meta(min_length=1, max_length=20)] | None = None


class ScheduleIn(Struct, kw_only=True):
    name: Name
    timezone: Zone
    weekly: Annotated[list[WeeklyWindow], Meta(max_length=100)] = []
    overrides: Annotated[list[Override], Meta(max_length=1000)] = []
    away: Annotated[list[Away], Meta(max_length=1000)] = []
    travel: Annotated[list[Travel], Meta(max_length=200)] = []
    holidays: Holidays | None = None
    metadata: Json = EMPTY

    def problems(self) -> Iterator[Problem]:
        seen: set[date] = set()
        for i, override in enumerate(self.overrides):
            if override.date in seen:
                yield f"overrides/{i}/date", "invalid", "has an override already"
            seen.add(override.date)
        spans = sorted((t.start_date, t.end_date, i) for i, t in enumerate(self.travel))
        for (_, end, _), (start, _, i) in pairwise(spans):
            if start <= end:
                yield f"travel/{i}/start_date", "invalid", "overlaps another journey"


class Schedule(ScheduleIn, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int


class LocationIn(Struct, kw_only=True):
    name: Name
    kind: Literal["in_person", "phone", "link"] | None = None
    address: Name | None = None
    url_template: Url | None = None
    metadata: Json = EMPTY


class Location(LocationIn, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int


class ResourceIn(Struct, kw_only=True):
    name: Name
    quantity: Annotated[int, Meta(ge=1, le=10_000)] = 1
    location_id: str | None = None
    metadata: Json = EMPTY


class Resource(ResourceIn, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int


class EventTypeHost(Struct):
    host_id: str
    weight: Annotated[int, Meta(ge=1, le=10_000)] = 100
    priority: Annotated[int, Meta(ge=0, le=1000)] = 2


class BookingWindow(Struct, kw_only=True, omit_defaults=True, frozen=True):
    """Which dates may be booked: one of rolling calendar days, rolling business days, or a range."""

    rolling_days: Annotated[int, Meta(ge=0, le=730)] | None = None
    rolling_business_days: Annotated[int, Meta(ge=0, le=520)] | None = None
    start_date: Day | None = None
    end_date: Day | None = None

    def problems(self) -> Iterator[Problem]:
        ranged = self.start_date is not None or self.end_date is not None
        forms = (self.rolling_days is not None) + (self.rolling_business_days is not None) + ranged
        if forms != 1:
            yield "", "invalid", "must have one of rolling_days, rolling_business_days, or start_date and end_date"
        elif ranged and (self.start_date is None or self.end_date is None):
            yield "end_date" if self.end_date is None else "start_date", "required", "is required of a range"
        elif ranged and self.end_date < self.start_date:  # type: ignore[operator]
            yield "end_date", "invalid", "must not be before start_date"


class Limit(Struct, kw_only=True, omit_defaults=True):
    """At most so many bookings, or so many minutes of them, for each host in a period."""

    count: Count | None = None
    minutes: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    per: Period

    def problems(self) -> Iterator[Problem]:
        if (self.count is None) == (self.minutes is None):
            yield "", "invalid", "must have one of count and minutes"


class Question(Struct, kw_only=True):
    key: ShortKey
    label: Name
    type: Literal["text", "textarea", "select", "multiselect", "checkbox", "number", "phone", "email", "url"]
    required: bool = False
    options: Annotated[list[Name], Meta(max_length=200)] = []

    def problems(self) -> Iterator[Problem]:
        if self.type in {"select", "multiselect"} and not self.options:
            yield "options", "required", "is required of a choice"


class PaymentTerms(Struct, kw_only=True):
    """What is due before a booking is confirmed; `amount` is in the currency's smallest unit."""

    amount: Annotated[int, Meta(ge=0, le=1_000_000_000)]
    currency: Currency
    expires_minutes: Annotated[int, Meta(ge=1, le=525_600)] | None = None


class EventTypeIn(Struct, kw_only=True):
    title: Name
    duration_minutes: Annotated[int, Meta(ge=1, le=1440)]
    hosts: Annotated[list[EventTypeHost], Meta(min_length=1, max_length=1000)]
    slug: Slug | None = None
    description: Description | None = None
    durations: Annotated[list[Annotated[int, Meta(ge=1, le=1440)]], Meta(max_length=50)] | None = None
    slot_interval_minutes: Annotated[int, Meta(ge=1, le=1440)] | None = None
    slot_offset_minutes: Minutes = 0
    buffer_before_minutes: Minutes = 0
    buffer_after_minutes: Minutes = 0
    minimum_notice_minutes: Annotated[int, Meta(ge=0, le=1_051_200)] = 0
    booking_window: BookingWindow | None = BookingWindow(rolling_days=60)
    limits: Annotated[list[Limit], Meta(max_length=20)] = []
    capacity: Annotated[int, Meta(ge=1, le=10_000)] = 1
    only_first_slot_of_day: bool = False
    requires_confirmation: bool = False
    confirmation_expires_minutes: Annotated[int, Meta(ge=1, le=525_600)] | None = None
    assignment: Literal["single", "round_robin", "collective", "any"] = "single"
    required_hosts: Annotated[int, Meta(ge=1, le=1000)] = 1
    schedule_id: str | None = None
    restriction_schedule_id: str | None = None
    location_ids: Annotated[list[str], Meta(max_length=100)] = []
    resource_ids: Annotated[list[str], Meta(max_length=50)] = []
    questions: Annotated[list[Question], Meta(max_length=100)] = []
    max_active_per_booker: Count | None = None
    cancel_cutoff_minutes: Annotated[int, Meta(ge=0, le=1_051_200)] | None = None
    reschedule_cutoff_minutes: Annotated[int, Meta(ge=0, le=1_051_200)] | None = None
    on_stale_calendar: Literal["open", "closed"] = "open"
    payment: PaymentTerms | None = None
    active: bool = True
    metadata: Json = EMPTY

    def problems(self) -> Iterator[Problem]:
        if self.durations and self.duration_minutes not in self.durations:
            yield "durations", "invalid", "must hold duration_minutes"
        ids = [h.host_id for h in self.hosts]
        yield from ((f"hosts/{i}/host_id", "invalid", "is named twice") for i, one in enumerate(ids) if one in ids[:i])
        if self.assignment == "single" and len(self.hosts) > 1:
            yield "assignment", "required", "must be said with several hosts: round_robin, collective or any"
        if self.required_hosts > len(self.hosts):
            yield "required_hosts", "invalid", "is more than there are hosts"
        if self.required_hosts > 1 and self.assignment not in {"any", "round_robin"}:
            yield "required_hosts", "invalid", "goes with any and round_robin"
        if self.capacity > 1 and self.required_hosts > 1:
            yield "required_hosts", "invalid", "must be 1 with a capacity above 1"
        keys = [q.key for q in self.questions]
        yield from ((f"questions/{i}/key", "invalid", "is used twice") for i, k in enumerate(keys) if k in keys[:i])
        for name in ("location_ids", "resource_ids"):
            values = getattr(self, name)
            yield from ((f"{name}/{i}", "invalid", "is named twice") for i, v in enumerate(values) if v in values[:i])


class EventType(EventTypeIn, kw_only=True):
    """As answered: `slug` and `durations` are always set."""

    id: str
    created_at: Instant
    updated_at: Instant
    version: int


class BookingPageIn(Struct, kw_only=True):
    slug: Slug
    title: Name
    event_type_ids: Annotated[list[str], Meta(min_length=1, max_length=100)]
    description: Description | None = None
    theme: Object = EMPTY
    active: bool = True
    metadata: Json = EMPTY


class BookingPage(BookingPageIn, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int


class AvailabilityQuery(Struct, kw_only=True):
    """The parameters of GET .../availability; `start` and `end` are dates of `timezone`, both included."""

    start: Day
    end: Day
    timezone: Zone | None = None
    duration: Annotated[int, Meta(ge=1, le=1440)] | None = None
    host_id: str | None = None
    seats: Annotated[int, Meta(ge=1, le=10_000)] = 1
    limit: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    booking_id: str | None = None
    hold_id: str | None = None
    as_of: Instant | None = None


class Slot(Struct):
    """A start that can be booked, in the zone that was asked for."""

    start_at: Instant
    end_at: Instant
    seats_left: int


class SlotDay(Struct):
    date: Day
    slots: list[Slot]


class Availability(Struct, kw_only=True):
    """`truncated` tells that `limit` left a slot out; `stale_since` that a calendar could not be read since then."""

    event_type_id: str
    timezone: str
    start: Day
    end: Day
    truncated: bool = False
    stale_since: Instant | None = None
    days: list[SlotDay]


class ExplainQuery(Struct, kw_only=True):
    start_at: Start
    duration: Annotated[int, Meta(ge=1, le=1440)] | None = None
    seats: Annotated[int, Meta(ge=1, le=10_000)] = 1
    booking_id: str | None = None
    hold_id: str | None = None
    as_of: Instant | None = None


class Cause(Struct):
    type: str
    id: str | None


class RuleVerdict(Struct):
    rule: str
    ok: bool
    detail: str | None
    cause: Cause | None


class HostVerdict(Struct):
    host_id: str
    offered: bool
    rules: list[RuleVerdict]


class Explanation(Struct):
    start_at: Instant
    offered: bool
    hosts: list[HostVerdict]


class OneQuery(Struct, kw_only=True):
    event_type_id: str
    host_id: str | None = None
    duration: Annotated[int, Meta(ge=1, le=1440)] | None = None


class ManyQueries(Struct, kw_only=True):
    start: Day
    end: Day
    timezone: Zone | None = None
    queries: Annotated[list[OneQuery], Meta(min_length=1, max_length=50)]


class ManyAnswers(Struct):
    """Each an Availability, or `{"error": {code, detail, errors}}`, in the order asked."""

    data: list[msgspec.Raw]
