"""A long queue of one account is not in the way of another's, nor one endpoint's in that of the next."""

import asyncio
from collections.abc import Callable

import pytest

from kalends_shared.testkit import scale
from kalends_shared.testkit.waiting import eventually_async
from kalends_webhooks.delivery import metrics
from kalends_webhooks.delivery.job import Lane

from .making import TENANT
from .receiver import Receiver, Writer
from .rig import Rig

OTHER = "acc_other-live"
# With it a pile of 20,000 lasts a minute, on the quickest machine too: an account has 128 of a worker's 256 places.
DELAY = 0.4
BACKLOG = """
INSERT INTO queue (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, due_at)
SELECT p.tenant_id, 'dlv_' || substr(md5($1 || n), 1, 26), $1, p.seq, p.id, p.type, p.stream_id, n::text, now()
FROM public_events p, generate_series(1, $2::integer) AS n
WHERE p.tenant_id = $3 AND p.type = 'booking.confirmed'
"""


ONE = BACKLOG.replace("n::text", "'one-' || n").replace(
    "generate_series(1, $2::integer) AS n", "(VALUES ($2::integer)) AS one (n)"
)


async def pile(rig: Rig, url: str, count: int) -> str:
    """A webhook with so many deliveries due."""
    webhook = await rig.subscribe(url, ["booking.cancelled"])
    async with rig.owner() as conn:
        await conn.execute(BACKLOG, webhook["id"], count, TENANT)
    return str(webhook["id"])


async def unpile(rig: Rig, *webhook_ids: str) -> None:
    """The table first, as rows that workers are ending just now, in an order of their own, would be a deadlock."""
    async with rig.owner() as conn, conn.transaction():
        await conn.execute("LOCK TABLE queue IN EXCLUSIVE MODE")
        await conn.execute("DELETE FROM queue WHERE webhook_id = ANY ($1)", webhook_ids)


async def waiting(rig: Rig, webhook_id: str) -> int:
    return int(await rig.value("SELECT count(*) FROM queue WHERE webhook_id = $1", webhook_id))


async def test_behind_anothers_long_queue_a_new_one_goes_out_at_once(still: Rig, receiver: Receiver):
    receiver.delay = DELAY
    many = scale.count(reduced=20_000, full=100_000)
    async with still.running(still.relay, still.consumer):
        await still.book()
        await still.caught_up()
        piled = await pile(still, receiver.url("/piled"), many)
        second = await pile(still, receiver.url("/piled-2"), 2_000)
        await still.subscribe(receiver.url("/other"), ["booking.confirmed"], tenant=OTHER)
        mine = await still.subscribe(receiver.url("/mine"), ["booking.confirmed"])
        async with still.running(still.worker):
            await receiver.wait(300, "/piled")
            for tenant in (OTHER, TENANT):
                await still.book(tenant=tenant)
            await still.caught_up()
            before = len(receiver.got)
            for path in ("/other", "/mine"):
                (new,) = await receiver.wait(1, path)
                assert receiver.got.index(new) - before < many // 10, "it went out while the others still waited"
            assert await waiting(still, piled) > 0
            await receiver.wait(100, "/piled-2")
            assert await waiting(still, piled) > 0, "nor does one endpoint wait for the other"
            assert len(await still.ended(mine)) == 1
            await unpile(still, piled, second)

            async def quiet() -> bool:
                return still.worker._lanes.held == 0

            await eventually_async(quiet)


async def test_a_retry_comes_on_time_behind_a_long_queue(still: Rig, receiver: Receiver):
    receiver.delay = DELAY
    receiver.answer = lambda got: (500 if got.path == "/fails" and len(receiver.at("/fails")) == 1 else 200, {}, b"")
    async with still.running(still.relay, still.consumer):
        await still.book()
        await still.caught_up()
        piled = await pile(still, receiver.url("/piled"), 20_000)
        await still.subscribe(receiver.url("/fails"), ["booking.confirmed"], retry_schedule=[1])
        async with still.running(still.worker):
            await receiver.wait(100, "/piled")
            await still.book()
            first, again = await receiver.wait(2, "/fails")
            assert again.at - first.at >= 0.8
            assert await waiting(still, piled) > 0, "it did not wait for all that was due before it"
            await unpile(still, piled)


async def test_workers_are_not_asked_for_by_what_endpoints_or_their_owners_hold_back(still: Rig, receiver: Receiver):
    """A long queue of one that refuses, or that may get one a second, makes the oldest old; more workers are for the rest."""

    async def gauges(holds: Callable[[float, float], bool]) -> None:
        async def look() -> bool:
            return holds(metrics.OLDEST._value.get(), metrics.WAITING._value.get())

        await eventually_async(look)

    receiver.delay = 0.2

    async def slam(writer: Writer) -> None:
        writer.transport.abort()

    receiver.script["/refuses"] = slam
    async with still.running(still.relay, still.consumer):
        await still.book()
        await still.caught_up()
        refusing = await pile(still, receiver.url("/refuses"), 2_000)
        bounded = await still.subscribe(receiver.url("/bounded"), ["booking.cancelled"], rate_limit_per_second=1)
        await still.db.pool.execute(BACKLOG, bounded["id"], 100, TENANT)
        async with still.running(still.make_worker()):
            await gauges(lambda oldest, waiting: oldest > 3 and waiting == 0)
        await still.db.pool.execute("DELETE FROM queue WHERE webhook_id = $1", bounded["id"])
        piled = await pile(still, receiver.url("/piled"), 2_000)
        async with still.running(still.make_worker(places=2)):
            await gauges(lambda _, waiting: waiting > 2)
            await unpile(still, refusing, piled)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_receiver_that_says_it_is_too_much_is_given_less(still: Rig, receiver: Receiver, status: int):
    """Its other deliveries wait for what becomes of one, and are not all tried against a closed door."""
    receiver.answer = lambda _: (status, {}, b"")
    async with still.running(still.relay, still.consumer):
        await still.book()
        await still.caught_up()
        webhook = await pile(still, receiver.url("/full"), 1_000)
        async with still.running(still.worker):

            async def rests() -> bool:
                return still.worker._lanes.resting() == 1

            await eventually_async(rests)
            assert len(receiver.at("/full")) < 100
            receiver.answer = lambda _: (200, {}, b"")
            await receiver.wait(600, "/full", seconds=120)
            await unpile(still, webhook)


async def test_a_new_delivery_is_overtaken_by_no_more_than_what_is_under_way(still: Rig, receiver: Receiver):
    """Out of the queue, where whose turn it is decides; the way above may spare it."""
    places = 64
    receiver.delay = DELAY / 4  # as there are a quarter of the places
    worker = still.make_worker(places)
    async with still.running(still.relay, still.make_consumer(None)):
        await still.book()
        await still.book(tenant=OTHER)
        await still.caught_up()
        piled = await pile(still, receiver.url("/piled"), scale.count(reduced=20_000, full=100_000))
        second = await pile(still, receiver.url("/piled-2"), 5_000)
        ours = await still.subscribe(receiver.url("/ours"), ["booking.cancelled"])
        others = await still.subscribe(receiver.url("/others"), ["booking.cancelled"], tenant=OTHER)
        async with still.owner() as conn, still.running(worker):
            await receiver.wait(300, "/piled")
            for n in range(1, 6):
                for webhook, path, tenant in ((others, "/others", OTHER), (ours, "/ours", TENANT)):
                    await conn.execute(ONE, webhook["id"], n, tenant)
                    before = len(receiver.got)
                    worker.wake([Lane(tenant, webhook["id"])])
                    new = (await receiver.wait(n, path))[n - 1]
                    between = receiver.got.index(new) - before
                    assert between <= 4 * places, "what was under way, what was being claimed, and a turn of the others"
            assert await waiting(still, piled) > 0
            await unpile(still, piled, second, ours["id"], others["id"])

            async def quiet() -> bool:
                return worker._lanes.held == 0

            await eventually_async(quiet)


async def test_an_endpoint_that_hangs_is_tried_one_at_a_time_until_it_answers(rig: Rig, receiver: Receiver):
    held: list[int] = []  # places, as each of its attempts comes while it rests
    well = asyncio.Event()

    async def hang(writer: Writer) -> None:
        if rig.worker._lanes.resting():
            held.append(rig.worker._lanes.held)
        if well.is_set():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        else:
            await writer.wait_closed()

    receiver.script["/hangs"] = hang
    webhook = await rig.subscribe(
        receiver.url("/hangs"), ["booking.confirmed"], timeout_seconds=1, retry_schedule=[1] * 10
    )
    bookings = [await rig.book() for _ in range(40)]

    async def tried_at_rest() -> bool:
        return len(held) >= 2

    await eventually_async(tried_at_rest)
    await rig.ask("patch_webhook", {"timeout_seconds": 30}, id=webhook["id"])  # who is well may be slow all the same
    well.set()
    assert len(await rig.ended(webhook, 40, seconds=180)) == len(bookings)
    assert rig.worker._lanes.resting() == 0
    assert set(held) == {1}
