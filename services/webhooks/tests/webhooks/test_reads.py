"""What making events, bounds and the lives of workers read: what they are about, whatever the statistics say."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest

from kalends_shared.contracts import ids
from kalends_shared.db import Connection
from kalends_webhooks.domain.derive import Drafted
from kalends_webhooks.store import deliveries, feed, queue
from kalends_webhooks.store.feed import Planned
from kalends_webhooks.store.queue import Ended, Wanted

from .rig import Rig
from .test_claiming import EVENTS, LOG, QUEUE, Read, read

NEW = "acc_new-live"  # has come since the statistics were made
BIG = "acc_big-live"
PERSONS = """
INSERT INTO erased (tenant_id, person_id) SELECT $1, 'per_' || n FROM generate_series(1, 2_000) AS n
"""
DUE = "UPDATE queue SET due_at = now() WHERE tenant_id = $1 AND webhook_id = $2 AND seq < 50"
OF_PERSONS = "UPDATE public_events SET person_id = 'per_' || seq WHERE tenant_id = $1"


async def filled(rig: Rig, tenant: str) -> None:
    """Events, a log, and a queue most of which waits to be tried again within the minute."""
    async with rig.owner() as owner:
        await owner.execute(EVENTS, tenant, 1, 2_000)
        await owner.execute(OF_PERSONS, tenant)
        await owner.execute(PERSONS, tenant)
        await owner.execute("INSERT INTO feeds (tenant_id, last_seq) VALUES ($1, 2000)", tenant)
        for n in range(3):
            await owner.execute(QUEUE, tenant, f"whk_{tenant}_{n}", 1, 1_000, 2_000)
        await owner.execute("UPDATE queue SET due_at = now() + interval '1 minute' WHERE tenant_id = $1", tenant)
        await owner.execute(LOG, tenant, 5_000)


@pytest.fixture(params=["empty", "as they are", "of another account"])
async def conn(still: Rig, request: pytest.FixtureRequest) -> AsyncIterator[Connection]:
    """A session whose plans were made when there was nothing, on tables that are long by now; by `param`, what is known of them."""
    async with still.owner() as owner:
        for row in await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"):
            if not row["tablename"].startswith("deliveries"):
                await owner.execute(f"ALTER TABLE {row['tablename']} SET (autovacuum_enabled = false)")
    async with still.db.pool.acquire() as conn:
        for n in range(8):
            await made(conn, "acc_first-live", 1)
            await bounded(conn, "acc_first-live", "whk_1", 5)
            await queue.lives(conn, f"first{n}", 0.0)
        await filled(still, BIG)
        async with still.owner() as owner:
            if request.param == "of another account":
                await owner.execute("ANALYZE")
        await filled(still, NEW)
        async with still.owner() as owner:
            if request.param == "as they are":
                await owner.execute("ANALYZE")
        yield conn


async def counted(conn: Connection, work: Callable[[], Awaitable[object]]) -> Read:
    async with conn.transaction():
        start = await read(conn)
        await work()
        return (await read(conn)).since(start)


async def made(conn: Connection, tenant: str, count: int, subscriptions: int = 2) -> None:
    events = [
        Drafted(
            tenant_id=tenant,
            id=ids.new_id("msg"),
            type="booking.confirmed",
            created_at=datetime.now(UTC),
            stream_id=ids.new_id("bkg"),
            data=b"{}",
            person_id=f"per_{n}",
            attendees=b"{}",
            traceparent=None,
        )
        for n in range(count)
    ]
    planned = [Planned(n % count, f"whk_{n // count}", ids.new_id("dlv")) for n in range(count * subscriptions)]
    done = await feed.emit(conn, {tenant: 0}, events, planned)
    assert (done.stale, len(done.queued)) == ([], len(planned))


async def bounded(conn: Connection, tenant: str, webhook: str, cap: int) -> int:
    return int(await conn.fetchval("SELECT bounded_room($1, $2, 16, $3, 10)", tenant, webhook, cap))


async def test_making_events_reads_nothing_but_its_feed(conn: Connection):
    found = await counted(conn, lambda: made(conn, NEW, 10))
    assert (found.queue, found.log, found.whole_tables) == (0, 0, 0)
    assert found.events == 0, "of events that are new there is nothing to find"


async def test_events_that_are_there_are_found_by_their_ids(conn: Connection):
    event = Drafted(
        tenant_id=NEW, id="msg_7", type="booking.confirmed", created_at=datetime.now(UTC), stream_id="bkg_1", data=b"{}",
        person_id="per_7", attendees=b"{}", traceparent=None,
    )  # fmt: skip

    async def again() -> None:
        assert (await feed.emit(conn, {NEW: 0}, [event], [Planned(0, "whk_1", "dlv_1")])).queued == []

    found = await counted(conn, again)
    assert (found.events, found.queue, found.whole_tables) == (1, 0, 0)


async def test_claiming_ending_and_giving_back_read_what_they_take(conn: Connection):
    webhook = f"whk_{NEW}_0"
    await conn.execute(DUE, NEW, webhook)
    claimed = []

    async def claims() -> None:
        claimed.extend(await queue.claim(conn, [Wanted(NEW, webhook, 10, 50)], "me.1"))

    async def ends() -> None:
        ended = [Ended(NEW, row["id"], "me.1", "succeeded", None, b"[]") for row in claimed[:9]]
        assert len(await queue.finish(conn, ended, datetime.now(UTC))) == 9

    async def gives_back() -> None:
        await queue.give_back(conn, NEW, claimed[9]["id"], "me.1", 0.0)

    by_claim = await counted(conn, claims)
    assert (len(claimed), by_claim.queue, by_claim.log, by_claim.whole_tables) == (10, 20, 0, 0)
    assert by_claim.events <= 10
    assert await counted(conn, ends) == Read(queue=9, events=0, log=0, whole_tables=0)
    assert await counted(conn, gives_back) == Read(queue=1, events=0, log=0, whole_tables=0)
    assert await conn.fetchval("SELECT claim IS NULL FROM queue WHERE id = $1", claimed[9]["id"])


async def test_a_delivery_is_read_by_its_id(conn: Connection):
    waits = await conn.fetchval("SELECT max(id) FROM queue WHERE tenant_id = $1", NEW)
    ended = await conn.fetchval("SELECT max(id) FROM deliveries WHERE tenant_id = $1", NEW)

    async def read_them() -> None:
        for one in (waits, ended):
            assert await deliveries.one(conn, NEW, one) is not None

    async def retries() -> None:
        for one in (waits, ended):
            await deliveries.retry(conn, NEW, one)

    assert await counted(conn, read_them) == Read(queue=1, events=0, log=1, whole_tables=0)
    assert await counted(conn, retries) == Read(queue=1, events=0, log=1, whole_tables=0)


async def test_a_bound_is_judged_by_what_is_in_flight(conn: Connection):
    webhook = f"whk_{NEW}_0"
    await conn.execute(DUE, NEW, webhook)
    assert len(await queue.claim(conn, [Wanted(NEW, webhook, 3, 50)], "me.1")) == 3

    async def asks() -> None:
        assert await bounded(conn, NEW, webhook, 5) == 1  # by the rate; by the cap it were two

    found = await counted(conn, asks)
    # What is claimed, and of what is due as many as there may be room for.
    assert found.queue <= 3 + 2
    assert (found.events, found.log, found.whole_tables) == (0, 0, 0)


async def test_what_a_dead_worker_held_is_found_without_a_look_at_what_waits(conn: Connection):
    webhook = f"whk_{NEW}_0"
    await conn.execute(DUE, NEW, webhook)
    await queue.lives(conn, "dead", None)
    assert len(await queue.claim(conn, [Wanted(NEW, webhook, 3, 50)], "dead.1")) == 3
    assert len(await queue.claim(conn, [Wanted(NEW, webhook, 3, 50)], "lives.1")) == 3
    await conn.execute("UPDATE workers SET seen_at = now() - interval '1 minute' WHERE name = 'dead'")

    async def frees() -> None:
        assert await queue.lives(conn, "lives", 30.0) == 3

    found = await counted(conn, frees)
    assert found.queue <= 2 * (3 + 3), "no more than what is claimed"
    assert found.events == found.log == 0
