"""Writing bookings into calendars, on a real server and a real database, whatever goes wrong on the way."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from peers import CalendarServer, Proxy, answered, calendar
from world import HOST, OTHER_HOST, World, at, span, tomorrow

from kalends_calendar_sync.upkeep import prune
from kalends_shared.contracts import ids

TEN, NOON, FIVE = tomorrow(10), tomorrow(12), tomorrow(17)


def starts(server: CalendarServer) -> list[str]:
    """The starts of what is in the calendar, sorted."""
    return sorted(
        line.partition(":")[2]
        for text in server.items().values()
        for line in text.split("\n")
        if line.startswith("DTSTART")
    )


def written(moment: object) -> str:
    return f"{moment:%Y%m%dT%H%M%SZ}"


async def test_a_booking_is_written_moved_and_removed(world: World, server: CalendarServer) -> None:
    await world.connect(server, writes_bookings=True)
    booking = await world.booking(start_at=TEN)
    await world.write()
    (text,) = server.items().values()
    assert "SUMMARY:First visit: Ada Lovelace" in text
    assert "Grace <grace@example.test>\\nalan@example.test" in text.replace("\n ", "")
    assert f"X-KALENDS-BOOKING:{booking}" in text
    assert "ATTENDEE" not in text
    assert "ORGANIZER" not in text
    assert starts(server) == [written(TEN)]
    await world.booking(start_at=NOON)
    await world.write()
    assert starts(server) == [written(NOON)]
    await world.booking(start_at=NOON, status="cancelled")
    await world.write()
    assert server.items() == {}
    (row,) = await world.mirrors()
    assert row["wake_at"] is None
    assert row["applied_rev"] == row["desired_rev"] == 3


async def test_only_what_is_confirmed_is_written(world: World, radicale: CalendarServer) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.connect(radicale)
    for status in ("pending", "declined", "cancelled"):
        await world.booking(status, status=status)
    await world.booking("other", host_ids=[OTHER_HOST])
    await world.write()
    assert await world.mirrors() == []
    await world.booking("pending", status="confirmed")
    await world.write()
    assert len(radicale.items()) == 1


async def test_what_changes_nothing_in_the_calendar_writes_nothing(world: World, radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        radicale_url, radicale.url = radicale.url, proxy.url
        await world.connect(radicale, writes_bookings=True)
        radicale.url = radicale_url
        await world.booking()
        await world.write()
        seen = len(proxy.seen)
        await world.booking(status="completed")
        await world.booking(status="no_show")
        await world.write()
        assert len(proxy.seen) == seen
        assert len(radicale.items()) == 1


async def test_two_rapid_reschedules_are_one_write(world: World, radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        radicale_url, radicale.url = radicale.url, proxy.url
        await world.connect(radicale, writes_bookings=True)
        radicale.url = radicale_url
        await world.booking(start_at=TEN)
        await world.write()
        await world.booking(start_at=NOON)
        await world.booking(start_at=FIVE)
        await world.write()
        assert starts(radicale) == [written(FIVE)]
        assert sum(line.startswith("PUT") for line in proxy.seen) == 2


async def test_a_reschedule_while_a_write_is_under_way(world: World, radicale: CalendarServer) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking(start_at=TEN)
    (lease,) = await world.pusher.claim(1)
    await world.booking(start_at=NOON)
    assert await world.pusher.claim(1) == []
    await world.pusher.work(lease)
    await world.write()
    assert starts(radicale) == [written(NOON)]


@pytest.fixture
def events() -> list[str]:
    return []


async def spoilt(world: World, server: CalendarServer, proxy: Proxy) -> None:
    """Connects the calendar through the proxy."""
    url, server.url = server.url, proxy.url
    await world.connect(server, writes_bookings=True)
    server.url = url


def once(method: str, what: str | bytes) -> Callable[[str], str | bytes | None]:
    """Spoils the first request of a method."""
    left = [what]
    return lambda head: left.pop() if left and head.startswith(method) else None


@pytest.mark.parametrize("what", ["drop", "refuse"])
async def test_a_lost_answer_never_makes_a_second_event(world: World, radicale: CalendarServer, what: str) -> None:
    async with Proxy(radicale.url) as proxy:
        await spoilt(world, radicale, proxy)
        await world.booking(start_at=TEN)
        proxy.spoil = once("PUT", what)
        await world.write()
        (row,) = await world.mirrors()
        assert row["attempts"] == 1
        await world.write()
        assert starts(radicale) == [written(TEN)]
        (row,) = await world.mirrors()
        assert (row["wake_at"], row["unsure"]) == (None, False)
        puts = [line for line in proxy.seen if line.startswith("PUT")]
        assert len(puts) == (1 if what == "drop" else 2)


async def test_a_lost_answer_to_a_removal(world: World, radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        await spoilt(world, radicale, proxy)
        await world.booking()
        await world.write()
        await world.booking(status="cancelled")
        proxy.spoil = once("DELETE", "drop")
        await world.write(2)
        assert radicale.items() == {}
        (row,) = await world.mirrors()
        assert row["wake_at"] is None


async def test_a_cancellation_before_the_creation_landed(world: World, radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        await spoilt(world, radicale, proxy)
        await world.booking()
        proxy.spoil = once("PUT", "drop")
        await world.write()
        await world.booking(status="cancelled")
        await world.write()
        assert radicale.items() == {}


async def test_a_cancellation_before_anything_was_written_writes_nothing(
    world: World, radicale: CalendarServer
) -> None:
    async with Proxy(radicale.url) as proxy:
        await spoilt(world, radicale, proxy)
        await world.booking()
        await world.booking(status="cancelled")
        await world.write()
        assert proxy.seen == []
        (row,) = await world.mirrors()
        assert row["wake_at"] is None


async def test_a_creation_that_lands_after_it_was_given_up_is_removed(world: World, radicale: CalendarServer) -> None:
    await world.connect(radicale, writes_bookings=True)
    booking = await world.booking()
    await world.write()
    ((href, text),) = radicale.items().items()
    await world.booking(status="cancelled")
    await world.write()
    assert radicale.items() == {}
    url = radicale.root.rstrip("/") + href
    radicale.http.put(url, content=text.replace("\n", "\r\n")).raise_for_status()
    await world.read()
    await world.write()
    assert radicale.items() == {}
    assert booking


async def test_a_worker_killed_between_the_write_and_its_record(
    world: World, radicale: CalendarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking(start_at=TEN)

    async def killed(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr("kalends_calendar_sync.store.mirrors.applied", killed)
        (lease,) = await world.pusher.claim(1)
        with pytest.raises(asyncio.CancelledError):
            await world.pusher.work(lease)
    assert len(radicale.items()) == 1
    await world.booking(start_at=NOON)
    await world.db.pool.execute("UPDATE mirrors SET lease_until = NULL")
    await world.write()
    assert starts(radicale) == [written(NOON)]


async def test_a_zombie_cannot_undo_what_came_after_it(world: World, radicale: CalendarServer) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking(start_at=TEN)
    (zombie,) = await world.pusher.claim(1)
    await world.db.pool.execute("UPDATE mirrors SET lease_until = NULL")
    await world.booking(start_at=NOON)
    await world.write()
    await world.pusher.work(zombie)
    assert starts(radicale) == [written(NOON)]
    (row,) = await world.mirrors()
    assert row["applied_rev"] == row["desired_rev"] == 2


async def test_somebody_else_wrote_in_between(world: World, server: CalendarServer) -> None:
    await world.connect(server, writes_bookings=True)
    await world.booking(start_at=TEN)
    await world.write()
    ((href, text),) = server.items().items()
    server.http.put(
        server.root.rstrip("/") + href, content=text.replace("First visit", "My visitor").replace("\n", "\r\n")
    ).raise_for_status()
    await world.booking(start_at=NOON)
    await world.write()
    assert starts(server) == [written(NOON)]


async def test_a_host_who_moves_or_deletes_the_event_gets_it_back_thrice(
    world: World, radicale: CalendarServer
) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking(start_at=TEN)
    await world.write()
    await world.read()
    ((href, text),) = radicale.items().items()
    url = radicale.root.rstrip("/") + href

    def move() -> None:
        radicale.http.put(
            url, content=text.replace(written(TEN), written(FIVE)).replace("\n", "\r\n")
        ).raise_for_status()

    def delete() -> None:
        radicale.http.delete(url).raise_for_status()

    for edit in (move, delete, move):
        edit()
        await world.read()
        assert await world.busy() == []
        await world.write()
        assert starts(radicale)[-1:] == [written(TEN)]
        await world.read()
    move()
    await world.read()
    await world.write()
    assert starts(radicale) != [written(TEN)]
    (row,) = await world.mirrors()
    assert "keeps changing" in row["error"]
    await world.booking(start_at=NOON)
    await world.write()
    assert starts(radicale) == [written(NOON)]


async def test_what_the_host_adds_stays(world: World, radicale: CalendarServer) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking(start_at=TEN)
    await world.write()
    ((href, text),) = radicale.items().items()
    noted = text.replace("STATUS:", "COMMENT:Bring the files\nSTATUS:").replace("\n", "\r\n")
    radicale.http.put(radicale.root.rstrip("/") + href, content=noted).raise_for_status()
    for _ in range(2):
        await world.read()
        await world.write()
    (text,) = radicale.items().values()
    assert "Bring the files" in text
    (row,) = await world.mirrors()
    assert row["corrections"] == 0


async def test_own_events_are_never_busy(world: World, server: CalendarServer) -> None:
    await world.connect(server, writes_bookings=True)
    booking = await world.booking(start_at=TEN)
    await world.write()
    (text,) = server.items().values()
    # The host copies it: under a new UID, with the mark that we left; and another program without the mark.
    server.put("copy", at(TEN) + f"\nX-KALENDS-BOOKING:{booking}")
    server.http.put(server.url + "other.ics", content=calendar("their-own", at(FIVE))).raise_for_status()
    await world.read()
    assert await world.busy() == [span(FIVE)]
    assert "calendar_event.deleted" not in await world.types()
    assert text


async def test_an_own_event_re_exported_into_another_calendar_is_not_busy(
    world: World, radicale: CalendarServer
) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking(start_at=TEN)
    await world.write()
    (text,) = radicale.items().values()
    unmarked = "\r\n".join(line for line in text.split("\n") if not line.startswith("X-KALENDS"))
    other = radicale.another()
    radicale.http.put(other + "x.ics", content=unmarked).raise_for_status()
    url, radicale.url = radicale.url, other
    await world.connect(radicale)
    radicale.url = url
    await world.read()
    assert await world.busy() == []


async def test_a_calendar_that_begins_to_be_written_to_gets_the_bookings_to_come(
    world: World, radicale: CalendarServer
) -> None:
    await world.booking("early", start_at=TEN)
    await world.booking("past", start_at=tomorrow(10, days=-3))
    made = await world.connect(radicale)
    await world.write()
    assert radicale.items() == {}
    call = world.call({"writes_bookings": True}, params={"id": made})
    await world.calendars.patch(call)
    await world.write()
    assert starts(radicale) == [written(TEN)]
    await world.calendars.patch(world.call({"writes_bookings": False}, params={"id": made}))
    await world.write()
    assert radicale.items() == {}
    await world.calendars.patch(call)
    await world.write()
    assert starts(radicale) == [written(TEN)]


async def test_another_host_takes_the_booking_over(world: World, radicale: CalendarServer) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking(start_at=TEN)
    await world.write()
    await world.booking(start_at=TEN, host_ids=[OTHER_HOST])
    await world.write()
    assert radicale.items() == {}


async def test_an_erased_person_goes_from_the_calendar_too(world: World, radicale: CalendarServer) -> None:
    await world.connect(radicale, writes_bookings=True)
    booking = await world.booking(start_at=TEN)
    await world.booking("two", start_at=FIVE)
    await world.booking("two", start_at=FIVE, status="cancelled")
    await world.write()
    await world.tell("person.erased", "per_1", None)
    await world.write()
    (text,) = radicale.items().values()
    assert "SUMMARY:First visit\n" in text
    assert "Ada" not in text
    assert "grace" not in text
    for table in ("bookings", "calendar_events"):
        everything = str([dict(row) for row in await world.db.pool.fetch(f"SELECT * FROM {table}")])
        assert booking in everything
        assert "Ada" not in everything


async def test_a_server_that_is_down_is_waited_for_and_then_given_up(world: World, radicale: CalendarServer) -> None:
    async with Proxy(radicale.url) as proxy:
        await spoilt(world, radicale, proxy)
        proxy.spoil = lambda _: answered("503 Later", "", "Retry-After: 120\r\n")
        await world.booking()
        before = await world.db.pool.fetchval("SELECT now()")
        await world.write()
        wake_at, after = await world.db.pool.fetchrow("SELECT wake_at, now() FROM mirrors")
        assert before + timedelta(seconds=120) <= wake_at <= after + timedelta(seconds=121)
        await world.write(19)
        (row,) = await world.mirrors()
        assert row["dead"]
        assert row["wake_at"] is None
        assert "rate_limited" in row["error"]
        proxy.spoil = lambda _: None
        calendar_id = row["calendar_id"]
        await world.calendars.sync(world.call(params={"id": calendar_id}))
        await world.write()
        assert len(radicale.items()) == 1


async def test_bookings_are_listed_as_events(world: World, radicale: CalendarServer) -> None:
    made = await world.connect(radicale, writes_bookings=True)
    booking = await world.booking(start_at=TEN)
    (event,) = await world.listed(source="booking")
    assert (event["booking_id"], event["calendar_id"], event["host_id"]) == (booking, made, HOST)
    assert (event["title"], event["status"], event["busy"]) == ("First visit: Ada Lovelace", "confirmed", True)
    await world.booking(start_at=TEN, status="cancelled")
    (event,) = await world.listed()
    assert (event["status"], event["busy"]) == ("cancelled", False)
    assert ids.valid(event["id"], "cev")


async def test_tenants_do_not_meet(world: World, radicale: CalendarServer) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking(tenant="acc_2-live")
    await world.write()
    assert radicale.items() == {}
    assert msgspec.json.encode([dict(row) for row in await world.mirrors()]) == b"[]"


async def test_what_is_long_past_is_forgotten_unless_it_stands_in_a_calendar(
    world: World, radicale: CalendarServer
) -> None:
    await world.connect(radicale, writes_bookings=True)
    await world.booking("kept", start_at=TEN)
    await world.booking("cancelled", start_at=TEN)
    await world.booking("elsewhere", start_at=TEN, host_ids=[OTHER_HOST])
    await world.write()
    await world.booking("cancelled", status="cancelled")
    await world.write()
    await prune(world.db)
    assert await world.db.pool.fetchval("SELECT count(*) FROM bookings") == 3
    await world.db.pool.execute("UPDATE bookings SET end_at = now() - interval '36 days'")
    await prune(world.db)
    assert [row["id"] for row in await world.db.pool.fetch("SELECT id FROM bookings")] == [ids.derived("bkg", "kept")]
    assert [event["booking_id"] for event in await world.listed()] == [ids.derived("bkg", "kept")]
    await world.tell("person.erased", "per_1", None)
    await world.write()
    (text,) = radicale.items().values()
    assert "Ada" not in text
