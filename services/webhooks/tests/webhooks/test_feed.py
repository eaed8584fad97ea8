"""Public events: made once, in order, whatever the stream does."""

import asyncio
import random

import msgspec
import pytest

from kalends_shared import events_rpc
from kalends_shared.contracts.events import Envelope
from kalends_shared.event_store import Position
from kalends_shared.jetstream import api, stream_name
from kalends_shared.testkit.waiting import eventually_async
from kalends_shared.upcasters import UPCASTERS, Document
from kalends_webhooks.dispatch import Dispatcher
from kalends_webhooks.subscribers import Subscribers

from .making import TENANT, hold, state
from .receiver import Receiver
from .rig import Rig


async def test_actions_in_the_order_of_changes(rig: Rig, receiver: Receiver):
    await rig.subscribe(receiver.url())
    booking = await rig.book(status="pending")
    confirmed = msgspec.structs.replace(booking, status="confirmed")
    await rig.append("booking.approved", confirmed, {"previous": {"status": "pending"}})
    await rig.append("booking.rescheduled", confirmed, {"previous": {"start_at": booking.start_at}})
    await rig.append("meeting.started", confirmed)
    await rig.append("meeting.ended", confirmed)
    await rig.append("booking.completed", msgspec.structs.replace(booking, status="completed"))
    await rig.append("hold.expired", hold())
    await rig.caught_up()
    want = [
        "booking.created", "booking.pending", "booking.confirmed", "booking.rescheduled", "booking.updated",
        "meeting.started", "meeting.ended", "booking.completed", "hold.expired",
    ]  # fmt: skip
    rows = await rig.changes()
    assert [row["type"] for row in rows] == want
    assert rows[3]["data"]["previous"] == {"start_at": "2026-04-11T09:00:00Z"}
    assert [row["data"]["booking"]["status"] for row in rows[:3]] == ["pending", "pending", "confirmed"]
    assert {got.json["id"]: got.json for got in await receiver.wait(len(want))} == {row["id"]: row for row in rows}


async def test_a_wiped_stream_makes_no_event_anew(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url())
    for _ in range(20):
        await rig.book()
    await rig.caught_up()
    before = await rig.changes()
    await rig.ended(webhook, 40)
    await api(rig.bus, f"STREAM.DELETE.{stream_name(rig.context)}", seconds=30)
    await rig.book()
    await rig.caught_up()
    await rig.ended(webhook, 42)
    after = await rig.changes()
    assert after[:40] == before
    assert len(after) == 42
    assert len(receiver.got) == 42


async def test_a_lost_checkpoint_makes_no_event_anew_either(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url())
    for _ in range(10):
        await rig.book()
    await rig.ended(webhook, 20)
    before = await rig.changes()
    async with rig.booking.pool.acquire() as conn:
        events = await events_rpc.read(conn, rig.context, Position(), 1000)
    dispatcher = Dispatcher(Subscribers(), rig._nudge, rig.worker)
    for _ in range(2):
        random.Random(1).shuffle(events)
        async with rig.db.transaction() as conn:
            await dispatcher.apply(conn, list(events))
        await dispatcher.after_commit(events)
    assert await rig.changes() == before
    assert await rig.value("SELECT count(*) FROM queue") == 0
    assert rig.worker._lanes.held == 0
    assert len(receiver.got) == 20


async def test_a_transaction_that_fails_sends_nothing_and_holds_no_place(still: Rig, receiver: Receiver):
    await still.subscribe(receiver.url())
    await still.book()
    events: list[Envelope] = []

    async def tailed() -> bool:
        """Another test's transaction on the same server may hold the tail back."""
        async with still.booking.pool.acquire() as conn:
            events[:] = await events_rpc.read(conn, still.context, Position(), 10)
        return bool(events)

    await eventually_async(tailed)
    dispatcher = Dispatcher(Subscribers(), still._nudge, still.worker)
    try:
        async with still.db.transaction() as conn:
            await dispatcher.apply(conn, list(events))
            raise OSError("the connection is gone")
    except OSError:
        assert still.worker._lanes.held == 2
    async with still.db.transaction() as conn:
        await dispatcher.apply(conn, [])
    assert still.worker._lanes.held == 0
    assert await still.value("SELECT count(*) FROM queue") == 0


async def test_each_account_has_its_own_order(rig: Rig):
    for n in range(6):
        await rig.book(tenant=("acc_1-live", "acc_1-test")[n % 2])
    await rig.caught_up()
    for tenant, mode in (("acc_1-live", "live"), ("acc_1-test", "test")):
        rows = await rig.changes(tenant=tenant)
        assert len(rows) == 6
        assert {(row["account_id"], row["mode"]) for row in rows} == {("acc_1", mode)}
        places = await rig.db.pool.fetch("SELECT seq FROM public_events WHERE tenant_id = $1 ORDER BY seq", tenant)
        assert [row["seq"] for row in places] == [1, 2, 3, 4, 5, 6]


async def test_a_reader_of_changes_misses_nothing_while_events_are_made(rig: Rig):
    """Two writers of one account's feed at once, and a reader that never looks back."""
    sources = [Dispatcher(Subscribers(), rig._nudge) for _ in range(3)]
    seen: list[str] = []
    done = asyncio.Event()

    async def write(dispatcher: Dispatcher, part: int) -> None:
        from .making import of_booking

        for n in range(40):
            async with rig.db.transaction() as conn:
                await dispatcher.apply(conn, [of_booking("booking.created", state(), id=f"{part}-{n}")])
                await asyncio.sleep(random.random() / 200)

    async def read() -> None:
        after = ""
        while True:
            last = done.is_set()
            page = await rig.ask("list_changes", query=f"limit=100{after}")
            seen.extend(row["id"] for row in page["data"])
            after = f"&after={page['next_cursor']}"
            if last and not page["data"]:
                return

    reading = asyncio.create_task(read())
    await asyncio.gather(*(write(one, n) for n, one in enumerate(sources)))
    done.set()
    await reading
    assert len(seen) == len(set(seen)) == 240
    assert seen == [row["id"] for row in await rig.changes()]


async def test_changes_by_cursor(rig: Rig):
    empty = await rig.ask("list_changes", query="")
    assert (empty["data"], empty["has_more"], bool(empty["next_cursor"])) == ([], False, True)
    for _ in range(3):
        await rig.book()
    await rig.caught_up()
    page = await rig.ask("list_changes", query="limit=4")
    assert (len(page["data"]), page["has_more"]) == (4, True)
    rest = await rig.ask("list_changes", query=f"limit=4&after={page['next_cursor']}")
    assert (len(rest["data"]), rest["has_more"]) == (2, False)
    end = await rig.ask("list_changes", query=f"after={rest['next_cursor']}")
    assert (end["data"], end["next_cursor"]) == ([], rest["next_cursor"])
    assert await rig.ask("list_changes", query="after=latest") == end
    stream = await rig.ask("stream_changes", query="limit=100")
    assert [event for _, event in stream["rows"]] == page["data"] + rest["data"]
    assert stream["rows"][3][0] == page["next_cursor"]
    assert await rig.ask("list_changes", query=f"limit=4&after={empty['next_cursor']}") == page


async def test_subscriptions_begin_where_they_are_made(rig: Rig, receiver: Receiver):
    """Those that come and go while events are made get each event from their beginning on, and none before."""
    made: list[tuple[str, set[str]]] = []
    for n in range(8):
        webhook = await rig.subscribe(receiver.url(f"/{n}"), ["booking.confirmed"])
        bookings = {(await rig.book()).id for _ in range(3)}
        made.append((webhook["id"], bookings))
    await rig.caught_up()
    for n in range(8):
        want = set().union(*(bookings for _, bookings in made[n:]))
        got = await receiver.wait(len(want), f"/{n}")
        assert {one.json["data"]["booking"]["id"] for one in got} == want


async def test_a_subscription_begins_after_what_another_transaction_still_hides(rig: Rig, receiver: Receiver):
    async with rig.owner() as conn, conn.transaction():
        await conn.execute("SELECT pg_current_xact_id()")
        await rig.book()
        subscribing = asyncio.create_task(rig.subscribe(receiver.url(), ["booking.confirmed"]))
        done, _ = await asyncio.wait([subscribing], timeout=0.5)
        assert not done, "the booking is committed, and cannot be applied yet"
    webhook = await subscribing
    later = await rig.book()
    await rig.ended(webhook)
    assert [got.json["data"]["booking"]["id"] for got in receiver.got] == [later.id]


async def test_samples_are_not_in_the_feed(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ["hold.expired"])
    await rig.ask("test_webhook", {"type": "booking.confirmed"}, id=webhook["id"])
    got = (await receiver.wait(1))[0]
    assert got.json["type"] == "booking.confirmed"
    assert await rig.changes(tenant=TENANT) == []


async def test_an_old_event_is_told_as_todays_code_has_it(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    def named(data: Document, state: Document) -> tuple[Document, Document]:
        return data, state | {"seats": 3}

    monkeypatch.setitem(UPCASTERS._steps, ("hold.expired", 1), named)
    await rig.append("hold.expired", hold())
    await rig.caught_up()
    assert [row["data"]["hold"]["seats"] for row in await rig.changes()] == [3]
