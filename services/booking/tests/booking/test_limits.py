"""Limits move with the reservation: what leaves a period makes room in it, what comes counts, holds too."""

from datetime import timedelta

from kalends_shared.contracts.availability import Limit

from .test_actions import settle
from .test_holds import hold, release
from .world import HALF_HOUR, NOON, NOW, AlwaysOpen, Client, event_type, refusal

DAY = timedelta(days=1)


async def test_a_count_a_day_moves_with_the_booking(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=1, per="day")])
    one, two = [(await client.book(NOON + DAY * n)).body["id"] for n in range(2)]
    assert (await refusal(client.act(one, "reschedule", {"start_at": NOON + DAY + HALF_HOUR}))).code == "limit_reached"
    # Inside its own day it does not count twice.
    assert (await client.act(one, "reschedule", {"start_at": NOON + HALF_HOUR})).status == 200
    assert (await client.act(one, "reschedule", {"start_at": NOON + 2 * DAY})).status == 200
    assert (await client.act(two, "reschedule", {"start_at": NOON})).status == 200
    assert (await client.book(NOON + DAY)).status == 201
    assert (await refusal(client.book(NOON + 2 * DAY + HALF_HOUR))).code == "limit_reached"


async def test_minutes_a_week_are_exact_under_a_race(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(minutes=90, per="week")])
    monday = NOON + 3 * DAY
    ends = await settle(*(client.book(monday + HALF_HOUR * n) for n in range(8)))
    assert ends == {"201": 3, "limit_reached": 5}
    assert (await client.book(monday + 7 * DAY)).status == 201
    assert (await client.book(monday - DAY)).status == 201  # Sunday is of the week before


async def test_of_those_who_move_into_a_period_at_once_only_as_many_as_it_holds(
    client: Client, quotes: AlwaysOpen
) -> None:
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=2, per="day")])
    ids = [(await client.book(NOON + DAY * n)).body["id"] for n in range(1, 6)]
    moves = [client.act(one, "reschedule", {"start_at": NOON + HALF_HOUR * n}) for n, one in enumerate(ids)]
    assert await settle(*moves) == {"200": 2, "limit_reached": 3}


async def test_a_hold_counts_until_it_ends(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=1, per="day")])
    held = (await hold(client, ttl_seconds=60)).body["id"]
    assert (await refusal(client.book(NOON + HALF_HOUR))).code == "limit_reached"
    await release(client, held)
    held = (await hold(client, ttl_seconds=60)).body["id"]
    client.now = NOW + timedelta(seconds=60)  # whether or not its timer has fired
    one = (await client.book(NOON + HALF_HOUR)).body["id"]
    assert (await refusal(hold(client, NOON + 2 * HALF_HOUR))).code == "limit_reached"
    await client.act(one, "cancel")
    assert (await hold(client, NOON + 2 * HALF_HOUR)).status == 201


async def test_what_took_place_counts_and_what_was_declined_does_not(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=1, per="day")])
    one = (await client.book()).body["id"]
    client.now = NOON + HALF_HOUR
    await client.act(one, "no_show")
    assert (await refusal(client.book(NOON + 4 * HALF_HOUR))).code == "limit_reached"
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=1, per="day")], requires_confirmation=True)
    asked = (await client.book(NOON + DAY)).body["id"]
    assert (await refusal(client.book(NOON + DAY + HALF_HOUR))).code == "limit_reached"
    await client.act(asked, "decline")
    assert (await client.book(NOON + DAY + HALF_HOUR)).status == 201


async def test_the_cap_a_booker_counts_what_is_to_come(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(max_active_per_booker=1)
    one = (await client.book()).body["id"]
    assert (await refusal(client.book(NOON + DAY))).code == "booker_limit_reached"
    # The booking that moves is not in its own way; cancelled or over, it is in nobody's.
    assert (await client.act(one, "reschedule", {"start_at": NOON + HALF_HOUR})).status == 200
    client.now = NOON + 2 * HALF_HOUR
    two = (await client.book(NOON + DAY)).body["id"]
    assert (await refusal(client.book(NOON + 2 * DAY))).code == "booker_limit_reached"
    await client.act(two, "cancel")
    assert (await client.book(NOON + 2 * DAY)).status == 201
