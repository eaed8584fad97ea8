"""Holds: they keep a slot from everybody else, become a booking once, and run out."""

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest
from booking_kit import misplaced

from kalends_booking.domain import placing
from kalends_booking.domain.choosing import Wish
from kalends_booking.domain.hold import conversion
from kalends_booking.domain.placing import Booker
from kalends_booking.store import holds, rebuild
from kalends_booking.store.commit import commit
from kalends_shared.contracts.availability import Limit
from kalends_shared.contracts.booking import BookingIn
from kalends_shared.contracts.quotes import QuoteRequest, Refusal
from kalends_shared.db import Database
from kalends_shared.event_store import VersionConflict

from .test_actions import settle
from .test_timers import advance, types
from .world import HALF_HOUR, NOON, NOW, TENANT, AlwaysOpen, Client, call, event_type, refusal

TTL = timedelta(seconds=300)
DAY = timedelta(days=1)
_keys = itertools.count()


async def hold(client: Client, at: datetime = NOON, **body: Any) -> Any:
    request = {"event_type_id": "evt_visit", "start_at": at, **body}
    return await client.ask("create_hold", request, path="/holds", idempotency_key=f"hold-{next(_keys)}")


async def get(client: Client, hold_id: str) -> Any:
    return (await client.ask("get_hold", method="GET", params={"id": hold_id})).body


async def release(client: Client, hold_id: str) -> Any:
    return await client.ask("release_hold", method="DELETE", params={"id": hold_id})


async def test_a_hold_is_made_read_and_listed(client: Client) -> None:
    reply = await hold(client)
    assert (reply.status, reply.etag, reply.location) == (201, '"1"', f"/holds/{reply.body['id']}")
    assert (reply.body["status"], reply.body["ttl_seconds"], reply.body["host_ids"]) == ("active", 300, ["hst_ann"])
    assert reply.body["expires_at"] == "2026-04-01T09:05:00Z"
    assert await get(client, reply.body["id"]) == reply.body
    newer = (await hold(client, NOON + HALF_HOUR)).body["id"]
    page = (await client.ask("list_holds", method="GET", query="limit=1")).body
    assert [row["id"] for row in page["data"]] == [newer]
    rest = (await client.ask("list_holds", method="GET", query=f"cursor={page['next_cursor']}")).body
    assert [row["id"] for row in rest["data"]] == [reply.body["id"]]


async def test_it_blocks_bookings_and_holds_of_all_others(client: Client) -> None:
    await hold(client)
    assert (await refusal(client.book())).code == "slot_taken"
    assert (await refusal(hold(client))).code == "slot_taken"


async def test_it_becomes_a_booking_once(client: Client, db: Database) -> None:
    held = (await hold(client)).body["id"]
    made = (await client.book(hold_id=held)).body
    assert (made["hold_id"], made["host_ids"]) == (held, ["hst_ann"])
    assert (await get(client, held))["status"] == "converted"
    refused = await refusal(client.book(hold_id=held))
    assert (refused.code, refused.extra["state"]) == ("hold_expired", "converted")
    assert await types(db, held) == ["hold.placed", "hold.converted"]
    assert await db.pool.fetchval("SELECT count(*) FROM timers WHERE key LIKE 'hld%'") == 0
    assert (await refusal(client.book())).code == "slot_taken"
    assert await rebuild.rebuild(db) == []


async def test_of_many_who_use_it_one_gets_the_booking(client: Client) -> None:
    held = (await hold(client)).body["id"]
    assert await settle(*(client.book(hold_id=held) for _ in range(10))) == {"201": 1, "hold_expired": 9}


async def test_one_that_was_released_meanwhile_is_not_used(client: Client, db: Database, quotes: AlwaysOpen) -> None:
    """The booking was decided on the hold as it was before."""
    held = (await hold(client)).body["id"]
    stale = await holds.get(db.pool, TENANT, held)
    assert stale is not None
    await release(client, held)
    request = BookingIn(
        event_type_id="evt_visit", start_at=NOON, booker_name="Ada", booker_email="ada@x.test", hold_id=held
    )
    quote = await quotes.quote(call(), QuoteRequest(event_type_id="evt_visit", start_at=NOON))
    wish = Wish(quote=quote, start=quote.starts[0])
    booker = Booker(person_id="per_1", version="v_1", email="ada@x.test")
    used = conversion(stale, request, "bkg_1", NOW)
    decision = placing.convert("bkg_1", request, wish, stale, used, booker, NOW)
    with pytest.raises(VersionConflict):
        await commit(db.pool, call(), decision)
    assert await db.pool.fetchval("SELECT count(*) FROM bookings") == 0


async def test_what_differs_from_it_is_pointed_at(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_other"] = event_type("hst_ann", id="evt_other")
    held = (await hold(client)).body["id"]
    for wrong, pointer in (
        ({"start_at": NOON + HALF_HOUR}, "#/start_at"),
        ({"end_at": NOON + timedelta(hours=1)}, "#/end_at"),
        ({"seats": 2}, "#/seats"),
        ({"event_type_id": "evt_other"}, "#/event_type_id"),
        ({"host_id": "hst_bob"}, "#/host_id"),
    ):
        refused = await refusal(client.book(hold_id=held, **wrong))
        assert (refused.status, [(f.pointer, f.code) for f in refused.fields]) == (422, [(pointer, "hold_mismatch")])
    series = await refusal(client.book(NOON + HALF_HOUR, hold_id=held, recurrence={"rrule": "FREQ=DAILY;COUNT=2"}))
    assert (series.status, series.fields[0].code) == (422, "hold_mismatch")
    unknown = await refusal(client.book(hold_id="hld_none"))
    assert (unknown.status, unknown.fields[0].pointer) == (422, "#/hold_id")


async def test_a_series_begins_in_its_place_and_stays_with_its_host(
    client: Client, db: Database, quotes: AlwaysOpen
) -> None:
    quotes.event_types["evt_visit"] = event_type(
        "hst_ann", "hst_bob", resource_ids=["res_room"], limits=[Limit(count=3, per="month")], max_active_per_booker=3
    )
    held = (await hold(client, host_id="hst_bob")).body["id"]
    rule = {"rrule": "FREQ=DAILY;COUNT=3"}
    other = await client.book(NOON + DAY, host_id="hst_bob", booker_email="bob@x.test")
    assert (await refusal(client.book(hold_id=held, recurrence=rule))).code == "slot_taken"
    assert (await get(client, held))["status"] == "active"
    await client.act(other.body["id"], "cancel")
    made = (await client.book(hold_id=held, recurrence=rule)).body
    rows = (await client.list(f"series_id={made['series_id']}"))["data"]
    assert [(row["host_ids"], row["resource_ids"], row["hold_id"]) for row in rows] == [
        (["hst_bob"], ["res_room"], used) for used in (held, None, None)
    ]
    assert (await get(client, held))["status"] == "converted"
    assert (await refusal(client.book(hold_id=held, recurrence=rule))).code == "hold_expired"
    assert (await refusal(client.book(NOON + 9 * DAY, host_id="hst_bob"))).code == "limit_reached"
    assert (await refusal(client.book(NOON + 9 * DAY, host_id="hst_ann"))).code == "booker_limit_reached"
    assert await rebuild.rebuild(db) == []
    assert await misplaced(db) == []


async def test_of_a_series_its_start_alone_is_not_judged_again(client: Client, quotes: AlwaysOpen) -> None:
    held = (await hold(client)).body["id"]
    quotes.refusal = Refusal(code="slot_not_offered", rule="notice", detail="Too late.")
    skipping = {"rrule": "FREQ=DAILY;COUNT=3", "on_conflict": "skip"}
    made = (await client.book(hold_id=held, recurrence=skipping)).body
    assert (made["start_at"], made["series"]["booking_ids"]) == ("2026-04-10T12:00:00Z", [made["id"]])
    assert [one["rule"] for one in made["series"]["skipped"]] == ["notice", "notice"]


async def test_it_is_judged_by_nothing_but_itself_when_used(client: Client, quotes: AlwaysOpen) -> None:
    """The event type has become stricter since."""
    held = (await hold(client)).body["id"]
    await client.book(NOON + 2 * HALF_HOUR)
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=1, per="day")], buffer_after_minutes=60)
    quotes.refusal = Refusal(code="slot_not_offered", rule="notice", detail="Too late.")
    assert (await client.book(hold_id=held)).status == 201


async def test_but_the_cap_a_booker(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(max_active_per_booker=1)
    held = (await hold(client)).body["id"]
    await client.book(NOON + HALF_HOUR)
    assert (await refusal(client.book(hold_id=held))).code == "booker_limit_reached"
    assert (await client.book(hold_id=held, booker_email="bob@x.test")).status == 201


async def test_released_it_is_gone_and_the_slot_free(client: Client, db: Database) -> None:
    held = (await hold(client)).body["id"]
    assert (await release(client, held)).status == 204
    assert (await refusal(release(client, held))).code == "not_found"
    assert (await get(client, held))["status"] == "released"
    assert (await refusal(client.book(hold_id=held))).code == "hold_expired"
    assert (await client.book()).status == 201
    assert await db.pool.fetchval("SELECT count(*) FROM timers WHERE key LIKE 'hld%'") == 0


async def test_it_lives_exactly_as_long_as_it_says(client: Client, db: Database) -> None:
    """Whether or not its timer has fired."""
    held = (await hold(client)).body["id"]
    client.now += TTL - timedelta(microseconds=1)
    assert (await get(client, held))["status"] == "active"
    client.now += timedelta(microseconds=1)
    assert (await get(client, held))["status"] == "expired"
    assert (await refusal(client.book(hold_id=held))).code == "hold_expired"
    assert (await refusal(release(client, held))).code == "not_found"
    assert (await client.book()).status == 201
    await advance(client, client.now)
    assert await types(db, held) == ["hold.placed", "hold.expired"]
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 1


async def test_its_seats_of_a_group(client: Client, quotes: AlwaysOpen, db: Database) -> None:
    quotes.event_types["evt_visit"] = event_type(capacity=3)
    held = (await hold(client, seats=2)).body["id"]
    assert (await refusal(client.book(seats=2))).code == "slot_taken"
    await client.book()
    assert (await client.book(hold_id=held, seats=2)).status == 201
    assert await db.pool.fetchval("SELECT sum(seats) FROM seats") == 3
    assert (await refusal(client.book())).code == "slot_taken"


async def test_a_moved_booking_may_not_take_what_is_held(client: Client) -> None:
    made = (await client.book()).body["id"]
    await hold(client, NOON + HALF_HOUR)
    assert (await refusal(client.act(made, "reschedule", {"start_at": NOON + HALF_HOUR}))).code == "slot_taken"
