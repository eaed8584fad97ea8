"""Applying a source's events to this schema: effects and checkpoint in one transaction, and what happens on an error.

Three kinds of error are told apart. What may pass (a connection, a lock, a timeout) is raised, to be tried again. An
event of a newer schema version raises `NewerSchema`: a later release reads it. Anything else is the event's own fault:
it goes to `dead_letters`, the later events of its stream are parked behind it, and the rest goes on.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
from nats import errors as nats_errors
from prometheus_client import Counter, Gauge

from kalends_shared import dead_letters, telemetry
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection, Database, transient
from kalends_shared.event_store import Position
from kalends_shared.positions import PositionWatch
from kalends_shared.upcasters import UPCASTERS, Upcasters

Apply = Callable[[Connection, list[Envelope]], Awaitable[Any]]
EventsAfter = Callable[[Position, int], Awaitable[Sequence[Envelope]]]
"""The source's events after a position, in order, at most so many; none where there are no more."""
AfterCommit = Callable[[list[Envelope]], Awaitable[None]]

BEGIN: Final = "SELECT tx, position, published_at, parked, retry FROM consumer_begin($1, $2)"
ADVANCE: Final = """
INSERT INTO checkpoints (source, tx, position, published_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (source) DO UPDATE SET tx = excluded.tx, position = excluded.position,
    published_at = coalesce(excluded.published_at, checkpoints.published_at)
WHERE (checkpoints.tx, checkpoints.position) < (excluded.tx, excluded.position)
"""
BURY: Final = """
INSERT INTO dead_letters (source, tx, position, tenant_id, stream_id, event_id, type, status, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""
NEXT_STREAM: Final = """
SELECT tenant_id, stream_id FROM dead_letters WHERE source = $1 AND retry_requested ORDER BY tx, position LIMIT 1
"""
OF_STREAM: Final = """
SELECT tx, position, event_id FROM dead_letters
WHERE source = $1 AND tenant_id = $2 AND stream_id = $3 ORDER BY tx, position LIMIT $4
"""
UNBURY: Final = "DELETE FROM dead_letters WHERE source = $1 AND tx = $2 AND position = $3 RETURNING event_id"
FAILED_AGAIN: Final = """
UPDATE dead_letters SET status = 'failed', error = $4, attempts = attempts + 1, tried_at = now()
WHERE source = $1 AND tx = $2 AND position = $3
"""
END_RETRY: Final = """
UPDATE dead_letters SET retry_requested = false WHERE source = $1 AND tenant_id = $2 AND stream_id = $3 AND retry_requested
"""
COUNT: Final = "SELECT count(*) FROM dead_letters WHERE source = $1"

APPLIED: Final = Counter("kalends_consumer_events_total", "Events applied.", ["source"])
BURIED: Final = Gauge("kalends_dead_letters", "Events failed or parked, as the active consumer last saw.", ["source"])
REPLAY_PAGE: Final = 500
RETRY_PAGE: Final = 50
_ERROR_LENGTH: Final = 2_000
_PASSING_CODES: Final = frozenset({"unavailable", "timeout", "idempotency_in_flight"})


class NewerSchema(Exception):  # noqa: N818  # it is a state of the roll-out
    """The next event has a schema version above the highest that this release knows."""


class Moved(Exception):  # noqa: N818  # it is a state: load and go on
    """Another consumer of the source has moved the checkpoint."""


def passing(error: BaseException) -> bool:
    """Tells whether the same event may be applied later, with nothing changed about it."""
    if isinstance(error, KalendsError):
        return error.code in _PASSING_CODES
    return transient(error) or isinstance(error, nats_errors.Error)


def place(event: Envelope) -> Position:
    return Position(event.tx, event.position)


class Projection:
    """One source's effects in this schema.

    `apply(conn, events)` writes the effects of events in order, in the transaction given; it must bear events of types
    that it does not know. It may append to streams of its own only with a batch of one, since their locks come before
    any write. `after_commit(events)` may tell caches; it is not called for events that were dead-lettered.
    With `durable=False` the commit does not wait for the disk, which read models that a replay brings back can afford.
    """

    def __init__(
        self,
        db: Database,
        source: str,
        apply: Apply,
        after_commit: AfterCommit | None = None,
        *,
        upcasters: Upcasters | None = None,
        durable: bool = True,
    ) -> None:
        self.db, self.source = db, source
        self._apply, self._after_commit = apply, after_commit
        self._upcasters = upcasters or UPCASTERS
        self._durable = durable
        self.watch = PositionWatch(db, source)
        self.at = Position()
        self.published_at: datetime | None = None
        self._applied = APPLIED.labels(source)

    async def load(self) -> None:
        """Reads the checkpoint."""
        async with self.db.transaction() as conn:
            row = await conn.fetchrow(BEGIN, self.source, True)
            assert row is not None
            self.at, self.published_at = Position(row["tx"], row["position"]), row["published_at"]
        self.watch.reset(self.at)

    async def take(self, events: Sequence[Envelope], published_at: datetime | None = None) -> None:
        """Applies the events, which ascend and follow the checkpoint without a hole; those at or below it are skipped.

        `published_at`: when the last of them reached the stream, where they came from there.

        Raises:
            NewerSchema: after those before it were applied.
            Moved: nothing was applied.
            Exception: one that is `passing`; what was applied before it stays.
        """
        fresh = [event for event in events if place(event) > self.at]
        ready = []
        for event in fresh:
            if self._upcasters.newer(event):
                break
            ready.append(self._upcasters.raised(event))
        if ready:
            await self._take(ready, published_at)
        if len(ready) < len(fresh):
            late = fresh[len(ready)]
            raise NewerSchema(f"{late.type} has schema version {late.schema_version}")

    async def _take(self, events: list[Envelope], published_at: datetime | None) -> None:
        try:
            await self._together(events, published_at)
        except Exception as error:
            if passing(error) or isinstance(error, Moved):
                raise
            telemetry.log("consumer.batch_failed", "warning", source=self.source, events=len(events))
            for event in events:
                await self._alone(event, published_at)

    async def _together(self, events: list[Envelope], published_at: datetime | None) -> None:
        """The usual way: all of them in one transaction."""
        # One event's effects are part of its trace; several have a trace of their own, and each is marked in its own.
        traceparent = events[0].traceparent if len(events) == 1 else None
        with telemetry.unit("consume", self.source, traceparent, events=len(events), at=str(place(events[-1]))):
            async with self.db.transaction() as conn:
                parked = await self._begin(conn)
                free = [event for event in events if _stream(event) not in parked] if parked else events
                if free:
                    await self._apply(conn, free)
                for event in events if parked else ():
                    if _stream(event) in parked:
                        await self._bury(conn, event, "parked", None)
                await self._advance(conn, events[-1], published_at)
            for event in free if len(events) > 1 else ():
                if event.traceparent is not None and event.traceparent.endswith("-01"):
                    with telemetry.Unit("consume", self.source, event.traceparent, {"event_id": event.id}, quiet=True):
                        continue
        await self._committed(events[-1], free)

    async def _alone(self, event: Envelope, published_at: datetime | None) -> None:
        """One event, in a savepoint, so that its failure can be written down in the transaction of the checkpoint."""
        applied = []
        async with self.db.transaction() as conn:
            if _stream(event) in await self._begin(conn):
                await self._bury(conn, event, "parked", None)
            else:
                try:
                    async with conn.transaction():
                        await self._apply(conn, [event])
                    applied.append(event)
                except Exception as error:
                    if passing(error):
                        raise
                    telemetry.failed(
                        "consumer.dead_letter", error, source=self.source, event_id=event.id, type=event.type
                    )
                    await self._bury(conn, event, "failed", telemetry.told(error, _ERROR_LENGTH))
            await self._advance(conn, event, published_at)
        await self._committed(event, applied)

    async def _begin(self, conn: Connection) -> frozenset[str]:
        """Holds off other consumers and tells the parked streams."""
        row = await conn.fetchrow(BEGIN, self.source, self._durable)
        assert row is not None
        if (row["tx"], row["position"]) != self.at:
            raise Moved
        return frozenset(row["parked"])

    async def _advance(self, conn: Connection, last: Envelope, published_at: datetime | None) -> None:
        await conn.execute(ADVANCE, self.source, last.tx, last.position, published_at)

    async def _bury(self, conn: Connection, event: Envelope, status: str, error: str | None) -> None:
        await conn.execute(
            BURY, self.source, event.tx, event.position, event.tenant_id, event.stream_id, event.id, event.type,
            status, error,
        )  # fmt: skip

    async def _committed(self, last: Envelope, applied: list[Envelope]) -> None:
        self.at = place(last)
        self._applied.inc(len(applied))
        self.watch.advance(self.at)
        await self._tell(applied)

    async def _tell(self, applied: list[Envelope]) -> None:
        if self._after_commit is not None and applied:
            try:
                await self._after_commit(applied)
            except Exception as error:  # noqa: BLE001 - a cache that was not told; the effects stand
                telemetry.failed("consumer.after_commit", error, source=self.source)

    async def retry_parked(self, events_after: EventsAfter) -> int:
        """Tries the dead letters again for which that was asked, each stream in its order; returns how many were applied.

        The events are asked of their source once more: a dead letter keeps no copy of what they carry.

        Raises:
            Exception: one that is `passing`.
        """
        # Counted anew each time: an operator may have given one up, or a transaction that put one aside have rolled back.
        BURIED.labels(self.source).set(await self.db.pool.fetchval(COUNT, self.source))
        done = 0
        while (stream := await self.db.pool.fetchrow(NEXT_STREAM, self.source)) is not None:
            rows = await self.db.pool.fetch(OF_STREAM, self.source, *stream, RETRY_PAGE)
            events = [await self._again(row, events_after) for row in rows]
            applied: list[Envelope] = []
            async with self.db.transaction() as conn:
                await self._begin(conn)
                for row, event in zip(rows, events, strict=True):
                    try:
                        async with conn.transaction():
                            if await conn.fetchval(UNBURY, self.source, row["tx"], row["position"]) is None:
                                continue  # given up meanwhile
                            if event is None:
                                raise LookupError("the source does not have this event")
                            await self._apply(conn, [event])
                    except Exception as error:
                        if passing(error):
                            raise
                        text = telemetry.told(error, _ERROR_LENGTH)
                        await conn.execute(FAILED_AGAIN, self.source, row["tx"], row["position"], text)
                        await conn.execute(END_RETRY, self.source, *stream)
                        break
                    applied.append(event)
                else:
                    # What has been parked since it was asked for may stand past this page, and waits for nothing any more.
                    await dead_letters.request_retry(conn, self.source, *stream)
            done += len(applied)
            self._applied.inc(len(applied))
            await self._tell(applied)
        return done

    async def _again(self, row: asyncpg.Record, events_after: EventsAfter) -> Envelope | None:
        page = await events_after(Position(row["tx"], row["position"] - 1), 1)
        if not page or page[0].id != row["event_id"]:
            return None
        return self._upcasters.raised(page[0])


async def replay(projection: Projection, events_after: EventsAfter) -> int:
    """Applies everything its source has above the checkpoint: on fresh tables, a rebuild. Returns how many events.

    Raises:
        Exception: as `Projection.take`.
    """
    await projection.load()
    count = 0
    while page := await events_after(projection.at, REPLAY_PAGE):
        await projection.take(page)
        count += len(page)
    return count


def _stream(event: Envelope) -> str:
    return f"{event.tenant_id}/{event.stream_id}"
