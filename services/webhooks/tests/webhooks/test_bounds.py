"""A subscription's own bounds, over all workers: how many at once, how many a second, in what order."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from kalends_webhooks.delivery import worker
from kalends_webhooks.store import queue
from kalends_webhooks.store.queue import Ended, Wanted

from .making import TENANT, state
from .receiver import Got, Receiver, Writer
from .rig import LATER, Rig

SECOND = timedelta(seconds=1)
KEEP_CLAIMS = """
CREATE TABLE claims (at timestamptz NOT NULL);
CREATE FUNCTION keep_claim() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO claims SELECT a.at FROM allowances a WHERE a.webhook_id = NEW.webhook_id;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_claims AFTER UPDATE ON queue FOR EACH ROW
    WHEN (NEW.claim IS DISTINCT FROM OLD.claim AND NEW.claim IS NOT NULL) EXECUTE FUNCTION keep_claim();
"""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def slowly(seconds: float, first: int, held: list[int]) -> Callable[[Writer], "asyncio.Future[None]"]:
    """Answers after a while, the first so many together, and keeps how many were waiting at once."""
    waiting, together = 0, asyncio.Event()

    async def answer(writer: Writer) -> None:
        nonlocal waiting
        waiting += 1
        held.append(waiting)
        if waiting >= first:
            together.set()
        await together.wait()
        await asyncio.sleep(seconds)
        waiting -= 1
        writer.write(OK)
        await writer.drain()

    return answer  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def nobody_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither worker takes the other for dead, however long the machine stands still."""
    monkeypatch.setattr(worker, "DEAD_SECONDS", 600.0)


async def test_no_more_in_flight_than_is_wanted_over_two_workers(still: Rig, receiver: Receiver):
    held: list[int] = []
    receiver.script["/hook"] = slowly(0.05, 2, held)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], max_in_flight=2, timeout_seconds=30)
    second = still.make_worker()
    async with still.running(still.relay, still.consumer, still.worker, second):
        bookings = [await still.book() for _ in range(24)]
        second.wake([])
        await still.ended(webhook, len(bookings))
    assert max(held) == 2
    assert len(receiver.got) == len(bookings)


async def test_no_more_a_second_than_is_wanted_over_two_workers(still: Rig, receiver: Receiver):
    async with still.owner() as conn:
        await conn.execute(KEEP_CLAIMS)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], rate_limit_per_second=10)
    second = still.make_worker()
    async with still.running(still.relay, still.consumer, still.worker, second):
        for _ in range(25):
            await still.book()
        await still.ended(webhook, 25)
    assert len(receiver.got) == 25
    # When each was granted: how soon it is then claimed and goes out is up to the machine.
    async with still.owner() as conn:
        times = [row["at"] for row in await conn.fetch("SELECT at FROM claims ORDER BY at")]
    assert len(times) == 25
    assert max(sum(start <= at < start + SECOND for at in times) for start in times) <= 11
    assert times[-1] - times[0] >= 2.3 * SECOND, "of the 25, 24 wait a tenth of a second each"


async def test_ordered_waits_for_the_one_before_of_the_same_booking_alone(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ordered=True, retry_schedule=[LATER])
    first = state()

    def answer(got: Got) -> tuple[int, dict[str, str], bytes]:
        failing = (
            got.json["data"]["booking"]["id"] == first.id
            and len([g for g in receiver.got if g.json["id"] == got.json["id"]]) == 1
        )
        return (500 if failing and got.json["type"] == "booking.created" else 200, {}, b"")

    receiver.answer = answer
    await rig.book(id=first.id)
    other = await rig.book()
    await rig.append("booking.cancelled", first)
    await rig.caught_up()
    await rig.ended(webhook, 2)
    await rig.waiting(webhook)
    theirs = [got.json["type"] for got in receiver.got if got.json["data"]["booking"]["id"] == other.id]
    assert theirs == ["booking.created", "booking.confirmed"], "another booking does not wait"
    assert len(receiver.got) == 3, "the same booking does"
    await rig.hasten(webhook)
    await rig.ended(webhook, 5)
    seen = [got.json["type"] for got in receiver.got if got.json["data"]["booking"]["id"] == first.id]
    assert seen == ["booking.created", "booking.created", "booking.confirmed", "booking.cancelled"]
    assert len(receiver.got) == 6


async def test_ordered_goes_on_after_what_has_failed_for_good(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ordered=True, retry_schedule=[])
    receiver.answer = lambda got: (500 if got.json["type"] == "booking.created" else 200, {}, b"")
    await rig.book()
    log = await rig.ended(webhook, 2)
    assert [(one["event_type"], one["status"]) for one in log] == [
        ("booking.confirmed", "succeeded"),
        ("booking.created", "failed"),
    ]


async def test_ordered_has_one_of_a_booking_in_flight_amid_replays(still: Rig):
    webhook = await still.subscribe("http://127.0.0.1:9999/", ["booking.created", "booking.cancelled"], ordered=True)

    async def claimed() -> list[tuple[str, str]]:
        rows = await queue.claim(still.db.pool, [Wanted(TENANT, webhook["id"], 10, LATER)], "test.1")
        return [(row["type"], row["id"]) for row in rows]

    async def succeeded(delivery: str) -> None:
        ended = Ended(TENANT, delivery, "test.1", "succeeded", None, b"[]")
        assert await queue.finish(still.db.pool, [ended], datetime.now(UTC)) == {delivery}

    async with still.running(still.relay, still.consumer):
        booking = await still.book()
        await still.append("booking.cancelled", booking)
        await still.caught_up()
    await still.ask("replay_webhook", {}, id=webhook["id"])
    order = []
    for _ in range(4):
        ((kind, delivery),) = await claimed()
        assert await claimed() == [], "two of the same event go one after the other"
        order.append(kind)
        if len(order) == 3:
            await still.ask("replay_webhook", {}, id=webhook["id"])
            assert await claimed() == [], "what is older waits for what is under way"
        await succeeded(delivery)
    assert order == ["booking.created", "booking.created", "booking.cancelled", "booking.created"]
