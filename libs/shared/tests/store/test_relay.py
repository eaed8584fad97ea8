import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from kalends_shared import event_store, nats
from kalends_shared.contracts.events import Envelope
from kalends_shared.db import Connection, Database
from kalends_shared.event_store import Position, Stored
from kalends_shared.jetstream import stream_name
from kalends_shared.publisher import SINGLES
from kalends_shared.relay import Relay, nudge
from kalends_shared.servers import Nats
from kalends_shared.testkit import scale

from .helpers import (
    TENANT,
    api,
    append,
    call,
    cut_leader,
    event,
    eventually,
    fill,
    published,
    running,
    stored_ids,
    tailed,
)


def relay(db: Database, bus: Client, context: str, **options: Any) -> Relay:
    return Relay(context, db.url, db.schema, bus, **options)


async def wait_ended(db: Database, bus: Client, context: str) -> list[Envelope]:
    """Waits until the stream ends where the table ends, and gives it."""
    stream: list[Envelope] = []

    async def ended() -> bool:
        stream[:] = await published(bus, context)
        return bool(stream) and stream[-1].id == (await stored_ids(db))[-1]

    await eventually(ended)
    return stream


async def wait_published(db: Database, bus: Client, context: str) -> list[Envelope]:
    """The same, and holds the stream to be the table, in order and chained."""
    stream = await wait_ended(db, bus, context)
    assert [message.id for message in stream] == await stored_ids(db)
    before = Position()
    for message in stream:
        assert Position(message.prev_tx, message.prev_position) == before
        before = Position(message.tx, message.position)
    return stream


@pytest.mark.parametrize("count", [1, SINGLES, SINGLES + 1, 1300])
async def test_every_event_is_published_once_in_order(db: Database, bus: Client, context: str, count: int) -> None:
    await fill(db, count)
    async with running(relay(db, bus, context).run):
        stream = await wait_published(db, bus, context)
    first = (await tailed(db))[0]
    assert stream[0] == event_store.envelope(first, context, Position())


async def test_a_nudge_wakes_it_and_people_are_joined_in(db: Database, bus: Client, context: str) -> None:
    async def enrich(conn: Connection, rows: list[Stored]) -> Sequence[dict[str, msgspec.Raw] | None]:
        assert await conn.fetchval("SELECT 1") == 1
        return [{"per_1.1": msgspec.Raw(b'{"name":"thg_1"}')} if row.stream_id == "thg_1" else None for row in rows]

    async with running(relay(db, bus, context, enrich=enrich).run):
        await append(db, "thg_1", 0)
        await nudge(bus, context)
        await append(db, "thg_2", 0)
        await nudge(bus, context)
        stream = await wait_published(db, bus, context)
    people = [{version: bytes(row) for version, row in message.people.items()} for message in stream]
    assert people == [{"per_1.1": b'{"name":"thg_1"}'}, {}]
    assert await api(
        bus, f"STREAM.MSG.GET.{stream_name(context)}", {"last_by_subj": f"kalends.ev.{context}.{TENANT}.thing.created"}
    )


async def test_a_second_relay_goes_on_where_the_first_ended(db: Database, bus: Client, context: str) -> None:
    async with running(relay(db, bus, context).run):
        await fill(db, 20)
        await wait_published(db, bus, context)
    for n in range(4, 8):
        await append(db, "thg_0", n)
    async with running(relay(db, bus, context).run, relay(db, bus, context).run):
        await wait_published(db, bus, context)


async def test_a_standby_takes_over_when_the_leaders_connection_dies(
    db: Database, database_url: str, bus: Client, context: str
) -> None:
    relays = [relay(db, bus, context) for _ in range(2)]

    async def led() -> bool:
        return sum(one.active for one in relays) == 1

    async with running(*(one.run for one in relays)):
        for n in range(3):
            await eventually(led)
            await append(db, "thg_0", n)
            await wait_published(db, bus, context)
            await cut_leader(database_url, f"relay-{context}")
            await append(db, "thg_1", n)
            await wait_published(db, bus, context)


async def test_a_relay_that_was_overtaken_is_fenced_and_neither_loses_nor_repeats(
    db: Database, bus: Client, context: str
) -> None:
    """Two relays that both believe to lead, one writing while the other still expects the stream's old end."""
    relays = [relay(db, bus, context) for _ in range(2)]
    async with db.pool.acquire() as one, db.pool.acquire() as two:
        for leader, conn in zip(relays, (one, two), strict=True):
            await leader._resume(conn)
        stop = asyncio.Event()
        leading = [
            asyncio.ensure_future(leader._publish_on(conn, stop))
            for leader, conn in zip(relays, (one, two), strict=True)
        ]
        pick = random.Random(1)
        for n in range(150):
            async with db.transaction() as conn:
                await event_store.append(conn, call(), f"thg_{n}", 0, [event() for _ in range(pick.choice((1, 3, 30)))])
            await asyncio.sleep(pick.choice((0, 0.005)))
        await wait_published(db, bus, context)
        stop.set()
        await asyncio.gather(*leading)
    await wait_published(db, bus, context)


async def test_a_stream_that_is_wiped_is_filled_again(db: Database, own_nats: Nats, context: str) -> None:
    client = await nats.connect(own_nats.url, "test")
    async with running(relay(db, client, context).run):
        await fill(db, 60)
        await wait_published(db, client, context)
        await api(client, f"STREAM.DELETE.{stream_name(context)}")
        await wait_published(db, client, context)
        await asyncio.to_thread(own_nats.wipe)
        await append(db, "thg_0", 12)
        await asyncio.to_thread(own_nats.start)
        await wait_published(db, client, context)
    await client.close()


async def test_kill_9_of_nats_while_two_relays_publish_what_commits_out_of_order(
    db: Database, own_nats: Nats, context: str
) -> None:
    client = await nats.connect(own_nats.url, "test")
    relays = [relay(db, client, context) for _ in range(2)]
    done = asyncio.Event()

    async def write(number: int) -> None:
        pick = random.Random(number)
        n = 0
        while not done.is_set():
            async with db.transaction() as conn:
                events = [event() for _ in range(pick.choice((1, 2, 40)))]
                await event_store.append(conn, call(), f"thg_{number}_{n}", 0, events)
                await asyncio.sleep(pick.random() * 0.02)
            n += 1

    def written() -> int:
        return max(one._stream.sequence for one in relays)

    async with running(*(one.run for one in relays)):
        writing = [asyncio.create_task(write(number)) for number in range(3)]
        for _ in range(scale.count(reduced=4, full=19)):
            before = written()

            async def moved(before: int = before) -> bool:
                return written() > before

            await eventually(moved)
            await asyncio.to_thread(own_nats.kill)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own_nats.start)
        done.set()
        await asyncio.gather(*writing)
        await wait_published(db, client, context)
    await client.close()


async def test_it_survives_restarts_of_postgres(own_pg: Any, bus: Client, context: str) -> None:
    from kalends_shared import migrations

    from .helpers import SCHEMA

    await migrations.migrate(own_pg.url, [SCHEMA])
    db = await Database.connect(own_pg.url, SCHEMA.name)
    async with running(relay(db, bus, context).run):
        for n in range(3):
            await append(db, "thg_0", n)
            await wait_published(db, bus, context)
            await asyncio.to_thread(own_pg.kill)
            await asyncio.to_thread(own_pg.start)
            await db.pool.expire_connections()
        await append(db, "thg_0", 3)
        await wait_published(db, bus, context)
    await db.close()


async def test_a_stream_of_another_history_is_refused_until_it_is_wiped(
    db: Database, database_url: str, bus: Client, context: str
) -> None:
    """After a restore of the database the stream is ahead of it, and the same positions come again for other events."""
    async with running(relay(db, bus, context).run):
        await fill(db, 3)
        await wait_published(db, bus, context)
    owner = await asyncpg.connect(database_url, server_settings={"search_path": db.schema})
    await owner.execute("ALTER TABLE events DISABLE TRIGGER events_append_only")
    await owner.execute("UPDATE events SET id = 'another' WHERE position = (SELECT max(position) FROM events)")
    await owner.close()
    refusing = relay(db, bus, context)
    async with db.pool.acquire() as conn:
        with pytest.raises(Exception, match="not in the database"):
            await refusing._resume(conn)
        await api(bus, f"STREAM.DELETE.{stream_name(context)}")
        await refusing._resume(conn)
    async with running(refusing.run):
        await wait_published(db, bus, context)


async def test_a_stream_aged_out_empty_is_not_filled_again(db: Database, bus: Client, context: str) -> None:
    young = relay(db, bus, context, retention=timedelta(seconds=1))
    async with running(young.run):
        await eventually(lambda: young._probed > 0)
        await fill(db, 5)  # no sooner: what is older than the retention when it begins is not published at all

        async def aged() -> bool:
            info = await api(bus, f"STREAM.INFO.{stream_name(context)}")
            return bool(info["state"]["messages"] == 0 and info["state"]["last_seq"] == 5)

        await eventually(lambda: _after(young, 5))
        await eventually(aged)
    async with running(relay(db, bus, context).run):  # by its retention it would publish the five again
        appended = await append(db, "thg_0", 1)

        async def alone() -> bool:
            return [(message.tx, message.position) for message in await published(bus, context)] == [appended.at]

        await eventually(alone)


async def _after(one: Relay, sequence: int) -> bool:
    return one._stream.sequence >= sequence


async def test_a_wiped_stream_is_filled_for_the_retention_only(
    db: Database, database_url: str, bus: Client, context: str
) -> None:
    await fill(db, 40)
    owner = await asyncpg.connect(database_url, server_settings={"search_path": db.schema})
    await owner.execute("ALTER TABLE events DISABLE TRIGGER events_append_only")
    await owner.execute("UPDATE events SET recorded_at = now() - interval '8 days' WHERE position <= 30")
    await owner.close()
    async with running(relay(db, bus, context).run):
        stream = await wait_ended(db, bus, context)
    assert [message.position for message in stream] == list(range(31, 41))
    assert stream[0].prev_position == 30


async def test_a_nudge_of_the_active_relay_is_no_message_and_one_of_another_is(
    db: Database, bus: Client, context: str
) -> None:
    heard: list[bytes] = []

    async def hear(message: Msg) -> None:
        heard.append(message.data)

    await bus.subscribe(f"kalends.nudge.{context}", cb=hear)
    active, other = relay(db, bus, context), relay(db, bus, context)
    async with running(active.run):

        async def leads() -> bool:
            return active.active

        await eventually(leads)
        await active.nudge()
        await bus.publish(f"kalends.nudge.{context}", b"after it")
        await other.nudge()

        async def both() -> bool:
            return len(heard) == 2

        await eventually(both)
    assert heard == [b"after it", b""]
