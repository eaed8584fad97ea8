"""The handlers, as the gateway calls them."""

import hashlib
import hmac
from base64 import b64decode
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook

from kalends_shared.contracts import ids
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.webhooks import Delivery
from kalends_shared.contracts.webhooks import Webhook as WebhookShape
from kalends_shared.event_store import Position
from kalends_shared.net import Policy
from kalends_shared.testkit.waiting import eventually_async
from kalends_webhooks.handlers.settling import Settling
from kalends_webhooks.handlers.webhooks import Webhooks

from .receiver import Receiver
from .rig import BRAND, KEYS, POLICY, Rig

OTHER = "acc_test-test"
HOOK = {"url": "http://127.0.0.1:9009/x", "events": ["hold.expired"]}


async def refused(rig: Rig, method: str, body: Any = None, **fields: Any) -> KalendsError:
    with pytest.raises(KalendsError) as caught:
        await rig.reply(method, body, **fields)
    return caught.value


def pointers(error: KalendsError) -> list[tuple[str, str]]:
    assert error.code == "validation_failed"
    return [(field.pointer, field.code) for field in error.fields]


async def test_create_read_list_change_delete(still: Rig):
    reply = await still.reply("create_webhook", HOOK)
    made = msgspec.json.decode(msgspec.json.encode(reply.body))
    assert (reply.status, reply.location, reply.etag) == (201, f"/webhooks/{made['id']}", '"1"')
    assert set(made) == set(WebhookShape.__struct_fields__)
    assert len(b64decode(made["secret"].removeprefix("whsec_"), validate=True)) == 32
    assert made["secret_hint"] == "..." + made["secret"][-4:]
    shown = await still.ask("get_webhook", id=made["id"])
    assert shown == made | {"secret": None}
    other = await still.ask("create_webhook", HOOK)
    assert [one["id"] for one in (await still.ask("list_webhooks", query="limit=5"))["data"]] == [
        other["id"],
        made["id"],
    ]
    page = await still.ask("list_webhooks", query="page=2&per_page=1")
    assert (page["data"], page["total"], page["has_more"]) == ([shown], 2, False)
    first = await still.ask("list_webhooks", query="limit=1")
    assert (await still.ask("list_webhooks", query=f"limit=1&cursor={first['next_cursor']}"))["data"] == [shown]
    reply = await still.reply(
        "patch_webhook", {"description": "d", "metadata": {"a": 1}}, id=made["id"], if_match='"1"'
    )
    assert reply.etag == '"2"'
    assert (await refused(still, "patch_webhook", {}, id=made["id"], if_match='"1"')).code == "version_mismatch"
    changed = await still.ask(
        "patch_webhook", {"description": None, "events": ["*"], "retry_schedule": [1]}, id=made["id"]
    )
    assert (changed["description"], changed["metadata"], changed["events"], changed["retry_schedule"]) == (
        None,
        {"a": 1},
        ["*"],
        [1],
    )
    assert (await refused(still, "delete_webhook", id=made["id"], if_match='"1"')).code == "version_mismatch"
    assert (await still.reply("delete_webhook", id=made["id"])).status == 204
    for method in ("get_webhook", "delete_webhook"):
        assert (await refused(still, method, id=made["id"])).code == "not_found"


async def test_what_is_wrong_is_told_where(still: Rig):
    for change, want in (
        ({"url": None}, ("#/url", "required")),
        ({"url": "nonsense"}, ("#/url", "invalid")),
        ({"events": []}, ("#/events", "too_few")),
        ({"events": ["booking.eaten"]}, ("#/events/0", "invalid_choice")),
        ({"profile": "x"}, ("#/profile", "invalid_choice")),
        ({"payload": "x"}, ("#/payload", "invalid_choice")),
        ({"nonsense": 1}, ("#/nonsense", "unknown_field")),
        ({"headers": {"Host": "x"}}, ("#/headers", "invalid")),
        ({"secret": "whsec_*"}, ("#/secret", "invalid")),
        ({"timeout_seconds": 0}, ("#/timeout_seconds", "too_small")),
        ({"retry_schedule": [0]}, ("#/retry_schedule/0", "too_small")),
    ):
        assert pointers(await refused(still, "create_webhook", HOOK | change)) == [want]
    assert pointers(await refused(still, "list_webhooks", query="nonsense=1")) == [("?nonsense", "unknown_field")]
    made = await still.ask("create_webhook", HOOK)
    assert pointers(await refused(still, "patch_webhook", {"headers": {"webhook-id": "x"}}, id=made["id"])) == [
        ("#/headers", "invalid")
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://127.0.0.1/", "https://10.1.2.3/", "https://[::1]/", "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest", "https://user:pass@example.com/", "https://example.com:22/", "https://example.com:444/",
        "https://localhost/", "https://2130706433/", "https://0x7f.1/", "https://[64:ff9b::a00:1]/", "ftp://example.com/",
    ],
)  # fmt: skip
async def test_urls_that_may_not_be_called_are_refused_where_it_is_known(still: Rig, url: str):
    strict = Webhooks(still.db, KEYS, Policy(), BRAND, "kalends", Settling({}))
    still.handlers = {**still.handlers, "create_webhook": strict.create, "patch_webhook": strict.patch}
    error = await refused(still, "create_webhook", HOOK | {"url": url})
    assert error.code == "validation_failed"
    assert error.fields[0].pointer == "#/url"
    assert error.fields[0].code == ("invalid" if url.startswith("ftp") else "url_not_allowed")
    assert await still.value("SELECT count(*) FROM subscriptions") == 0


async def test_secrets_are_sealed_and_a_repeated_post_does_not_show_them(still: Rig):
    for method, body in (("create_webhook", HOOK), ("rotate_secret", {})):
        fields: dict[str, Any] = {"idempotency_key": f"k-{method}"}
        if method == "rotate_secret":
            fields["id"] = (await still.ask("list_webhooks"))["data"][0]["id"]
        first = await still.ask(method, body, **fields)
        again = await still.reply(method, body, **fields)
        assert again.headers == {"Idempotent-Replayed": "true"}
        assert first["secret"]
        assert msgspec.json.decode(again.body) == first | {"secret": None}
        stored = await still.db.pool.fetchrow("SELECT s.*, i.body FROM subscriptions s, idempotency i")
        assert first["secret"].encode() not in b"".join(
            bytes(value) for value in stored.values() if isinstance(value, bytes)
        )
    assert (await still.ask("list_webhooks", query="page=1"))["total"] == 1
    supplied = await still.ask("create_webhook", HOOK | {"secret": "my own secret words"})
    assert (supplied["secret"], supplied["secret_hint"]) == ("my own secret words", "...ords")
    kept = await still.ask("create_webhook", HOOK | {"secret": " its spaces key the hash "})
    assert kept["secret"] == " its spaces key the hash "


async def test_a_repeated_subscription_waits_for_no_feed(still: Rig):
    """It is made already."""

    async def behind() -> None:
        raise KalendsError("unavailable")

    first = await still.ask("create_webhook", HOOK, idempotency_key="k")
    late = Webhooks(still.db, KEYS, POLICY, BRAND, "kalends", behind)
    still.handlers = {**still.handlers, "create_webhook": late.create}
    again = await still.reply("create_webhook", HOOK, idempotency_key="k")
    assert again.headers == {"Idempotent-Replayed": "true"}
    assert msgspec.json.decode(again.body) == first | {"secret": None}
    assert (await refused(still, "create_webhook", HOOK, idempotency_key="other")).code == "unavailable"


async def test_rotation_overlaps(rig: Rig, receiver: Receiver):
    made = await rig.subscribe(receiver.url(), ["booking.confirmed"])
    rotated = await rig.ask("rotate_secret", {}, id=made["id"])
    assert rotated["secret"] not in (None, made["secret"])
    await rig.book()
    got = (await receiver.wait(1))[0]
    at = got.headers["webhook-timestamp"]
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(got.body, got.headers)
        assert (
            hmac.new(secret.encode(), f"{at}.".encode() + got.body, hashlib.sha256).hexdigest()
            in got.headers["kalends-signature"]
        )
    await rig.db.pool.execute("UPDATE subscriptions SET previous_until = now() - interval '1 s', version = version + 1")
    await rig.db.pool.execute("UPDATE feeds SET subscriptions_version = subscriptions_version + 1")
    await rig.book()
    got = (await receiver.wait(2))[1]
    assert len(got.headers["webhook-signature"].split()) == 1
    at_once = await rig.ask("rotate_secret", {"immediate": True}, id=made["id"])
    await rig.book()
    got = (await receiver.wait(3))[2]
    Webhook(at_once["secret"]).verify(got.body, got.headers)
    assert len(got.headers["webhook-signature"].split()) == 1


async def test_each_secret_signs_until_its_own_day_ends(rig: Rig, receiver: Receiver):
    made = await rig.subscribe(receiver.url(), ["booking.confirmed"])
    secrets = [made["secret"]]
    for _ in range(2):
        secrets.insert(0, (await rig.ask("rotate_secret", {}, id=made["id"]))["secret"])
    await rig.book()
    got = (await receiver.wait(1))[0]
    signed = f"{got.headers['webhook-timestamp']}.".encode() + got.body
    assert got.headers["kalends-signature"].split(",")[1:] == [
        f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}" for secret in secrets
    ]
    assert len(got.headers["webhook-signature"].split()) == 3
    await rig.db.pool.execute("UPDATE subscriptions SET earlier_until = ARRAY[now() - interval '1 s']")
    await rig.ask("patch_webhook", {"description": "the first secret's day is over"}, id=made["id"])
    await rig.book()
    got = (await receiver.wait(2))[1]
    assert got.headers["kalends-signature"].count("v1=") == 2
    for _ in range(12):
        await rig.ask("rotate_secret", {}, id=made["id"])
    await rig.book()
    got = (await receiver.wait(3))[2]
    assert got.headers["kalends-signature"].count("v1=") == 10
    await rig.ask("rotate_secret", {"immediate": True}, id=made["id"])
    await rig.book()
    got = (await receiver.wait(4))[3]
    assert got.headers["kalends-signature"].count("v1=") == 1


async def test_a_retry_takes_no_fields(still: Rig):
    assert pointers(await refused(still, "retry_delivery", {"at": "once"}, id="dlv_1")) == [("#/at", "unknown_field")]


async def test_another_account_sees_nothing(rig: Rig, receiver: Receiver):
    made = await rig.subscribe(receiver.url())
    await rig.book()
    delivery = (await rig.ended(made, 2))[0]
    for method, body in (
        ("get_webhook", None), ("patch_webhook", {}), ("delete_webhook", None), ("rotate_secret", {}), ("test_webhook", {"type": "booking.created"}),
        ("replay_webhook", {}), ("list_deliveries", None),
    ):  # fmt: skip
        assert (await refused(rig, method, body, id=made["id"], tenant=OTHER)).code == "not_found"
    for method in ("get_delivery", "retry_delivery"):
        assert (await refused(rig, method, id=delivery["id"], tenant=OTHER)).code == "not_found"
        assert (await refused(rig, method, id=ids.new_id("dlv"))).code == "not_found"
    assert (await rig.ask("list_webhooks", tenant=OTHER))["data"] == []
    assert (await rig.ask("list_changes", tenant=OTHER))["data"] == []
    mine = await rig.ask("list_changes", query="limit=1")
    assert pointers(await refused(rig, "list_changes", query=f"after={mine['next_cursor']}", tenant=OTHER)) == [
        ("?after", "invalid")
    ]
    assert pointers(await refused(rig, "list_changes", query="after=zzzz")) == [("?after", "invalid")]


async def test_deliveries_by_filters_and_pages(rig: Rig, receiver: Receiver):
    receiver.answer = lambda got: (500 if got.json["type"] == "booking.created" else 200, {}, b"")
    made = await rig.subscribe(receiver.url(), retry_schedule=[600])
    for n in range(3):
        await rig.book()
        await rig.ended(made, n + 1)  # so that no two bookings are taken in together
    ended = await rig.ended(made, 3)
    assert {one["event_type"] for one in ended} == {"booking.confirmed"}
    assert set(ended[0]) == set(Delivery.__struct_fields__)
    whole = await rig.deliveries(made)
    assert len(whole) == 6
    assert [one["id"] for one in whole] == sorted((one["id"] for one in whole), reverse=True)
    for query, count in (
        ("status=pending", 3), ("status=succeeded", 3), ("status=failed", 0), ("status=pending,succeeded", 6),
        ("event_type=booking.created", 3), ("event_type=nothing", 0), (f"after={whole[2]['created_at']}", 4),
        (f"before={whole[2]['created_at']}", 2),
    ):  # fmt: skip
        found = await rig.ask("list_deliveries", id=made["id"], query=query + "&page=1")
        assert (found["total"], len(found["data"])) == (count, count), query
    seen, cursor = [], ""
    while True:
        page = await rig.ask("list_deliveries", id=made["id"], query=f"limit=4{cursor}")
        seen += page["data"]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == whole
    assert pointers(await refused(rig, "list_deliveries", id=made["id"], query="status=eaten")) == [
        ("?status", "invalid_choice")
    ]


async def test_retry_sends_what_has_ended_and_what_waits(rig: Rig, receiver: Receiver):
    receiver.answer = lambda _: (500, {}, b"")
    made = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[600])
    await rig.book()
    await receiver.wait(1)

    async def waits() -> bool:
        return (await rig.deliveries(made))[0]["next_attempt_at"] is not None

    await eventually_async(waits)
    delivery = (await rig.deliveries(made))[0]
    assert pointers(await refused(rig, "retry_delivery", {"x": 1}, id=delivery["id"])) == [("#/x", "unknown_field")]
    reply = await rig.reply("retry_delivery", id=delivery["id"])
    assert (reply.status, reply.body.id) == (202, delivery["id"])
    assert (await rig.ended(made))[0]["status"] == "failed"
    receiver.answer = lambda _: (200, {}, b"")
    await rig.ask("retry_delivery", id=delivery["id"])
    log = (await rig.ended(made))[0]
    assert (log["id"], log["status"], [one["status_code"] for one in log["attempts"]]) == (
        delivery["id"],
        "succeeded",
        [500, 500, 200],
    )
    await rig.ask("retry_delivery", id=delivery["id"])
    await receiver.wait(4)
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1


async def test_test_sends_a_sample_of_any_event(rig: Rig, receiver: Receiver):
    made = await rig.subscribe(receiver.url(), ["hold.expired"])
    for n, kind in enumerate(("booking.created", "calendar.synced", "person.erased", "webhook.disabled")):
        reply = await rig.reply("test_webhook", {"type": kind}, id=made["id"])
        assert (reply.status, reply.body.status, reply.body.event_type) == (202, "pending", kind)
        got = (await receiver.wait(n + 1))[n]
        assert (got.json["type"], got.json["id"]) == (kind, reply.body.event_id)
        Webhook(made["secret"]).verify(got.body, got.headers)
    assert pointers(await refused(rig, "test_webhook", {"type": "x"}, id=made["id"])) == [("#/type", "invalid_choice")]


async def test_replay_brings_what_was_before_and_what_failed(rig: Rig, receiver: Receiver):
    for _ in range(3):
        await rig.book()
    made = await rig.subscribe(receiver.url(), ["booking.confirmed"], retry_schedule=[])
    reply = await rig.reply("replay_webhook", {}, id=made["id"])
    assert (reply.status, reply.body.deliveries) == (202, 3)
    await rig.ended(made, 3)
    rows = [row for row in await rig.changes() if row["type"] == "booking.confirmed"]
    assert sorted(got.json["id"] for got in receiver.got) == sorted(row["id"] for row in rows)
    assert (await rig.ask("replay_webhook", {"only_failed": True}, id=made["id"]))["deliveries"] == 0
    receiver.answer = lambda _: (500, {}, b"")
    await rig.book()
    failed = (await rig.ended(made, 4))[0]
    receiver.answer = lambda _: (200, {}, b"")
    assert (await rig.ask("replay_webhook", {"only_failed": True}, id=made["id"]))["deliveries"] == 1
    again = (await rig.ended(made, 5))[0]
    assert (again["event_id"], again["status"], again["id"] != failed["id"]) == (failed["event_id"], "succeeded", True)
    assert (await rig.ask("replay_webhook", {"only_failed": True}, id=made["id"]))["deliveries"] == 0
    span = {"start_at": rows[1]["created_at"], "end_at": rows[2]["created_at"]}
    assert (await rig.ask("replay_webhook", span, id=made["id"]))["deliveries"] == 1
    assert (await rig.ask("replay_webhook", {"events": ["booking.created"]}, id=made["id"]))["deliveries"] == 0


async def test_static_headers_go_out(rig: Rig, receiver: Receiver):
    await rig.subscribe(
        receiver.url(), ["booking.confirmed"], headers={"Authorization": "Bearer tok", "X-Café".replace("é", "e"): "ü"}
    )
    await rig.book()
    got = (await receiver.wait(1))[0]
    assert (got.headers["authorization"], got.headers["x-cafe"]) == ("Bearer tok", "ü")


async def test_a_hundred_subscriptions_an_account(still: Rig):
    for _ in range(100):
        await still.ask("create_webhook", HOOK)
    assert (await refused(still, "create_webhook", HOOK)).code == "limit_reached"
    await still.ask("create_webhook", HOOK, tenant=OTHER)


async def test_writes_tell_their_position_and_reads_wait_for_one(rig: Rig, receiver: Receiver):
    """Of a write here nothing has to be waited for; of one that makes deliveries, until they are made."""
    made = await rig.reply("create_webhook", {"url": receiver.url(), "events": ["booking.confirmed"]})
    webhook = msgspec.json.decode(msgspec.json.encode(made.body))
    booking = await rig.book()
    last = await rig.booking.pool.fetchrow("SELECT tx, position FROM events WHERE stream_id = $1", booking.id)
    place = f"{rig.context}:{last['tx']}.{last['position']},{made.position}"
    found = await rig.ask("list_deliveries", id=webhook["id"], min_position=place)
    assert [one["event_type"] for one in found["data"]] == ["booking.confirmed"]
    delivery = found["data"][0]["id"]
    with pytest.raises(KalendsError) as refused_:
        await rig.reply("get_delivery", id=delivery, min_position=f"{rig.context}:{last['tx'] + 10**9}.1")
    assert refused_.value.code == "position_not_reached"
    for method, body, thing in (
        ("patch_webhook", {}, webhook["id"]), ("rotate_secret", {}, webhook["id"]), ("test_webhook", {}, webhook["id"]),
        ("replay_webhook", {}, webhook["id"]), ("retry_delivery", None, delivery), ("delete_webhook", None, webhook["id"]),
    ):  # fmt: skip
        reply = await rig.reply(method, body, id=thing)
        source, place_of = (reply.position or "").split(":")
        assert (source, Position.parse(place_of) > Position()) == ("webhooks", True), method
