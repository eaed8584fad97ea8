"""A subscription's own bounds, over all workers: how many at once, how many a second, in what order."""

import asyncio
from collections.abc import Callable

from .making import state
from .receiver import Got, Receiver, Writer
from .rig import Rig

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def slowly(receiver: Receiver, seconds: float, held: list[int]) -> Callable[[Writer], "asyncio.Future[None]"]:
    """Answers after a while, and keeps how many were waiting at once."""
    waiting = 0

    async def answer(writer: Writer) -> None:
        nonlocal waiting
        waiting += 1
        held.append(waiting)
        await asyncio.sleep(seconds)
        waiting -= 1
        writer.write(OK)
        await writer.drain()

    return answer  # type: ignore[return-value]


async def test_no_more_in_flight_than_is_wanted_over_two_workers(still: Rig, receiver: Receiver):
    held: list[int] = []
    receiver.script["/hook"] = slowly(receiver, 0.05, held)
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], max_in_flight=2)
    second = still.make_worker()
    async with still.running(still.relay, still.consumer, still.worker, second):
        bookings = [await still.book() for _ in range(24)]
        second.wake([])
        await still.ended(webhook, len(bookings), seconds=30)
    assert max(held) == 2
    assert len(receiver.got) == len(bookings)


async def test_no_more_a_second_than_is_wanted_over_two_workers(still: Rig, receiver: Receiver):
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], rate_limit_per_second=10)
    second = still.make_worker()
    async with still.running(still.relay, still.consumer, still.worker, second):
        for _ in range(25):
            await still.book()
        await still.ended(webhook, 25, seconds=30)
    times = sorted(got.at for got in receiver.got)
    assert max(sum(start <= at < start + 1 for at in times) for start in times) <= 12
    assert times[-1] - times[0] >= 2.0


async def test_ordered_waits_for_the_one_before_of_the_same_booking_alone(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ordered=True, retry_schedule=[1])
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
    await rig.ended(webhook, 5)
    seen = [got.json["type"] for got in receiver.got if got.json["data"]["booking"]["id"] == first.id]
    assert seen == ["booking.created", "booking.created", "booking.confirmed", "booking.cancelled"]
    theirs = [got for got in receiver.got if got.json["data"]["booking"]["id"] == other.id]
    again = [got for got in receiver.got if got.json["data"]["booking"]["id"] == first.id][1]
    assert [got.json["type"] for got in theirs] == ["booking.created", "booking.confirmed"]
    assert theirs[1].at < again.at, "another booking does not wait"


async def test_ordered_goes_on_after_what_has_failed_for_good(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ordered=True, retry_schedule=[])
    receiver.answer = lambda got: (500 if got.json["type"] == "booking.created" else 200, {}, b"")
    await rig.book()
    log = await rig.ended(webhook, 2)
    assert [(one["event_type"], one["status"]) for one in log] == [
        ("booking.confirmed", "succeeded"),
        ("booking.created", "failed"),
    ]
