"""Connections: connect, read, list, change, disconnect, ask to be read again."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from kalends_calendar_sync import vault
from kalends_calendar_sync.handlers.common import GetHost, removed, shown, zone_of
from kalends_calendar_sync.lifecycle import disconnect
from kalends_calendar_sync.providers import SUPPORTED
from kalends_calendar_sync.store import calendars, cursors, mirrors
from kalends_calendar_sync.store.calendars import Connected
from kalends_shared import event_store, idempotency, lists, positions
from kalends_shared.contracts import ids
from kalends_shared.contracts.calendars import CalendarIn, CalendarPatch
from kalends_shared.contracts.call import Call, Reply, check_match
from kalends_shared.contracts.decode import decode, patch, query
from kalends_shared.contracts.endpoints import NoBody, PageQuery
from kalends_shared.contracts.errors import invalid, not_found
from kalends_shared.db import Connection, Database, Queryable
from kalends_shared.event_store import Appended
from kalends_shared.idempotency import idempotent
from kalends_shared.net import Policy, UrlNotAllowedError
from kalends_shared.positions import PositionWatch
from kalends_shared.seal import Keyring

# Holds off the consumer of bookings, so that none is missed between it and a calendar that begins to be written to.
HOLD_BOOKINGS: Final = "SELECT consumer_begin('booking', true)"


class Newest(Struct):
    """What lists of connections are sorted by."""

    created_at: datetime
    id: str


class Calendars:
    """The handlers. `host_zone(call, id)` gives a host's zone or raises `not_found`; `changed` is called after commits."""

    def __init__(
        self,
        db: Database,
        keyring: Keyring,
        policy: Policy,
        watches: Mapping[str, PositionWatch],
        host_zone: GetHost,
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._db, self._keyring, self._policy, self._watches = db, keyring, policy, watches
        self._host_zone, self._changed = host_zone, changed

    async def create(self, call: Call) -> Reply:
        wanted = decode(call.body, CalendarIn)
        if (stored := await idempotency.answered(self._db.pool, call)) is not None:
            return stored
        if wanted.provider not in SUPPORTED:
            raise invalid("#/provider", "not_supported", f"must be caldav; {wanted.provider} is not supported yet")
        self._check_url(wanted.url)
        zone = await zone_of(self._host_zone, call, wanted.host_id)

        async def insert(conn: Connection) -> Reply:
            calendar_id = ids.new_id("cal")
            row = Connected(
                tenant_id=call.tenant,
                id=calendar_id,
                host_id=wanted.host_id,
                provider=wanted.provider,
                url=wanted.url,
                username=wanted.username,
                sealed=vault.seal(self._keyring, wanted.password, call.tenant, calendar_id, 1),
                credentials=1,
                reads_busy=wanted.reads_busy,
                writes_bookings=wanted.writes_bookings,
                status="connected",
                last_synced_at=None,
                stale_since=None,
                metadata=bytes(wanted.metadata),
                host_zone=zone,
                version=1,
                stream_version=0,
                created_at=call.now,
                updated_at=call.now,
            )
            if row.writes_bookings:
                await conn.execute(HOLD_BOOKINGS)
            made = await calendars.insert(conn, call, row)
            await conn.execute(cursors.INSERT, call.tenant, row.id)
            if row.writes_bookings:
                await mirrors.begin_writing(conn, call.tenant, row.id, call.now)
            return _shown(row, made, status=201, location=f"/calendars/{row.id}")

        reply = await idempotent(self._db, call, insert)
        await self._changed()
        return reply

    async def get(self, call: Call) -> Reply:
        await positions.wait_for(self._watches, call)
        return _shown(await self._one(self._db.pool, call))

    async def list(self, call: Call) -> Reply:
        window = lists.window(query(call.query, PageQuery), Newest)
        await positions.wait_for(self._watches, call)
        after = (window.after.created_at, window.after.id) if window.after else None
        rows = await calendars.page(self._db.pool, call.tenant, after, window.take, window.offset)
        total = await calendars.count(self._db.pool, call.tenant) if window.numbered else None
        return Reply(body=lists.answer(window, rows, key=_key, encode=_encode, total=total))

    async def patch(self, call: Call) -> Reply:
        row = await self._one(self._db.pool, call)
        wanted = patch(call.body, _writable(row))
        if wanted.url != row.url:
            self._check_url(wanted.url)
        async with self._db.transaction() as conn:
            if wanted.writes_bookings:
                await conn.execute(HOLD_BOOKINGS)
            await event_store.lock(conn, call.tenant, [row.id])
            row = await self._one(conn, call)
            check_match(call, row.version)
            # Merged anew, as another change may have come between.
            made = await self._change(conn, call, row, patch(call.body, _writable(row)))
        await self._changed()
        return _shown(row, made)

    async def _change(self, conn: Connection, call: Call, row: Connected, wanted: CalendarPatch) -> Appended | None:
        before = structs.replace(row)
        named = msgspec.json.decode(call.body or b"{}", type=dict[str, Any])
        moved = wanted.url != row.url or wanted.username != row.username
        row.url, row.username = wanted.url, wanted.username
        row.reads_busy, row.writes_bookings = wanted.reads_busy, wanted.writes_bookings
        row.metadata = bytes(wanted.metadata)
        if "password" in named:
            row.credentials += 1
            row.sealed = vault.seal(self._keyring, wanted.password, call.tenant, row.id, row.credentials)
        previous = {
            name: getattr(before, name)
            for name in ("url", "username", "reads_busy", "writes_bookings")
            if getattr(before, name) != getattr(row, name)
        }
        if row == before:
            return await event_store.latest(conn, call.tenant, row.id)
        row.version += 1
        row.updated_at = call.now
        made = await calendars.change(
            conn, call, row, [calendars.event(row, "calendar.updated", {"previous": previous or None})]
        )
        if moved or "password" in named:
            await conn.execute(cursors.RESTART, call.tenant, row.id, moved)
        if moved:
            await conn.execute(mirrors.RESTART, call.tenant, row.id)
        elif "password" in named:
            await conn.execute(mirrors.REVIVE, call.tenant, row.id)
        if row.writes_bookings and not before.writes_bookings:
            await mirrors.begin_writing(conn, call.tenant, row.id, call.now)
        elif before.writes_bookings and not row.writes_bookings:
            await mirrors.end_writing(conn, call.tenant, row.id, call.now)
        return made

    async def delete(self, call: Call) -> Reply:
        async with self._db.transaction() as conn:
            await event_store.lock(conn, call.tenant, [call.params["id"]])
            row = await self._one(conn, call)
            check_match(call, row.version)
            made = await disconnect(conn, call, row, {"reason": "asked"})
        await self._changed()
        return removed(made)

    async def sync(self, call: Call) -> Reply:
        """Has the calendar read at once, and tries again what was given up on writing into it."""
        decode(call.body, NoBody)

        async def ask(conn: Connection) -> Reply:
            row = await self._one(conn, call)
            check_match(call, row.version)
            await conn.execute(cursors.ASK, call.tenant, row.id)
            await conn.execute(mirrors.REVIVE, call.tenant, row.id)
            return _shown(row, await event_store.latest(conn, call.tenant, row.id), status=202)

        reply = await idempotent(self._db, call, ask)
        await self._changed()
        return reply

    async def _one(self, conn: Queryable, call: Call) -> Connected:
        row = await calendars.find(conn, call.tenant, call.params["id"])
        if row is None:
            raise not_found("The calendar")
        return row

    def _check_url(self, url: str | None) -> None:
        try:
            self._policy.check_url(url or "")
        except UrlNotAllowedError as error:
            raise invalid("#/url", "url_not_allowed", str(error)) from error


def _writable(row: Connected) -> CalendarPatch:
    """What PATCH merges into; the password, which never comes out, counts as not given."""
    return CalendarPatch(
        url=row.url,
        username=row.username,
        reads_busy=row.reads_busy,
        writes_bookings=row.writes_bookings,
        metadata=msgspec.Raw(row.metadata),
    )


def _shown(row: Connected, made: Appended | None = None, *, status: int = 200, location: str | None = None) -> Reply:
    return shown(_encode(row), row.version, made, status=status, location=location)


def _encode(row: Connected) -> bytes:
    return msgspec.json.encode(calendars.public(row))


def _key(row: Connected) -> Newest:
    return Newest(row.created_at, row.id)
