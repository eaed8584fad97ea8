"""A service's consumer of one source: elected, ordered, and made whole over RPC wherever the stream has a hole.

The stream is only the quick way. A message names the position before its own; where that is above the checkpoint,
something is missing, and `events_after` of the source's service fills it. So a wiped stream, a lost consumer, a server
that restarts and events older than the stream's retention all end the same way: from the checkpoint on, in order, once.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from nats.aio.client import Client
from prometheus_client import Gauge

from kalends_shared import telemetry
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Database
from kalends_shared.event_store import Position
from kalends_shared.jetstream import (
    STREAM_NOT_FOUND,
    Delivered,
    Feed,
    FeedLost,
    JetStreamError,
    LastMessage,
    last_message,
    stream_name,
)
from kalends_shared.leader import Lease, elected
from kalends_shared.projection import AfterCommit, Apply, EventsAfter, Moved, NewerSchema, Projection, passing, place
from kalends_shared.service import wait
from kalends_shared.upcasters import Upcasters

BATCH: Final = 200
IDLE_SECONDS: Final = 0.5
PACE_SECONDS: Final = 0.012  # between transactions under load, so that one has more than one event to apply
LOOK_SECONDS: Final = 1.0
CATCH_UP_SECONDS: Final = 10.0
EARLIER: Final = timedelta(seconds=5)  # should the server's clock have been set back
TRIES: Final = 4
BACKOFF: Final = (0.05, 1.0)
PAUSE_SECONDS: Final = 3.0

ACTIVE: Final = Gauge("kalends_consumer_active", "1 where this process holds the source's lease.", ["source"])
PAUSED: Final = Gauge(
    "kalends_consumer_paused",
    "1 while the next event needs a later release, or the stream is not its source's.",
    ["source"],
)
_decode: Final = msgspec.json.Decoder(Envelope).decode


class GapError(Exception):
    """The stream names an event that the source does not have (any more)."""


class ForeignStream(Exception):  # noqa: N818  # it is a state that an operator ends
    """The stream's last event is not in its source's database, as after a restore of that."""


class Consumer:
    """Applies a source's events to this service's schema; run one in every replica, one of them is active.

    `events_after(position, limit)` gives the source's events after a position out of its database (`rpc_events_after`).
    `apply` and `after_commit`: see `Projection`. `batch=1` for an `apply` that appends to streams of its own.
    `pace`: seconds between transactions under load; more of them gather more events for each.
    `watch` is what `positions.wait_for` waits with, in any replica.
    """

    def __init__(
        self,
        name: str,
        source: str,
        db: Database,
        bus: Client,
        events_after: EventsAfter,
        apply: Apply,
        after_commit: AfterCommit | None = None,
        *,
        upcasters: Upcasters | None = None,
        batch: int = BATCH,
        pace: float = PACE_SECONDS,
        durable: bool = True,
    ) -> None:
        self.name, self.source = name, source
        self._db, self._bus, self._events_after = db, bus, events_after
        self._batch, self._pace = batch, pace
        self.projection = Projection(db, source, apply, after_commit, upcasters=upcasters, durable=durable)
        self.watch = self.projection.watch
        self.active = False
        self.paused: str | None = None
        self._stop = asyncio.Event()
        self._caught_up = -CATCH_UP_SECONDS
        self._look_at = 0.0

    @property
    def position(self) -> Position:
        """How far the active consumer has got; in other replicas, how far this one once saw it."""
        return self.projection.at

    async def run(self, stop: asyncio.Event) -> None:
        """Stands for election, leads, and after an error stands again, until `stop` is set."""
        self._stop = stop
        pause = BACKOFF[0]
        while not stop.is_set():
            began = time.monotonic()
            try:
                async with elected(lambda: self._db.direct(f"consumer-{self.source}"), "kalends.consumer",
                                   f"{self._db.schema}/{self.source}", stop) as lease:  # fmt: skip
                    if lease is not None:
                        await self._lead(lease, stop)
            except (NewerSchema, ForeignStream) as state:
                # Out of the way, so that a replica of the later release may lead.
                self._pause(str(state))
                await wait(stop, PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever it was, the checkpoint says where to go on
                if passing(error) or isinstance(error, JetStreamError | Moved):
                    telemetry.log("consumer.interrupted", "warning", source=self.source, error=telemetry.brief(error))
                else:
                    telemetry.failed("consumer.failed", error, source=self.source)
                pause = BACKOFF[0] if time.monotonic() - began > 2 * BACKOFF[1] else min(pause * 2, BACKOFF[1])
                await wait(stop, pause * random.uniform(0.5, 1.0))

    async def _lead(self, lease: Lease, stop: asyncio.Event) -> None:
        await self.projection.load()
        self.active = True
        ACTIVE.labels(self.source).set(1)
        telemetry.log("consumer.active", source=self.source, at=str(self.position))
        try:
            while not (stop.is_set() or lease.lost.is_set()):
                try:
                    async with Feed(self._bus, stream_name(self.source), self._since()) as feed:
                        await self._hold_to_source()
                        self._caught_up = -CATCH_UP_SECONDS
                        while not (stop.is_set() or lease.lost.is_set()):
                            await self._step(feed, lease)
                except FeedLost as lost:
                    telemetry.log("consumer.feed_lost", "warning", source=self.source, reason=str(lost))
                except JetStreamError as error:
                    if error.code != STREAM_NOT_FOUND:
                        raise
                    # The relay will make it; until then its source may have events.
                    await self._keep_house(idle=True)
                    await wait(stop, IDLE_SECONDS)
        finally:
            self.active = False
            ACTIVE.labels(self.source).set(0)

    def _since(self) -> datetime | None:
        published_at = self.projection.published_at
        return None if published_at is None else published_at - EARLIER

    async def _hold_to_source(self) -> None:
        """Looks, before it reads on, whether the source has the stream's last event.

        After a restore the stream tells of events that its source has lost, and whose places it will give to others. Its
        relay publishes nothing behind such an event, so one look at each beginning is enough.

        Raises:
            ForeignStream: it has not.
            KalendsError: the source is away; one that is `passing`.
        """
        found = await last_message(self._bus, self.source)
        if found is None:
            return
        try:
            last = msgspec.json.decode(found[1], type=LastMessage)
        except msgspec.MsgspecError:
            return  # no event at all; the relay refuses it, and reading passes over it
        if (last.tx, last.position) <= self.position:
            return  # there is nothing in it to apply
        page = await self._ask(Position(last.tx, last.position - 1), 1)
        if not page or page[0].id != last.id:
            raise ForeignStream(
                f"{self.source} does not have event {last.id} at {last.tx}.{last.position} of its stream"
            )

    async def _step(self, feed: Feed, lease: Lease) -> None:
        messages = await feed.take(self._batch, IDLE_SECONDS)
        if lease.lost.is_set():
            return
        if messages:
            began = time.monotonic()
            await self._handle(messages)
            if len(messages) < self._batch:
                await asyncio.sleep(began + self._pace - time.monotonic())
        await self._keep_house(idle=not messages)

    async def _handle(self, messages: Sequence[Delivered]) -> None:
        """Applies what follows the checkpoint without a hole, filling holes on the way."""
        run: list[Envelope] = []
        last, published_at = self.position, None
        for message in messages:
            try:
                event = _decode(message.data)
            except msgspec.MsgspecError as error:
                # The next event will name one before it that is missing, and the source still has it.
                telemetry.failed("consumer.unreadable_message", error, source=self.source)
                continue
            if place(event) <= last:
                continue
            if (event.prev_tx, event.prev_position) > last:
                await self._take(run, published_at)
                run = []
                await self._fill(Position(event.prev_tx, event.prev_position))
                last = self.position
                if place(event) <= last:
                    continue
            run.append(event)
            last, published_at = place(event), message.published_at
        await self._take(run, published_at)

    async def _fill(self, upto: Position) -> None:
        telemetry.log("consumer.gap", source=self.source, at=str(self.position), upto=str(upto))
        while self.position < upto:
            page = await self._ask(self.position, BATCH)
            if not page:
                raise GapError(f"{self.source} has no event between {self.position} and {upto}")
            await self._take(page, None)

    async def _keep_house(self, *, idle: bool) -> None:
        """Every second the retries that were asked for; while nothing arrives, now and then whether the stream keeps up."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            await self.projection.retry_parked(self._ask)
            if idle and now - self._caught_up >= CATCH_UP_SECONDS:
                while page := await self._ask(self.position, BATCH):
                    await self._take(page, None)
                self._caught_up = now
        except KalendsError as error:
            if not passing(error):
                raise
            # The source's service is away; its stream may still serve.
            telemetry.log("consumer.source_away", "warning", source=self.source, error=error.code)

    async def _ask(self, position: Position, limit: int) -> Sequence[Envelope]:
        """Asks the source, but waits for nobody once this process is to end: its source may have ended before it.

        Raises:
            KalendsError: `unavailable` then.
        """
        asking, stopping = (
            asyncio.ensure_future(self._events_after(position, limit)),
            asyncio.ensure_future(self._stop.wait()),
        )
        try:
            await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise KalendsError("unavailable")
            return asking.result()
        finally:
            asking.cancel()
            stopping.cancel()

    async def _take(self, events: Sequence[Envelope], published_at: datetime | None) -> None:
        """Applies, in smaller batches after what may pass: a lock, a timeout, a connection."""
        size, tries = self._batch, 0
        rest = list(events)
        while rest:
            try:
                await self.projection.take(rest[:size], published_at if len(rest) <= size else None)
            except Moved:
                await self.projection.load()
            except Exception as error:
                tries += 1
                if not passing(error) or tries >= TRIES:
                    raise
                size = max(size // 4, 1)
                await asyncio.sleep(BACKOFF[0] * 4**tries * random.uniform(0.1, 0.25))
            else:
                tries = 0
            rest = [event for event in rest if place(event) > self.position]
        if self.paused is not None and events:
            self._pause(None)

    def _pause(self, reason: str | None) -> None:
        if reason != self.paused:
            telemetry.log(
                "consumer.paused" if reason else "consumer.resumed", "warning", source=self.source, reason=reason
            )
        self.paused = reason
        PAUSED.labels(self.source).set(0 if reason is None else 1)
