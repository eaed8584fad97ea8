"""What the tests share: calls, event types, and an availability that is always open."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from kalends_booking.handlers.context import Context
from kalends_booking.rpc import METHODS
from kalends_shared import event_store
from kalends_shared.contracts.availability import EventType, EventTypeHost, Location
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import KalendsError, invalid
from kalends_shared.contracts.quotes import (
    Alternative,
    Alternatives,
    AlternativesRequest,
    Quote,
    QuotedHost,
    QuotedResource,
    QuotedStart,
    QuoteRequest,
    Refusal,
)
from kalends_shared.db import Database
from kalends_shared.rpc import encoded
from kalends_shared.testkit.waiting import eventually_async

NOW = datetime(2026, 4, 1, 9, tzinfo=UTC)
NOON = datetime(2026, 4, 10, 12, tzinfo=UTC)
TENANT = "acc_one-live"
HALF_HOUR = timedelta(minutes=30)
_keys = itertools.count()


async def tailed(db: Database, count: int) -> list[event_store.Stored]:
    """So many events as the tail has them, once no transaction of another test on the same server holds it back."""
    found: list[event_store.Stored] = []

    async def whole() -> bool:
        async with db.pool.acquire() as conn:
            found[:] = await event_store.tail(conn, event_store.Position(), count + 1)
        return len(found) >= count

    await eventually_async(whole)
    return found


def event_type(*hosts: str, **settings: Any) -> EventType:
    hosts = hosts or ("hst_ann",)
    fields = {
        "id": "evt_visit",
        "created_at": NOW,
        "updated_at": NOW,
        "version": 1,
        "title": "Visit",
        "slug": "visit",
        "duration_minutes": 30,
        "durations": [30],
        "assignment": "single" if len(hosts) == 1 else "round_robin",
        "hosts": [EventTypeHost(host) for host in hosts],
    }
    return EventType(**{**fields, **settings})


class AlwaysOpen:
    """Availability as booking asks it, for hosts who never sleep: every start on the minute is allowed."""

    def __init__(self, *event_types: EventType, resources: dict[str, int] | None = None) -> None:
        self.event_types = {one.id: one for one in event_types}
        self.resources = resources or {}
        self.asked = 0
        self.refusal: Refusal | None = None
        self.location: Location | None = None

    async def quote(self, call: Call, request: QuoteRequest) -> Quote:
        self.asked += 1
        await asyncio.sleep(0)
        kind = self.event_types.get(request.event_type_id)
        if kind is None and request.booking_id is not None:
            raise KalendsError("inactive", "The booking's event type has been deleted.")
        if kind is None:
            raise invalid("#/event_type_id", "not_found", "does not exist")
        if not kind.active:
            raise KalendsError("inactive", "The event type is not active.")
        hosts = [
            QuotedHost(id=one.host_id, name=one.host_id, email=None, timezone="Europe/Madrid")
            for one in kind.hosts
            if request.host_id in (None, one.host_id)
        ]
        length = timedelta(minutes=kind.duration_minutes)
        if request.end_at is not None:
            length = request.end_at - request.start_at
        starts = []
        for start_at in (request.start_at, *request.more_starts):
            allowed = [] if self.refusal else hosts
            starts.append(QuotedStart(start_at=start_at, end_at=start_at + length, hosts=allowed, refusal=self.refusal))
        return Quote(
            quoted_at=call.now,
            event_type=kind,
            timezone="Europe/Madrid",
            location=self.location,
            resources=[QuotedResource(one, self.resources.get(one, 1)) for one in kind.resource_ids],
            starts=starts,
        )

    async def alternatives(self, _: Call, request: AlternativesRequest) -> Alternatives:
        starts = [request.after + HALF_HOUR * n for n in range(1, request.limit + 1)]
        return Alternatives([Alternative(at, at + HALF_HOUR) for at in starts])


def call(body: Any = None, **fields: Any) -> Call:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body if body is not None else {})
    return Call(**{"tenant": TENANT, "now": NOW, "path": "/things", "body": raw, **fields})


class Client:
    """Calls the handlers as the gateway would."""

    def __init__(self, ctx: Context, tenant: str = TENANT) -> None:
        self.ctx, self.tenant, self.now = ctx, tenant, NOW

    async def ask(self, name: str, /, body: Any = None, **fields: Any) -> Reply:
        fields = {"tenant": self.tenant, "now": self.now, **fields}
        reply = await METHODS[name](self.ctx, call(body, **fields))
        raw = encoded(reply.body)
        reply.body = msgspec.json.decode(raw) if raw else None
        return reply

    async def book(self, start_at: datetime = NOON, key: str | None = None, **body: Any) -> Reply:
        request = {
            "event_type_id": "evt_visit",
            "start_at": start_at,
            "booker_name": "Ada Lovelace",
            "booker_email": "ada@example.test",
            **body,
        }
        return await self.ask("create_booking", request, path="/bookings", idempotency_key=key or f"key-{next(_keys)}")

    async def act(self, booking_id: str, action: str, body: Any = None, key: str | None = None, **fields: Any) -> Reply:
        name = "undo_no_show" if action == "undo_no_show" else f"{action}_booking"
        return await self.ask(
            name,
            body,
            path=f"/bookings/{booking_id}/{action}",
            params={"id": booking_id},
            idempotency_key=key,
            **fields,
        )

    async def get(self, booking_id: str) -> Any:
        return (await self.ask("get_booking", method="GET", params={"id": booking_id})).body

    async def list(self, query: str = "") -> Any:
        return (await self.ask("list_bookings", method="GET", query=query)).body


async def refusal(coming: Any) -> KalendsError:
    """The error that a call is refused with."""
    try:
        reply = await coming
    except KalendsError as error:
        return error
    raise AssertionError(f"expected a refusal, got {reply}")
