"""Create, read, list, change and delete, the same for every kind of thing."""

from collections.abc import Sequence
from datetime import UTC
from typing import Any, Final

import msgspec
from msgspec import Struct
from uuid_utils import uuid7

from kalends_availability.handlers.context import OWN, Context, unknown
from kalends_availability.handlers.kinds import BOOKED, Aside, Kind, free_slug, slug_of, writable
from kalends_availability.store import busy, objects
from kalends_availability.store.objects import Row
from kalends_availability.store.replica import Changed
from kalends_shared import event_store, lists, positions
from kalends_shared.contracts import ids
from kalends_shared.contracts.call import Call, Reply, check_match, etag
from kalends_shared.contracts.decode import decode, patch, query
from kalends_shared.contracts.endpoints import PageQuery
from kalends_shared.contracts.errors import FieldError, KalendsError, invalid_fields
from kalends_shared.contracts.events import NewEvent
from kalends_shared.db import Connection
from kalends_shared.idempotency import idempotent

CATCH_UP_SECONDS: Final = 2.0
_encode: Final = msgspec.json.Encoder().encode
_ASIDE: Final = msgspec.json.Decoder(dict[str, float])


class Newest(Struct):
    """What the lists are sorted by."""

    seq: int


class Things:
    """The handlers of one kind."""

    def __init__(self, ctx: Context, kind: Kind) -> None:
        self._ctx = ctx
        self._kind = kind

    async def create(self, call: Call) -> Reply:
        wanted = decode(call.body, self._kind.made)
        self._hold_to_rules(wanted, call)
        id_ = ids.new_id(self._kind.prefix)
        changes: list[Changed] = []

        async def insert(conn: Connection) -> Reply:
            await self._lock(conn, call, id_, wanted)
            slug = await self._slug(conn, call, id_, wanted)
            body = self._body(wanted, id_, 1, call, call.now)
            aside = self._kind.aside(wanted, {}, call.now)
            appended = await self._append(conn, call, id_, 0, "created", body, body)
            await objects.insert(conn, call.tenant, id_, self._kind.name, 1, slug, body, _bytes(aside))
            await objects.refer(conn, call.tenant, id_, [named.id for named in self._kind.names(wanted)])
            changes.append((call.tenant, id_))
            return Reply(
                status=201, body=body, etag=etag(1), location=f"{self._kind.path}/{id_}", position=_token(appended)
            )

        reply = await idempotent(self._ctx.db, call, insert)
        await self._ctx.committed(changes)
        return reply

    async def get(self, call: Call) -> Reply:
        await self._ctx.seen(call)
        row = await self._one(self._ctx.db.pool, call)
        return Reply(body=row.body, etag=etag(row.version))

    async def list(self, call: Call) -> Reply:
        window = lists.window(query(call.query, PageQuery), Newest)
        await self._ctx.seen(call)
        pool, name = self._ctx.db.pool, self._kind.name
        before = window.after.seq if window.after else None
        rows = await objects.page(pool, call.tenant, name, before, window.take, window.offset)
        total = await objects.count(pool, call.tenant, name) if window.numbered else None
        body = lists.answer(window, rows, key=lambda row: Newest(row.seq), encode=lambda row: row.body, total=total)
        return Reply(body=body)

    async def patch(self, call: Call) -> Reply:
        before = await self._one(self._ctx.db.pool, call)
        wanted = self._merged(call, before)
        async with self._ctx.db.transaction() as conn:
            await self._lock(conn, call, before.id, wanted)
            now_there = await self._one(conn, call)
            check_match(call, now_there.version)
            if now_there.version != before.version:
                # Merged anew, as another change has come between; what it then names was looked at by that change.
                wanted = self._merged(call, now_there)
                await self._look_up(conn, call, wanted)
            slug = await self._slug(conn, call, before.id, wanted)
            version = now_there.version + 1
            body = self._body(wanted, before.id, version, call, self._shown(now_there).created_at)
            aside = self._kind.aside(wanted, _aside(now_there), call.now)
            appended = await self._append(conn, call, before.id, now_there.version, "updated", now_there.body, body)
            await objects.update(conn, call.tenant, before.id, version, slug, body, _bytes(aside))
            await objects.refer(conn, call.tenant, before.id, [named.id for named in self._kind.names(wanted)])
        await self._ctx.committed([(call.tenant, before.id)])
        return Reply(body=body, etag=etag(version), position=_token(appended))

    async def delete(self, call: Call) -> Reply:
        await self._one(self._ctx.db.pool, call)
        if self._kind.name in BOOKED and not await self._ctx.knows_bookings(CATCH_UP_SECONDS):
            raise KalendsError("unavailable", "Whether it is booked cannot be told now.", retry_after=1)
        id_ = call.params["id"]
        async with self._ctx.db.transaction() as conn:
            await event_store.lock(conn, call.tenant, [id_])
            row = await self._one(conn, call)
            check_match(call, row.version)
            await self._unused(conn, call)
            appended = await self._append(conn, call, id_, row.version, "deleted", row.body, b"null")
            await objects.delete(conn, call.tenant, id_)
        await self._ctx.committed([(call.tenant, id_)])
        return Reply(status=204, position=_token(appended))

    # --- what those share

    async def _one(self, conn: Any, call: Call) -> Row:
        row = await objects.one(conn, call.tenant, self._kind.name, call.params["id"])
        if row is None:
            raise unknown(self._kind.words)
        return row

    def _merged(self, call: Call, row: Row) -> Any:
        before = writable(self._kind, row.body)
        if getattr(before, "durations", None) == [getattr(before, "duration_minutes", None)]:
            # Never chosen, so it follows duration_minutes.
            before.durations = None
        wanted = patch(call.body, before)
        if getattr(wanted, "slug", "") is None:
            wanted.slug = self._shown(row).slug
        self._hold_to_rules(wanted, call)
        return wanted

    def _shown(self, row: Row) -> Any:
        return msgspec.json.decode(row.body, type=self._kind.shown)

    def _hold_to_rules(self, wanted: Any, call: Call) -> None:
        self._kind.fill(wanted, call)
        _refuse(tuple(self._kind.check(wanted)))

    async def _lock(self, conn: Connection, call: Call, id_: str, wanted: Any) -> None:
        """Holds the thing and all that it names, so that none of them can be deleted meanwhile; then looks them up."""
        keys = [id_, *(named.id for named in self._kind.names(wanted))]
        if hasattr(wanted, "slug"):
            keys.append("slugs")
        await event_store.lock(conn, call.tenant, keys)
        await self._look_up(conn, call, wanted)

    async def _look_up(self, conn: Connection, call: Call, wanted: Any) -> None:
        named = list(self._kind.names(wanted))
        if not named:
            return
        there = await objects.kinds(conn, call.tenant, [one.id for one in named])
        _refuse(
            tuple(
                FieldError(one.pointer, "not_found", f"is no {one.kind.replace('_', ' ')} here")
                for one in named
                if there.get(one.id) != one.kind
            )
        )

    async def _slug(self, conn: Connection, call: Call, id_: str, wanted: Any) -> str | None:
        """The slug, made of the title where none is said; held until commit by the lock on the account's slugs."""
        if not hasattr(wanted, "slug"):
            return None
        if wanted.slug is None:
            base = slug_of(wanted.title) or self._kind.name.replace("_", "-")
            wanted.slug = free_slug(base, await objects.slugs_like(conn, call.tenant, base, id_))
        elif wanted.slug in await objects.slugs_like(conn, call.tenant, wanted.slug, id_):
            raise KalendsError(
                "slug_in_use", "That slug is in use.", (FieldError("#/slug", "slug_in_use", "is in use"),)
            )
        slug: str = wanted.slug
        return slug

    def _body(self, wanted: Any, id_: str, version: int, call: Call, created_at: Any) -> bytes:
        fields = {name: getattr(wanted, name) for name in self._kind.made.__struct_fields__}
        return _encode(
            self._kind.shown(
                **fields,
                id=id_,
                created_at=created_at.astimezone(UTC),
                updated_at=call.now.astimezone(UTC),
                version=version,
            )
        )

    async def _append(
        self, conn: Connection, call: Call, id_: str, version: int, what: str, data: bytes, state: bytes
    ) -> event_store.Position:
        event = NewEvent(type=f"{self._kind.name}.{what}", data=data, state=state, id=str(uuid7()))
        return (await event_store.append(conn, call, id_, version, [event])).at

    async def _unused(self, conn: Connection, call: Call) -> None:
        id_ = call.params["id"]
        if (by := await objects.referred(conn, call.tenant, id_)) is not None:
            raise KalendsError("in_use", f"{by} refers to it.", extra={"by": by})
        if self._kind.name in BOOKED:
            booking = await busy.upcoming(conn, call.tenant, id_, call.now)
            if booking is not None:
                raise KalendsError("in_use", f"{booking} is still to come.", extra={"by": booking})


def _refuse(errors: Sequence[FieldError]) -> None:
    if errors:
        raise invalid_fields(errors)


def _aside(row: Row) -> Aside:
    return _ASIDE.decode(row.aside) if row.aside is not None else {}


def _bytes(aside: Aside | None) -> bytes | None:
    return None if aside is None else _encode(aside)


def _token(at: event_store.Position) -> str:
    return positions.token(OWN, at)
