"""Creating bookings, over the handlers and a real database."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from booking_kit import misplaced

from kalends_booking.handlers import context
from kalends_booking.handlers.context import Context
from kalends_shared.contracts.availability import Question
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.quotes import Refusal
from kalends_shared.db import Database

from .world import HALF_HOUR, NOON, AlwaysOpen, Client, event_type, refusal


async def test_a_booking_is_made_and_read_back(client: Client) -> None:
    reply = await client.book()
    assert (reply.status, reply.etag, reply.location) == (201, '"1"', f"/bookings/{reply.body['id']}")
    assert reply.position is not None
    assert reply.body["status"] == "confirmed"
    assert reply.body["host_ids"] == ["hst_ann"]
    assert await client.get(reply.body["id"]) == reply.body


async def test_a_taken_slot_is_refused_with_other_starts(client: Client) -> None:
    await client.book()
    refused = await refusal(client.book(NOON + HALF_HOUR / 2))
    assert (refused.status, refused.code) == (409, "slot_taken")
    assert len(refused.extra["alternatives"]) == 5


async def test_two_hundred_at_once_over_two_instances_make_one_booking(client: Client, db: Database) -> None:
    other = await Database.connect(db.url, "booking", size=6)
    two = Client(Context(other, client.ctx.quotes, client.ctx.nudge))

    async def once(who: Client) -> str:
        try:
            return str((await who.book()).status)
        except KalendsError as error:
            return f"{error.code} {len(error.extra['alternatives'])}"

    try:
        ends = Counter(await asyncio.gather(*(once((client, two)[n % 2]) for n in range(200))))
    finally:
        await other.close()
    assert ends == {"201": 1, "slot_taken 5": 199}
    assert await misplaced(db) == []


async def test_an_answer_lost_after_the_commit_is_given_to_the_retry(client: Client) -> None:
    """As where the process is killed between the commit and the reply."""

    async def killed() -> None:
        raise ConnectionResetError

    dying = Client(Context(client.ctx.db, client.ctx.quotes, killed))
    with pytest.raises(ConnectionResetError):
        await dying.book(key="k")
    again = await client.book(key="k")
    assert (again.status, again.headers) == (201, {"Idempotent-Replayed": "true"})
    assert [row["id"] for row in (await client.list())["data"]] == [again.body["id"]]


async def test_a_quote_is_asked_again_once_it_is_old(client: Client, quotes: AlwaysOpen, monkeypatch: Any) -> None:
    """Two who want one of two hosts: whoever loses asks anew where their quote is too old."""
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob")
    monkeypatch.setattr(context, "QUOTE_SECONDS", -1.0)
    await asyncio.gather(*(client.book() for _ in range(2)))
    assert quotes.asked >= 2
    before = quotes.asked
    await client.book(NOON + HALF_HOUR, recurrence={"rrule": "FREQ=DAILY;COUNT=2"})
    assert quotes.asked == before + 2


async def test_questions_bind_before_the_slot_is_looked_at(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(questions=[Question(key="a", label="A", type="text", required=True)])
    refused = await refusal(client.book())
    assert [(field.pointer, field.code) for field in refused.fields] == [("#/answers/a", "required")]
    assert (await client.book(answers={"a": "b"})).body["answers"] == {"a": "b"}


async def test_a_refusal_of_the_quote_carries_its_rule_and_other_starts(client: Client, quotes: AlwaysOpen) -> None:
    quotes.refusal = Refusal(code="slot_not_offered", rule="grid", detail="Off the grid.")
    refused = await refusal(client.book())
    assert (refused.status, refused.fields[0].pointer, refused.fields[0].rule) == (422, "#/start_at", "grid")
    assert (refused.extra["rule"], len(refused.extra["alternatives"])) == ("grid", 5)
    quotes.event_types["evt_visit"] = event_type(active=False)
    assert (await refusal(client.book())).code == "inactive"
