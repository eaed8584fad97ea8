"""Recurring bookings: every start is checked, all or nothing unless told to skip; one host serves all."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from booking_kit import misplaced

from kalends_booking import recurrence
from kalends_booking.handlers import placing
from kalends_booking.store import rebuild
from kalends_shared.contracts.availability import Limit
from kalends_shared.contracts.call import etag
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.contracts.quotes import Refusal
from kalends_shared.db import Database

from .test_actions import settle
from .test_timers import types
from .world import NOON, AlwaysOpen, Client, event_type, refusal

DAY = timedelta(days=1)
DAILY = {"rrule": "FREQ=DAILY;COUNT=3"}
MADRID = ZoneInfo("Europe/Madrid")


async def statuses(client: Client, ids: list[str]) -> list[str]:
    return [(await client.get(one))["status"] for one in ids]


async def test_three_in_a_row(client: Client, db: Database) -> None:
    made = (await client.book(recurrence=DAILY)).body
    rows = (await client.list(f"series_id={made['series_id']}"))["data"]
    assert made["series"] == {"id": made["series_id"], "booking_ids": [row["id"] for row in rows], "skipped": []}
    assert [row["start_at"][:13] for row in rows] == ["2026-04-10T12", "2026-04-11T12", "2026-04-12T12"]
    assert made["id"] == rows[0]["id"]
    assert rows[0]["series"] is None
    assert await db.pool.fetchval("SELECT count(*) FROM timers") == 3
    assert await rebuild.rebuild(db) == []


async def test_all_or_nothing(client: Client) -> None:
    await client.book(NOON + DAY)
    refused = await refusal(client.book(recurrence=DAILY))
    assert (refused.code, refused.extra["start_at"]) == ("slot_taken", NOON + DAY)
    assert len((await client.list())["data"]) == 1


async def test_or_what_is_left_with_the_rest_told(client: Client) -> None:
    await client.book(NOON + DAY)
    series = (await client.book(recurrence={**DAILY, "on_conflict": "skip"})).body["series"]
    assert len(series["booking_ids"]) == 2
    assert series["skipped"] == [{"start_at": "2026-04-11T12:00:00Z", "code": "slot_taken", "rule": "busy"}]
    assert (await refusal(client.book(recurrence={**DAILY, "on_conflict": "skip"}))).code == "slot_taken"


@pytest.mark.parametrize("on_conflict", ["fail", "skip"])
async def test_where_nobody_may_serve_any_start_the_first_refusal_is_told(
    client: Client, quotes: AlwaysOpen, on_conflict: str
) -> None:
    quotes.refusal = Refusal(code="slot_not_offered", rule="working_hours", detail="Closed.")
    refused = await refusal(client.book(recurrence={**DAILY, "on_conflict": on_conflict}))
    assert (refused.code, refused.extra["rule"]) == ("slot_not_offered", "working_hours")


async def test_one_host_serves_all(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob")
    quotes.event_types["evt_ann"] = event_type("hst_ann", id="evt_ann")
    await client.book(NOON + 2 * DAY, event_type_id="evt_ann")
    made = (await client.book(recurrence=DAILY)).body
    rows = (await client.list(f"series_id={made['series_id']}"))["data"]
    assert {row["host_ids"][0] for row in rows} == {"hst_bob"}


async def test_limits_count_the_series_itself(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=2, per="month")])
    assert (await refusal(client.book(recurrence=DAILY))).code == "limit_reached"
    series = (await client.book(recurrence={**DAILY, "on_conflict": "skip"})).body["series"]
    assert (len(series["booking_ids"]), [one["code"] for one in series["skipped"]]) == (2, ["limit_reached"])


async def test_limits_count_the_series_itself_also_against_who_came_between(
    client: Client, db: Database, quotes: AlwaysOpen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The series was planned on a free month; then somebody else was faster, and what is left does not hold all of it."""
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=3, per="month")])
    commit = placing.commit

    async def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(placing, "commit", commit)
        assert (await client.book(NOON - DAY, booker_email="bob@x.test")).status == 201
        return await commit(*args, **kwargs)

    monkeypatch.setattr(placing, "commit", late)
    assert (await refusal(client.book(recurrence=DAILY))).code == "limit_reached"
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 1


@pytest.mark.parametrize("limit", [Limit(count=3, per="month"), Limit(minutes=90, per="month")])
async def test_a_group_that_a_series_joins_counts_once(client: Client, quotes: AlwaysOpen, limit: Limit) -> None:
    """slots.md 8: joining one that is begun is never limited, and adds nothing."""
    quotes.event_types["evt_visit"] = event_type(limits=[limit], capacity=3)
    await client.book()
    made = await client.book(recurrence=DAILY, booker_email="bob@x.test")
    assert (made.status, made.body["series"]["skipped"]) == (201, [])
    # The period is full now: its groups may be joined by all of a series, and by no more than them.
    longer = {"rrule": "FREQ=DAILY;COUNT=4"}
    assert (await refusal(client.book(recurrence=longer, booker_email="eve@x.test"))).code == "limit_reached"
    assert (await client.book(recurrence=DAILY, booker_email="eve@x.test")).status == 201


async def test_a_series_is_held_to_the_limit_where_the_group_that_it_was_to_join_is_gone(
    client: Client, db: Database, quotes: AlwaysOpen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The series was planned to add two to what was there; then what it was to join went, and another came instead."""
    quotes.event_types["evt_visit"] = event_type(limits=[Limit(count=3, per="month")], capacity=3)
    joined = (await client.book()).body["id"]
    commit = placing.commit

    async def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(placing, "commit", commit)
        await client.act(joined, "cancel")
        assert (await client.book(NOON - DAY)).status == 201
        return await commit(*args, **kwargs)

    monkeypatch.setattr(placing, "commit", late)
    assert (await refusal(client.book(recurrence=DAILY, booker_email="bob@x.test"))).code == "limit_reached"
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 1


async def test_the_cap_a_booker_counts_all_of_it(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(max_active_per_booker=3)
    await client.book(NOON - DAY)
    assert (await refusal(client.book(recurrence=DAILY))).code == "booker_limit_reached"
    assert (await client.book(recurrence={"rrule": "FREQ=DAILY;COUNT=2"})).status == 201


async def test_series_that_race_never_overlap(client: Client, db: Database) -> None:
    rules = [{"rrule": f"FREQ=DAILY;COUNT=4;INTERVAL={n}"} for n in (1, 2, 3)] * 3
    ends = await settle(*(client.book(recurrence=rule) for rule in rules))
    assert ends == {"201": 1, "slot_taken": 8}
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 4


@pytest.mark.parametrize(("scope", "left"), [("this", [0, 2]), ("following", [0]), ("all", [])])
async def test_cancelled_by_scope(client: Client, scope: str, left: list[int]) -> None:
    ids = (await client.book(recurrence=DAILY)).body["series"]["booking_ids"]
    reply = await client.act(ids[1], "cancel", {"scope": scope, "reason": "ill"})
    assert (reply.body["id"], reply.body["status"]) == (ids[1], "cancelled")
    assert [n for n, status in enumerate(await statuses(client, ids)) if status == "confirmed"] == left


async def test_the_etag_of_a_cancelled_series_is_that_of_the_booking_shown(client: Client) -> None:
    ids = (await client.book(recurrence=DAILY)).body["series"]["booking_ids"]
    await client.ask("patch_booking", {"metadata": {"a": 1}}, method="PATCH", params={"id": ids[1]})
    reply = await client.act(ids[1], "cancel", {"scope": "all"}, key="once")
    assert (reply.body["id"], reply.body["version"], reply.etag) == (ids[1], 3, '"3"')
    assert (await client.act(ids[1], "cancel", {"scope": "all"}, key="once")).etag == '"3"'


async def test_what_has_ended_is_left_alone(client: Client) -> None:
    ids = (await client.book(recurrence=DAILY)).body["series"]["booking_ids"]
    client.now = NOON + DAY + timedelta(hours=2)
    await client.act(ids[2], "cancel", {"scope": "all"})
    assert await statuses(client, ids) == [
        "confirmed",
        "confirmed",
        "cancelled",
    ]  # the timers of the first two are late


@pytest.mark.parametrize("scope", ["following", "all"])
async def test_what_is_left_is_cancelled_by_one_that_has_ended_too(client: Client, scope: str) -> None:
    ids = (await client.book(recurrence=DAILY)).body["series"]["booking_ids"]
    client.now = NOON + timedelta(hours=1)
    await client.ask("advance_clock", {"now": client.now}, mode="test")
    reply = await client.act(ids[0], "cancel", {"scope": scope})
    assert (reply.body["id"], reply.body["status"]) == (ids[0], "completed")
    assert (reply.body, reply.etag) == (await client.get(ids[0]), etag(reply.body["version"]))
    assert await statuses(client, ids) == ["completed", "cancelled", "cancelled"]
    for one in ids:
        refused = await refusal(client.act(one, "cancel", {"scope": scope}))
        assert (refused.code, refused.extra["state"]) == ("invalid_state", (await client.get(one))["status"])


async def test_fifty_two_weeks_at_one_time_of_the_wall(client: Client, db: Database) -> None:
    made = (await client.book(recurrence={"rrule": "FREQ=WEEKLY;COUNT=52"})).body
    page = await client.list(f"series_id={made['series_id']}&limit=100")
    starts = [datetime.fromisoformat(row["start_at"]).astimezone(MADRID) for row in page["data"]]
    assert [row["id"] for row in page["data"]] == made["series"]["booking_ids"]
    assert {f"{at:%a %H:%M}" for at in starts} == {"Fri 14:00"}
    assert {at.utcoffset() for at in starts} == {timedelta(hours=1), timedelta(hours=2)}
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 52
    await client.act(made["series"]["booking_ids"][1], "cancel", {"scope": "following"})
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 1
    assert await db.pool.fetchval("SELECT count(*) FROM timers") == 1
    assert await misplaced(db) == []


async def test_an_occurrence_moves_alone_and_stays_of_the_series(client: Client) -> None:
    ids = (await client.book(recurrence=DAILY)).body["series"]["booking_ids"]
    assert (await refusal(client.act(ids[1], "reschedule", {"start_at": NOON}))).code == "slot_taken"
    moved = (await client.act(ids[1], "reschedule", {"start_at": NOON + 9 * DAY})).body
    series = (await client.get(ids[0]))["series_id"]
    assert (moved["id"], moved["series_id"]) == (ids[1], series)
    listed = [row["id"] for row in (await client.list(f"series_id={series}"))["data"]]
    assert listed == [ids[0], ids[2], ids[1]]
    assert (await client.book(NOON + DAY)).status == 201
    # What follows goes by where it is now.
    await client.act(ids[2], "cancel", {"scope": "following"})
    assert await statuses(client, ids) == ["confirmed", "cancelled", "cancelled"]


async def test_one_inside_its_cutoff_keeps_all_unless_forced(client: Client, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(cancel_cutoff_minutes=60)
    ids = (await client.book(recurrence=DAILY)).body["series"]["booking_ids"]
    client.now = NOON - timedelta(minutes=59)
    assert (await refusal(client.act(ids[1], "cancel", {"scope": "all"}))).code == "cutoff_passed"
    assert await statuses(client, ids) == ["confirmed"] * 3
    assert (await client.act(ids[1], "cancel", {"scope": "following"})).status == 200
    assert await statuses(client, ids) == ["confirmed", "cancelled", "cancelled"]
    assert (await client.act(ids[0], "cancel", {"scope": "all", "force": True})).status == 200


async def test_cancelled_while_its_timers_fire(client: Client, db: Database) -> None:
    """Every booking of it ends once: completed by its timer, or cancelled, and then nothing is told of it any more."""
    for n in range(4):
        client.now = NOON - 30 * DAY
        made = (await client.book(NOON + 10 * n * DAY, recurrence={"rrule": "FREQ=DAILY;COUNT=5"})).body
        ids = made["series"]["booking_ids"]
        client.now = NOON + 10 * n * DAY + DAY + timedelta(minutes=1)
        later = Client(client.ctx)
        later.now = client.now
        clock = later.ask("advance_clock", {"now": later.now}, mode="test")
        ends = await settle(client.act(ids[3], "cancel", {"scope": "all"}), clock)
        assert ends == {"200": 2}
        assert await statuses(client, ids) == ["completed", *["cancelled"] * 4]
        assert (await types(db, ids[0])).count("meeting.ended") == 1
        assert "meeting.ended" not in await types(db, ids[1])
    assert await rebuild.rebuild(db, write=False) == []
    assert await misplaced(db) == []


def local(rule: str, first: str) -> list[str]:
    at = datetime.fromisoformat(first).replace(tzinfo=MADRID).astimezone(UTC)
    found = recurrence.starts(rule, at, "Europe/Madrid")
    return [at.astimezone(MADRID).strftime("%m-%d %H:%M") for at in found]


def test_wall_time_is_kept_over_a_change_of_clocks() -> None:
    found = local("FREQ=WEEKLY;COUNT=3", "2026-03-20T10:00")
    assert found == ["03-20 10:00", "03-27 10:00", "04-03 10:00"]
    assert local("FREQ=DAILY;COUNT=3", "2026-03-28T02:30") == ["03-28 02:30", "03-29 03:30", "03-30 02:30"]


def test_until_in_any_of_its_forms() -> None:
    for until in ("20260322", "20260322T100000", "20260322T090000Z"):
        assert len(local(f"RRULE:FREQ=DAILY;UNTIL={until}", "2026-03-20T10:00")) == 3
    assert len(local("FREQ=DAILY;UNTIL=20260322T085959Z", "2026-03-20T10:00")) == 2


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=DAILY",
        "FREQ=DAILY;COUNT=53",
        "FREQ=DAILY;UNTIL=20270101",
        "FREQ=DAILY;COUNT=3;UNTIL=20260401",
        "FREQ=DAILY;COUNT=0",
        "FREQ=DAILY;COUNT=3;INTERVAL=0",
        "FREQ=HOURLY;COUNT=3",
        "FREQ=WEEKLY;BYDAY=MO;COUNT=3",
        "FREQ=WEEKLY;BYDAY=2FR;COUNT=3",
        "FREQ=MONTHLY;BYMONTHDAY=0;COUNT=3",
        "FREQ=YEARLY;BYMONTH=3,13;COUNT=2",
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;COUNT=2",
        "FREQ=DAILY;UNTIL=20261399",
        "FREQ=DAILY;BYDAY=XX;COUNT=2",
        "FREQ=DAILY;COUNT=2;NONSENSE=1",
        "nonsense",
        "FREQ=DAILY;;COUNT=1",
    ],
)
def test_what_is_no_rule(rule: str) -> None:
    with pytest.raises(KalendsError) as caught:
        local(rule, "2026-03-20T10:00")
    assert (caught.value.status, caught.value.fields[0].pointer) == (422, "#/recurrence/rrule")


def test_starts_past_every_window() -> None:
    with pytest.raises(KalendsError) as caught:
        local("FREQ=YEARLY;COUNT=5", "2026-03-20T10:00")
    assert (caught.value.code, caught.value.extra["rule"]) == ("slot_not_offered", "window")


async def test_the_same_key_gives_the_same_series(client: Client, quotes: AlwaysOpen) -> None:
    first: Any = await client.book(key="k", recurrence=DAILY)
    again = await client.book(key="k", recurrence=DAILY)
    assert (again.body, again.position) == (first.body, first.position)
    assert len((await client.list())["data"]) == 3
