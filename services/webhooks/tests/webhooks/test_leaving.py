"""A worker that ends, stands still, or is overtaken by a change: what it held is made once where it can be, and never lost."""

import asyncio
import time
from collections.abc import Iterable

from kalends_shared.testkit.waiting import eventually_async
from kalends_webhooks.delivery.job import Job, Lane
from kalends_webhooks.delivery.worker import Worker, _job
from kalends_webhooks.store import queue
from kalends_webhooks.store.queue import Wanted

from .making import TENANT
from .receiver import Receiver, Writer
from .rig import PATIENCE, Rig

HELD = "SELECT count(*) FROM queue WHERE claim IS NOT NULL"
FREE = "SELECT count(*) FROM queue WHERE claim IS NULL AND due_at <= now()"


async def begun(rig: Rig, worker: Worker, receiver: Receiver, count: int) -> tuple[asyncio.Event, asyncio.Task[None]]:
    """A worker's stop and its task, once so many requests are there."""
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    await receiver.wait(count)
    assert await rig.value(HELD) == count
    return stop, task


async def queued(rig: Rig, count: int, more: int | None = None) -> None:
    """Books so many, or `more`, until there are so many in the queue."""
    for _ in range(count if more is None else more):
        await rig.book()

    async def there() -> bool:
        return bool(await rig.value("SELECT count(*) >= $1 FROM queue", count))

    await eventually_async(there, PATIENCE)


async def test_what_is_under_way_at_the_end_is_ended_and_nothing_new_begun(still: Rig, receiver: Receiver):
    answers = asyncio.Event()

    async def late(writer: Writer) -> None:
        await answers.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    receiver.script["/hook"] = late
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
    async with still.running(still.relay, still.make_consumer(None)):
        await queued(still, 3)
        stop, task = await begun(still, still.worker, receiver, 3)
        stop.set()
        await queued(still, 4, 1)
        still.worker.wake([Lane(TENANT, webhook["id"])])
        answers.set()
        async with asyncio.timeout(PATIENCE):
            await task
    assert len(await still.ended(webhook, 3)) == 3
    assert (len(receiver.got), await still.value(FREE), await still.value(HELD)) == (3, 1, 0)


async def test_what_cannot_end_in_time_is_given_back_at_once(still: Rig, receiver: Receiver):
    async def hangs(_: Writer) -> None:
        await asyncio.Event().wait()

    receiver.script["/hook"] = hangs
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
    impatient = still.make_worker(drain_seconds=0.0)
    async with still.running(still.relay, still.make_consumer(None)):
        await queued(still, 3)
        stop, task = await begun(still, impatient, receiver, 3)
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await task
    assert (await still.value(FREE), await still.value(HELD)) == (3, 0), "no lease has to end first"
    assert await still.value("SELECT count(*) FROM workers") == 0
    receiver.script.clear()
    async with still.running(still.worker):
        log = await still.ended(webhook, 3)
    assert [len(one["attempts"]) for one in log] == [1, 1, 1]


async def test_a_claim_that_is_cut_off_at_the_end_is_given_back(still: Rig, receiver: Receiver):
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    leaving = still.make_worker(drain_seconds=0.0)
    at_the_end = asyncio.Event()

    async def load(_: Iterable[Job]) -> None:
        at_the_end.set()
        await asyncio.Event().wait()

    leaving._targets.load = load  # type: ignore[method-assign]
    async with still.running(still.relay, still.make_consumer(None)):
        await queued(still, 2)
        stop = asyncio.Event()
        task = asyncio.create_task(leaving.run(stop))
        async with asyncio.timeout(PATIENCE):
            await at_the_end.wait()
            assert await still.value(HELD) == 2
            stop.set()
            await task
    assert (await still.value(FREE), receiver.got) == (2, [])
    async with still.running(still.worker):
        await still.ended(webhook, 2)


async def test_a_worker_that_stood_still_sends_nothing_that_others_may_have_sent(still: Rig, receiver: Receiver):
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    lane = Lane(TENANT, webhook["id"])
    async with still.running(still.relay, still.make_consumer(None)):
        await queued(still, 1)
    (row,) = await queue.claim(still.db.pool, [Wanted(*lane, 5, 50)], "stood.1")
    stood = still.make_worker()
    job = _job(row, "stood.1", time.monotonic() - 60)
    await stood._targets.load([job])
    assert stood._lanes.reserve(lane)
    stood.start([job])

    async def free() -> bool:
        return bool(await still.value(FREE))

    await eventually_async(free, PATIENCE)
    assert (receiver.got, stood._lanes.held) == ([], 0)
    async with still.running(still.worker):
        (delivery,) = await still.ended(webhook)
    assert len(delivery["attempts"]) == len(receiver.got) == 1


async def test_a_subscription_that_is_changed_while_its_delivery_is_claimed_is_sent_to_as_it_is_now(
    still: Rig, receiver: Receiver
):
    webhook = await still.subscribe(receiver.url("/old"), ["booking.confirmed"])
    load = still.worker._targets.load

    async def late(jobs: Iterable[Job]) -> None:
        jobs = list(jobs)
        if jobs and not await still.value("SELECT version > 1 FROM subscriptions"):
            await still.ask("patch_webhook", {"url": receiver.url("/new")}, id=webhook["id"])
        await load(jobs)

    still.worker._targets.load = late  # type: ignore[method-assign]
    async with still.running(still.relay, still.make_consumer(None), still.worker):
        await still.book()
        (delivery,) = await still.ended(webhook)
    assert (delivery["status"], len(delivery["attempts"]), delivery["version"]) == ("succeeded", 1, 2)
    assert [got.path for got in receiver.got] == ["/new"]
