"""Writing a booking into a calendar: what is desired is compared with what is there, until they are the same."""

import random
from datetime import UTC, datetime

from msgspec import Struct

from kalends_calendar_sync.domain import backoff
from kalends_calendar_sync.domain.booked import Shape, echo_of, text_of
from kalends_calendar_sync.domain.busy import horizon
from kalends_calendar_sync.domain.mirroring import MOST_STEPS, There, next_step
from kalends_calendar_sync.domain.synced import Context, read_object
from kalends_calendar_sync.metrics import WRITTEN
from kalends_calendar_sync.providers.base import Adapter, Item, ProviderError
from kalends_calendar_sync.reach import Reach
from kalends_calendar_sync.store import bookings, calendars, cursors, mirrors
from kalends_calendar_sync.store.cursors import LeaseLost
from kalends_calendar_sync.store.mirrors import Claim
from kalends_shared import telemetry
from kalends_shared.db import Database


class Wanted(Struct, frozen=True):
    """What the calendar is to hold: nothing where `shape` is None."""

    shape: Shape | None
    changed_at: datetime


class Pusher:
    """Does what one claim asks for; `lease` is in seconds."""

    def __init__(self, db: Database, reach: Reach, *, lease: float) -> None:
        self._db, self._reach, self._lease = db, reach, lease

    async def claim(self, limit: int) -> list[Claim]:
        return await mirrors.claim(self._db.pool, limit, self._lease)

    async def work(self, lease: Claim) -> None:
        with telemetry.unit(
            "calendar", "write", tenant=lease.tenant_id, calendar_id=lease.calendar_id, booking_id=lease.booking_id
        ) as unit:
            try:
                unit.outcome = await self._one(lease)
            except LeaseLost:
                unit.outcome = "lease_lost"
            except ProviderError as error:
                unit.outcome = error.code
                telemetry.annotate(detail=str(error))
                await self._failed(lease, error)
            WRITTEN.labels(unit.outcome).inc()

    async def _one(self, lease: Claim) -> str:
        row = await calendars.find(self._db.pool, lease.tenant_id, lease.calendar_id)
        if row is None:
            await self._db.pool.execute(mirrors.FORGET, lease.tenant_id, lease.calendar_id)
            return "gone"
        found = await bookings.shape(self._db.pool, lease.tenant_id, lease.booking_id) if lease.desired else None
        wanted = Wanted(found[0], found[1]) if found else Wanted(None, datetime.now(UTC))
        if wanted.shape is None and lease.etag is None and not lease.unsure:
            # It was never written, and now never will be.
            await mirrors.applied(self._db.pool, lease, None, None)
            return "nothing"
        known = await cursors.location(self._db.pool, lease.tenant_id, lease.calendar_id)
        async with self._reach.to(row, known) as (calendar, _):
            etag = await self._bring_about(lease, calendar, wanted)
        await mirrors.applied(self._db.pool, lease, etag, echo_of(wanted.shape) if wanted.shape else None)
        return "written" if wanted.shape else "removed"

    async def _bring_about(self, lease: Claim, calendar: Adapter, wanted: Wanted) -> str | None:
        """Step by step until the calendar holds what is wanted; returns the etag of what it holds.

        Raises:
            ProviderError: a step failed, or somebody else keeps changing the item.
        """
        ref = lease.ref or calendar.ref_for(lease.uid)
        there = There(lease.etag, sure=not lease.unsure)
        for _ in range(MOST_STEPS):
            step = next_step(wanted.shape is not None, there)
            telemetry.annotate(step=step)
            if step == "done":
                return there.etag
            try:
                if step == "look":
                    item = await calendar.get(ref)
                    there = (
                        There(item.etag, sure=True, right=_is(item, lease, wanted)) if item else There(None, sure=True)
                    )
                else:
                    await mirrors.begin(self._db.pool, lease, ref)
                    there = There(await self._write(lease, calendar, ref, there.etag, wanted), sure=True, right=True)
            except ProviderError as error:
                if error.code != "conflict":
                    raise
                there = There(None, sure=False)
        raise ProviderError("conflict", "somebody else keeps writing to it", sent=True)

    async def _write(self, lease: Claim, calendar: Adapter, ref: str, etag: str | None, wanted: Wanted) -> str | None:
        if wanted.shape is not None:
            text = text_of(lease.booking_id, lease.uid, lease.desired_rev, wanted.shape, wanted.changed_at)
            return await calendar.put(ref, text, etag)
        if etag is not None:
            await calendar.delete(ref, etag)
        return None

    async def _failed(self, lease: Claim, error: ProviderError) -> None:
        attempt = lease.attempts + 1
        pause = backoff.pause(attempt, backoff.PUSH_FIRST, backoff.PUSH_MOST, random.random(), error.retry_after)
        await mirrors.failed(
            self._db.pool,
            lease,
            pause,
            str(error)[:500],
            dead=attempt >= backoff.PUSH_ATTEMPTS,
            unsure=error.sent,
        )


def _is(item: Item, lease: Claim, wanted: Wanted) -> bool:
    """Whether an item is what is wanted already: of this revision, and not moved since. Other edits are the host's own."""
    if wanted.shape is None:
        return False
    context = Context(UTC, frozenset(), horizon(datetime.now(UTC), 1))
    for read in read_object(item.text, context):
        if read.uid == lease.uid:
            return read.revision == lease.desired_rev and read.echo == echo_of(wanted.shape)
    return False
