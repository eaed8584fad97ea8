"""People: one an address, told anew with every booking, and erased for good."""

import asyncio
from typing import Any

import asyncpg
import pytest

from kalends_booking.handlers import changes, placing
from kalends_booking.store import people
from kalends_shared.db import Database
from kalends_shared.rpc import as_refusal
from kalends_shared.testkit.waiting import eventually_async

from .test_actions import settle
from .world import HALF_HOUR, NOON, TENANT, AlwaysOpen, Client, event_type, refusal, tailed

WAITING = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE NOT l.granted AND d.datname = current_database()
"""


async def person(client: Client, person_id: str) -> Any:
    return (await client.ask("get_person", method="GET", params={"id": person_id})).body


async def erase(client: Client, person_id: str) -> Any:
    return await client.ask("erase_person", method="DELETE", params={"id": person_id})


async def listed(client: Client, query: str = "") -> Any:
    return (await client.ask("list_people", method="GET", query=query)).body


async def test_a_person_is_shown_as_they_described_themself_last(client: Client) -> None:
    one = (await client.book()).body["person_id"]
    client.now += HALF_HOUR
    await client.book(
        NOON + HALF_HOUR, booker_name="Ada King", booker_phone="+34600000000", booker_email="ADA@example.test"
    )
    shown = await person(client, one)
    assert (shown["name"], shown["phone"], shown["email"]) == ("Ada King", "+34600000000", "ADA@example.test")
    other = (await client.book(NOON + 2 * HALF_HOUR, booker_email="bob@x.test")).body["person_id"]
    assert [row["id"] for row in (await listed(client))["data"]] == [other, one]
    page = await listed(client, "page=2&per_page=1")
    assert ([row["id"] for row in page["data"]], page["total"]) == ([one], 2)


async def test_each_telling_is_a_version_of_its_own(client: Client) -> None:
    """Also where the test clock stands still."""
    made = (await client.book()).body
    one, get = made["person_id"], {"method": "GET", "params": {"id": made["person_id"]}}
    assert (await client.ask("get_person", **get)).etag == '"1"'
    for name in ("Ada King", "Ada Byron"):
        await client.ask("patch_booking", {"booker_name": name}, method="PATCH", params={"id": made["id"]})
    shown = await client.ask("get_person", **get)
    assert (shown.etag, shown.body["version"], shown.body["name"]) == ('"3"', 3, "Ada Byron")
    await client.book(NOON + HALF_HOUR, booker_email="bob@x.test")
    stale = client.ask("erase_person", method="DELETE", params={"id": one}, if_match='"2"')
    assert (await refusal(stale)).code == "version_mismatch"
    assert (await client.ask("erase_person", method="DELETE", params={"id": one}, if_match='"3"')).status == 204


async def test_erasure_leaves_nothing_but_the_shape(client: Client, db: Database) -> None:
    made = (await client.book(key="k", booker_name="Zoe Secret", guests=[{"name": "Bob", "email": "bob@x.test"}])).body
    one = made["person_id"]
    await client.act(made["id"], "cancel", key="c")
    reply = await erase(client, one)
    assert (reply.status, reply.position is not None) == (204, True)
    assert (await refusal(person(client, one))).code == "not_found"
    assert (await refusal(erase(client, one))).code == "not_found"
    seen = await client.get(made["id"])
    assert (seen["booker_name"], seen["booker_email"], seen["guests"], seen["person_id"]) == (None, None, [], one)
    assert (await client.list("booker_email=ada@example.test"))["data"] == []
    assert (await listed(client))["data"] == []
    replayed = await client.book(key="k", booker_name="Zoe Secret", guests=[{"name": "Bob", "email": "bob@x.test"}])
    assert (replayed.status, replayed.body["booker_name"], replayed.body["id"]) == (201, None, made["id"])
    for table in ("people", "bookings", "events", "idempotency"):
        rows = await db.pool.fetch(f"SELECT to_json(t)::text FROM {table} t")
        text = "\n".join(row[0] for row in rows) + "".join(
            bytes(row["body"]).decode() for row in await db.pool.fetch("SELECT body FROM idempotency")
        )
        assert "Secret" not in text, table
        assert "@" not in text, table
    stored = await tailed(db, 3)
    async with db.pool.acquire() as conn:
        assert [one.type for one in stored] == ["booking.created", "booking.cancelled", "person.erased"]
        assert await people.join(conn, stored) == [None, None, None]


async def test_who_books_again_is_another_person(client: Client) -> None:
    one = (await client.book()).body["person_id"]
    await erase(client, one)
    two = (await client.book(NOON + HALF_HOUR)).body
    assert two["person_id"] != one
    assert two["booker_name"] == "Ada Lovelace"


async def test_an_erased_booker_can_still_be_rescheduled_and_patched(client: Client) -> None:
    made = (await client.book()).body
    await erase(client, made["person_id"])
    moved = (await client.act(made["id"], "reschedule", {"start_at": NOON + HALF_HOUR})).body
    assert (moved["booker_name"], moved["start_at"]) == (None, "2026-04-10T12:30:00Z")
    patch = {"method": "PATCH", "params": {"id": made["id"]}}
    patched = (await client.ask("patch_booking", {"metadata": {"a": 1}}, **patch)).body
    assert (patched["metadata"], patched["booker_name"]) == ({"a": 1}, None)
    assert (await refusal(client.ask("patch_booking", {"booker_name": "Ada"}, **patch))).code == "invalid_state"


async def test_bookings_and_erasures_at_once_leave_no_data_of_the_erased(
    client: Client, db: Database, quotes: AlwaysOpen
) -> None:
    quotes.event_types["evt_visit"] = event_type(*(f"hst_{n}" for n in range(40)))
    first = (await client.book()).body["person_id"]

    async def erasing() -> None:
        for _ in range(10):
            current = await db.pool.fetchval("SELECT person_id FROM person_ids WHERE tenant_id = $1", TENANT)
            if current is not None:
                await settle(erase(client, current))

    ends, _ = await asyncio.gather(settle(*(client.book() for _ in range(30))), erasing())
    assert ends == {"201": 30}
    erased = {
        row["stream_id"] for row in await db.pool.fetch("SELECT stream_id FROM events WHERE type = 'person.erased'")
    }
    assert first in erased
    left = await db.pool.fetch("SELECT person_id FROM people WHERE email IS NOT NULL")
    assert not {row["person_id"] for row in left} & erased


async def test_no_answer_shows_who_was_erased_as_it_was_made(
    client: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The booking had been read, with its booker, before the erasure, which so could not find the answer."""
    made = (await client.book()).body
    commit, erased = changes.commit, list[Any]()

    async def late(*args: Any, **kwargs: Any) -> Any:
        if not erased:
            erased.append(await erase(client, made["person_id"]))
        return await commit(*args, **kwargs)

    monkeypatch.setattr(changes, "commit", late)
    with pytest.raises(asyncpg.SerializationError) as refused:
        await client.act(made["id"], "cancel", key="k")
    assert as_refusal(refused.value).code == "unavailable"
    assert (await client.get(made["id"]))["status"] == "confirmed"
    done, again = [await client.act(made["id"], "cancel", key="k") for _ in range(2)]
    assert (done.body["status"], done.body["booker_email"]) == ("cancelled", None)
    assert (again.body, again.headers) == (done.body, {"Idempotent-Replayed": "true"})
    assert not [row for row in await db.pool.fetch("SELECT body FROM idempotency") if b"ada@" in row["body"]]


async def test_an_erasure_waits_for_a_booking_that_is_being_made(
    client: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the booking would leave what the erasure cannot see yet."""
    one = (await client.book()).body["person_id"]
    commit, erasing = placing.commit, []

    async def waits() -> bool:
        return erasing[0].done() or bool(await db.pool.fetchval(WAITING))

    async def slow(pool: Any, *args: Any, **kwargs: Any) -> Any:
        async with db.transaction() as conn:
            outcome = await commit(conn, *args, **kwargs)
            erasing.append(asyncio.create_task(erase(client, one)))
            await eventually_async(waits)
            assert not erasing[0].done()
        return outcome

    monkeypatch.setattr(placing, "commit", slow)
    made = (await client.book(NOON + HALF_HOUR, booker_name="Zoe Secret")).body
    await erasing[0]
    assert made["person_id"] == one
    assert (await client.get(made["id"]))["booker_name"] is None
    assert await db.pool.fetchval("SELECT count(*) FROM people WHERE name IS NOT NULL") == 0
