"""What the tests of the service share: a replica of it without its process, and a client of its handlers."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from nats.aio.client import Client as Bus

from kalends_availability import rpc
from kalends_availability.handlers.context import Context
from kalends_availability.projections import bookings, calendars
from kalends_availability.projections.followed import Followed
from kalends_availability.store.answers import Answers
from kalends_availability.store.replica import Changed, Replica
from kalends_shared.contracts.booking import BookingState, EventTypeSnapshot, HoldState, Policies
from kalends_shared.contracts.calendars import CalendarEventState, CalendarState
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Database
from kalends_shared.positions import PositionWatch
from kalends_shared.rpc import Handler

NOW = datetime(2026, 4, 1, 9, tzinfo=UTC)
DAY = datetime(2026, 4, 6, tzinfo=UTC)  # a Monday
ALWAYS = {"name": "Always", "timezone": "UTC", "weekly": [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "start": "00:00", "end": "24:00"}]}  # fmt: skip
OFFICE = {"name": "Office", "timezone": "Europe/Madrid", "weekly": [{"days": ["mon", "tue", "wed", "thu", "fri"], "start": "09:00", "end": "11:00"}]}  # fmt: skip
_numbers = itertools.count(1)


class Node:
    """One replica of the service, without its process."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self.db, self.bus = db, bus
        self.replica = Replica(db)
        self.behind = False  # whether there are bookings that it does not know yet
        self.bookings = Followed(bookings.apply, self.replica, bus)
        self.calendars = Followed(calendars.apply, self.replica, bus)
        self.told = True  # whether commits are broadcast
        watches = {source: PositionWatch(db, source) for source in ("booking", "calendar")}
        ctx = Context(db, self.replica, watches, self._knows_bookings, self._committed)
        self.methods: dict[str, Handler] = rpc.handlers(ctx, Answers(1_000_000))

    @classmethod
    async def start(cls, db: Database, bus: Bus) -> "Node":
        node = cls(db, bus)
        await node.replica.sweep()
        await node.replica.listen(bus)
        await bus.flush()
        return node

    async def _knows_bookings(self, _seconds: float) -> bool:
        return not self.behind

    async def _committed(self, changes: Sequence[Changed]) -> None:
        if self.told:
            await self.replica.changed(self.bus, changes)
        else:
            self.replica.forget(changes)


class Client:
    """Calls the handlers as the gateway and booking would."""

    def __init__(self, node: Node, tenant: str = "") -> None:
        self.node, self.now = node, NOW
        self.tenant = tenant or f"acc_{next(_numbers)}-live"

    async def ask(self, name: str, /, body: Any = None, **fields: Any) -> Reply:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body if body is not None else {})
        fields = {"tenant": self.tenant, "now": self.now, "path": f"/{name}", "body": raw, **fields}
        reply = await self.node.methods[name](Call(**fields))
        raw = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
        reply.body = msgspec.json.decode(raw) if raw else None
        return reply

    async def made(self, kind: str, body: Any = None, **fields: Any) -> Any:
        reply = await self.ask(f"create_{kind}", body, **fields)
        assert reply.status == 201
        return reply.body

    async def host(self, schedule: Any = ALWAYS, **fields: Any) -> Any:
        table = await self.made("schedule", schedule)
        return await self.made("host", {"name": "Ann", "schedule_id": table["id"], **fields})

    async def event_type(self, *hosts: Any, **settings: Any) -> Any:
        hosts = hosts or (await self.host(),)
        body = {
            "title": f"Visit {next(_numbers)}",
            "duration_minutes": 30,
            "hosts": [{"host_id": h["id"]} for h in hosts],
        }
        return await self.made("event_type", {**body, **settings})

    async def get(self, kind: str, id_: str, **fields: Any) -> Reply:
        return await self.ask(f"get_{kind}", method="GET", params={"id": id_}, **fields)

    async def patch(self, kind: str, id_: str, body: Any, **fields: Any) -> Reply:
        return await self.ask(f"patch_{kind}", body, method="PATCH", params={"id": id_}, **fields)

    async def delete(self, kind: str, id_: str, **fields: Any) -> Reply:
        return await self.ask(f"delete_{kind}", method="DELETE", params={"id": id_}, **fields)

    async def availability(self, id_: str, query: str = "", **fields: Any) -> Any:
        query = f"start={DAY:%Y-%m-%d}&end={DAY:%Y-%m-%d}{query}" if "start=" not in query else query
        return (await self.ask("availability", method="GET", params={"id": id_}, query=query, **fields)).body

    async def starts(self, id_: str, query: str = "", **fields: Any) -> list[datetime]:
        """The starts offered on `DAY`."""
        found = await self.availability(id_, query, **fields)
        return [datetime.fromisoformat(slot["start_at"]) for day in found["days"] for slot in day["slots"]]

    async def quote(self, id_: str, start_at: datetime, **fields: Any) -> Any:
        body = {"event_type_id": id_, "start_at": start_at, **fields}
        return (await self.ask("quote", body)).body

    # --- what happened elsewhere

    async def booked(self, kind: Any, start_at: datetime, *, version: int = 1, type_: str = "booking.created", **state: Any) -> BookingState:  # fmt: skip
        """Projects an event of a booking, as booking tells it."""
        made = BookingState(**{**_common(kind, start_at), "id": f"bkg_{next(_numbers)}", "version": version, "status": "confirmed", "person_id": "per_1", "person_version": "v", "resource_ids": [], **state})  # fmt: skip
        await self.project(envelope(self.tenant, made.id, version, type_, made, made.updated_at))
        return made

    async def held(self, kind: Any, start_at: datetime, *, version: int = 1, type_: str = "hold.placed", **state: Any) -> HoldState:  # fmt: skip
        made = HoldState(**{**_common(kind, start_at), "id": f"hld_{next(_numbers)}", "version": version, "status": "active", "ttl_seconds": 300, "expires_at": NOW + timedelta(seconds=300), **state})  # fmt: skip
        await self.project(envelope(self.tenant, made.id, version, type_, made, made.updated_at))
        return made

    async def project(self, *events: Envelope) -> None:
        async with self.node.db.transaction() as conn:
            await self.node.bookings.apply(conn, list(events))
        if self.node.told:
            await self.node.bookings.after_commit(list(events))

    async def busy_calendar(self, host: Any, *intervals: tuple[datetime, datetime], id_: str = "cev_1", version: int = 1, type_: str = "calendar_event.upserted", **state: Any) -> None:  # fmt: skip
        minutes = [(int(a.timestamp()) // 60, int(b.timestamp()) // 60) for a, b in intervals]
        made = CalendarEventState(**{"id": id_, "created_at": NOW, "updated_at": NOW, "version": version, "host_id": host["id"], "source": "provider", "start_at": NOW, "end_at": NOW, "calendar_id": "cal_1", "intervals": minutes, **state})  # fmt: skip
        await self._calendar(envelope(self.tenant, id_, version, type_, made, NOW))

    async def calendar(self, host: Any, *, version: int = 1, type_: str = "calendar.synced", **state: Any) -> None:
        made = CalendarState(**{"id": "cal_1", "created_at": NOW, "updated_at": NOW, "version": version, "host_id": host["id"], "provider": "caldav", **state})  # fmt: skip
        await self._calendar(envelope(self.tenant, "cal_1", version, type_, made, made.updated_at))

    async def _calendar(self, event: Envelope) -> None:
        async with self.node.db.transaction() as conn:
            await self.node.calendars.apply(conn, [event])
        await self.node.calendars.after_commit([event])


def _common(kind: Any, start_at: datetime) -> dict[str, Any]:
    policies = Policies(
        buffer_before_minutes=kind["buffer_before_minutes"],
        buffer_after_minutes=kind["buffer_after_minutes"],
        capacity=kind["capacity"],
    )
    return {
        "created_at": NOW, "updated_at": NOW, "event_type_id": kind["id"], "start_at": start_at,
        "end_at": start_at + timedelta(minutes=kind["duration_minutes"]), "seats": 1, "hosts": [], "policies": policies,
        "host_ids": [kind["hosts"][0]["host_id"]],
        "event_type": EventTypeSnapshot(id=kind["id"], slug=None, title="t", duration_minutes=30),
    }  # fmt: skip


def envelope(tenant: str, stream: str, version: int, type_: str, state: Any, at: datetime) -> Envelope:
    return Envelope(
        id=f"ev-{next(_numbers)}", type=type_, source="booking", tenant_id=tenant, stream_id=stream, version=version,
        tx=next(_numbers), position=1, occurred_at=at, state=msgspec.Raw(msgspec.json.encode(state)),
    )  # fmt: skip


async def refusal(coming: Any) -> KalendsError:
    """The error that a call is refused with."""
    try:
        reply = await coming
    except KalendsError as error:
        return error
    raise AssertionError(f"expected a refusal, got {reply}")


def pointers(error: KalendsError) -> list[tuple[str, str]]:
    return [(field.pointer, field.code) for field in error.fields]


def at(hour: float) -> datetime:
    """A time of `DAY`."""
    return DAY + timedelta(hours=hour)
