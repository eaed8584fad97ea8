"""Idempotency-Key on booking's POSTs: stored in the transaction of the effects."""

import asyncio
from collections import Counter

import msgspec

from kalends_booking.handlers.context import Context
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database

from .world import HALF_HOUR, NOON, AlwaysOpen, Client, refusal


async def test_a_key_is_required(client: Client) -> None:
    assert (await refusal(client.ask("create_booking", {}))).code == "idempotency_key_required"


async def test_the_same_request_gives_the_first_answer(client: Client, quotes: AlwaysOpen) -> None:
    first = await client.book(key="k")
    asked = quotes.asked
    again = await client.book(key="k")
    assert (again.status, again.body, again.etag, again.location) == (201, first.body, first.etag, first.location)
    assert again.position == first.position is not None
    assert again.headers == {"Idempotent-Replayed": "true"}
    assert quotes.asked == asked


async def test_another_body_is_refused(client: Client) -> None:
    await client.book(key="k")
    assert (await refusal(client.book(NOON + HALF_HOUR, key="k"))).code == "idempotency_key_reused"


async def test_fifty_at_once_make_one_booking_by_two_instances(client: Client, db: Database) -> None:
    other = await Database.connect(db.url, "booking", size=6)
    ctx = client.ctx
    two = Client(Context(other, ctx.quotes, ctx.nudge))

    async def once(who: Client) -> str:
        try:
            reply = await who.book(key="k")
        except KalendsError as error:
            return error.code
        assert reply.headers.get("Idempotent-Replayed") or reply.position
        return str(reply.body["id"])

    try:
        ends = Counter(await asyncio.gather(*(once((client, two)[n % 2]) for n in range(50))))
    finally:
        await other.close()
    del ends["idempotency_in_flight"]
    assert len(ends) == 1
    assert len((await client.list())["data"]) == 1


async def test_its_own_refusal_is_the_answer_ever_after(client: Client) -> None:
    made = (await client.book()).body
    first = await refusal(client.book(key="k"))
    await client.act(made["id"], "cancel")
    again = await refusal(client.book(key="k"))
    assert (again.code, again.extra, again.headers) == ("slot_taken", first.extra, {"Idempotent-Replayed": "true"})


async def test_what_is_no_409_leaves_the_key_free(client: Client) -> None:
    assert (await refusal(client.book(key="k", booker_email="nobody"))).status == 422
    assert (await refusal(client.book(key="k", event_type_id="evt_none"))).status == 422
    assert (await client.book(key="k")).status == 201


async def test_actions_too(client: Client) -> None:
    made = (await client.book()).body
    first = await client.act(made["id"], "cancel", {}, key="k")
    again = await client.act(made["id"], "cancel", b"", key="k")
    assert (again.status, again.body, again.etag) == (200, first.body, first.etag)
    assert again.position == first.position is not None
    assert (await refusal(client.act(made["id"], "cancel", {"reason": "x"}, key="k"))).code == "idempotency_key_reused"
    refused = await refusal(client.act(made["id"], "cancel", {}, key="other"))
    assert refused.code == "invalid_state"
    assert msgspec.json.encode(refused.extra) == b'{"state":"cancelled"}'
