"""From an event in booking's store to a receiver, on real parts."""

import asyncio
import hashlib
import hmac
import itertools
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks.webhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook

from kalends_shared.testkit.waiting import eventually_async
from kalends_webhooks.handlers import scrubbing
from kalends_webhooks.settings import WebhooksSettings

from .making import person, state
from .receiver import Got, Receiver, Writer
from .rig import LATER, Rig


async def test_a_booking_arrives_signed_and_is_logged(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url())
    booking = await rig.book()
    created, confirmed = sorted(await receiver.wait(2), key=lambda got: got.json["type"], reverse=True)
    assert (created.json["type"], confirmed.json["type"]) == ("booking.created", "booking.confirmed")
    assert confirmed.json["data"]["booking"]["id"] == booking.id
    assert confirmed.json["data"]["booking"]["booker_name"] == "Ada Lovelace King"
    for got in (created, confirmed):
        assert got.headers["webhook-id"] == got.json["id"]
        assert got.headers["content-type"] == "application/json"
        Webhook(webhook["secret"]).verify(got.body, got.headers)
        SvixWebhook(webhook["secret"]).verify(got.body, got.headers)
        at = got.headers["webhook-timestamp"]
        signed = hmac.new(webhook["secret"].encode(), f"{at}.".encode() + got.body, hashlib.sha256).hexdigest()
        assert got.headers["kalends-signature"] == f"t={at},v1={signed}"
    log = await rig.ended(webhook, 2)
    assert {one["event_id"] for one in log} == {created.json["id"], confirmed.json["id"]}
    for one in log:
        assert (one["status"], len(one["attempts"]), one["next_attempt_at"]) == ("succeeded", 1, None)
        attempt = one["attempts"][0]
        assert (attempt["status_code"], attempt["error"], attempt["response_head"]) == (200, None, "ok")
        sent = next(got for got in (created, confirmed) if got.json["id"] == one["event_id"])
        assert {name.lower(): value for name, value in attempt["request_headers"].items()} == sent.headers
        assert await rig.ask("get_delivery", id=one["id"]) == one


async def test_the_trace_of_the_request_reaches_the_receiver(rig: Rig, receiver: Receiver):
    await rig.subscribe(receiver.url())
    await rig.book()
    for got in await receiver.wait(2):
        assert got.headers["traceparent"].split("-")[1] == "ab" * 16


async def test_only_who_asked_is_told_and_no_other_account(rig: Rig, receiver: Receiver):
    await rig.subscribe(receiver.url("/cancelled"), ["booking.cancelled"])
    await rig.subscribe(receiver.url("/other"), tenant="acc_test-test")
    await rig.subscribe(receiver.url("/gold"), ["booking.confirmed"], filters={"metadata": {"plan": "gold"}})
    await rig.subscribe(receiver.url("/lead"), ["booking.confirmed"], filters={"metadata": {"plan": "lead"}})
    booking = await rig.book()
    await rig.append("booking.cancelled", state(id=booking.id, status="cancelled"))
    await receiver.wait(1, "/cancelled")
    await receiver.wait(1, "/gold")
    await rig.caught_up()
    assert (receiver.at("/other"), receiver.at("/lead")) == ([], [])
    assert receiver.types("/cancelled") == ["booking.cancelled"]


# Of each profile: the headers that sign, by what they hold, and the members of the body. {t} is the attempt's time.
PROFILES: dict[str, tuple[dict[str, str], list[str]]] = {
    "kalends": ({"kalends-signature": "t={t},v1={timed}"}, ["id", "type", "created_at", "account_id", "mode", "data"]),
    "timestamped": (
        {"kalends-signature": "{timed}", "kalends-timestamp": "{t}"},
        ["id", "type", "created_at", "account_id", "mode", "data"],
    ),
    "sha256-prefixed": ({"x-kalends-signature": "sha256={plain}"}, ["id", "event", "timestamp", "data"]),
    "hex": ({"x-kalends-signature": "{plain}"}, ["id", "event", "timestamp", "data"]),
    "sha256-bare": ({"x-kalends-signature-256": "{plain}"}, ["trigger", "triggerEvent", "createdAt", "payload"]),
}
EVERYBODYS = {
    "host", "user-agent", "content-type", "content-length", "accept-encoding", "traceparent", "webhook-id",
    "webhook-timestamp", "webhook-signature",
}  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
async def test_profiles(rig: Rig, receiver: Receiver, profile: str):
    """Each header is there, exactly, and no other; and the libraries of Standard Webhooks verify every one."""
    signatures, members = PROFILES[profile]
    webhook = await rig.subscribe(receiver.url(), ["booking.created"], profile=profile)
    await rig.book()
    got = (await receiver.wait(1))[0]
    secret, at = webhook["secret"].encode(), got.headers["webhook-timestamp"]
    values = {
        "t": at,
        "timed": hmac.new(secret, f"{at}.".encode() + got.body, hashlib.sha256).hexdigest(),
        "plain": hmac.new(secret, got.body, hashlib.sha256).hexdigest(),
    }
    signed = {name: template.format(**values) for name, template in signatures.items()}
    assert {name: value for name, value in got.headers.items() if name not in EVERYBODYS} == signed
    assert got.headers.keys() >= EVERYBODYS
    assert (got.headers["webhook-id"], got.headers["content-type"]) == ((await told(rig))["id"], "application/json")
    for library in (Webhook, SvixWebhook):
        library(webhook["secret"]).verify(got.body, got.headers)
        with pytest.raises(Exception, match="signature"):
            library(webhook["secret"]).verify(got.body + b" ", got.headers)
    assert list(got.json) == members


async def told(rig: Rig) -> Any:
    """The public event that the other engines' receivers hear of as a booking's creation, and ours as itself."""
    rows = {row["type"]: row for row in await rig.changes()}
    kalends = (await rig.ask("list_webhooks"))["data"][0]["payload"] == "kalends"
    return rows["booking.created" if kalends else "booking.confirmed"]


async def test_signature_and_payload_may_be_chosen_apart(rig: Rig, receiver: Receiver):
    mixed = {"profile": "sha256-bare", "signature": "timestamped", "payload": "service"}
    webhook = await rig.subscribe(receiver.url(), ["booking.created"], **mixed)
    await rig.book()
    got = (await receiver.wait(1))[0]
    assert list(got.json) == ["id", "event", "timestamp", "data"]
    at = got.headers["kalends-timestamp"]
    signed = hmac.new(webhook["secret"].encode(), f"{at}.".encode() + got.body, hashlib.sha256).hexdigest()
    assert got.headers["kalends-signature"] == signed


async def test_a_deployment_that_stands_in_for_another_engine(still: Rig, receiver: Receiver):
    """KALENDS_BRAND=Cal: what a receiver of that engine's verifies is there by the name under which it looks."""
    brand = WebhooksSettings(secret_key="x", database_url="x", brand="Cal").headers()
    webhook = await still.subscribe(receiver.url(), ["booking.created"], profile="sha256-bare")
    worker = still.make_worker(brand=brand)
    async with still.running(still.relay, still.make_consumer(worker), worker):
        await still.book()
        got = (await receiver.wait(1))[0]
    signed = hmac.new(webhook["secret"].encode(), got.body, hashlib.sha256).hexdigest()
    assert got.headers["x-cal-signature-256"] == signed
    assert (got.headers["user-agent"], got.json["triggerEvent"]) == ("Cal-Webhooks/1", "BOOKING_CREATED")
    assert "kalends" not in got.raw.lower()


def test_each_header_has_a_name_of_its_own():
    named = {
        "webhooks_signature_header": "A", "webhooks_timestamp_header": "B", "webhooks_x_signature_header": "C",
        "webhooks_x_signature_256_header": "D",
    }  # fmt: skip
    brand = WebhooksSettings(secret_key="x", database_url="x", brand="Acme", **named).headers()
    assert (brand.signature, brand.timestamp, brand.x_signature, brand.x_signature_256) == ("A", "B", "C", "D")


async def test_an_ed25519_key_signs_what_is_delivered(rig: Rig, receiver: Receiver):
    """Whoever verifies holds the public half alone; a rotation to a shared secret lets both sign for a day."""
    private = Ed25519PrivateKey.generate()
    secret = "whsk_" + b64encode(private.private_bytes_raw()).decode()
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], secret=secret)
    rotated = await rig.ask("rotate_secret", {}, id=webhook["id"])
    await rig.book()
    got = (await receiver.wait(1))[0]
    signatures = dict(one.split(",", 1) for one in got.headers["webhook-signature"].split(" "))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    private.public_key().verify(b64decode(signatures["v1a"]), signed)
    for library in (Webhook, SvixWebhook):
        library(rotated["secret"]).verify(got.body, got.headers)


async def test_a_failure_is_tried_again_by_the_schedule_with_the_same_id(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[1, 2])
    receiver.answer = lambda _: (503, {}, b"not now") if len(receiver.got) < 3 else (200, {}, b"")
    await rig.book()
    got = await receiver.wait(3)
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(got)]
    assert gaps[0] >= 0.8
    assert gaps[1] >= 1.6
    assert len({one.headers["webhook-id"] for one in got}) == 1
    assert len({one.body for one in got}) == 1
    assert int(got[-1].headers["webhook-timestamp"]) > int(got[0].headers["webhook-timestamp"]), "of the attempt"
    for one in got:
        Webhook(webhook["secret"]).verify(one.body, one.headers)
    log = (await rig.ended(webhook))[0]
    assert [(one["status_code"], one["response_head"]) for one in log["attempts"]] == [
        (503, "not now"),
        (503, "not now"),
        (200, ""),
    ]
    assert (log["status"], log["version"]) == ("succeeded", 4)


async def test_while_it_waits_it_tells_when_it_goes_on_and_after_the_last_it_has_failed(rig: Rig, receiver: Receiver):
    schedule = [LATER, 3 * LATER]
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=schedule)
    receiver.answer = lambda _: (500, {}, b"")
    await rig.book()
    for attempts, seconds in enumerate(schedule, 1):
        await receiver.wait(attempts)
        waiting = await rig.waiting(webhook)
        assert (waiting["status"], len(waiting["attempts"])) == ("pending", attempts)
        due = datetime.fromisoformat(waiting["next_attempt_at"])
        begun = datetime.fromisoformat(waiting["attempts"][-1]["started_at"])
        fifth = timedelta(seconds=seconds / 5)
        assert begun + 5 * fifth <= due <= datetime.now(UTC) + 6 * fifth
        await rig.hasten(webhook)
    log = (await rig.ended(webhook))[0]
    assert (log["status"], len(log["attempts"]), log["next_attempt_at"]) == ("failed", 3, None)


async def test_retry_after_is_heeded(rig: Rig, receiver: Receiver):
    await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[1])
    receiver.answer = lambda _: (429, {"Retry-After": "3"}, b"") if len(receiver.got) < 2 else (200, {}, b"")
    await rig.book()
    got = await receiver.wait(2)
    assert got[1].at - got[0].at >= 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [((410, {}, b""), "gone"), ((500, {"webhook-delivery": "disable"}, b""), "receiver_asked")],
)
async def test_a_receiver_that_is_gone_is_disabled_and_the_others_hear_of_it(
    rig: Rig, receiver: Receiver, answer: tuple[int, dict[str, str], bytes], reason: str
):
    def answered(got: Got) -> tuple[int, dict[str, str], bytes]:
        return answer if got.path == "/gone" else (200, {}, b"")

    receiver.answer = answered
    gone = await rig.subscribe(receiver.url("/gone"), ["booking.confirmed"])
    await rig.subscribe(receiver.url("/other"), ["webhook.disabled"])
    await rig.book()
    told = (await receiver.wait(1, "/other"))[0].json
    assert (told["type"], told["data"]["reason"], told["data"]["webhook"]["id"]) == (
        "webhook.disabled",
        reason,
        gone["id"],
    )
    assert told["data"]["webhook"]["secret"] is None
    shown = await rig.ask("get_webhook", id=gone["id"])
    assert (shown["enabled"], shown["disabled_reason"]) == (False, reason)
    assert [one["type"] for one in await rig.changes()] == ["booking.created", "booking.confirmed", "webhook.disabled"]
    assert (await rig.ended(gone))[0]["status"] == "failed"
    await rig.book()
    await rig.caught_up()
    assert len(await rig.deliveries(gone)) == 1
    revived = await rig.ask("patch_webhook", {"enabled": True}, id=gone["id"])
    assert (revived["enabled"], revived["disabled_reason"]) == (True, None)


async def test_abort_message_ends_the_delivery_alone(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"])
    receiver.answer = lambda _: (500, {"Webhook-Delivery": "abort-message"}, b"")
    await rig.book()
    assert (await rig.ended(webhook))[0]["status"] == "failed"
    assert (await rig.ask("get_webhook", id=webhook["id"]))["enabled"]


async def test_a_redirect_is_a_failure_and_is_not_followed(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[])
    receiver.answer = lambda _: (302, {"Location": receiver.url("/elsewhere")}, b"")
    await rig.book()
    log = (await rig.ended(webhook))[0]
    assert (log["status"], log["attempts"][0]["error"], receiver.at("/elsewhere")) == ("failed", "redirect", [])


async def test_five_days_of_failure_without_a_success_disable(rig: Rig, receiver: Receiver):
    """By the workers' clock: failures on each day, one success, and five days again; the account's others are told."""
    well = False
    receiver.answer = lambda got: (200 if well or got.path == "/others" else 500, {}, b"")
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[])
    await rig.subscribe(receiver.url("/others"), ["webhook.disabled"])

    follow, followed = rig.worker._follow, 0

    async def counted(*ended: Any) -> None:
        nonlocal followed
        await follow(*ended)
        followed += 1

    rig.worker._follow = counted

    async def day(number: float) -> bool:
        """An event on that day; whether the webhook is enabled after it, and after what follows a failure."""
        before, want = len(await rig.deliveries(webhook)), followed + (not well)
        rig.ahead = timedelta(days=number)
        await rig.book()
        await rig.ended(webhook, before + 1)

        async def all_done() -> bool:
            return followed == want

        await eventually_async(all_done)
        return bool((await rig.ask("get_webhook", id=webhook["id"]))["enabled"])

    assert [await day(number) for number in (0, 1, 3, 4.9)] == [True] * 4
    well = True
    assert await day(4.95)
    well = False
    assert [await day(number) for number in (5.5, 6, 10.4)] == [True] * 3, "the success began the count anew"
    await day(10.6)

    async def disabled() -> bool:
        return not (await rig.ask("get_webhook", id=webhook["id"]))["enabled"]

    await eventually_async(disabled)
    assert (await rig.ask("get_webhook", id=webhook["id"]))["disabled_reason"] == "failing"
    told = (await receiver.wait(1, "/others"))[0].json
    assert (told["type"], told["data"]["reason"]) == ("webhook.disabled", "failing")
    assert told["data"]["webhook"]["id"] == webhook["id"]


async def test_a_success_ends_the_count_of_days(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[1])
    receiver.answer = lambda _: (500, {}, b"") if len(receiver.got) < 2 else (200, {}, b"")
    await rig.book()
    await rig.ended(webhook)
    assert await rig.value("SELECT failing_since FROM subscriptions") is None


async def test_previous_attendee_data_is_told(rig: Rig, receiver: Receiver):
    booking = await rig.book()
    await rig.subscribe(receiver.url())
    rig.people["v_new"] = person(booking, name="Ada King")
    after = state(id=booking.id, person_id=booking.person_id, person_version="v_new")
    await rig.append(
        "booking.updated",
        after,
        {"previous": None, "person_version": "v_new", "previous_person_version": booking.person_version},
    )
    got = (await receiver.wait(1))[0].json["data"]
    assert (got["booking"]["booker_name"], got["previous"]) == ("Ada King", {"booker_name": "Ada Lovelace King"})


async def test_erasure_empties_what_is_still_to_be_sent(rig: Rig, receiver: Receiver):
    webhook = await rig.subscribe(receiver.url(), ["booking.confirmed", "person.erased"], retry_schedule=[LATER])
    receiver.answer = lambda got: (
        (500, {}, b"") if got.json["type"] == "booking.confirmed" and len(receiver.got) == 1 else (200, {}, b"")
    )
    booking = await rig.book()
    first = (await receiver.wait(1))[0]
    assert first.json["data"]["booking"]["booker_email"] == "ada@example.test"
    await rig.append("person.erased", booking.person_id)
    await receiver.wait(2)
    await rig.hasten(webhook)
    await rig.ended(webhook, 2)
    told, again = receiver.got[1], receiver.got[2]
    assert told.json["data"] == {"person": {"id": booking.person_id}}
    assert again.json["id"] == first.json["id"]
    emptied = again.json["data"]["booking"]
    assert (emptied["booker_name"], emptied["booker_email"], emptied["guests"], emptied["answers"]) == (
        None,
        None,
        [],
        {},
    )
    assert await rig.value("SELECT count(*) FROM public_events WHERE attendees IS NOT NULL") == 0
    # What comes late is emptied too: an event that waited in dead letters, say.
    await rig.append(
        "booking.cancelled", state(id=booking.id, person_id=booking.person_id, person_version=booking.person_version)
    )
    await rig.caught_up()
    assert await rig.value("SELECT count(*) FROM public_events WHERE attendees IS NOT NULL") == 0


async def test_erasure_empties_what_receivers_have_answered(
    rig: Rig, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    """In the log, in what still waits, in stored replies, and in what is answered while or after the person is erased."""
    monkeypatch.setattr(scrubbing, "AGAIN_SECONDS", 0.0)
    hanging = asyncio.Event()
    echo = b"Welcome, Ada Lovelace King\0"

    async def late(writer: Writer) -> None:
        await hanging.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(echo) + echo)
        await writer.drain()

    receiver.answer = lambda got: (500 if got.path == "/fails" else 200, {}, echo)
    receiver.script["/late"] = late
    logged = await rig.subscribe(receiver.url("/logged"), ["booking.confirmed"])
    waiting = await rig.subscribe(receiver.url("/fails"), ["booking.confirmed"], retry_schedule=[600])
    under_way = await rig.subscribe(receiver.url("/late"), ["booking.confirmed"], timeout_seconds=30)
    booking, other = await rig.book(), await rig.book()
    deliveries = {one["event_id"]: one for one in await rig.ended(logged, 2)}
    first = next(one for one in receiver.at("/logged") if one.json["data"]["booking"]["id"] == booking.id)
    mine = deliveries[first.json["id"]]
    assert mine["attempts"][0]["response_head"] == echo.decode()
    retried = await rig.reply(
        "retry_delivery", id=mine["id"], idempotency_key="k", path=f"/deliveries/{mine['id']}/retry"
    )
    assert b"Ada" in retried.body
    await receiver.wait(3, "/logged")
    await receiver.wait(2, "/late")
    await receiver.wait(2, "/fails")

    async def all_waiting() -> bool:
        return all(len(one["attempts"]) == 1 for one in await rig.deliveries(waiting))

    await eventually_async(all_waiting)
    await rig.append("person.erased", booking.person_id)
    await rig.caught_up()
    scrubs = scrubbing.Scrubbing(rig.db)
    assert await scrubs.once()
    hanging.set()
    await rig.ended(under_way, 2)
    assert await scrubs.once(), "once more, for what was under way"
    assert not await scrubs.once()
    await rig.ask("retry_delivery", id=mine["id"])
    await receiver.wait(4, "/logged")
    await rig.ended(logged, 2)
    found: dict[str, set[bool]] = {booking.id: set(), other.id: set()}
    told = {got.json["id"]: got.json["data"]["booking"]["id"] for got in receiver.got}
    for webhook in (logged, waiting, under_way):
        for one in await rig.deliveries(webhook):
            found[told[one["event_id"]]] |= {attempt["response_head"] is None for attempt in one["attempts"]}
    assert found == {booking.id: {True}, other.id: {False}}
    again = await rig.reply(
        "retry_delivery", id=mine["id"], idempotency_key="k", path=f"/deliveries/{mine['id']}/retry"
    )
    assert (again.headers, b"Ada" in again.body) == ({"Idempotent-Replayed": "true"}, False)
    stored = await rig.db.pool.fetch("SELECT log FROM queue UNION ALL SELECT log FROM deliveries")
    assert sum(b"Ada" in row["log"] for row in stored) == 3
