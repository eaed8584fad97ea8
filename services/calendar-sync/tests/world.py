"""One tenant's calendars on a real database: what a test does to the service, and what came of it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from peers import PASSWORD, USER, CalendarServer

from kalends_calendar_sync import consumers
from kalends_calendar_sync.handlers.calendars import Calendars
from kalends_calendar_sync.handlers.events import Events
from kalends_calendar_sync.pull import Puller
from kalends_calendar_sync.push import Pusher
from kalends_calendar_sync.reach import Reach
from kalends_calendar_sync.schema import SCHEMA
from kalends_shared.contracts import ids
from kalends_shared.contracts.booking import BookingState, EventTypeSnapshot, Guest, HostSnapshot, PersonData, Policies
from kalends_shared.contracts.calendars import CalendarEventState
from kalends_shared.contracts.call import Call, Reply
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Database
from kalends_shared.event_store import Stored
from kalends_shared.net import Policy
from kalends_shared.seal import Keyring

TENANT = "acc_1-live"
HOST, OTHER_HOST = ids.derived("hst", "ana"), ids.derived("hst", "ben")
POLICY = Policy(["127.0.0.0/8"], allow_http=True)
KEY = Keyring.generate()
BEGAN = datetime.now(UTC)


async def host_zone(_: Call, host_id: str) -> str:
    """Stands for availability, which knows two hosts."""
    if host_id in {HOST, OTHER_HOST}:
        return "Europe/Madrid"
    raise KalendsError("not_found")


async def nothing() -> None: ...


class World:
    def __init__(self, db: Database, *, timeout: float = 60.0, lease: float = 300.0) -> None:
        self.db = db
        self.keyring = Keyring.parse(KEY)
        reach = Reach(POLICY, self.keyring, timeout)
        self.puller = Puller(db, reach, poll=60, lease=lease, nudge=nothing, edited=lambda: None)
        self.pusher = Pusher(db, reach, lease=lease)
        self.calendars = Calendars(db, self.keyring, POLICY, {}, host_zone, nothing)
        self.blocks = Events(db, {}, host_zone, nothing)
        self._versions: dict[str, int] = {}

    @classmethod
    async def open(cls, url: str, **more: Any) -> "World":
        return cls(await Database.connect(url, SCHEMA.name), **more)

    def call(self, body: Any = None, tenant: str = TENANT, **more: Any) -> Call:
        raw = b"" if body is None else msgspec.json.encode(body)
        return Call(tenant=tenant, now=datetime.now(UTC), body=raw, **more)

    async def connect(self, server: CalendarServer, **more: Any) -> str:
        body = {"host_id": HOST, "provider": "caldav", "url": server.url, "username": USER, "password": PASSWORD}
        reply = await self.calendars.create(self.call(body | more, path="/calendars"))
        assert reply.status == 201
        return str(shown(reply)["id"])

    async def calendar(self, calendar_id: str) -> dict[str, Any]:
        return shown(await self.calendars.get(self.call(params={"id": calendar_id})))

    async def read(self, calendar_id: str | None = None, *, ask: bool = False) -> None:
        """Has every calendar read once, now; with `ask` as if somebody had asked for it."""
        if ask:
            await self.calendars.sync(self.call(params={"id": str(calendar_id)}, path="/sync"))
        await self.db.pool.execute("UPDATE cursors SET wake_at = now()")
        for lease in await self.puller.claim(10):
            await self.puller.work(lease)

    async def write(self, rounds: int = 1) -> None:
        """Has what is due written, and what failed tried again, so many times."""
        for _ in range(rounds):
            await self.db.pool.execute("UPDATE mirrors SET wake_at = now() WHERE wake_at IS NOT NULL")
            for lease in await self.pusher.claim(50):
                await self.pusher.work(lease)

    async def events(self) -> list[Stored]:
        """All events in order. Not by `tail`, which other tests' transactions on the same server hold back."""
        sql = f"SELECT {', '.join(Stored._fields)} FROM events WHERE tenant_id = $1 ORDER BY position"
        return [Stored(*row) for row in await self.db.pool.fetch(sql, TENANT)]

    async def types(self) -> list[str]:
        return [event.type for event in await self.events()]

    async def busy(self) -> list[tuple[str, str]]:
        """The busy times to come as availability would have them from the events alone."""
        states: dict[str, CalendarEventState] = {}
        for event in await self.events():
            if event.stream_id.startswith("cev_"):
                state = msgspec.json.decode(event.state, type=CalendarEventState)
                states[event.stream_id] = state
                if event.type == "calendar_event.deleted":
                    del states[event.stream_id]
        pairs = sorted({pair for state in states.values() for pair in state.intervals})
        return [(moment(start), moment(end)) for start, end in pairs]

    async def listed(self, **filters: Any) -> list[dict[str, Any]]:
        query = "&".join(f"{name}={value}" for name, value in ({"limit": 100} | filters).items())
        data: list[dict[str, Any]] = shown(await self.blocks.list(self.call(query=query)))["data"]
        return data

    async def booking(self, name: str = "one", *, tenant: str = TENANT, **changes: Any) -> str:
        """Tells of a booking, or of a change to it, as the booking service does."""
        booking_id = ids.derived("bkg", name)
        version = self._versions[booking_id] = self._versions.get(booking_id, 0) + 1
        start = changes.pop("start_at", tomorrow(10))
        state = BookingState(
            id=booking_id,
            created_at=datetime.now(UTC),
            updated_at=datetime.now(UTC),
            version=version,
            event_type_id="evt_1",
            start_at=start,
            end_at=start + timedelta(minutes=30),
            status=changes.pop("status", "confirmed"),
            seats=1,
            host_ids=changes.pop("host_ids", [HOST]),
            resource_ids=[],
            person_id="per_1",
            person_version="v_1",
            event_type=EventTypeSnapshot(id="evt_1", slug="first", title="First visit", duration_minutes=30),
            hosts=[HostSnapshot(id=HOST, name="Ana")],
            policies=Policies(),
            **changes,
        )
        guests = [Guest(name="Grace", email="grace@example.test"), Guest(email="alan@example.test")]
        person = PersonData(person_id="per_1", name="Ada Lovelace", email="ada@example.test", guests=guests)
        await self.tell("booking.updated", booking_id, state, {"v_1": msgspec.Raw(msgspec.json.encode(person))}, tenant)
        return booking_id

    async def tell(
        self, kind: str, stream: str, state: Any, people: dict[str, Any] | None = None, tenant: str = TENANT
    ) -> None:
        event = Envelope(
            id="e", type=kind, source="booking", tenant_id=tenant, stream_id=stream,
            version=self._versions.get(stream, 1), tx=1, position=1, occurred_at=datetime.now(UTC),
            state=msgspec.Raw(msgspec.json.encode(state)), people=people or {},
        )  # fmt: skip
        apply = consumers.apply_availability if kind.startswith("host.") else consumers.apply_booking
        async with self.db.transaction() as conn:
            await apply(conn, [event])

    async def mirrors(self) -> Sequence[Any]:
        return list(await self.db.pool.fetch("SELECT * FROM mirrors ORDER BY booking_id, calendar_id"))


def shown(reply: Reply) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(reply.body)
    return made


def tomorrow(hour: int, minute: int = 0, days: int = 1) -> datetime:
    """The day after the one on which the run began, which may end after midnight."""
    return BEGAN.replace(hour=hour, minute=minute, second=0, microsecond=0) + timedelta(days=days)


def moment(minutes: int) -> str:
    return datetime.fromtimestamp(minutes * 60, UTC).strftime("%m-%dT%H:%M")


def at(start: datetime, minutes: int = 60) -> str:
    """The lines of an event at that time."""
    end = start + timedelta(minutes=minutes)
    return f"DTSTART:{start:%Y%m%dT%H%M%SZ}\nDTEND:{end:%Y%m%dT%H%M%SZ}\nSUMMARY:Something"


def span(start: datetime, minutes: int = 60) -> tuple[str, str]:
    """The same as busy time."""
    return moment(int(start.timestamp()) // 60), moment(int(start.timestamp()) // 60 + minutes)
