"""Commands on a booking that is there, over the handlers and a real database."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any

import pytest
from booking_kit import misplaced

from kalends_booking.store import rebuild
from kalends_shared.contracts.availability import Limit
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import Database

from .world import HALF_HOUR, NOON, NOW, TENANT, AlwaysOpen, Client, event_type, refusal

LATER = NOON + 4 * HALF_HOUR


async def test_cancel_frees_the_slot_and_says_why(client: Client) -> None:
    made = (await client.book()).body
    reply = await client.act(made["id"], "cancel", {"reason": "ill"})
    assert (reply.status, reply.body["status"], reply.body["cancelled_reason"], reply.body["version"]) == (
        200,
        "cancelled",
        "ill",
        2,
    )
    assert (reply.etag, await client.get(made["id"])) == ('"2"', reply.body)
    assert (await client.book()).status == 201


async def test_a_repeated_cancel_is_refused_with_the_state(client: Client) -> None:
    made = (await client.book()).body
    await client.act(made["id"], "cancel")
    refused = await refusal(client.act(made["id"], "cancel"))
    assert (refused.code, refused.extra["state"]) == ("invalid_state", "cancelled")


async def test_a_request_holds_its_slot_until_it_is_declined(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(requires_confirmation=True)
    made = (await client.book()).body
    assert made["status"] == "pending"
    assert (await refusal(client.book())).code == "slot_taken"
    declined = (await client.act(made["id"], "decline", {"reason": "no"})).body
    assert (declined["status"], declined["reason"]) == ("declined", "no")
    again = (await client.book()).body
    assert (await client.act(again["id"], "approve")).body["status"] == "confirmed"


async def test_reschedule_moves_the_place_with_the_booking(client: Client) -> None:
    made = (await client.book()).body
    moved = (await client.act(made["id"], "reschedule", {"start_at": LATER})).body
    assert (moved["id"], moved["status"], moved["host_ids"]) == (made["id"], "confirmed", made["host_ids"])
    assert moved["start_at"] == "2026-04-10T14:00:00Z"
    assert moved["end_at"] == "2026-04-10T14:30:00Z"
    assert (await refusal(client.book(LATER))).code == "slot_taken"
    assert (await client.book()).status == 201


async def test_reschedule_may_overlap_itself_but_nobody_else(client: Client) -> None:
    made = (await client.book()).body
    await client.book(NOON + 2 * HALF_HOUR)
    moved = await client.act(made["id"], "reschedule", {"start_at": NOON + HALF_HOUR / 2})
    assert moved.body["start_at"] == "2026-04-10T12:15:00Z"
    refused = await refusal(client.act(made["id"], "reschedule", {"start_at": NOON + 2 * HALF_HOUR}))
    assert (refused.code, len(refused.extra["alternatives"])) == ("slot_taken", 5)
    assert await client.get(made["id"]) == moved.body


@pytest.mark.parametrize(
    "action",
    ["cancel", "reschedule", "reassign", "approve", "decline", "complete", "no_show", "payment", "recordings"],
)
@pytest.mark.parametrize("body", [{}, {"nonsense": 1}])
async def test_an_unknown_booking_is_not_found_whatever_the_body(client: Client, action: str, body: Any) -> None:
    assert (await refusal(client.act("bkg_none", action, body))).code == "not_found"


async def test_a_patch_that_changes_nothing_still_tells_where_the_booking_stands(client: Client) -> None:
    """Code that reads the position off every answer to a write finds one, and can read as of it."""
    made = await client.book()
    same = await client.ask("patch_booking", {"metadata": {}}, method="PATCH", params={"id": made.body["id"]})
    assert (same.body, same.etag, same.position) == (made.body, made.etag, made.position)


async def test_if_match_holds_a_write_to_a_version(client: Client) -> None:
    made = (await client.book()).body
    assert (await refusal(client.act(made["id"], "cancel", if_match='"7"'))).code == "version_mismatch"
    assert (await client.act(made["id"], "cancel", if_match='W/"1"')).body["status"] == "cancelled"


async def test_another_tenant_sees_and_changes_nothing(client: Client) -> None:
    made = (await client.book()).body
    other = Client(client.ctx, "acc_one-test")
    assert (await refusal(other.get(made["id"]))).code == "not_found"
    assert (await refusal(other.act(made["id"], "cancel"))).code == "not_found"
    assert (await other.list())["data"] == []
    assert (await other.book()).status == 201  # their host is another one, whatever its id
    assert await client.get(made["id"]) == made


async def settle(*coming: Awaitable[Any]) -> Counter[str]:
    """How each ended: a status, or a refusal's code."""

    async def one(reply: Awaitable[Any]) -> str:
        try:
            return str((await reply).status)
        except KalendsError as error:
            return error.code

    return Counter(await asyncio.gather(*(one(reply) for reply in coming)))


async def test_two_that_swap_their_places_neither_deadlock_nor_collide(client: Client, db: Database) -> None:
    """Each wants the other's slot, which is taken while both are there: refused, and nothing waits for ever."""
    client.ctx.quotes.event_types["evt_b"] = event_type("hst_bob", id="evt_b")  # type: ignore[attr-defined]
    one = (await client.book()).body
    two = (await client.book(LATER)).body
    for _ in range(10):
        ends = await settle(
            client.act(one["id"], "reschedule", {"start_at": LATER}),
            client.act(two["id"], "reschedule", {"start_at": NOON}),
        )
        assert ends == {"slot_taken": 2}
    starts = await db.pool.fetch("SELECT subject_id, start_at FROM reservations ORDER BY start_at")
    assert [row["start_at"] for row in starts] == [NOON, LATER]


async def test_many_that_move_about_end_where_they_say(client: Client, db: Database) -> None:
    """Six bookings move among eight slots at once, on two hosts: no deadlock, no overlap, every answer is true."""
    client.ctx.quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob")  # type: ignore[attr-defined]
    slots = [NOON + HALF_HOUR * n for n in range(4)]
    ids = [(await client.book(slots[n % 4])).body["id"] for n in range(6)]
    for turn in range(6):
        moves = [client.act(one, "reschedule", {"start_at": slots[(n + turn) % 4]}) for n, one in enumerate(ids)]
        assert set(await settle(*moves)) <= {"200", "slot_taken"}
    for one in ids:
        state = await client.get(one)
        rows = await db.pool.fetch("SELECT subject_id, start_at FROM seats WHERE holder_id = $1", one)
        assert [(row["subject_id"], row["start_at"].strftime("%H:%M")) for row in rows] == [
            (state["host_ids"][0], state["start_at"][11:16])
        ]
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 6


async def test_of_many_that_change_one_booking_one_wins(client: Client) -> None:
    made = (await client.book()).body
    ends = await settle(*(client.act(made["id"], "cancel") for _ in range(20)))
    assert ends == {"200": 1, "invalid_state": 19}


async def test_round_robin_falls_to_the_next_host_until_none_is_left(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(*(f"hst_{n}" for n in range(8)))
    ends = await settle(*(client.book() for _ in range(30)))
    assert ends == {"201": 8, "slot_taken": 22}
    hosts = {row["host_ids"][0] for row in (await client.list())["data"]}
    assert len(hosts) == 8


async def test_collective_takes_every_host_or_none(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", assignment="collective")
    quotes.event_types["evt_bob"] = event_type("hst_bob", id="evt_bob")
    await client.book(event_type_id="evt_bob")
    assert (await refusal(client.book())).code == "slot_taken"
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 1
    assert (await client.book(LATER)).body["host_ids"] == ["hst_ann", "hst_bob"]


async def test_seats_of_a_group_slot_never_pass_its_capacity(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    quotes.event_types["evt_visit"] = event_type(capacity=5)
    ends = await settle(*(client.book(seats=2) for _ in range(10)), *(client.book() for _ in range(10)))
    assert await db.pool.fetchval("SELECT sum(seats) FROM seats") == 5
    assert ends["slot_taken"] == 20 - ends["201"]
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 1
    for row in (await client.list())["data"]:
        await client.act(row["id"], "cancel")
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 0


async def test_a_group_slot_is_full_to_its_own_bookers_and_busy_to_all_others(
    client: Client, quotes: AlwaysOpen
) -> None:
    kinds = [event_type("hst_ann", "hst_bob", id=f"evt_{n}", capacity=3, assignment="collective") for n in range(2)]
    quotes.event_types |= {kind.id: kind for kind in kinds}
    await client.book(event_type_id="evt_0", seats=2)

    async def rule(start_at: datetime = NOON, **body: Any) -> Any:
        return (await refusal(client.book(start_at, **{"event_type_id": "evt_0", "seats": 2, **body}))).extra["rule"]

    assert await rule() == "capacity"
    assert await rule(event_type_id="evt_1") == "busy"
    assert await rule(NOON + HALF_HOUR / 2) == "busy"
    assert await rule(end_at=NOON + 2 * HALF_HOUR) == "busy"


async def test_units_of_a_resource_are_each_given_once(client: Client, quotes: AlwaysOpen) -> None:
    quotes.resources = {"res_room": 3}
    for n in range(6):
        quotes.event_types[f"evt_{n}"] = event_type(f"hst_{n}", id=f"evt_{n}", resource_ids=["res_room"])
    ends = await settle(*(client.book(event_type_id=f"evt_{n}") for n in range(6)))
    assert ends == {"201": 3, "slot_taken": 3}


async def test_limits_hold_under_a_race_and_are_given_back(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=2, per="day")])
    ends = await settle(*(client.book(NOON + HALF_HOUR * n) for n in range(10)))
    assert ends == {"201": 2, "limit_reached": 8}
    first = (await client.list())["data"][0]
    await client.act(first["id"], "cancel")
    assert (await client.book(NOON + HALF_HOUR * 12)).status == 201
    # Another day of the host's zone is another period.
    assert (await client.book(NOON + timedelta(days=1))).status == 201


async def test_a_cap_a_booker_holds_under_a_race_whatever_the_case(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(*(f"hst_{n}" for n in range(6)), max_active_per_booker=2)
    mails = ("ada@example.test", "ADA@example.test")
    ends = await settle(*(client.book(NOON + HALF_HOUR * n, booker_email=mails[n % 2]) for n in range(10)))
    assert ends == {"201": 2, "booker_limit_reached": 8}


async def test_one_address_is_one_person(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(*(f"hst_{n}" for n in range(8)))
    replies = await asyncio.gather(*(client.book(booker_email=mail) for mail in ("a@x.test", "A@x.test") * 4))
    assert len({reply.body["person_id"] for reply in replies}) == 1
    assert {reply.body["booker_email"] for reply in replies} == {"a@x.test", "A@x.test"}


async def test_the_read_model_is_what_the_events_say(
    client: Client, db: Database, quotes: AlwaysOpen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "PAGE", 3)
    quotes.event_types["evt_visit"] = event_type(requires_confirmation=True)
    for n, actions in enumerate(("", "approve", "decline", "cancel", "approve cancel", "approve reschedule cancel")):
        made = (await client.book(NOON + HALF_HOUR * n)).body
        for action in actions.split():
            await client.act(made["id"], action, {"start_at": LATER + HALF_HOUR * n} if action == "reschedule" else {})
    assert await rebuild.rebuild(db) == []
    assert await misplaced(db) == []
    wanted = {"event_type_id": "evt_visit", "start_at": NOON + timedelta(days=1)}
    await client.ask("create_hold", wanted, path="/holds", idempotency_key="hold")
    spoil = (
        "UPDATE bookings SET status = 'no_show' WHERE tenant_id = $1 AND status = 'declined' RETURNING id",
        "DELETE FROM bookings WHERE tenant_id = $1 AND status = 'pending' RETURNING id",
        "DELETE FROM holds WHERE tenant_id = $1 RETURNING id",
    )
    wrong = [await db.pool.fetchval(statement, TENANT) for statement in spoil]
    assert sorted(await rebuild.rebuild(db, write=False)) == sorted(wrong)
    assert sorted(await rebuild.rebuild(db)) == sorted(wrong)
    assert await rebuild.rebuild(db) == []
    assert await misplaced(db) == []


async def test_a_hold_that_ran_out_gives_way_to_a_booking(client: Client, db: Database) -> None:
    """Whether or not its timer has fired."""
    await db.pool.execute(
        """
        INSERT INTO reservations (tenant_id, subject_id, slot, start_at, end_at, during)
        VALUES ($1, 'hst_ann', 'evt_visit', $2, $3, tstzrange($2, $3))
        """,
        TENANT, NOON, NOON + HALF_HOUR,
    )  # fmt: skip
    await db.pool.execute(
        """
        INSERT INTO seats (tenant_id, holder_id, subject_id, slot, start_at, end_at, seats, expires_at)
        VALUES ($1, 'hld_1', 'hst_ann', 'evt_visit', $2, $3, 1, $4)
        """,
        TENANT, NOON, NOON + HALF_HOUR, NOW + timedelta(seconds=1),
    )  # fmt: skip
    assert (await refusal(client.book())).code == "slot_taken"
    client.now = NOW + timedelta(seconds=1)
    assert (await client.book()).status == 201
    assert await db.pool.fetchval("SELECT count(*) FROM seats") == 1


async def test_a_failed_commit_leaves_nothing(client: Client, db: Database) -> None:
    """A write that breaks in the middle takes all that came before it along."""
    await db.pool.execute("SELECT 1")
    import asyncpg

    owner = await asyncpg.connect(db.url)
    await owner.execute("ALTER TABLE booking.timers ADD CONSTRAINT broken CHECK (kind <> 'start')")
    with pytest.raises(asyncpg.CheckViolationError):
        await client.book()
    for table in ("reservations", "seats", "bookings", "people", "person_ids", "events", "streams", "idempotency"):
        assert await db.pool.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    await owner.execute("ALTER TABLE booking.timers DROP CONSTRAINT broken")
    await owner.close()
    assert (await client.book()).status == 201
