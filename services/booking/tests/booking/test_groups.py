"""Group slots: several bookings in one place of a host, one a booker, as many seats as there are."""

from datetime import timedelta
from typing import Any

from booking_kit import misplaced

from kalends_shared.db import Database

from .test_actions import settle
from .test_holds import hold, release
from .world import HALF_HOUR, NOON, NOW, AlwaysOpen, Client, event_type, refusal

LATER = NOON + 4 * HALF_HOUR
PLACES = """
SELECT r.subject_id, r.start_at, (SELECT sum(s.seats) FROM seats s WHERE s.subject_id = r.subject_id
    AND s.start_at = r.start_at AND s.in_force) AS seats FROM reservations r ORDER BY r.start_at, r.subject_id
"""


async def places(db: Database) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.pool.fetch(PLACES)]


async def test_one_who_moves_leaves_the_others_and_joins_those_who_are_there(
    client: Client, quotes: AlwaysOpen, db: Database
) -> None:
    quotes.event_types["evt_visit"] = event_type(capacity=3)
    one, two = [(await client.book(seats=seats)).body["id"] for seats in (2, 1)]
    assert (await client.book(LATER)).status == 201
    assert await places(db) == [("hst_ann", NOON, 3), ("hst_ann", LATER, 1)]
    await client.act(one, "reschedule", {"start_at": LATER})
    assert await places(db) == [("hst_ann", NOON, 1), ("hst_ann", LATER, 3)]
    assert (await refusal(client.act(two, "reschedule", {"start_at": LATER}))).extra["rule"] == "capacity"
    # The last one to leave takes the slot along, also onto a time that overlaps it.
    await client.act(two, "reschedule", {"start_at": NOON + HALF_HOUR / 2})
    assert await places(db) == [("hst_ann", NOON + HALF_HOUR / 2, 1), ("hst_ann", LATER, 3)]
    assert await misplaced(db) == []


async def test_onto_its_own_slot(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    quotes.event_types["evt_visit"] = event_type(capacity=3)
    one = (await client.book(seats=3)).body["id"]
    assert (await client.act(one, "reschedule", {"start_at": NOON})).body["start_at"] == "2026-04-10T12:00:00Z"
    assert await places(db) == [("hst_ann", NOON, 3)]
    two = (await client.book(LATER)).body["id"]
    await client.book(LATER)
    # Beside others it may not overlap the slot that it shares with them.
    refused = await refusal(client.act(two, "reschedule", {"start_at": LATER + HALF_HOUR / 2}))
    assert refused.code == "slot_taken"
    assert await misplaced(db) == []


async def test_a_group_fills_the_fullest_slot_before_it_begins_another(
    client: Client, quotes: AlwaysOpen, db: Database
) -> None:
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", capacity=2)
    hosts = [(await client.book()).body["host_ids"][0] for _ in range(4)]
    assert hosts[0] == hosts[1] != hosts[2] == hosts[3]
    assert (await refusal(client.book())).code == "slot_taken"


async def test_a_place_that_is_moved_into_at_once_is_never_over_its_capacity(
    client: Client, quotes: AlwaysOpen, db: Database
) -> None:
    quotes.event_types["evt_visit"] = event_type(capacity=3)
    ids = [(await client.book(NOON + HALF_HOUR * n)).body["id"] for n in range(4, 10)]
    ends = await settle(
        *(client.act(one, "reschedule", {"start_at": NOON}) for one in ids), *(hold(client, seats=1) for _ in range(3))
    )
    assert (ends["200"] + ends["201"], ends["slot_taken"]) == (3, 6)
    assert ("hst_ann", NOON, 3) in await places(db)
    assert await misplaced(db) == []


async def test_it_falls_with_its_last_seat_be_it_a_hold(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    quotes.event_types["evt_visit"] = event_type(capacity=3)
    held, kept = [(await hold(client, seats=1, ttl_seconds=ttl)).body["id"] for ttl in (60, 600)]
    one = (await client.book()).body["id"]
    await client.act(one, "cancel")
    client.now = NOW + timedelta(seconds=60)
    assert await places(db) == [("hst_ann", NOON, 2)]
    await client.ask("advance_clock", {"now": client.now}, mode="test")
    assert await places(db) == [("hst_ann", NOON, 1)]
    assert (await refusal(release(client, held))).code == "not_found"
    await release(client, kept)
    assert await places(db) == []


def wider(quotes: AlwaysOpen, minutes: int) -> None:
    """The group's buffer after it from now on; beside it another event type of the same host."""
    quotes.event_types["evt_visit"] = event_type(capacity=3, buffer_after_minutes=minutes)
    quotes.event_types["evt_next"] = event_type(id="evt_next")


async def spans(db: Database) -> list[tuple[Any, ...]]:
    rows = await db.pool.fetch("SELECT lower(during), upper(during) FROM reservations ORDER BY 1")
    return [tuple(row) for row in rows]


async def test_who_joins_has_their_own_buffers_reserved(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    """slots.md 5: with the buffers as they were when it was booked, which may have grown since the group was begun."""
    wider(quotes, 0)
    await client.book()
    wider(quotes, 30)
    joined = (await client.book()).body["id"]
    assert await spans(db) == [(NOON, NOON + 2 * HALF_HOUR)]
    assert (await refusal(client.book(NOON + HALF_HOUR, event_type_id="evt_next"))).code == "slot_taken"
    # With who asked for it goes what only they had reserved.
    await client.act(joined, "cancel")
    assert await spans(db) == [(NOON, NOON + HALF_HOUR)]
    assert (await client.book(NOON + HALF_HOUR, event_type_id="evt_next")).status == 201
    # There is no room for such buffers any more, so it may not be joined with them, but with less.
    assert (await refusal(client.book())).code == "slot_taken"
    wider(quotes, 0)
    assert (await client.book()).status == 201


async def test_what_is_left_of_a_group_reserves_no_more_than_it_asked_for(
    client: Client, quotes: AlwaysOpen, db: Database
) -> None:
    wider(quotes, 30)
    begun = (await client.book()).body["id"]
    held = (await hold(client, seats=1, ttl_seconds=60)).body["id"]
    wider(quotes, 0)
    await client.book()
    await client.act(begun, "reschedule", {"start_at": LATER})
    assert (NOON, NOON + 2 * HALF_HOUR) in await spans(db)
    await release(client, held)
    assert (NOON, NOON + HALF_HOUR) in await spans(db)
    assert (await client.book(NOON + HALF_HOUR, event_type_id="evt_next")).status == 201
    assert await misplaced(db) == []


async def test_a_hold_that_has_run_out_is_not_in_the_way_of_buffers_that_grow(
    client: Client, quotes: AlwaysOpen, db: Database
) -> None:
    wider(quotes, 0)
    await client.book()
    await hold(client, NOON + HALF_HOUR, event_type_id="evt_next", seats=1, ttl_seconds=60)
    wider(quotes, 30)
    assert (await refusal(client.book())).code == "slot_taken"
    client.now = NOW + timedelta(seconds=60)  # whether or not its timer has fired
    assert (await client.book()).status == 201
    assert await spans(db) == [(NOON, NOON + 2 * HALF_HOUR)]
