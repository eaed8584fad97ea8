"""What a worker has sent is written down once, whatever happens in between; and only by whoever holds it."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from kalends_shared import migrations
from kalends_shared.event_store import Position
from kalends_shared.projection import Moved
from kalends_shared.servers import Postgres
from kalends_shared.testkit.waiting import eventually_async
from kalends_webhooks.delivery import metrics
from kalends_webhooks.schema import SCHEMA

from .receiver import Receiver, Writer
from .rig import BOOKING, Guarded, Rig
from .workers import FENCED, worker_process

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FAILED = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
# What a full disk says of an insert; and what nobody has foreseen.
DISK_FULL, UNFORESEEN = "53100", "22000"


class Held:
    """Keeps a receiver's answers back until they are let go, each with what is the answer then."""

    def __init__(self, receiver: Receiver, path: str = "/hook") -> None:
        self.waiting = 0
        self.answer = OK
        self._go = asyncio.Event()
        receiver.script[path] = self._script

    def let_go(self, answer: bytes = OK) -> None:
        self.answer = answer
        self._go.set()
        self._go = asyncio.Event()

    async def reached(self, count: int) -> None:
        async def there() -> bool:
            return self.waiting == count

        await eventually_async(there)

    async def _script(self, writer: Writer) -> None:
        self.waiting += 1
        await self._go.wait()
        self.waiting -= 1
        writer.write(self.answer)
        await writer.drain()


async def queued(rig: Rig, count: int) -> None:
    async def there() -> bool:
        return bool(await rig.value("SELECT count(*) = $1 FROM queue", count))

    await eventually_async(there)


def times(receiver: Receiver) -> dict[str, int]:
    """How often each booking's event came."""
    return Counter(got.json["data"]["booking"]["id"] for got in receiver.got)


async def logged(rig: Rig, webhook: Any) -> Counter[tuple[str, tuple[int, ...]]]:
    """(status, statuses of the attempts) of what is in the log."""
    found = await rig.deliveries(webhook)
    return Counter((one["status"], tuple(a["status_code"] for a in one["attempts"])) for one in found)


@pytest.mark.parametrize("end", [Postgres.stop, Postgres.kill], ids=["in order", "killed"])
async def test_results_outlive_an_outage_of_postgres(
    own_pg: Postgres, nats_url: str, receiver: Receiver, end: Callable[[Postgres], None]
):
    await migrations.migrate(own_pg.url, [SCHEMA, BOOKING])
    rig = await Rig.open(own_pg.url, nats_url)
    held = Held(receiver)
    async with rig.running(rig.guarded_relay(), rig.make_consumer(None), Guarded(rig.worker)):
        webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
        bookings = [await rig.book() for _ in range(12)]
        await held.reached(12)
        await rig.value("UPDATE queue SET due_at = now() + interval '1 hour'")  # the outage must not outlast the leases
        await asyncio.to_thread(end, own_pg)
        held.let_go()

        async def come() -> bool:
            return len(rig.worker._ended) == 12

        await eventually_async(come)
        await asyncio.to_thread(own_pg.start)
        await queued(rig, 0)
        assert await logged(rig, webhook) == {("succeeded", (200,)): 12}
    assert times(receiver) == {one.id: 1 for one in bookings}
    await rig.close()


@asynccontextmanager
async def refusing(database_url: str, state: str, event_id: str = "") -> AsyncIterator[None]:
    """The log takes no results (of one event), by an error of this SQLSTATE."""
    conn = await asyncpg.connect(database_url)
    of = f"WHEN (NEW.event_id = '{event_id}')" if event_id else ""
    await conn.execute(
        f"""
        CREATE FUNCTION webhooks.refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON webhooks.deliveries FOR EACH ROW {of} EXECUTE FUNCTION webhooks.refuse()
        """
    )
    yield
    await conn.execute("DROP FUNCTION webhooks.refuse CASCADE")
    await conn.close()


async def test_a_full_disk_holds_results_up_and_loses_none(still: Rig, receiver: Receiver, database_url: str):
    held = Held(receiver)
    async with still.running():
        webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
        bookings = [await still.book() for _ in range(8)]
        await held.reached(8)
        async with refusing(database_url, DISK_FULL):
            held.let_go()

            async def come() -> bool:
                return len(still.worker._ended) == 8

            await eventually_async(come)
            assert await logged(still, webhook) == {("pending", ()): 8}
        await queued(still, 0)
        assert await logged(still, webhook) == {("succeeded", (200,)): 8}
    assert times(receiver) == {one.id: 1 for one in bookings}


async def test_one_result_that_cannot_be_written_is_not_in_the_way_of_the_others(
    still: Rig, receiver: Receiver, database_url: str
):
    held = Held(receiver)
    async with still.running():
        webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
        for _ in range(8):
            await still.book()
        await held.reached(8)
        bad = receiver.got[0].headers["webhook-id"]
        async with refusing(database_url, UNFORESEEN, bad):
            held.let_go()
            await queued(still, 1)
            assert await still.value("SELECT event_id FROM queue") == bad
            assert await logged(still, webhook) == {("succeeded", (200,)): 7, ("pending", ()): 1}
        await still.value("UPDATE queue SET due_at = now()")  # the lease ends
        await held.reached(1)
        held.let_go()
        await queued(still, 0)
        assert await logged(still, webhook) == {("succeeded", (200,)): 8}


async def test_a_worker_told_to_end_finishes_what_it_has_sent_and_takes_nothing_more(
    still: Rig, receiver: Receiver, tmp_path: Path
):
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
    held = Held(receiver)
    async with still.running(still.relay, still.make_consumer(None)):
        async with worker_process(still, tmp_path) as worker:
            first = [await still.book() for _ in range(5)]
            await held.reached(5)
            await worker.told_to_end()
            later = [await still.book() for _ in range(3)]
            await queued(still, 8)
            held.let_go()
            assert await worker.process.wait() == 0
        assert times(receiver) == {one.id: 1 for one in first}
        assert await logged(still, webhook) == {("succeeded", (200,)): 5, ("pending", ()): 3}
        assert await still.value("SELECT count(*) FROM queue WHERE claim IS NULL") == 3
        assert await still.value("SELECT count(*) FROM workers") == 0
        async with worker_process(still, tmp_path, "next"):
            await held.reached(3)
            held.let_go()
            await queued(still, 0)
    assert times(receiver) == {one.id: 1 for one in (*first, *later)}


async def test_a_frozen_workers_results_are_refused_when_it_goes_on(still: Rig, receiver: Receiver, tmp_path: Path):
    """It is frozen (SIGSTOP) with answers under way, taken for dead, and goes on while another has its deliveries."""
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
    held = Held(receiver)
    async with (
        still.running(still.relay, still.make_consumer(None)),
        worker_process(still, tmp_path, "zombie") as zombie,
    ):
        bookings = [await still.book() for _ in range(4)]
        await held.reached(4)
        zombie.process.send_signal(signal.SIGSTOP)
        held.let_go(FAILED)  # what it will read once it goes on
        await held.reached(0)
        async with worker_process(still, tmp_path, "fresh") as fresh:
            await held.reached(4)  # the same deliveries, by another
            zombie.process.send_signal(signal.SIGCONT)

            async def refused() -> bool:
                return await zombie.metric(FENCED) == 4

            await eventually_async(refused)
            assert await logged(still, webhook) == {("pending", ()): 4}, "nothing of the zombie's is in the log"
            held.let_go()
            await queued(still, 0)
            assert await fresh.metric(FENCED) == 0
    assert await logged(still, webhook) == {("succeeded", (200,)): 4}
    assert times(receiver) == {one.id: 2 for one in bookings}
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 4


async def test_leases_that_all_end_at_once_lose_nothing(still: Rig, receiver: Receiver):
    """As when the server's clock is set forward; the first answers come after the lease is over."""
    held = Held(receiver)
    fenced = metrics.FENCED._value.get()
    async with still.running():
        webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
        bookings = [await still.book() for _ in range(5)]
        await held.reached(5)
        await still.value("UPDATE queue SET due_at = now() - interval '1 hour'")
        await held.reached(10)
        held.let_go()
        await queued(still, 0)

        async def all_told() -> bool:
            return metrics.FENCED._value.get() - fenced == 5

        await eventually_async(all_told)
        assert still.worker._lanes.held == 0
    assert await logged(still, webhook) == {("succeeded", (200,)): 5}
    assert times(receiver) == {one.id: 2 for one in bookings}


async def test_two_dispatchers_at_once_make_each_event_and_delivery_once(still: Rig, receiver: Receiver):
    """As when a leader has lost its lease and does not know it yet."""
    first, second = still.make_consumer(None), still.make_consumer(None)
    await still.subscribe(receiver.url(), ["booking.confirmed"])
    for _ in range(20):
        await still.book()

    async def tailed() -> bool:
        return len(await still._events_after(Position(), 100)) == 20

    await eventually_async(tailed)
    events = await still._events_after(Position(), 100)
    for consumer in (first, second):
        await consumer.projection.load()
    done = await asyncio.gather(*(one.projection.take(events) for one in (first, second)), return_exceptions=True)
    assert sorted(type(one) for one in done if one is not None) == [Moved]
    assert await still.value("SELECT count(*) FROM queue") == 20
    changes = [one["data"]["booking"]["id"] for one in await still.changes() if one["type"] == "booking.confirmed"]
    assert len(set(changes)) == len(changes) == 20
