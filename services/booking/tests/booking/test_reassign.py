"""A booking, or one host's part in it, is given to another host: places, limits and the event in one transaction."""

from typing import Any

from booking_kit import misplaced

from kalends_booking.store import rebuild
from kalends_shared.contracts.availability import Limit
from kalends_shared.db import Database

from .test_actions import settle
from .test_lives import history
from .world import HALF_HOUR, NOON, AlwaysOpen, Client, event_type, refusal

RESERVED = "SELECT subject_id FROM reservations WHERE start_at = $1 ORDER BY subject_id"


async def reserved(db: Database) -> list[str]:
    return [row["subject_id"] for row in await db.pool.fetch(RESERVED, NOON)]


async def give(client: Client, booked: Any, to: str, since: str | None = None, **fields: Any) -> Any:
    body = {"host_id": to} | ({"from_host_id": since} if since else {})
    return (await client.act(booked["id"], "reassign", body, **fields)).body


async def whole(db: Database) -> bool:
    return await rebuild.rebuild(db, write=False) == [] and await misplaced(db) == []


async def test_to_the_other_of_two(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob")
    one = (await client.book()).body
    other = "hst_bob" if one["host_ids"] == ["hst_ann"] else "hst_ann"
    given = (await client.act(one["id"], "reassign", {"host_id": other, "reason": "ill"})).body
    assert (given["host_ids"], given["start_at"], given["reason"]) == ([other], one["start_at"], "ill")
    two = (await client.book()).body
    assert two["host_ids"] == one["host_ids"]
    assert (await refusal(give(client, one, two["host_ids"][0]))).code == "slot_taken"
    assert [row["id"] for row in (await client.list(f"host_id={other}"))["data"]] == [one["id"]]
    assert await reserved(db) == ["hst_ann", "hst_bob"]


async def test_who_serves_it_already_is_no_other_host(client: Client, quotes: AlwaysOpen) -> None:
    one = (await client.book()).body
    refused = await refusal(give(client, one, "hst_ann"))
    assert (refused.code, refused.extra) == ("invalid_state", {"state": "confirmed"})
    assert (await client.get(one["id"]))["version"] == 1


async def test_one_of_a_team_by_its_successor(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    """Bob left the team, and Cid came: the event type says so, and its bookings are given over one by one."""
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", assignment="collective")
    one = (await client.book()).body
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_cid", assignment="collective")
    given = await give(client, one, "hst_cid", "hst_bob", key="k")
    assert (given["host_ids"], given["start_at"], given["version"]) == (["hst_ann", "hst_cid"], one["start_at"], 2)
    assert await reserved(db) == ["hst_ann", "hst_cid"]
    told = (await history(client, one["id"]))["data"][-1]
    assert (told["type"], told["data"]["previous"]) == ("booking.reassigned", {"host_ids": ["hst_ann", "hst_bob"]})
    assert [row["id"] for row in (await client.list("host_id=hst_cid"))["data"]] == [one["id"]]
    assert (await client.list("host_id=hst_bob"))["data"] == []
    assert await give(client, one, "hst_cid", "hst_bob", key="k") == given
    assert await whole(db)


async def test_the_first_of_a_team_hands_over_the_room(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    quotes.resources = {"res_room": 2}
    team = {"assignment": "any", "required_hosts": 2, "resource_ids": ["res_room"]}
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", "hst_cid", **team)
    one = (await client.book()).body
    first, second = one["host_ids"]
    (third,) = {"hst_ann", "hst_bob", "hst_cid"} - {first, second}
    given = await give(client, one, third, first)
    assert (given["host_ids"], given["host_id"], given["resource_ids"]) == ([third, second], third, ["res_room"])
    assert await reserved(db) == sorted([third, second, "res_room#1"])
    back = await give(client, one, first, second)
    assert back["host_ids"] == [third, first]
    assert await reserved(db) == sorted([third, first, "res_room#1"])
    assert await whole(db)


async def test_whose_part_it_is_must_be_said_of_several(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(
        "hst_ann", "hst_bob", "hst_cid", "hst_dan", assignment="any", required_hosts=2
    )
    one = (await client.book()).body
    wrong = {None: "required", "hst_dan": "not_found", "hst_gone": "not_found"}
    for since, code in wrong.items():
        refused = await refusal(give(client, one, "hst_cid", since))
        assert [(f.pointer, f.code) for f in refused.fields] == [("#/from_host_id", code)]
    assert (await refusal(give(client, one, one["host_ids"][0], one["host_ids"][1]))).code == "invalid_state"
    await client.act(one["id"], "cancel")
    assert (await refusal(give(client, one, "hst_cid"))).extra == {"state": "cancelled"}


async def test_only_the_new_host_is_judged(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    """The event type has become stricter since: who stays, stays, and the buffers are those it was booked by."""
    team = {"assignment": "any", "required_hosts": 2}
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", **team)
    quotes.event_types["evt_ann"] = event_type("hst_ann", id="evt_ann")
    one = (await client.book()).body
    await client.book(NOON - 4 * HALF_HOUR)
    await client.book(NOON + HALF_HOUR, event_type_id="evt_ann")
    strict = team | {"limits": [Limit(count=1, per="day")], "buffer_after_minutes": 30}
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", "hst_cid", "hst_dan", **strict)
    given = await give(client, one, "hst_cid", "hst_bob")
    assert given["host_ids"] == ["hst_ann", "hst_cid"]
    quotes.event_types["evt_cid"] = event_type("hst_cid", id="evt_cid")
    assert (await client.book(NOON + HALF_HOUR, event_type_id="evt_cid")).status == 201
    assert await whole(db)


async def test_limits_go_with_the_part(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    team = {"assignment": "any", "required_hosts": 2, "limits": [Limit(count=1, per="day")]}
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", **team)
    one = (await client.book()).body
    quotes.event_types["evt_visit"] = event_type("hst_cid", "hst_dan", **team)
    two = (await client.book(NOON + HALF_HOUR)).body
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", "hst_cid", "hst_eve", **team)
    assert (await refusal(give(client, one, "hst_cid", "hst_bob"))).code == "limit_reached"
    await give(client, one, "hst_eve", "hst_bob")
    assert (await give(client, two, "hst_bob", "hst_dan"))["host_ids"] == ["hst_cid", "hst_bob"]
    assert (await refusal(give(client, two, "hst_ann", "hst_cid"))).code == "limit_reached"
    assert await whole(db)


async def test_one_attendee_of_a_group_leaves_the_others_where_they_are(
    client: Client, quotes: AlwaysOpen, db: Database
) -> None:
    group = {"assignment": "collective", "capacity": 3}
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", **group)
    one, two = (await client.book(seats=2)).body, (await client.book()).body
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_cid", **group)
    assert (await give(client, one, "hst_cid", "hst_bob"))["seats"] == 2
    assert (await client.get(two["id"]))["host_ids"] == ["hst_ann", "hst_bob"]
    assert await reserved(db) == ["hst_ann", "hst_bob", "hst_cid"]
    assert (await refusal(client.book())).code == "slot_taken"  # Ann's three seats are taken
    await client.act(two["id"], "cancel")
    assert await reserved(db) == ["hst_ann", "hst_cid"]
    assert (await client.book()).status == 201
    assert await whole(db)


async def test_of_many_who_want_the_same_host_one_gets_it(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    for n in range(4):
        quotes.event_types[f"evt_{n}"] = event_type(f"hst_{n}", f"hst_{n}_too", id=f"evt_{n}", assignment="collective")
    teams = [(await client.book(event_type_id=f"evt_{n}")).body for n in range(4)]
    for n in range(4):
        quotes.event_types[f"evt_{n}"] = event_type(f"hst_{n}", "hst_joe", id=f"evt_{n}", assignment="collective")
    ends = await settle(
        *(
            client.act(one["id"], "reassign", {"host_id": "hst_joe", "from_host_id": one["host_ids"][1]})
            for one in teams
        )
    )
    assert ends == {"200": 1, "slot_taken": 3}
    assert await whole(db)


async def test_parts_that_are_swapped_at_once_neither_deadlock_nor_double(
    client: Client, quotes: AlwaysOpen, db: Database
) -> None:
    team = {"assignment": "any", "required_hosts": 2}
    hosts = [f"hst_{n}" for n in range(6)]
    quotes.event_types["evt_visit"] = event_type(*hosts, **team)
    booked = [(await client.book()).body for _ in range(2)]
    for turn in range(8):
        now = [await client.get(one["id"]) for one in booked]
        moves = [
            client.act(one["id"], "reassign", {"host_id": host, "from_host_id": one["host_ids"][turn % 2]})
            for one in now
            for host in hosts
        ]
        assert set(await settle(*moves)) <= {"200", "slot_taken", "invalid_state", "validation_failed"}
        assert len(await reserved(db)) == 4
    assert await whole(db)
