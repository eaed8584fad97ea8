"""Booking's event store and relay beside a whole webhooks service, all in this process, on real servers."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
from nats.aio.client import Client

from kalends_shared import event_store, events_rpc, nats
from kalends_shared.consumer import Consumer
from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import BookingState, PersonData
from kalends_shared.contracts.call import Call, Reply, encoded
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope, NewEvent
from kalends_shared.db import Connection, Database
from kalends_shared.event_store import Position, Stored
from kalends_shared.migrations import Schema
from kalends_shared.net import Policy
from kalends_shared.positions import caught_up
from kalends_shared.relay import Relay
from kalends_shared.relay import nudge as wake_relay
from kalends_shared.seal import Keyring
from kalends_webhooks import rpc
from kalends_webhooks.delivery.dialing import Dialer
from kalends_webhooks.delivery.http1 import Client as HttpClient
from kalends_webhooks.delivery.job import Lane
from kalends_webhooks.delivery.sender import Sender
from kalends_webhooks.delivery.targets import Targets
from kalends_webhooks.delivery.worker import Worker
from kalends_webhooks.dispatch import Dispatcher
from kalends_webhooks.domain.signing import Brand
from kalends_webhooks.handlers.changes import Changes
from kalends_webhooks.handlers.deliveries import Deliveries
from kalends_webhooks.handlers.disabling import Disabling
from kalends_webhooks.handlers.replaying import Replaying
from kalends_webhooks.handlers.settling import Settling
from kalends_webhooks.handlers.webhooks import Webhooks
from kalends_webhooks.subscribers import Subscribers

from .making import TENANT, person, state

BOOKING = Schema(name="booking", parts=("event_store",))
KEY = Keyring.generate()
KEYS = Keyring.parse(KEY)
POLICY = Policy(["127.0.0.0/8"], allow_http=True)
BRAND = Brand()
PATIENCE = 120.0  # seconds for what is waited for: machines may be slow, and other tests' transactions hold events back
LATER = 600  # seconds that no test lasts: a retry after it comes when a test says so (`hasten`)


class Guarded:
    """A part that is started again when it fails, as a service's frame does."""

    def __init__(self, part: Any) -> None:
        self._part = part

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._part.run(stop)
            except Exception:  # noqa: BLE001 - what a test kills may show up as anything
                await asyncio.sleep(0.1)


class Rig:
    """One webhooks service: its handlers by name (`ask`), its worker, its consumer of booking.

    `ahead` is how far the workers' clock is ahead of the wall's. `people` is what booking would join into events, by person version.
    """

    def __init__(self, db: Database, booking: Database, bus: Client, context: str) -> None:
        self.db, self.booking, self.bus, self.context = db, booking, bus, context
        self.ahead = timedelta()
        self.people: dict[str, PersonData] = {}
        self.versions: dict[str, int] = {}
        self.relay = Relay(context, booking.url, booking.schema, bus, enrich=self._enrich)
        self.worker = self.make_worker()
        self.consumer = self.make_consumer(self.worker)
        settling = Settling({context: (self.consumer.watch, self._last_event)}, PATIENCE)
        watches = {context: self.consumer.watch}
        self.replaying = Replaying(db, self._due)
        self.handlers = rpc.handlers(
            Webhooks(db, KEYS, POLICY, BRAND, "kalends", settling),
            Deliveries(db, self._due, self.replaying, watches),
            Changes(db, watches),
        )

    @classmethod
    async def open(cls, database_url: str, nats_url: str, context: str = "") -> "Rig":
        db = await Database.connect(database_url, "webhooks", size=6)
        booking = await Database.connect(database_url, BOOKING.name, size=2)
        return cls(db, booking, await nats.connect(nats_url, "rig"), context or f"rig{secrets.token_hex(4)}")

    def make_worker(
        self,
        places: int = 256,
        policy: Policy = POLICY,
        brand: Brand = BRAND,
        *,
        drain_seconds: float = PATIENCE,
        **dialling: Any,
    ) -> Worker:
        client = HttpClient(Dialer(policy, **dialling))
        sender = Sender(client, brand)
        return Worker(
            self.db,
            Targets(self.db, KEYS, policy),
            sender,
            Disabling(self.db, self._nudge, self.clock).follow,
            places=places,
            clock=self.clock,
            drain_seconds=drain_seconds,
        )

    def clock(self) -> datetime:
        """The time by which workers judge: the wall's, and `ahead` of it."""
        return datetime.now(UTC) + self.ahead

    def make_consumer(self, taker: Worker | None) -> Consumer:
        dispatcher = Dispatcher(Subscribers(), self._nudge, taker)
        return Consumer(
            "webhooks", self.context, self.db, self.bus, self._events_after, dispatcher.apply, dispatcher.after_commit
        )

    def guarded_relay(self) -> "Guarded":
        return Guarded(self.relay)

    async def close(self) -> None:
        await self.bus.close()
        await self.booking.close()
        await self.db.close()

    @asynccontextmanager
    async def running(self, *parts: Any) -> AsyncIterator[None]:
        """Runs the parts (relay, consumer, worker) until the block ends; one that raises fails the test."""
        stop = asyncio.Event()
        tasks = [asyncio.create_task(part.run(stop)) for part in parts or (self.relay, self.consumer, self.worker)]
        try:
            yield
        finally:
            stop.set()
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*tasks)

    # --- booking's part

    async def append(
        self, kind: str, booking: Any, data: Any = None, *, tenant: str = TENANT, now: datetime | None = None
    ) -> str:
        """Appends an event as booking would, and wakes its relay; returns the event's id."""
        stream = booking if isinstance(booking, str) else booking.id
        event_id = ids.new_id("ev")
        at = self.versions.get(stream, 0)
        body = b"{}" if isinstance(booking, str) else msgspec.json.encode(booking)
        event = NewEvent(kind, msgspec.json.encode(data or {"previous": None}), body, event_id)
        call = Call(tenant=tenant, now=now or datetime.now(UTC), traceparent=f"00-{'ab' * 16}-{'cd' * 8}-00")
        async with self.booking.pool.acquire() as conn:
            await event_store.append(conn, call, stream, at, [event])
        self.versions[stream] = at + 1
        await wake_relay(self.bus, self.context)
        return event_id

    async def book(self, *, tenant: str = TENANT, **fields: Any) -> BookingState:
        """A booking that is confirmed at once."""
        made = state(**fields)
        self.people[made.person_version] = person(made)
        await self.append("booking.created", made, tenant=tenant)
        return made

    # --- the API

    async def reply(self, method: str, body: Any = None, *, tenant: str = TENANT, **fields: Any) -> Reply:
        params = {"id": fields.pop("id")} if "id" in fields else {}
        call = Call(
            **{
                "tenant": tenant,
                "now": datetime.now(UTC),
                "path": f"/{method}",
                "params": params,
                "deadline": time.time() + 10,
                "body": b"" if body is None else msgspec.json.encode(body),
                **fields,
            }
        )
        return await self.handlers[method](call)

    async def ask(self, method: str, body: Any = None, **fields: Any) -> Any:
        """The parsed answer. Where a position is not reached yet it asks again, as clients do."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    raw = encoded((await self.reply(method, body, **fields)).body)
                    return msgspec.json.decode(raw) if raw else None
                except KalendsError as refused:
                    if refused.code != "position_not_reached":
                        raise

    async def subscribe(self, url: str, events: Sequence[str] = ("*",), *, tenant: str = TENANT, **fields: Any) -> Any:
        return await self.ask("create_webhook", {"url": url, "events": list(events), **fields}, tenant=tenant)

    async def deliveries(self, webhook: Any, query: str = "limit=100", **fields: Any) -> list[Any]:
        page = await self.ask("list_deliveries", id=webhook["id"], query=query, **fields)
        return list(page["data"])

    async def ended(self, webhook: Any, count: int = 1, seconds: float = PATIENCE) -> list[Any]:
        """The deliveries of a webhook, newest first, once so many of them have ended."""
        async with asyncio.timeout(seconds):
            while True:
                found = [one for one in await self.deliveries(webhook) if one["status"] != "pending"]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.02)

    async def waiting(self, webhook: Any) -> Any:
        """A delivery of a webhook that has failed and waits to be tried again, once there is one."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for one in await self.deliveries(webhook):
                    if one["next_attempt_at"] is not None:
                        return one
                await asyncio.sleep(0.02)

    async def hasten(self, webhook: Any) -> None:
        """Makes due what `waiting` has seen, as if its time had come."""
        await self.waiting(webhook)
        await self.db.pool.execute(
            "UPDATE queue SET due_at = now() WHERE webhook_id = $1 AND claim IS NULL", webhook["id"]
        )

    async def changes(self, *, tenant: str = TENANT) -> list[Any]:
        rows: list[Any] = []
        after: str | None = None
        while True:
            page = await self.ask(
                "list_changes", query=f"limit=100&after={after}" if after else "limit=100", tenant=tenant
            )
            rows += page["data"]
            after = page["next_cursor"]
            if not page["has_more"]:
                return rows

    @asynccontextmanager
    async def owner(self) -> AsyncIterator["asyncpg.Connection[Any]"]:
        """The database's owner, whose transactions may last: the service's own end after seconds."""
        conn = await asyncpg.connect(self.db.url, server_settings={"search_path": self.db.schema})
        try:
            yield conn
        finally:
            await conn.close()

    async def value(self, sql: str, *arguments: Any) -> Any:
        return await self.db.pool.fetchval(sql, *arguments)

    async def caught_up(self) -> None:
        """Waits until every event that is appended has been applied."""
        assert await caught_up(self.consumer.watch, self._last_event, PATIENCE)

    # ---

    async def _enrich(self, _: Connection, events: Sequence[Stored]) -> list[dict[str, Any]]:
        found = []
        for event in events:
            told = msgspec.json.decode(event.state)
            versions = [told.get("person_version"), msgspec.json.decode(event.data).get("previous_person_version")]
            found.append({version: self.people[version] for version in versions if version in self.people})
        return found

    async def _events_after(self, position: Position, limit: int) -> Sequence[Envelope]:
        async with self.booking.pool.acquire() as conn:
            return await events_rpc.read(conn, self.context, position, limit, self._enrich)

    async def _last_event(self) -> Position:
        async with self.booking.pool.acquire() as conn:
            return await event_store.last(conn)

    async def _nudge(self, lanes: Any, _: Any) -> None:
        self.worker.wake(lanes)

    async def _due(self, lane: Lane) -> None:
        self.worker.wake([lane])
