"""Reading a calendar: fetches what has changed, and tells of it as events.

A reading is fetched whole and then written: in one transaction where it is small, in several of bounded size where it
is not, of which the last brings the cursor. A crash between them repeats the reading, which then finds what was written.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from msgspec import Struct, structs

from kalends_calendar_sync.domain import backoff, reading
from kalends_calendar_sync.domain.busy import horizon
from kalends_calendar_sync.domain.mirroring import MOST_CORRECTIONS
from kalends_calendar_sync.domain.reading import Batch, Known, Maker, Object
from kalends_calendar_sync.domain.synced import Context, Read, calendar_zone, read_object
from kalends_calendar_sync.lifecycle import disconnect
from kalends_calendar_sync.metrics import CHANGED, DIVERGED, QUARANTINED, READ
from kalends_calendar_sync.providers.base import Adapter, Located, ProviderError
from kalends_calendar_sync.reach import Reach
from kalends_calendar_sync.store import calendars, cursors, items, mirrors
from kalends_calendar_sync.store.calendars import Connected, worker_call
from kalends_calendar_sync.store.cursors import Claim, Done, LeaseLost
from kalends_calendar_sync.store.mirrors import Own
from kalends_shared import event_store, telemetry
from kalends_shared.contracts import ids
from kalends_shared.db import Connection, Database

BATCH: Final = 400
# As far as a booking window reaches, and a month more, so that a series is expanded anew monthly and not daily.
BOOKING_DAYS: Final = 730
EXPANDED_DAYS: Final = BOOKING_DAYS + 30
WHOLE_EVERY: Final = timedelta(hours=24)
# Well below the 15 minutes after which a calendar counts as stale.
TELL_EVERY: Final = timedelta(minutes=10)
MASS_DELETION: Final = "so much is gone at once that it is doubted; asking for a sync confirms it"

Series = dict[str, list[Known]]


class Fetched(Struct):
    """What a reading has found: objects that are new or changed, and refs of what is gone."""

    objects: dict[str, Object]
    gone: set[str]
    token: str | None = None
    whole: bool = False


class Memory:
    """What is known of a calendar, read when it is first asked for: most readings find nothing new. `fresh`: forget etags."""

    def __init__(self, db: Database, row: Connected, *, fresh: bool) -> None:
        self._db, self._row, self._fresh = db, row, fresh
        self._series: Series | None = None

    async def series(self) -> Series:
        if self._series is None:
            self._series = defaultdict(list)
            for one in await items.known(self._db.pool, self._row.tenant_id, self._row.id):
                self._series[one.ref].append(one)
        return self._series

    async def etags(self) -> dict[str, str]:
        return {} if self._fresh else {ref: some[0].etag for ref, some in (await self.series()).items()}


class Puller:
    """Reads one calendar for each claim. `poll` and `lease` are seconds; `edited` wakes the writing of bookings."""

    def __init__(
        self,
        db: Database,
        reach: Reach,
        *,
        poll: float,
        lease: float,
        nudge: Callable[[], Awaitable[None]],
        edited: Callable[[], None],
    ) -> None:
        self._db, self._reach, self._poll, self._lease = db, reach, poll, lease
        self._nudge, self._edited = nudge, edited

    async def claim(self, limit: int) -> list[Claim]:
        return await cursors.claim(self._db.pool, limit, self._lease)

    async def work(self, lease: Claim) -> None:
        with telemetry.unit("calendar", "read", tenant=lease.tenant_id, calendar_id=lease.calendar_id) as unit:
            try:
                unit.outcome = await self._one(lease)
            except LeaseLost:
                unit.outcome = "lease_lost"
            READ.labels(unit.outcome).inc()

    async def _one(self, lease: Claim) -> str:
        row = await calendars.find(self._db.pool, lease.tenant_id, lease.calendar_id)
        if row is None:
            await self._db.pool.execute(cursors.DELETE, lease.tenant_id, lease.calendar_id)
            return "gone"
        if lease.orphaned:
            await self._orphan(lease)
            return "disconnected"
        try:
            async with self._reach.to(row, lease.location) as (calendar, located):
                if lease.location is None:
                    await cursors.locate(self._db.pool, lease, located)
                return await self._read(lease, row, calendar, located)
        except ProviderError as error:
            telemetry.annotate(detail=str(error))
            await self._failed(lease, error.code, str(error), error.retry_after)
            return error.code

    async def _read(self, lease: Claim, row: Connected, calendar: Adapter, located: Located) -> str:
        now = datetime.now(UTC)
        known = Memory(self._db, row, fresh=lease.refresh)
        owners = located.owners | ({row.username.lower()} if row.username and "@" in row.username else set())
        zone = calendar_zone(located.timezone, row.host_zone)
        context = Context(zone, frozenset(owners), horizon(now, EXPANDED_DAYS))
        found = await self._fetch(lease, calendar, known, context, now)
        series = await known.series() if found.objects or found.gone or found.whole else {}
        doubted = not lease.asked and reading.is_mass_deletion(series, found.gone, now)
        if doubted:
            found.gone = set()
        batches = await self._decide(row, found, series, context, now)
        batches += await self._expand_further(row, found, known, context, now)
        await self._write(lease, batches, found, now, doubted=doubted)
        if doubted:
            await self._failed(lease, "doubted", MASS_DELETION, None)
            return "doubted"
        return "ok"

    async def _fetch(
        self, lease: Claim, calendar: Adapter, known: "Memory", context: Context, now: datetime
    ) -> Fetched:
        """Reads all pages; the lease is renewed as it goes."""
        found = Fetched({}, set())
        whole = lease.refresh or lease.whole_at is None or now - lease.whole_at > WHOLE_EVERY
        clock = asyncio.get_running_loop().time
        renewed = clock()
        async for page in calendar.changes(lease.token, known.etags, whole=whole):
            for item in page.items:
                found.objects[item.ref] = Object(item.ref, item.etag, read_object(item.text, context))
                found.gone.discard(item.ref)
                await asyncio.sleep(0)  # a year of a daily series takes milliseconds, and there are many of them
            for ref in page.gone:
                found.objects.pop(ref, None)
                found.gone.add(ref)
            if page.complete:
                found.gone = set(await known.series()) - page.present
                found.whole = True
            found.token = page.token or found.token
            if clock() - renewed > self._lease / 4:
                await cursors.renew(self._db.pool, lease, self._lease)
                renewed = clock()
        return found

    async def _decide(
        self, row: Connected, found: Fetched, known: Series, context: Context, now: datetime
    ) -> list[Batch]:
        """What each object changes. Our own events are told apart first: they are never busy."""
        uids = {read.uid for one in found.objects.values() for read in one.series}
        uids |= {k.uid for ref in found.gone for k in known.get(ref, ())}
        own = await mirrors.own(self._db.pool, row.tenant_id, sorted(uids))
        make = Maker(now, context.window.end, partial(ids.new_id, "cev"))
        batches = []
        for one in found.objects.values():
            batches.append(reading.of_object(one, known.get(one.ref, ()), partial(_is_own, own), make))
            QUARANTINED.inc(sum(read.problem is not None for read in one.series))
            for read in one.series:
                await self._compare(row, own.get(read.uid), one, read)
        for ref in found.gone:
            for k in known.get(ref, ()):
                batches.append(reading.gone(k))
                await self._compare(row, own.get(k.uid), Object(ref, "", []), None)
        return batches

    async def _expand_further(
        self, row: Connected, found: Fetched, known: "Memory", context: Context, now: datetime
    ) -> list[Batch]:
        """Series whose expansion no longer reaches as far as a booking window does."""
        further = Maker(now, context.window.end, partial(ids.new_id, "cev"), expanding=True)
        least = now + timedelta(days=BOOKING_DAYS + 1)
        batches = []
        for ref, uid, etag, source in await items.running_out(self._db.pool, row.tenant_id, row.id, least, BATCH):
            before = [k for k in (await known.series()).get(ref, ()) if k.uid == uid]
            if ref in found.objects or ref in found.gone or not before:
                continue
            series = [read for read in read_object(source, context) if read.uid == uid]
            # Without its hash it counts as changed, and so is told of anew.
            forgotten = [structs.replace(k, hash=None) for k in before]
            batches.append(reading.of_object(Object(ref, etag, series), forgotten, lambda _: False, further))
            await asyncio.sleep(0)
        return batches

    async def _compare(self, row: Connected, ours: Own | None, found: Object, read: Read | None) -> None:
        """Tells an echo of what we wrote from an edit by the host, which the writing of bookings then looks at."""
        if ours is None or ours.calendar_id != row.id or ours.ref != found.ref or not ours.idle:
            return
        if ours.applied_rev != ours.desired_rev or (read is not None and found.etag == ours.etag):
            return
        there = read is not None
        if there == ours.desired and (read is None or read.echo == ours.written_hash):
            if read is not None:
                await self._db.pool.execute(mirrors.SEEN, row.tenant_id, ours.uid, ours.applied_rev, found.etag)
            return
        telemetry.log("calendar.edited", booking_id=ours.booking_id, calendar_id=row.id, there=there)
        DIVERGED.inc()
        await self._db.pool.execute(mirrors.DIVERGED, row.tenant_id, ours.uid, ours.applied_rev, MOST_CORRECTIONS)
        self._edited()

    async def _write(
        self, lease: Claim, batches: Sequence[Batch], found: Fetched, now: datetime, *, doubted: bool
    ) -> None:
        call = worker_call(lease.tenant_id, lease.calendar_id)
        whole = Batch()
        for one in batches:
            whole.add(one)
        parts = list(_parts(batches)) or [Batch()]
        for number, part in enumerate(parts, 1):
            async with self._db.transaction() as conn:
                await event_store.lock(conn, lease.tenant_id, [lease.calendar_id])
                await cursors.hold(conn, lease)
                row = await calendars.find(conn, lease.tenant_id, lease.calendar_id)
                if row is None:
                    raise LeaseLost
                if part.size:
                    await items.write(conn, call, row.id, row.host_id, part)
                if number == len(parts) and not doubted:
                    await self._finish(conn, lease, row, found, whole, now)
            await self._nudge()
        CHANGED.labels("upserted").inc(len(whole.upserted))
        CHANGED.labels("deleted").inc(len(whole.deleted))
        telemetry.annotate(
            objects=len(found.objects), upserted=len(whole.upserted), deleted=len(whole.deleted), whole=found.whole
        )

    async def _finish(
        self, conn: Connection, lease: Claim, row: Connected, found: Fetched, whole: Batch, now: datetime
    ) -> None:
        """The last transaction: the cursor, and what is told of the calendar itself."""
        upserted = [one for one in whole.upserted if not one.expanded]
        news = bool(upserted or whole.deleted) or row.status != "connected" or row.stale_since is not None
        tell = news or lease.asked or lease.told_at is None or now - lease.told_at > TELL_EVERY
        row.status, row.last_synced_at, row.stale_since = "connected", now, None
        if tell:
            # What only shows that the calendar is still read is nobody's news outside.
            kind = "calendar.synced" if news or lease.asked or lease.told_at is None else "calendar.checked"
            data = {"upserted": len(upserted), "deleted": len(whole.deleted)}
            await calendars.change(conn, worker_call(row.tenant_id, row.id), row, [calendars.event(row, kind, data)])
        else:
            await calendars.touch(conn, row, now)
        problems = sum(r.problem is not None for r in whole.rows)
        how = Done(
            pause=self._poll * random.uniform(0.9, 1.1),
            token=found.token,
            whole_at=now if found.whole else None,
            told_at=now if tell else None,
            error=f"{problems} objects cannot be understood" if problems else None,
            asked=lease.asked,
            refreshed=lease.refresh,
        )
        await cursors.done(conn, lease, how)

    async def _failed(self, lease: Claim, code: str, detail: str, retry_after: float | None) -> None:
        """Notes a reading that failed; the first one after a good one is told of."""
        first = min(backoff.PULL_FIRST, self._poll)
        pause = backoff.pause(lease.failures + 1, first, backoff.PULL_MOST, random.random(), retry_after)
        async with self._db.transaction() as conn:
            await event_store.lock(conn, lease.tenant_id, [lease.calendar_id])
            await cursors.hold(conn, lease)
            row = await calendars.find(conn, lease.tenant_id, lease.calendar_id)
            if row is not None and (row.status != "error" or row.stale_since is None):
                row.status, row.stale_since = "error", row.last_synced_at or row.created_at
                event = calendars.event(row, "calendar.sync_failed", {"code": code, "detail": detail})
                await calendars.change(conn, worker_call(row.tenant_id, row.id), row, [event])
            await cursors.failed(conn, lease, pause, detail[:500])
        await self._nudge()

    async def _orphan(self, lease: Claim) -> None:
        """Disconnects the calendar of a host that was deleted."""
        async with self._db.transaction() as conn:
            await event_store.lock(conn, lease.tenant_id, [lease.calendar_id])
            row = await calendars.find(conn, lease.tenant_id, lease.calendar_id)
            if row is not None:
                await disconnect(conn, worker_call(row.tenant_id, row.id), row, {"reason": "host_deleted"})
        await self._nudge()


def _is_own(own: dict[str, Own], read: Read) -> bool:
    """Whether an event is ours: by its UID, in whichever calendar, or by the booking that it is marked with."""
    return read.uid in own or (read.marker is not None and ids.valid(read.marker.strip(), "bkg"))


def _parts(batches: Sequence[Batch]) -> Iterator[Batch]:
    """The same in transactions of bounded size; what one object changes stays together."""
    part = Batch()
    for one in batches:
        if part.size and part.size + one.size > BATCH:
            yield part
            part = Batch()
        part.add(one)
    if part.size:
        yield part
