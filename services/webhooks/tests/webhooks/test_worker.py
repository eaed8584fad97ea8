"""Workers: at least once and fenced, whatever dies; and no endpoint in the way of another."""

import asyncio
import gzip
import socket
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kalends_shared.contracts.webhooks import WebhookIn
from kalends_shared.net import Policy
from kalends_shared.seal import Keyring
from kalends_shared.testkit.waiting import eventually_async
from kalends_webhooks.delivery import http1, metrics
from kalends_webhooks.delivery import worker as worker_module
from kalends_webhooks.delivery.job import Lane
from kalends_webhooks.store import queue
from kalends_webhooks.store.queue import Ended

from .receiver import Got, Receiver, Writer
from .rig import LATER, Rig
from .workers import worker_process

PACKED = gzip.compress(bytes(10_000_000))
NOT_ASKED_MS = 1000 * WebhookIn(url="", events=[]).timeout_seconds  # where a timeout of a second has no effect


async def forever(_: Writer) -> None:
    await asyncio.Event().wait()


async def drip(writer: Writer) -> None:
    """A body that comes a byte at a time, and never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_head(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(writer: Writer) -> None:
    """A body without end, as fast as it is taken."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def bomb(writer: Writer) -> None:
    """What would be a thousand times as much, were it unpacked."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(PACKED) + PACKED)
    await writer.drain()


async def test_two_workers_send_each_delivery_once(still: Rig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker_module, "DEAD_SECONDS", 600.0)  # neither is dead, however long the machine stands still
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    workers = [still.make_worker(), still.make_worker()]
    consumer = still.make_consumer(None)
    async with still.running(still.relay, consumer, *workers):
        bookings = [await still.book() for _ in range(60)]
        for worker in workers:
            worker.wake([])
        await receiver.wait(len(bookings))
        await still.ended(webhook, len(bookings))
    assert set(Counter(got.headers["webhook-id"] for got in receiver.got).values()) == {1}
    assert {got.json["data"]["booking"]["id"] for got in receiver.got} == {one.id for one in bookings}


async def test_what_a_killed_worker_held_is_sent_by_another(still: Rig, receiver: Receiver, tmp_path: Path):
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], timeout_seconds=30)
    receiver.script["/hook"] = forever
    consumer = still.make_consumer(None)
    async with still.running(still.relay, consumer), worker_process(still, tmp_path) as worker:
        bookings = [await still.book() for _ in range(5)]
        await receiver.wait(5)
        assert await still.value("SELECT count(*) FROM queue WHERE claim IS NOT NULL") == 5, "in flight"
        worker.process.kill()
        await worker.process.wait()
        del receiver.script["/hook"]
        await still.value("UPDATE queue SET due_at = now() + interval '1 hour'")  # whoever is slow must not outwait it
        leased_until = await still.value("SELECT min(due_at) FROM queue")
        async with still.running(still.worker):
            await still.ended(webhook, 5)
        assert await still.value("SELECT max(ended_at) FROM deliveries") < leased_until, "freed before the leases end"
    attempts = Counter(got.json["data"]["booking"]["id"] for got in receiver.got)
    assert attempts == {one.id: 2 for one in bookings}
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 5


async def test_a_zombies_result_is_refused(still: Rig, receiver: Receiver):
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    async with still.running(still.relay, still.make_consumer(None)):
        await still.book()

        async def queued() -> bool:
            return bool(await still.deliveries(webhook))

        await eventually_async(queued)
    lane = queue.Wanted("acc_test-live", webhook["id"], 5, 0)
    (first,) = await queue.claim(still.db.pool, [lane], "zombie.1")
    (second,) = await queue.claim(still.db.pool, [lane], "fresh.1")  # its lease was of no time at all
    assert first["id"] == second["id"]
    from datetime import UTC, datetime

    def result(claim: str, status: str) -> Ended:
        return Ended("acc_test-live", first["id"], claim, status, None, b"[]")

    now = datetime.now(UTC)
    assert await queue.finish(still.db.pool, [result("zombie.1", "failed")], now) == set()
    assert await queue.finish(still.db.pool, [result("fresh.1", "succeeded")], now) == {first["id"]}
    assert await queue.finish(still.db.pool, [result("fresh.1", "failed")], now) == set()
    assert [one["status"] for one in await still.deliveries(webhook)] == ["succeeded"]


@pytest.mark.parametrize("script", [forever, drip_head], ids=lambda script: script.__name__)
async def test_an_endpoint_that_never_answers_is_given_up_in_time(rig: Rig, receiver: Receiver, script: object):
    receiver.script["/slow"] = script  # type: ignore[assignment]
    webhook = await rig.subscribe(receiver.url("/slow"), ["booking.confirmed"], timeout_seconds=1, retry_schedule=[])
    await rig.book()
    attempt = (await rig.ended(webhook))[0]["attempts"][0]
    assert (attempt["error"], attempt["status_code"]) == ("timeout", None)
    assert 1000 <= attempt["duration_ms"] < NOT_ASKED_MS
    assert rig.worker._lanes.held == 0
    receiver.script.clear()
    await rig.ask("patch_webhook", {"timeout_seconds": 30}, id=webhook["id"])  # who answers may be slow all the same
    await rig.book()
    assert (await rig.ended(webhook, 2))[0]["status"] == "succeeded", "on another connection"
    assert receiver.connections == 2


@pytest.mark.parametrize("script", [drip, flood, bomb], ids=lambda script: script.__name__)
async def test_a_body_without_end_costs_no_more_than_its_head(rig: Rig, receiver: Receiver, script: object):
    receiver.script["/body"] = script  # type: ignore[assignment]
    webhook = await rig.subscribe(receiver.url("/body"), ["booking.confirmed"], timeout_seconds=1)
    await rig.book()
    log = (await rig.ended(webhook))[0]
    attempt = log["attempts"][
        -1
    ]  # before it, where the machine is slow, some whose head did not come within the second
    assert (log["status"], attempt["status_code"]) == ("succeeded", 200)
    assert len(attempt["response_head"]) <= 2048
    assert attempt["duration_ms"] < NOT_ASKED_MS


async def test_hanging_endpoints_do_not_hold_up_the_others(still: Rig, receiver: Receiver):
    given_up = asyncio.Event()

    async def hangs(_: Writer) -> None:
        await given_up.wait()

    receiver.script["/hangs"] = hangs
    hanging = [
        await still.subscribe(receiver.url("/hangs"), ["booking.confirmed"], timeout_seconds=30) for _ in range(5)
    ]
    healthy = await still.subscribe(receiver.url("/healthy"), ["booking.confirmed"])
    bookings = [await still.book() for _ in range(60)]
    async with still.running():
        await receiver.wait(len(bookings), "/healthy")
        await receiver.wait(5, "/hangs")
        assert len(receiver.at("/hangs")) <= 5 * 16, "an endpoint holds no more than its share"
        tried = [one["attempts"] for webhook in hanging for one in await still.deliveries(webhook)]
        assert tried == [[]] * 300, "none of them has been given up yet"
        assert len(await still.ended(healthy, 60)) == 60
        given_up.set()


async def test_an_address_that_may_not_be_called_is_not(still: Rig, receiver: Receiver):
    """The policy has changed, or the name's answer has, since it was subscribed."""
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[])
    named = await still.subscribe(f"http://localhost:{receiver.port}/named", ["booking.confirmed"], retry_schedule=[])
    worker = still.make_worker(policy=Policy(allow_http=True))
    async with still.running(still.relay, still.make_consumer(worker), worker):
        await still.book()
        for one in (webhook, named):
            attempt = (await still.ended(one))[0]["attempts"][0]
            assert (attempt["error"], attempt["status_code"]) == ("address_not_allowed", None)
    assert receiver.connections == 0


async def test_errors_have_names(rig: Rig, receiver: Receiver, dead_port: int, monkeypatch: pytest.MonkeyPatch):
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> Any:
        if host == "nowhere.invalid":  # whose name servers, if they can be reached, may take longer than an attempt
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def nonsense(writer: Writer) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    async def slam(writer: Writer) -> None:
        writer.transport.abort()

    async def greet(reader: asyncio.StreamReader, writer: Writer) -> None:
        writer.write(b"220 mail.example.test ESMTP\r\n")
        with suppress(OSError):
            while await reader.read(65_536):  # what closes with something unread is a reset, which is another error
                continue
        writer.close()

    receiver.script |= {"/nonsense": nonsense, "/slam": slam}
    mail = await asyncio.start_server(greet, "127.0.0.1", 0)
    urls = {
        f"http://127.0.0.1:{dead_port}/": "connection_refused",
        "http://nowhere.invalid/": "name_not_resolved",
        receiver.url("/nonsense"): "protocol_error",
        receiver.url("/slam"): "connection_failed",
        f"https://127.0.0.1:{mail.sockets[0].getsockname()[1]}/": "tls_failed",
    }
    webhooks = {url: await rig.subscribe(url, ["booking.confirmed"], retry_schedule=[]) for url in urls}
    await rig.book()
    found = {url: (await rig.ended(webhook))[0]["attempts"][0]["error"] for url, webhook in webhooks.items()}
    mail.close()
    assert found == urls


async def test_connections_are_kept_and_a_kept_one_that_was_closed_costs_nothing(
    rig: Rig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(http1, "IDLE_SECONDS", 600.0)  # however long the next event is held back
    webhook = await rig.subscribe(receiver.url(), ["booking.cancelled"])
    booking = await rig.book()
    for n in range(4):
        await rig.append("booking.cancelled", booking)
        await rig.ended(webhook, n + 1)
    assert receiver.connections == 1
    receiver.answer = lambda _: (200, {"Connection": "close"}, b"")
    await rig.append("booking.cancelled", booking)
    await rig.append("booking.cancelled", booking)
    log = await rig.ended(webhook, 6)
    assert [len(one["attempts"]) for one in log] == [1] * 6


async def test_a_database_that_was_away_behind_an_attempt_stops_no_other(rig: Rig, receiver: Receiver):
    follow, failed = rig.worker._follow, asyncio.Event()

    async def away(disable: list[tuple[Lane, str]], lanes: set[Lane]) -> None:
        if not failed.is_set():
            failed.set()
            raise ConnectionResetError("cut off")
        await follow(disable, lanes)

    rig.worker._follow = away
    let_go = asyncio.Event()

    async def answer_late(writer: Writer) -> None:
        await let_go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    receiver.script["/slow"] = answer_late
    slow = await rig.subscribe(receiver.url("/slow"), ["booking.confirmed"], timeout_seconds=30)
    bad = await rig.subscribe(receiver.url("/bad"), ["booking.confirmed"], retry_schedule=[])
    receiver.answer = lambda got: (500 if got.path == "/bad" else 200, {}, b"")
    await rig.book()
    await rig.ended(bad)
    async with asyncio.timeout(60):
        await failed.wait()
    let_go.set()
    (ended,) = await rig.ended(slow)
    assert (ended["status"], len(ended["attempts"])) == ("succeeded", 1)


async def test_a_subscription_that_is_gone_has_its_deliveries_ended(rig: Rig, receiver: Receiver):
    receiver.answer = lambda _: (500, {}, b"")
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[LATER])
    await rig.book()
    await rig.waiting(webhook)
    await rig.ask("delete_webhook", id=webhook["id"])
    await rig.db.pool.execute("UPDATE queue SET due_at = now()")

    async def none_left() -> bool:
        return not await rig.value("SELECT count(*) FROM queue")

    await eventually_async(none_left)
    assert len(receiver.got) == 1


def in_flight() -> float:
    return next(iter(metrics.IN_FLIGHT.collect())).samples[0].value


async def test_a_disabled_one_is_not_called_but_for_what_is_asked_by_hand(rig: Rig, receiver: Receiver):
    flying: list[float] = []

    def refuse(_: Got) -> tuple[int, dict[str, str], bytes]:
        flying.append(in_flight())
        return 500, {}, b""

    receiver.answer = refuse
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[LATER])
    await rig.book()
    await rig.waiting(webhook)
    await rig.ask("patch_webhook", {"enabled": False}, id=webhook["id"])
    await rig.hasten(webhook)
    log = (await rig.ended(webhook))[0]
    assert (log["status"], len(log["attempts"]), len(receiver.got)) == ("failed", 1, 1)
    assert (flying, in_flight()) == ([1], 0)
    receiver.answer = lambda _: (200, {}, b"")
    await rig.ask("retry_delivery", id=log["id"])
    await receiver.wait(2)
    await rig.ask("test_webhook", {"type": "booking.created"}, id=webhook["id"])
    await receiver.wait(3)


async def test_a_secret_under_a_lost_key_waits_for_its_key(still: Rig, receiver: Receiver):
    webhook = await still.subscribe(receiver.url(), ["booking.confirmed"])
    sealed = Keyring.parse(Keyring.generate()).seal(b"x", "elsewhere")
    right = await still.value("SELECT secret FROM subscriptions")
    await still.db.pool.execute("UPDATE subscriptions SET secret = $1", sealed)
    async with still.running():
        await still.book()

        async def waits() -> bool:
            found = await still.deliveries(webhook)
            return bool(found) and found[0]["next_attempt_at"] is not None

        await eventually_async(waits)
    assert receiver.got == []
    await still.db.pool.execute("UPDATE subscriptions SET secret = $1, version = version + 1", right)
    await still.db.pool.execute("UPDATE queue SET due_at = now()")
    async with still.running(still.make_worker()):
        await receiver.wait(1)
