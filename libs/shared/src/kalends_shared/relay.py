"""Postgres -> JetStream: publishes a context's events in the order of (tx, position), each once, for as long as it runs.

The stream itself says where to go on: its last message names the event it is. One elected relay writes it, and each
write is fenced by the sequence it expects to be the last, so that a second relay, a wiped stream or a lost end of it
shows as an error, upon which the last message is read again. Nothing is kept here that would have to be true.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import asyncpg
import msgspec
from nats import errors as nats_errors
from nats.aio.client import Client
from prometheus_client import Counter, Gauge, Histogram

from kalends_shared import event_store, telemetry
from kalends_shared.db import Connection, direct, transient
from kalends_shared.event_store import Position, Stored
from kalends_shared.jetstream import WRONG_LAST_SEQUENCE, JetStreamError
from kalends_shared.leader import elected
from kalends_shared.publisher import SINGLES, Message, Publisher
from kalends_shared.service import wait

Enrich = Callable[[Connection, list[Stored]], Awaitable[Sequence[dict[str, msgspec.Raw] | None]]]

RETENTION: Final = timedelta(days=7)
BATCH: Final = 500
POLL_SECONDS: Final = (0.002, 0.25)
PACE_SECONDS: Final = 0.008  # between rounds under load, so that a round has more than one event to publish
PROBE_SECONDS: Final = 1.0
BACKOFF: Final = (0.1, 1.0)
REFUSED_SECONDS: Final = 5.0

EVENT_AT: Final = "SELECT id FROM events WHERE tx = $1 AND position = $2"
HORIZON: Final = """
SELECT pg_snapshot_xmin(s)::text::bigint AS oldest, pg_snapshot_xmax(s)::text::bigint AS next FROM pg_current_snapshot() AS s
"""
READ_HINT: Final = "SELECT stream_created, last_seq, tx, position FROM relay_hints WHERE context = $1"
SAVE_HINT: Final = """
INSERT INTO relay_hints (context, stream_created, last_seq, tx, position) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (context) DO UPDATE SET stream_created = excluded.stream_created, last_seq = excluded.last_seq,
    tx = excluded.tx, position = excluded.position
"""

PUBLISHED: Final = Counter("kalends_relay_published_total", "Events published.", ["context"])
DELAY: Final = Histogram(
    "kalends_relay_delay_seconds", "From the begin of an event's transaction to its acknowledgement by the stream.", ["context"],
    buckets=(0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 1.0, 5.0, 30.0, 300.0),
)  # fmt: skip
ACTIVE: Final = Gauge("kalends_relay_active", "1 where this process publishes the context.", ["context"])
HELD_BACK: Final = Gauge(
    "kalends_relay_held_back_seconds",
    "How long the oldest writing transaction of the server has held the tail back.",
    ["context"],
)
REFUSED: Final = Gauge(
    "kalends_relay_refused", "1 while the stream ends in an event that the database does not have.", ["context"]
)


class StreamRefused(Exception):  # noqa: N818  # it is a state that an operator ends
    """The stream's last event is not in the database, as after a restore: see `publisher.wipe` and `event_store.raise_epoch`."""


async def nudge(bus: Client, context: str) -> None:
    """Wakes the context's relay after a commit. It may fail unheard: the relay looks by itself four times a second."""
    try:
        await bus.publish(f"kalends.nudge.{context}")
    except nats_errors.Error:
        telemetry.log("nudge.lost", "warning", context=context)


class Relay:
    """Publishes one context's events; run one in every replica, one of them is active.

    `url` leads to Postgres itself, not to a pooler. `enrich(conn, events)` gives for each event what is joined into its
    message as `people`.
    """

    def __init__(
        self,
        context: str,
        url: str,
        schema: str,
        bus: Client,
        enrich: Enrich | None = None,
        *,
        retention: timedelta = RETENTION,
        replicas: int = 1,
    ) -> None:
        self.context, self.active = context, False
        self.refused: str | None = None
        self._url, self._schema, self._bus, self._enrich = url, schema, bus, enrich
        self._retention = retention
        self._stream = Publisher(bus, context, retention, replicas)
        self._nudged = asyncio.Event()
        self._last = Position()
        self._probed = 0.0
        self._hinted = 0
        self._horizon, self._horizon_since = 0, time.monotonic()
        self._published, self._delay = PUBLISHED.labels(context), DELAY.labels(context)

    async def run(self, stop: asyncio.Event) -> None:
        """Stands for election, publishes, and after an error stands again, until `stop` is set."""
        subscription = await self._bus.subscribe(f"kalends.nudge.{self.context}", cb=self._hear)
        pause = BACKOFF[0]
        try:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    async with elected(
                        self._connect, "kalends.relay", f"{self._schema}/{self.context}", stop, beat=False
                    ) as lease:
                        if lease is not None:
                            await self._lead(lease.conn, stop)
                except StreamRefused as refused:
                    self.refused = str(refused)
                    REFUSED.labels(self.context).set(1)
                    telemetry.log("relay.refused", "error", context=self.context, reason=str(refused))
                    await wait(stop, REFUSED_SECONDS)
                except Exception as error:  # noqa: BLE001 - whatever it was, the stream says where to go on
                    if transient(error) or isinstance(error, nats_errors.Error | JetStreamError):
                        telemetry.log(
                            "relay.interrupted",
                            "warning",
                            context=self.context,
                            error=telemetry.brief(error),
                        )
                    else:
                        telemetry.failed("relay.failed", error, context=self.context)
                    pause = BACKOFF[0] if time.monotonic() - began > 2 * BACKOFF[1] else min(pause * 2, BACKOFF[1])
                    await wait(stop, pause * random.uniform(0.5, 1.0))
        finally:
            if not self._bus.is_closed:
                await subscription.unsubscribe()

    async def nudge(self) -> None:
        """Wakes the context's relay after a commit, as `nudge`, but without a message where that is this one."""
        if self.active:
            self._nudged.set()
        else:
            await nudge(self._bus, self.context)

    async def _connect(self) -> "asyncpg.Connection[Any]":
        return await direct(self._url, self._schema, f"relay-{self.context}")

    async def _hear(self, _: Any) -> None:
        self._nudged.set()

    async def _lead(self, conn: "asyncpg.Connection[Any]", stop: asyncio.Event) -> None:
        self.active = True
        ACTIVE.labels(self.context).set(1)
        try:
            await self._resume(conn)
            telemetry.log("relay.active", context=self.context, at=str(self._last), sequence=self._stream.sequence)
            await self._publish_on(conn, stop)
            await self._save_hint(conn)
        finally:
            self.active = False
            ACTIVE.labels(self.context).set(0)

    async def _publish_on(self, conn: "asyncpg.Connection[Any]", stop: asyncio.Event) -> None:
        pause = POLL_SECONDS[1]
        while not stop.is_set():
            await self._probe(conn)
            nudged = self._nudged.is_set()
            self._nudged.clear()
            began = time.monotonic()
            rows = await event_store.tail(conn, self._last, BATCH)
            if rows:
                try:
                    await self._publish(conn, rows)
                except JetStreamError as error:
                    if error.code != WRONG_LAST_SEQUENCE:
                        raise
                    telemetry.log("relay.fenced", "warning", context=self.context, expected=self._stream.sequence)
                    await self._resume(conn)
                if len(rows) <= SINGLES:
                    await asyncio.sleep(began + PACE_SECONDS - time.monotonic())
                continue
            # A nudge that found nothing came from a commit which an older open transaction still hides: it will show soon.
            pause = POLL_SECONDS[0] if nudged else min(pause * 2, POLL_SECONDS[1])
            await wait(self._nudged, pause)

    async def _probe(self, conn: "asyncpg.Connection[Any]") -> None:
        """Once a second, and when NATS has come back, looks whether the stream still ends where we left it."""
        now = time.monotonic()
        if not self._stream.reconnected and now - self._probed < PROBE_SECONDS:
            return
        unchanged = await self._stream.unchanged()
        self._probed = now
        await self._watch_horizon(conn, now)
        if not unchanged:
            telemetry.log("relay.stream_changed", "warning", context=self.context, expected=self._stream.sequence)
            await self._resume(conn)
        elif self._stream.sequence != self._hinted:
            await self._save_hint(conn)

    async def _watch_horizon(self, conn: "asyncpg.Connection[Any]", now: float) -> None:
        """Tells how long a transaction has been open somewhere on the server, which holds back everything after it."""
        row = await conn.fetchrow(HORIZON)
        assert row is not None
        if row["oldest"] != self._horizon or row["oldest"] == row["next"]:
            self._horizon, self._horizon_since = row["oldest"], now
        HELD_BACK.labels(self.context).set(now - self._horizon_since)

    async def _resume(self, conn: "asyncpg.Connection[Any]") -> None:
        """Finds out from the stream what was published last.

        Raises:
            StreamRefused: the database does not know that event.
        """
        await self._stream.open()
        try:
            last = await self._stream.last()
        except ValueError as error:
            raise StreamRefused(str(error)) from error
        if last is not None:
            if await conn.fetchval(EVENT_AT, last.tx, last.position) != last.id:
                raise StreamRefused(
                    f"{self._stream.name} ends in event {last.id} at {last.tx}.{last.position}, which is not in the database"
                )
            self._last = Position(last.tx, last.position)
        else:
            hint = await conn.fetchrow(READ_HINT, self.context)
            if hint is not None and tuple(hint[:2]) == (self._stream.created, self._stream.sequence):
                self._last = Position(hint["tx"], hint["position"])  # it has aged out empty, and was whole before
            else:
                self._last = await event_store.older_than(conn, self._retention)
        self.refused = None
        REFUSED.labels(self.context).set(0)
        self._probed = time.monotonic()

    async def _publish(self, conn: Connection, rows: list[Stored]) -> None:
        messages = await encoded(conn, rows, self.context, self._last, self._enrich)
        done = 0
        while done < len(rows):
            count = await self._stream.publish(messages[done:])
            done += count
            row = rows[done - 1]
            self._last = row.at
            self._published.inc(count)
            self._delay.observe(max(time.time() - row.recorded_at.timestamp(), 0))

    async def _save_hint(self, conn: Connection) -> None:
        await conn.execute(SAVE_HINT, self.context, self._stream.created, self._stream.sequence, *self._last)
        self._hinted = self._stream.sequence


async def encoded(
    conn: Connection, rows: list[Stored], context: str, previous: Position, enrich: Enrich | None
) -> list[Message]:
    """Subject and message of each event, each naming the position before it."""
    people = await enrich(conn, rows) if enrich is not None else [None] * len(rows)
    messages = []
    for row, joined in zip(rows, people, strict=True):
        message = msgspec.json.encode(event_store.envelope(row, context, previous, joined))
        messages.append((f"kalends.ev.{context}.{row.tenant_id}.{row.type}", message))
        previous = row.at
    return messages
