"""Connections to external calendars, their events, and what the calendar context's events carry to availability."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

from kalends_shared.contracts.types import EMPTY, Instant, Json, Name, Url, Verbatim


class CalendarIn(Struct, kw_only=True):
    """`url` is the calendar's collection, or where discovery begins; user name and password are never answered."""

    host_id: str
    provider: Literal["caldav", "ics", "google", "microsoft"]
    url: Url | None = None
    username: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    password: Verbatim | None = None
    reads_busy: bool = True
    writes_bookings: bool = False
    metadata: Json = EMPTY

    def problems(self) -> Iterator[tuple[str, str, str]]:
        if self.provider in {"caldav", "ics"} and self.url is None:
            yield "url", "required", "is required of this provider"


class CalendarPatch(Struct, kw_only=True):
    url: Url | None = None
    username: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    password: Verbatim | None = None
    reads_busy: bool = True
    writes_bookings: bool = False
    metadata: Json = EMPTY


class Calendar(Struct, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    host_id: str
    provider: Literal["caldav", "ics", "google", "microsoft"]
    url: str | None = None
    username: str | None = None
    reads_busy: bool = True
    writes_bookings: bool = False
    status: Literal["connected", "error", "disconnected"] = "connected"
    last_synced_at: Instant | None = None
    stale_since: Instant | None = None
    metadata: Json = EMPTY


class CalendarEventIn(Struct, kw_only=True):
    """An own block."""

    host_id: str
    title: Name
    start_at: Instant
    end_at: Instant
    all_day: bool = False
    busy: bool = True
    status: Literal["confirmed", "tentative", "cancelled"] = "confirmed"
    metadata: Json = EMPTY

    def problems(self) -> Iterator[tuple[str, str, str]]:
        if self.end_at <= self.start_at:
            yield "end_at", "invalid", "must be after start_at"


class CalendarEvent(Struct, kw_only=True):
    id: str
    created_at: Instant
    updated_at: Instant
    version: int
    calendar_id: str | None = None
    host_id: str
    source: Literal["provider", "booking", "api"]
    status: Literal["confirmed", "tentative", "cancelled"] = "confirmed"
    title: str | None = None
    start_at: Instant
    end_at: Instant
    all_day: bool = False
    busy: bool = True
    booking_id: str | None = None
    metadata: Json = EMPTY


class CalendarEventsQuery(Struct, kw_only=True):
    status: list[Literal["confirmed", "tentative", "cancelled"]] | None = None
    source: list[Literal["provider", "booking", "api"]] | None = None
    calendar_id: str | None = None
    host_id: str | None = None
    start_after: Instant | None = None
    start_before: Instant | None = None
    order: Literal["asc", "desc"] = "asc"
    limit: Annotated[int, Meta(ge=1, le=100)] | None = None
    cursor: str | None = None
    page: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    per_page: Annotated[int, Meta(ge=1, le=100)] | None = None


# --- the state that events of the calendar context carry


class CalendarState(Calendar, kw_only=True):
    """State of `cal_` streams: calendar.connected, updated, synced, sync_failed, disconnected.

    Busy time of the calendar counts while `reads_busy` holds and it is not disconnected. It is stale while
    `stale_since` is set, or once `last_synced_at` is over 15 minutes old.
    """


class CalendarEventState(CalendarEvent, kw_only=True):
    """State of `cev_` streams: calendar_event.upserted, calendar_event.deleted.

    One for each external event (a whole recurring series) or own block. `intervals` are its busy times in UTC minutes
    since the epoch, [start, end), widened to whole minutes, merged, ascending, empty where it is not busy, as far as
    730 days ahead.
    """

    intervals: list[tuple[int, int]] = []
