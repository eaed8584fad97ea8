import asyncio
import random
from collections.abc import Sequence

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client

from kalends_shared import dead_letters, event_store, events_rpc, jetstream, leader, migrations, nats, positions
from kalends_shared.consumer import Consumer
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Database, transient
from kalends_shared.event_store import Position
from kalends_shared.jetstream import JetStreamError, stream_name
from kalends_shared.projection import passing
from kalends_shared.publisher import wipe
from kalends_shared.servers import Nats, Postgres

from .helpers import (
    SCHEMA,
    api,
    append,
    call,
    cut_leader,
    envelopes,
    event,
    eventually,
    fill,
    relay,
    running,
    stored_ids,
)
from .sink import Sink, publish


async def test_what_is_appended_arrives_in_order_and_the_checkpoint_with_it(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    await fill(db, 450)
    consumer = sink.consumer(bus, context)
    async with running(relay(db, bus, context).run, consumer.run):
        await eventually(sink.whole)
        last = await append(db, "thg_0", 90)
        assert await consumer.watch.wait(last.at, 60)
        assert await sink.whole()
        await eventually(lambda: consumer.position == last.at)  # the watch may read of the commit before its maker does
    assert sink.told == await stored_ids(db)
    assert max(sink.calls) > 1, "what waits is taken in batches"


async def test_caught_up_is_past_what_an_open_transaction_hides(
    db: Database, database_url: str, bus: Client, context: str, sink: Sink
) -> None:
    consumer = sink.consumer(bus, context)

    async def last_event() -> Position:
        async with db.pool.acquire() as conn:
            return await event_store.last(conn)

    async def nobody() -> Position:
        raise KalendsError("unavailable")

    assert await positions.caught_up(consumer.watch, last_event, 60), "nothing has happened yet"
    async with running(relay(db, bus, context).run, consumer.run):
        older = await asyncpg.connect(database_url)  # without the timeouts of our own connections
        await older.execute("BEGIN; SELECT pg_current_xact_id()")
        await append(db, "thg_0", 0)
        assert not await positions.caught_up(consumer.watch, last_event, 0.5)
        await older.close()
        assert await positions.caught_up(consumer.watch, last_event, 60)
        assert await sink.whole()
    assert not await positions.caught_up(consumer.watch, nobody, 20)


async def test_a_restarted_consumer_goes_on_from_its_checkpoint(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    async with running(relay(db, bus, context).run):
        for n in range(3):
            await append(db, "thg_0", n)
            async with running(sink.consumer(bus, context).run):
                await eventually(sink.whole)


async def test_duplicates_and_messages_out_of_order_have_no_effect(
    db: Database, bus: Client, source: str, sink: Sink
) -> None:
    await fill(db, 60)
    events = await envelopes(db, source)
    pick = random.Random(3)
    mixed = events * 2 + pick.sample(events, len(events))
    pick.shuffle(mixed)
    await publish(bus, mixed, source)
    async with running(sink.consumer(bus, source).run):
        await eventually(sink.whole)


async def test_a_gap_in_the_stream_is_filled_from_the_source(
    db: Database, bus: Client, source: str, sink: Sink
) -> None:
    await fill(db, 400)
    events = await envelopes(db, source)
    gap = False

    async def events_after(position: Position, limit: int) -> Sequence[Envelope]:
        """Only the look at the stream's end is answered before there is a gap: one that is idle asks for all there is."""
        return await sink.events_after(position, limit) if gap or limit == 1 else []

    consumer = Consumer("sink", source, db, bus, events_after, sink.apply)
    await publish(bus, events[:10], source)
    async with running(consumer.run):
        await eventually(lambda: _reached(consumer, events[9]))
        assert not await sink.whole()
        gap = True
        await publish(bus, [events[10], events[330], events[331], events[399]], source)
        await eventually(sink.whole)


async def _reached(consumer: object, event: Envelope) -> bool:
    return bool(consumer.position >= (event.tx, event.position))  # type: ignore[attr-defined]


async def test_events_older_than_the_stream_are_fetched_though_nothing_new_happens(
    db: Database, bus: Client, source: str, sink: Sink
) -> None:
    await fill(db, 250)
    async with running(sink.consumer(bus, source).run):
        await eventually(sink.whole)


async def test_with_the_source_away_it_waits(
    db: Database, bus: Client, context: str, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long the machine stands still, what was begun is not given up: a new beginning would ask the source again.
    monkeypatch.setattr(jetstream, "SILENCE_SECONDS", 600.0)
    monkeypatch.setattr(leader, "BEAT_TIMEOUT", 600.0)
    await fill(db, 5)
    sink.away = True
    async with running(relay(db, bus, context).run):
        await eventually(lambda: _streamed(bus, context, 5))
        async with running(sink.consumer(bus, context).run):
            await eventually(lambda: bool(sink.asked))
            assert await sink.ids() == []
            sink.away = False
            await eventually(sink.whole)
            # What it once held to its source it goes on reading.
            sink.away = True
            async with db.pool.acquire() as conn:
                await event_store.append(conn, call(), "thg_later", 0, [event()])
            await eventually(sink.whole)


async def test_a_stream_of_events_that_the_source_has_lost_is_not_read(
    db: Database, bus: Client, source: str, sink: Sink
) -> None:
    await fill(db, 3)
    told = await envelopes(db, source)
    ahead = msgspec.structs.replace(told[-1], id=event("lost").id, position=told[-1].position + 1,
                                    prev_tx=told[-1].tx, prev_position=told[-1].position)  # fmt: skip
    await publish(bus, [*told, ahead], source)
    consumer = sink.consumer(bus, source)
    async with running(consumer.run):
        await eventually(lambda: consumer.paused is not None)
        assert await sink.ids() == []
        # Its operator has it written again.
        await api(bus, f"STREAM.PURGE.{stream_name(source)}")
        await publish(bus, told, source)
        await eventually(sink.whole)
        await eventually(lambda: consumer.paused is None)


async def test_a_source_that_never_answers_does_not_hold_up_the_end(
    db: Database, bus: Client, source: str, sink: Sink
) -> None:
    asked, stop = asyncio.Event(), asyncio.Event()

    async def never(_: Position, __: int) -> list[Envelope]:
        asked.set()
        await asyncio.Event().wait()
        return []

    running_ = asyncio.create_task(Consumer("sink", source, db, bus, never, sink.apply).run(stop))
    await asyncio.wait_for(asked.wait(), 60)
    stop.set()
    await asyncio.wait_for(running_, 30)


async def test_an_unreadable_message_is_passed_over(db: Database, bus: Client, source: str, sink: Sink) -> None:
    await fill(db, 3)
    events = await envelopes(db, source)
    await bus.request(f"kalends.ev.{source}.x.y", b"{", timeout=30)
    await publish(bus, events, source)
    async with running(sink.consumer(bus, source).run):
        await eventually(sink.whole)


async def test_of_two_consumers_one_is_active_and_the_other_takes_over(
    db: Database, database_url: str, bus: Client, context: str, sink: Sink
) -> None:
    consumers = [sink.consumer(bus, context) for _ in range(2)]
    async with running(relay(db, bus, context).run, *(consumer.run for consumer in consumers)):
        for n in range(3):
            await append(db, "thg_0", n)
            await eventually(sink.whole)
            await eventually(lambda: sum(consumer.active for consumer in consumers) == 1)
            await cut_leader(database_url, f"consumer-{context}")
            last = await append(db, "thg_1", n)
            for consumer in consumers:
                assert await consumer.watch.wait(last.at, 60), "a replica that is not active can wait, too"
    assert await sink.whole()


async def test_consumers_that_all_believe_to_be_active_apply_each_event_once(
    db: Database, bus: Client, context: str, sink: Sink
) -> None:
    """Where a lease was lost without its holder knowing yet, the checkpoint decides."""
    consumers = [sink.consumer(bus, context) for _ in range(3)]
    async with running(relay(db, bus, context).run):
        stop = asyncio.Event()

        async def lead(index: int) -> None:
            from kalends_shared.leader import Lease

            conn = await db.direct()
            try:
                while not stop.is_set():
                    try:
                        await consumers[index]._lead(Lease(conn), stop)
                    except Exception as error:
                        if not passing(error) and not isinstance(error, JetStreamError):
                            raise
            finally:
                await conn.close()

        leading = [asyncio.create_task(lead(index)) for index in range(3)]
        for n in range(100):
            await append(db, "thg_0", n)
        await eventually(sink.whole)
        stop.set()
        await asyncio.gather(*leading)
    assert await sink.whole()
    assert await dead_letters.listed(db.pool) == []


async def test_a_long_backlog_comes_as_fast_as_it_is_taken(db: Database, bus: Client, context: str) -> None:
    """More than the server sends ahead without an answer to its flow control."""
    async with db.pool.acquire() as conn:
        for n in range(60):
            await event_store.append(conn, call(), f"thg_{n}", 0, [event(data={"n": "x" * 1000}) for _ in range(100)])
    seen: dict[int, None] = {}  # a batch may be tried again

    async def apply(conn: object, events: list[Envelope]) -> None:
        seen.update(dict.fromkeys(one.position for one in events))
        await asyncio.sleep(0.001)

    async def last_alone(position: Position, limit: int) -> list[Envelope]:
        """Answers the look at the stream's end, and nothing else: the backlog comes from the stream."""
        if limit > 1:
            return []
        async with db.pool.acquire() as conn:
            return await events_rpc.read(conn, context, position, limit)

    async with running(relay(db, bus, context).run):
        await eventually(lambda: _streamed(bus, context, 6000))
        async with running(Consumer("sink", context, db, bus, last_alone, apply).run):  # type: ignore[arg-type]
            await eventually(lambda: len(seen) >= 6000)
    assert list(seen) == list(range(1, 6001))


async def _streamed(bus: Client, context: str, count: int) -> bool:
    try:
        return bool((await api(bus, f"STREAM.INFO.{stream_name(context)}"))["state"]["messages"] == count)
    except JetStreamError:
        return False


async def test_a_cache_that_cannot_be_told_stops_nothing(db: Database, bus: Client, context: str, sink: Sink) -> None:
    async def after_commit(events: list[Envelope]) -> None:
        raise ZeroDivisionError

    sink.after_commit = after_commit  # type: ignore[method-assign]
    await fill(db, 3)
    async with running(relay(db, bus, context).run, sink.consumer(bus, context).run):
        await eventually(sink.whole)
    assert await dead_letters.listed(db.pool) == []


async def test_wipes_and_kills_of_nats_and_postgres_end_in_the_same_state(
    own_nats: Nats, own_pg: Postgres, context: str
) -> None:
    await migrations.migrate(own_pg.url, [SCHEMA])
    db = await Database.connect(own_pg.url, SCHEMA.name)
    bus = await nats.connect(own_nats.url, "test")
    sink = await Sink.create(db, own_pg.url)
    written, done = 0, asyncio.Event()

    async def write() -> None:
        nonlocal written
        while not done.is_set():
            try:
                await append(db, f"thg_{written}", 0)
                written += 1
            except Exception as error:
                if not transient(error):
                    raise
                written += 1  # committed or not, the next stream is a new one
            await asyncio.sleep(0.003)

    async def busy(more: int) -> None:
        goal = len(sink.told) + more
        await eventually(lambda: len(sink.told) >= goal)

    consumers = [sink.consumer(bus, context) for _ in range(2)]
    async with running(relay(db, bus, context).run, *(consumer.run for consumer in consumers)):
        writing = asyncio.create_task(write())
        await busy(20)
        await asyncio.to_thread(own_nats.kill)
        await asyncio.to_thread(own_nats.start)
        await busy(20)
        await asyncio.to_thread(own_pg.kill)
        await asyncio.to_thread(own_pg.start)
        await busy(20)
        await wipe(bus, context)
        await busy(20)
        await asyncio.to_thread(own_nats.wipe)
        await asyncio.to_thread(own_nats.start)
        await busy(20)
        done.set()
        await writing
        await eventually(sink.whole)
    assert await dead_letters.listed(db.pool) == []
    await bus.close()
    await db.close()
