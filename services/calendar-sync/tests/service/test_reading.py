"""Reading calendars, on a real server and a real database."""

from datetime import timedelta

import pytest
from peers import CalendarServer, Proxy, answered
from world import TENANT, World, at, span, tomorrow

LUNCH, DINNER = tomorrow(12), tomorrow(19)


async def test_busy_time_appears_moves_and_goes(world: World, server: CalendarServer) -> None:
    server.put("a", at(LUNCH))
    server.put("free", at(DINNER) + "\nTRANSP:TRANSPARENT")
    calendar = await world.connect(server)
    assert (await world.calendar(calendar))["last_synced_at"] is None
    await world.read()
    assert await world.busy() == [span(LUNCH)]
    shown = await world.calendar(calendar)
    assert (shown["status"], shown["stale_since"], shown["version"]) == ("connected", None, 1)
    assert shown["last_synced_at"] is not None
    server.put("a", at(DINNER))
    await world.read()
    assert await world.busy() == [span(DINNER)]
    server.delete("a")
    await world.read()
    assert await world.busy() == []
    assert await world.types() == [
        "calendar.connected", "calendar_event.upserted", "calendar_event.upserted", "calendar.synced",
        "calendar_event.upserted", "calendar.synced", "calendar_event.deleted", "calendar.synced",
    ]  # fmt: skip


async def test_what_is_unchanged_causes_no_events(world: World, server: CalendarServer) -> None:
    server.put("a", at(LUNCH))
    await world.connect(server)
    await world.read()
    before = len(await world.events())
    await world.read()
    server.put("a", at(LUNCH) + "\nDESCRIPTION:Only this is new")
    await world.read()
    await world.db.pool.execute("UPDATE cursors SET whole_at = NULL")
    await world.read()
    assert len(await world.events()) == before


async def test_a_bad_item_is_quarantined_and_the_rest_is_read(world: World, server: CalendarServer) -> None:
    server.put("good", at(LUNCH))
    server.put("bad", "DTSTART:20260406T100000Z\nRRULE:FREQ=MINUTELY")
    calendar = await world.connect(server)
    await world.read()
    assert await world.busy() == [span(LUNCH)]
    assert (await world.calendar(calendar))["status"] == "connected"
    problem = await world.db.pool.fetchval("SELECT problem FROM items WHERE problem IS NOT NULL")
    assert "too many" in problem


async def test_an_event_that_becomes_unreadable_stays_as_it_was(world: World, radicale: CalendarServer) -> None:
    radicale.put("a", at(LUNCH))
    await world.connect(radicale)
    await world.read()
    radicale.put("a", at(LUNCH) + "\nRRULE:FREQ=MINUTELY")
    await world.read()
    assert await world.busy() == [span(LUNCH)]
    radicale.put("a", at(DINNER))
    await world.read()
    assert await world.busy() == [span(DINNER)]


@pytest.mark.parametrize("token", ["sync:nonsense", None])
async def test_a_lost_token_changes_nothing(world: World, server: CalendarServer, token: str | None) -> None:
    server.put("a", at(LUNCH))
    server.put("b", at(DINNER))
    await world.connect(server)
    await world.read()
    before = len(await world.events())
    server.delete("b")
    await world.db.pool.execute("UPDATE cursors SET token = $1", token)
    await world.read()
    assert await world.busy() == [span(LUNCH)]
    assert (await world.types())[before:] == ["calendar_event.deleted", "calendar.synced"]


async def test_a_calendar_larger_than_a_transaction(
    world: World, radicale: CalendarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalends_calendar_sync.pull.BATCH", 10)
    for number in range(45):
        radicale.put(f"e{number}", at(LUNCH + timedelta(days=number)))
    await world.connect(radicale)
    await world.read()
    assert await world.busy() == [span(LUNCH + timedelta(days=n)) for n in range(45)]


async def test_a_crash_between_transactions_repeats_nothing(
    world: World, radicale: CalendarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalends_calendar_sync.pull.BATCH", 10)
    for number in range(25):
        radicale.put(f"e{number}", at(LUNCH + timedelta(days=number)))
    await world.connect(radicale)
    finish = world.puller._finish

    async def crash(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(world.puller, "_finish", crash)
    with pytest.raises(RuntimeError):
        await world.read()
    assert 0 < len(await world.busy()) < 25
    monkeypatch.setattr(world.puller, "_finish", finish)
    await world.db.pool.execute("UPDATE cursors SET lease_until = NULL")
    await world.read()
    assert len(await world.busy()) == 25
    types = await world.types()
    assert types.count("calendar_event.upserted") == 25


async def test_a_worker_that_lost_its_lease_writes_nothing(world: World, radicale: CalendarServer) -> None:
    radicale.put("a", at(LUNCH))
    await world.connect(radicale)
    (late,) = await world.puller.claim(1)
    await world.db.pool.execute("UPDATE cursors SET lease_until = NULL")
    (newer,) = await world.puller.claim(1)
    await world.puller.work(late)
    assert await world.types() == ["calendar.connected"]
    await world.puller.work(newer)
    assert await world.busy() == [span(LUNCH)]


async def test_a_server_that_fails_makes_the_calendar_stale_and_never_free(
    world: World, radicale: CalendarServer
) -> None:
    radicale.put("a", at(LUNCH))
    async with Proxy(radicale.url) as proxy:
        radicale_url, radicale.url = radicale.url, proxy.url
        calendar = await world.connect(radicale)
        radicale.url = radicale_url
        await world.read()
        synced_at = (await world.calendar(calendar))["last_synced_at"]
        for answer in ("401 Unauthorized", "403 Forbidden", "404 Not Found", "500 Oh", "200 OK"):
            proxy.spoil = lambda _, answer=answer: answered(answer, "<html/>")  # type: ignore[misc]
            await world.read()
            shown = await world.calendar(calendar)
            assert (shown["status"], shown["stale_since"]) == ("error", synced_at), answer
            assert await world.busy() == [span(LUNCH)], answer
        assert (await world.types()).count("calendar.sync_failed") == 1
        proxy.spoil = lambda _: None
        await world.read()
        shown = await world.calendar(calendar)
        assert (shown["status"], shown["stale_since"]) == ("connected", None)
        assert (await world.types())[-1] == "calendar.synced"


async def test_much_gone_at_once_is_doubted_until_somebody_asks(world: World, radicale: CalendarServer) -> None:
    for number in range(12):
        radicale.put(f"e{number}", at(LUNCH + timedelta(days=number)))
    calendar = await world.connect(radicale)
    await world.read()
    for number in range(8):
        radicale.delete(f"e{number}")
    radicale.put("new", at(DINNER))
    for _ in range(2):
        await world.read()
        assert len(await world.busy()) == 13
        assert (await world.calendar(calendar))["status"] == "error"
    await world.read(calendar, ask=True)
    assert len(await world.busy()) == 5
    assert (await world.calendar(calendar))["status"] == "connected"


async def test_a_series_is_expanded_two_years_ahead_and_further_as_time_goes_by(
    world: World, radicale: CalendarServer
) -> None:
    radicale.put("daily", at(LUNCH) + "\nRRULE:FREQ=DAILY")
    await world.connect(radicale)
    await world.read()
    busy = len(await world.busy())
    assert 755 <= busy <= 765
    # As if the expansion had been done 40 days ago.
    await world.db.pool.execute("UPDATE items SET expanded_until = expanded_until - interval '40 days'")
    await world.read()
    assert (await world.types())[-1] == "calendar_event.expanded"
    before = len(await world.events())
    await world.read()
    assert len(await world.events()) == before


async def test_times_without_a_zone_are_in_the_hosts(world: World, radicale: CalendarServer) -> None:
    day = tomorrow(0)
    radicale.put("day", f"DTSTART;VALUE=DATE:{day:%Y%m%d}")
    await world.connect(radicale)
    await world.read()
    ((start, end),) = await world.busy()
    assert start.endswith(("T22:00", "T23:00"))
    await world.tell("host.updated", (await world.listed())[0]["host_id"], {"id": "h", "timezone": "Asia/Tokyo"})
    await world.read()
    ((start, end),) = await world.busy()
    assert start.endswith("T15:00")
    assert end.endswith("T15:00")


async def test_a_deleted_hosts_calendar_is_disconnected(world: World, radicale: CalendarServer) -> None:
    radicale.put("a", at(LUNCH))
    calendar = await world.connect(radicale)
    await world.read()
    host = (await world.calendar(calendar))["host_id"]
    await world.tell("host.deleted", host, {"id": host})
    await world.read()
    assert (await world.types())[-1] == "calendar.disconnected"
    for table in ("calendars", "cursors", "items", "calendar_events"):
        assert await world.db.pool.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_the_past_is_not_told_of(world: World, radicale: CalendarServer) -> None:
    radicale.put("past", at(tomorrow(9, days=-30)))
    radicale.put("ended", at(tomorrow(9, days=-30)) + "\nRRULE:FREQ=DAILY;COUNT=5")
    await world.connect(radicale)
    await world.read()
    assert await world.types() == ["calendar.connected", "calendar.synced"]
    radicale.put("past", at(LUNCH))
    await world.read()
    assert await world.busy() == [span(LUNCH)]


async def test_only_what_has_a_meaning_is_kept(world: World, radicale: CalendarServer) -> None:
    radicale.put(
        "a", at(LUNCH) + "\nRRULE:FREQ=DAILY\nDESCRIPTION:Secret\nLOCATION:Hidden\nATTENDEE:mailto:x@example.com"
    )
    await world.connect(radicale)
    await world.read()
    source = await world.db.pool.fetchval("SELECT source FROM items WHERE tenant_id = $1", TENANT)
    assert "RRULE" in source
    assert not any(word in source for word in ("Secret", "Hidden", "x@example.com"))
