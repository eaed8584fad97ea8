"""Availability out of the service: settings, projected busy time, the memory of replicas."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from nats.aio.client import Client as Bus

from kalends_availability.store.replica import Changed
from kalends_shared.contracts.call import Reply
from kalends_shared.db import Database

from .world import ALWAYS, DAY, NOW, OFFICE, Client, Node, at, pointers, refusal

HALF_HOUR = timedelta(minutes=30)


async def test_the_answer(api: Client) -> None:
    kind = await api.event_type(await api.host(OFFICE))
    answer = await api.availability(kind["id"], "start=2026-04-05&end=2026-04-06")
    assert answer == {
        "event_type_id": kind["id"], "timezone": "Europe/Madrid", "start": "2026-04-05", "end": "2026-04-06",
        "truncated": False, "stale_since": None,
        "days": [
            {"date": "2026-04-05", "slots": []},
            {"date": "2026-04-06", "slots": [
                {"start_at": f"2026-04-06T{a}:00+02:00", "end_at": f"2026-04-06T{b}:00+02:00", "seats_left": 1}
                for a, b in (("09:00", "09:30"), ("09:30", "10:00"), ("10:00", "10:30"), ("10:30", "11:00"))
            ]},
        ],
    }  # fmt: skip
    far = await api.availability(kind["id"], "start=9999-12-30&end=9999-12-31")
    assert [day["slots"] for day in far["days"]] == [[], []]


async def test_an_unknown_event_type_is_told_before_what_is_wrong_with_the_question(api: Client) -> None:
    kind = await api.event_type()
    nobody, elsewhere = {"id": "evt_none"}, {"params": {"id": kind["id"]}, "tenant": "acc_other-live"}
    for method in ("availability", "explain"):
        for fields in ({"params": nobody}, elsewhere):
            assert (await refusal(api.ask(method, method="GET", query="nonsense=1", **fields))).code == "not_found"
    late = api.ask("explain", method="GET", params={"id": kind["id"]}, query="start_at=9999-12-31T23:59:59Z")
    assert pointers(await refusal(late)) == [("?start_at", "invalid")]


async def test_a_limit_ends_the_list(api: Client) -> None:
    kind = await api.event_type()
    query = "start=2026-04-06&end=2026-04-08"
    cut = await api.availability(kind["id"], f"{query}&limit=50")
    assert (cut["truncated"], [len(day["slots"]) for day in cut["days"]]) == (True, [48, 2])
    whole_day = await api.availability(kind["id"], f"{query}&limit=48")
    assert (whole_day["truncated"], [len(day["slots"]) for day in whole_day["days"]]) == (True, [48])
    full = await api.availability(kind["id"], f"{query}&limit=144")
    assert (full["truncated"], len(full["days"])) == (False, 3)


async def test_bad_questions(api: Client) -> None:
    kind = await api.event_type()
    both = await api.event_type(await api.host(), await api.host(), assignment="collective")
    for query, pointer in (
        ("start=2026-04-06", "?end"), ("start=soon&end=2026-04-06", "?start"), ("start=2026-04-06&end=2026-04-05", "?end"),
        ("start=2026-04-01&end=2026-07-02", "?end"), ("&timezone=Mars/Olympus", "?timezone"), ("&duration=31", "?duration"),
        ("&limit=0", "?limit"), ("&seats=0", "?seats"), ("&nonsense=1", "?nonsense"), ("&host_id=hst_x", "?host_id"),
        ("&as_of=2026-04-01T09:00:01Z", "?as_of"),
    ):  # fmt: skip
        assert pointers(await refusal(api.availability(kind["id"], query)))[0][0] == pointer
    assert await api.availability(kind["id"], "start=2026-04-01&end=2026-07-01")
    chosen = f"&host_id={both['hosts'][0]['host_id']}"
    assert pointers(await refusal(api.availability(both["id"], chosen))) == [("?host_id", "invalid")]


async def test_what_is_no_event_type_has_no_slots(api: Client) -> None:
    kind = await api.event_type()
    others = [
        await api.host(),
        await api.made("schedule", ALWAYS),
        await api.made("location", {"name": "Room"}),
        await api.made("resource", {"name": "Chair"}),
        await api.made("booking_page", {"slug": "page", "title": "Page", "event_type_ids": [kind["id"]]}),
    ]
    for other in others:
        assert (await refusal(api.availability(other["id"]))).code == "not_found"
        assert (await refusal(api.availability(other["id"], f"&as_of={NOW:%Y-%m-%dT%H:%M:%SZ}"))).code == "not_found"
        assert pointers(await refusal(api.quote(other["id"], at(9)))) == [("#/event_type_id", "not_found")]


async def test_a_block_may_be_as_long_as_minutes_can_be_stored(api: Client) -> None:
    host = await api.host()
    kind = await api.event_type(host)
    await api.busy_calendar(host, (at(10), datetime.fromtimestamp((2**31 - 1) * 60, UTC)))
    assert at(9.5) in (starts := await api.starts(kind["id"]))
    assert max(starts) == at(9.5)


async def test_bookings_and_holds_take_and_give_back(api: Client) -> None:
    kind = await api.event_type(buffer_before_minutes=15, buffer_after_minutes=15)
    assert at(9) in await api.starts(kind["id"])
    one = await api.booked(kind, at(9))
    starts = await api.starts(kind["id"])
    # Both sides' buffers add up: 30 minutes between one and the next.
    assert [h for h in (8, 8.5, 9, 9.5, 10) if at(h) in starts] == [8, 10]
    assert at(9) in await api.starts(kind["id"], f"&booking_id={one.id}")
    await api.booked(kind, at(12), id=one.id, version=2, type_="booking.rescheduled")
    starts = await api.starts(kind["id"])
    assert (at(9) in starts, at(12) in starts) == (True, False)
    await api.booked(kind, at(12), id=one.id, version=3, type_="booking.cancelled", status="cancelled")
    assert at(12) in await api.starts(kind["id"])
    hold = await api.held(kind, at(9))
    assert at(9) not in await api.starts(kind["id"])
    assert at(9) in await api.starts(kind["id"], f"&hold_id={hold.id}")
    # It lapses by itself, whether or not an event says so.
    api.now = NOW + timedelta(seconds=300)
    assert at(9) in await api.starts(kind["id"])
    api.now = NOW
    assert at(9) not in await api.starts(kind["id"])
    await api.held(kind, at(9), id=hold.id, version=2, type_="hold.released", status="released")
    assert at(9) in await api.starts(kind["id"])


async def test_a_reassigned_booking_frees_the_host_before(api: Client) -> None:
    hosts = [await api.host(), await api.host()]
    kind = await api.event_type(*hosts, assignment="any")
    one = await api.booked(kind, at(9))
    assert at(9) not in await api.starts(kind["id"], f"&host_id={hosts[0]['id']}")
    await api.booked(kind, at(9), id=one.id, version=2, type_="booking.reassigned", host_ids=[hosts[1]["id"]])
    assert at(9) in await api.starts(kind["id"], f"&host_id={hosts[0]['id']}")
    assert at(9) not in await api.starts(kind["id"], f"&host_id={hosts[1]['id']}")


async def test_events_told_twice_or_together_change_nothing(api: Client, node: Node) -> None:
    kind = await api.event_type()
    one = await api.booked(kind, at(9))
    await api.booked(kind, at(9), id=one.id)
    rows = "SELECT version, seen_from, seen_until FROM busy WHERE id = $1 ORDER BY version"
    assert [row["seen_until"] for row in await node.db.pool.fetch(rows, one.id)] == [None]
    assert at(9) not in await api.starts(kind["id"])


async def test_seats(api: Client) -> None:
    kind = await api.event_type(capacity=3)

    async def left(query: str = "") -> dict[str, int]:
        found = await api.availability(kind["id"], query)
        return {s["start_at"][11:16]: s["seats_left"] for s in found["days"][0]["slots"]}

    await api.booked(kind, at(9), seats=2)
    assert ((await left())["09:00"], (await left())["10:00"]) == (1, 3)
    assert "09:00" not in await left("&seats=2")
    await api.booked(kind, at(9))
    assert "09:00" not in await left()


async def test_resources(api: Client) -> None:
    room = await api.made("resource", {"name": "Room", "quantity": 2})
    one, two = [await api.event_type(resource_ids=[room["id"]]) for _ in range(2)]
    await api.booked(one, at(9), units=[f"{room['id']}#1"])
    assert at(9) in await api.starts(two["id"])
    other = await api.event_type()
    await api.booked(other, at(9), units=[f"{room['id']}#2"])
    assert at(9) not in await api.starts(two["id"])


async def test_limits_and_days(api: Client) -> None:
    kind = await api.event_type(limits=[{"count": 1, "per": "week"}])
    await api.booked(kind, DAY + timedelta(days=3))
    assert await api.starts(kind["id"]) == []
    assert await api.starts(kind["id"], "start=2026-04-13&end=2026-04-13")
    first = await api.event_type(only_first_slot_of_day=True)
    assert await api.starts(first["id"]) == [at(0)]
    await api.booked(first, at(0))
    assert await api.starts(first["id"]) == [at(0.5)]


async def test_calendars(api: Client) -> None:
    host = await api.host()
    kind = await api.event_type(host)
    closed = await api.event_type(host, on_stale_calendar="closed")
    await api.busy_calendar(host, (at(9), at(10)))
    assert [h for h in (8.5, 9, 9.5, 10) if at(h) in await api.starts(kind["id"])] == [8.5, 10]
    await api.busy_calendar(host, (at(12), at(13)), version=2)
    starts = await api.starts(kind["id"])
    assert (at(9) in starts, at(12) in starts) == (True, False)
    await api.busy_calendar(host, version=3, type_="calendar_event.deleted")
    assert at(12) in await api.starts(kind["id"])
    await api.busy_calendar(host, (at(12), at(13)), version=4)
    # A calendar that is not read for busy time does not count, stale or not.
    await api.calendar(host, reads_busy=False, stale_since=NOW)
    assert at(12) in await api.starts(kind["id"])
    await api.calendar(host, version=2, stale_since=NOW, status="error")
    answer = await api.availability(kind["id"])
    assert (answer["stale_since"], len(answer["days"][0]["slots"])) == ("2026-04-01T09:00:00Z", 46)
    assert await api.starts(closed["id"]) == []
    await api.calendar(host, version=3, type_="calendar.disconnected", status="disconnected")
    assert at(12) in await api.starts(closed["id"])


async def test_settings_are_enforced_as_soon_as_they_are_changed(api: Client) -> None:
    host = await api.host(OFFICE)
    kind = await api.event_type(host)
    assert len(await api.starts(kind["id"])) == 4
    await api.patch("schedule", host["schedule_id"], {"overrides": [{"date": "2026-04-06", "windows": []}]})
    assert await api.starts(kind["id"]) == []
    await api.patch("schedule", host["schedule_id"], {"overrides": []})
    await api.patch("event_type", kind["id"], {"duration_minutes": 60})
    assert len(await api.starts(kind["id"])) == 2
    await api.patch("host", host["id"], {"active": False})
    assert await api.starts(kind["id"]) == []
    await api.patch("host", host["id"], {"active": True})
    await api.patch("event_type", kind["id"], {"active": False})
    assert await api.starts(kind["id"]) == []


async def test_time_alone_changes_an_answer(api: Client) -> None:
    kind = await api.event_type(minimum_notice_minutes=60)
    api.now = at(8)
    assert (await api.starts(kind["id"]))[0] == at(9)
    api.now = at(8) + timedelta(microseconds=1)
    assert (await api.starts(kind["id"]))[0] == at(9.5)
    api.now = at(8)
    assert (await api.starts(kind["id"]))[0] == at(9)
    rolling = await api.event_type(booking_window={"rolling_days": 5})
    api.now = DAY - timedelta(days=5, seconds=1)
    assert await api.starts(rolling["id"]) == []
    api.now = DAY - timedelta(days=5)
    assert len(await api.starts(rolling["id"])) == 48


async def test_what_was_offered_at_a_past_moment(api: Client) -> None:
    def minute(n: int) -> str:
        return f"{NOW + timedelta(minutes=n):%Y-%m-%dT%H:%M:%SZ}"

    host = await api.host(OFFICE)
    kind = await api.event_type(host, on_stale_calendar="closed")
    moments: list[tuple[int, list[datetime]]] = []

    async def now_at(n: int) -> None:
        api.now = NOW + timedelta(minutes=n)

    async def note(n: int) -> None:
        moments.append((n, await api.starts(kind["id"])))

    async def told(n: int, **state: Any) -> None:
        await api.booked(kind, at(7), id="bkg_past", updated_at=NOW + timedelta(minutes=n), **state)

    await note(0)
    await now_at(10)
    await told(10)
    await note(10)
    await now_at(20)
    await api.patch("schedule", host["schedule_id"], {"weekly": [{"days": ["mon"], "start": "09:00", "end": "10:00"}]})
    await note(20)
    await now_at(30)
    await told(30, version=2, type_="booking.cancelled", status="cancelled")
    await note(30)
    await now_at(40)
    await api.patch("event_type", kind["id"], {"duration_minutes": 60})
    await note(40)
    assert [len(starts) for _, starts in moments] == [4, 3, 1, 2, 1]
    api.now = NOW + timedelta(hours=2)
    await api.delete("event_type", kind["id"])
    for n, starts in moments:
        assert await api.starts(kind["id"], f"&as_of={minute(n)}") == starts
        assert await api.starts(kind["id"], f"&as_of={minute(n + 9)}") == starts
    assert (await refusal(api.availability(kind["id"], f"&as_of={minute(-1)}"))).code == "not_found"
    assert (await refusal(api.availability(kind["id"], f"&as_of={minute(120)}"))).code == "not_found"
    query = f"start_at={at(7):%Y-%m-%dT%H:%M:%SZ}&as_of={minute(10)}"
    explained = (await api.ask("explain", method="GET", params={"id": kind["id"]}, query=query)).body
    assert [r["cause"] for r in explained["hosts"][0]["rules"] if not r["ok"]] == [
        {"type": "booking", "id": "bkg_past"}
    ]


async def test_how_fresh_calendars_were_at_a_past_moment(api: Client) -> None:
    host = await api.host()
    kind = await api.event_type(host, on_stale_calendar="closed")
    times = (0, 10, 20, 50, 55)
    for n, minutes in enumerate(times):
        when = NOW + timedelta(minutes=minutes)
        await api.calendar(host, version=n + 1, last_synced_at=when, updated_at=when)
    assert await api.node.db.pool.fetchval("SELECT count(*) FROM calendars WHERE tenant_id = $1", api.tenant) == 2
    api.now = NOW + timedelta(hours=2)
    for minutes, fresh in ((5, True), (34, True), (36, False), (49, False), (51, True), (69, True), (71, False)):
        starts = await api.starts(kind["id"], f"&as_of={NOW + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}")
        assert bool(starts) is fresh, minutes


async def test_the_etag_is_the_answers_whatever_happens(api: Client, db: Database, bus: Bus) -> None:
    """A memory asked again and again gives, after each step, the answer and the ETag of one that has only just begun."""
    host = await api.host()
    kind = await api.event_type(host, capacity=2, minimum_notice_minutes=60, on_stale_calendar="closed")
    other = await api.event_type()
    seen: dict[str | None, Any] = {}
    changes = []

    async def ask(client: Client, **fields: Any) -> Reply:
        dates = "start=2026-04-06&end=2026-04-06"
        return await client.ask("availability", method="GET", params={"id": kind["id"]}, query=dates, **fields)

    async def compare(*, changed: bool) -> None:
        fresh = Client(await Node.start(db, bus), api.tenant)
        fresh.now = api.now
        kept, anew = await ask(api), await ask(fresh)
        assert (kept.etag, kept.body) == (anew.etag, anew.body)
        assert seen.setdefault(kept.etag, kept.body) == kept.body
        if changes:
            assert (kept.etag != changes[-1]) is changed
        # Who has it already is not sent it again, and who has another one is.
        assert (await ask(api, if_none_match=kept.etag)).body is None
        assert (await ask(api, if_none_match='"another"')).body == kept.body
        changes.append(kept.etag)

    await compare(changed=True)
    one = await api.booked(kind, at(9))
    await compare(changed=True)
    await api.booked(other, at(9))
    await compare(changed=False)
    await api.booked(kind, at(9) + timedelta(days=2))
    await compare(changed=False)
    await api.patch("event_type", kind["id"], {"description": "new words"})
    await compare(changed=False)
    await api.patch("event_type", kind["id"], {"slot_interval_minutes": 15})
    await compare(changed=True)
    api.now = at(7)
    await compare(changed=True)
    api.now = at(7) + timedelta(seconds=1)
    await compare(changed=True)
    api.now = at(7) + timedelta(minutes=14)
    await compare(changed=False)
    await api.held(kind, at(10), expires_at=at(7) + timedelta(minutes=14, seconds=10))
    await compare(changed=True)
    api.now = at(7) + timedelta(minutes=14, seconds=10)
    await compare(changed=True)
    assert changes[-1] == changes[-3]
    await api.booked(kind, at(9), id=one.id, version=2, type_="booking.cancelled", status="cancelled")
    await compare(changed=True)
    await api.busy_calendar(host, (at(12), at(13)))
    await compare(changed=True)
    await api.calendar(host, stale_since=NOW)
    await compare(changed=True)


async def test_many_in_one_call(api: Client) -> None:
    one, two = await api.event_type(), await api.event_type(durations=[30, 60])
    dates = {"start": "2026-04-06", "end": "2026-04-06", "timezone": "Europe/Madrid"}
    queries = [
        {"event_type_id": one["id"]},
        {"event_type_id": "evt_gone"},
        {"event_type_id": two["id"], "duration": 60},
    ]
    data = (await api.ask("query_availability", dates | {"queries": queries})).body["data"]
    assert data[0] == await api.availability(one["id"], "&timezone=Europe/Madrid")
    assert data[2] == await api.availability(two["id"], "&timezone=Europe/Madrid&duration=60")
    assert data[1]["error"]["errors"][0]["pointer"] == "#/queries/1/event_type_id"
    assert (
        pointers(await refusal(api.ask("query_availability", dates | {"queries": queries * 20})))[0][0] == "#/queries"
    )
    backwards = {"start": "2026-04-06", "end": "2026-04-05", "queries": queries}
    assert pointers(await refusal(api.ask("query_availability", backwards)))[0][0] == "#/end"


async def test_explain_names_the_cause(api: Client) -> None:
    host = await api.host()
    kind = await api.event_type(host)
    one = await api.booked(kind, at(9))
    await api.busy_calendar(host, (at(12), at(13)))

    async def explained(hour: float) -> tuple[bool, dict[str, object]]:
        query = f"start_at={at(hour):%Y-%m-%dT%H:%M:%SZ}"
        found = (await api.ask("explain", method="GET", params={"id": kind["id"]}, query=query)).body
        rules = found["hosts"][0]["rules"]
        assert [r["rule"] for r in rules] == [
            "working_hours", "away", "restriction", "grid", "fit", "notice", "window", "host_inactive", "busy",
            "capacity", "resource", "limit", "first_of_day",
        ]  # fmt: skip
        assert found["offered"] == found["hosts"][0]["offered"] == all(r["ok"] for r in rules)
        return found["offered"], {r["rule"]: r["cause"] for r in rules if not r["ok"]}

    assert await explained(8) == (True, {})
    assert await explained(9) == (False, {"busy": {"type": "booking", "id": one.id}})
    assert await explained(12) == (False, {"busy": {"type": "calendar_event", "id": "cev_1"}})
    assert await explained(8.25) == (False, {"grid": {"type": "schedule", "id": host["schedule_id"]}})


async def test_explain_names_what_fills_a_period_or_a_group(api: Client) -> None:
    host = await api.host()
    kind = await api.event_type(host, capacity=2, limits=[{"count": 3, "per": "day"}, {"minutes": 600, "per": "day"}])
    one = await api.booked(kind, at(9), seats=2)
    await api.booked(kind, at(12))
    hold = await api.held(kind, at(15))

    async def refusing(hour: float) -> dict[str, object]:
        query = f"start_at={at(hour):%Y-%m-%dT%H:%M:%SZ}"
        found = (await api.ask("explain", method="GET", params={"id": kind["id"]}, query=query)).body
        return {r["rule"]: r["cause"] for r in found["hosts"][0]["rules"] if not r["ok"]}

    assert await refusing(10) == {"limit": {"type": "hold", "id": hold.id}}
    # The limit has nothing against joining a slot, not even against one that is full.
    assert await refusing(9) == {"capacity": {"type": "booking", "id": one.id}}
    assert await refusing(12) == {}
    await api.patch("event_type", kind["id"], {"limits": [{"minutes": 29, "per": "day"}]})
    assert await refusing(10 + 24) == {"limit": None}


async def test_a_sweep_misses_nothing_that_commits_late(
    api: Client, db: Database, bus: Bus, owner: "asyncpg.Connection[Any]"
) -> None:
    """A transaction that began before the last sweep and commits after it is found by the next one."""
    other = Client(await Node.start(db, bus), api.tenant)
    kind = await api.event_type()
    seen: list[Changed] = []
    async with owner.transaction():
        await owner.execute("INSERT INTO touched (tx, tenant_id, key) VALUES (current_tx(), 'x', 'y')")
        assert at(9) in await other.starts(kind["id"])
        host = kind["hosts"][0]["host_id"]
        await owner.execute(
            "INSERT INTO touched (tx, tenant_id, key) VALUES (current_tx(), $1, $2)", api.tenant, f"busy/{host}"
        )
        for _ in range(3):
            await other.node.replica.sweep()
        other.node.replica.forget = seen.extend  # type: ignore[method-assign]
    await other.node.replica.sweep()
    assert (api.tenant, f"busy/{host}") in seen
