"""Calendar events: those that were synced or booked can be read, own blocks also be made, changed and removed."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import msgspec
from msgspec import Struct, structs

from kalends_calendar_sync.domain.busy import Interval, minutes
from kalends_calendar_sync.handlers.common import GetHost, removed, shown, zone_of
from kalends_calendar_sync.store import events
from kalends_calendar_sync.store.events import Shown
from kalends_shared import event_store, idempotency, lists, positions
from kalends_shared.contracts import ids
from kalends_shared.contracts.calendars import CalendarEventIn, CalendarEventsQuery
from kalends_shared.contracts.call import Call, Reply, check_match
from kalends_shared.contracts.decode import decode, patch, query
from kalends_shared.contracts.errors import KalendsError, not_found
from kalends_shared.db import Connection, Database, Queryable
from kalends_shared.event_store import Appended
from kalends_shared.idempotency import idempotent
from kalends_shared.positions import PositionWatch


class ByStart(Struct):
    """What lists of events are sorted by."""

    start_at: datetime
    id: str


class Events:
    """The handlers. `host_zone(call, id)` raises `not_found` for a host that is not; `changed` is called after commits."""

    def __init__(
        self,
        db: Database,
        watches: Mapping[str, PositionWatch],
        host_zone: GetHost,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._db, self._watches, self._host_zone, self._changed = db, watches, host_zone, changed

    async def create(self, call: Call) -> Reply:
        wanted = decode(call.body, CalendarEventIn)
        if (stored := await idempotency.answered(self._db.pool, call)) is not None:
            return stored
        await zone_of(self._host_zone, call, wanted.host_id)

        async def insert(conn: Connection) -> Reply:
            row = Shown(
                id=ids.new_id("cev"),
                calendar_id=None,
                host_id=wanted.host_id,
                source="api",
                status=wanted.status,
                title=wanted.title,
                start_at=wanted.start_at,
                end_at=wanted.end_at,
                all_day=wanted.all_day,
                busy=wanted.busy,
                booking_id=None,
                metadata=bytes(wanted.metadata),
                version=1,
                created_at=call.now,
                updated_at=call.now,
            )
            made = await events.insert(conn, call, row, _busy(row))
            return _shown(row, made, status=201, location=f"/events/{row.id}")

        reply = await idempotent(self._db, call, insert)
        await self._changed()
        return reply

    async def get(self, call: Call) -> Reply:
        await positions.wait_for(self._watches, call)
        return _shown(await self._one(self._db.pool, call))

    async def list(self, call: Call) -> Reply:
        asked = query(call.query, CalendarEventsQuery)
        window = lists.window(asked, ByStart)
        await positions.wait_for(self._watches, call)
        after = (window.after.start_at, window.after.id) if window.after else None
        rows = await events.page(self._db.pool, call.tenant, asked, after, window.take, window.offset)
        total = await events.count(self._db.pool, call.tenant, asked) if window.numbered else None
        return Reply(body=lists.answer(window, rows, key=_key, encode=_encode, total=total))

    async def patch(self, call: Call) -> Reply:
        before = _own(await self._one(self._db.pool, call))
        wanted = patch(call.body, _writable(before))
        if wanted.host_id != before.host_id:
            await zone_of(self._host_zone, call, wanted.host_id)
        async with self._db.transaction() as conn:
            await event_store.lock(conn, call.tenant, [before.id])
            row = _own(await self._one(conn, call))
            check_match(call, row.version)
            wanted = patch(call.body, _writable(row))
            changed = structs.replace(
                row,
                host_id=wanted.host_id,
                status=wanted.status,
                title=wanted.title,
                start_at=wanted.start_at,
                end_at=wanted.end_at,
                all_day=wanted.all_day,
                busy=wanted.busy,
                metadata=bytes(wanted.metadata),
            )
            if changed == row:
                return _shown(row, await event_store.latest(conn, call.tenant, row.id))
            changed.version, changed.updated_at = row.version + 1, call.now
            made = await events.update(conn, call, changed, _busy(changed))
        await self._changed()
        return _shown(changed, made)

    async def delete(self, call: Call) -> Reply:
        async with self._db.transaction() as conn:
            await event_store.lock(conn, call.tenant, [call.params["id"]])
            row = _own(await self._one(conn, call))
            check_match(call, row.version)
            row.version, row.updated_at = row.version + 1, call.now
            made = await events.delete(conn, call, row)
        await self._changed()
        return removed(made)

    async def _one(self, conn: Queryable, call: Call) -> Shown:
        row = await events.find(conn, call.tenant, call.params["id"])
        if row is None:
            raise not_found("The event")
        return row


def _own(row: Shown) -> Shown:
    """Holds a change to own blocks: others are changed where they come from.

    Raises:
        KalendsError: `invalid_state`.
    """
    if row.source != "api":
        where = "its calendar" if row.source == "provider" else "its booking"
        raise KalendsError("invalid_state", f"This event is changed in {where}.", extra={"state": row.source})
    return row


def _busy(row: Shown) -> list[Interval]:
    return [minutes(row.start_at, row.end_at)] if row.busy and row.status != "cancelled" else []


def _writable(row: Shown) -> CalendarEventIn:
    return CalendarEventIn(
        host_id=row.host_id,
        title=row.title or "",
        start_at=row.start_at,
        end_at=row.end_at,
        all_day=row.all_day,
        busy=row.busy,
        status=row.status,  # type: ignore[arg-type]  # one of them, by the body that made it
        metadata=msgspec.Raw(row.metadata),
    )


def _shown(row: Shown, made: Appended | None = None, *, status: int = 200, location: str | None = None) -> Reply:
    return shown(_encode(row), row.version, made, status=status, location=location)


def _encode(row: Shown) -> bytes:
    return msgspec.json.encode(events.public(row))


def _key(row: Shown) -> ByStart:
    return ByStart(row.start_at, row.id)
