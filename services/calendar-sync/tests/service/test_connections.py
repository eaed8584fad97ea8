"""Connections and own blocks as the API has them."""

from typing import Any

import msgspec
import pytest
from peers import PASSWORD, USER, CalendarServer
from world import HOST, KEY, TENANT, World, at, shown, span, tomorrow

from kalends_calendar_sync import vault
from kalends_calendar_sync.store import calendars
from kalends_shared.contracts.calendars import CalendarState
from kalends_shared.contracts.errors import KalendsError
from kalends_shared.rewrapping import rewrap
from kalends_shared.seal import Keyring

BODY = {
    "host_id": HOST,
    "provider": "caldav",
    "url": "http://127.0.0.1:5999/dav/",
    "username": USER,
    "password": PASSWORD,
}
NOON = tomorrow(12)
BLOCK = {"host_id": HOST, "title": "Dentist", "start_at": NOON, "end_at": tomorrow(13)}


def refused(error: pytest.ExceptionInfo[KalendsError]) -> tuple[str, list[tuple[str, str]]]:
    return error.value.code, [(field.pointer, field.code) for field in error.value.fields]


async def test_a_connection_and_its_password_that_never_comes_out(world: World) -> None:
    reply = await world.calendars.create(world.call(BODY))
    made = shown(reply)
    assert (reply.status, reply.location, reply.etag) == (201, f"/calendars/{made['id']}", '"1"')
    assert reply.position
    assert made | {"id": "", "created_at": "", "updated_at": ""} == {
        "id": "", "created_at": "", "updated_at": "", "version": 1, "host_id": HOST, "provider": "caldav",
        "url": BODY["url"], "username": USER, "reads_busy": True, "writes_bookings": False, "status": "connected",
        "last_synced_at": None, "stale_since": None, "metadata": {},
    }  # fmt: skip
    params = {"id": made["id"]}
    answers = [await world.calendars.get(world.call(params=params)), await world.calendars.list(world.call())]
    changed = await world.calendars.patch(world.call({"password": "another one"}, params=params))
    secret = (PASSWORD, "another one")
    for answer in (*answers, changed):
        assert not any(word in bytes(answer.body).decode() for word in secret)
    for event in await world.events():
        assert not any(word.encode() in event.state + event.data for word in secret)
    sealed = await world.db.pool.fetchval("SELECT sealed FROM calendars")
    assert not any(word.encode() in sealed for word in secret)
    assert shown(changed)["version"] == 2


@pytest.mark.parametrize(
    ("changes", "at_fault"),
    [
        ({"provider": "google"}, ("#/provider", "not_supported")),
        ({"provider": "microsoft"}, ("#/provider", "not_supported")),
        ({"provider": "ics"}, ("#/provider", "not_supported")),
        ({"provider": "palm"}, ("#/provider", "invalid_choice")),
        ({"host_id": "hst_nobody"}, ("#/host_id", "not_found")),
        ({"url": None}, ("#/url", "required")),
        ({"url": "http://10.0.0.1/dav/"}, ("#/url", "url_not_allowed")),
        ({"url": "https://user:word@example.com/"}, ("#/url", "url_not_allowed")),
        ({"url": "https://example.com:22/"}, ("#/url", "url_not_allowed")),
        ({"url": "nonsense"}, ("#/url", "invalid")),
        ({"colour": "red"}, ("#/colour", "unknown_field")),
    ],
)
async def test_what_cannot_be_connected(world: World, changes: dict[str, Any], at_fault: tuple[str, str]) -> None:
    with pytest.raises(KalendsError) as error:
        await world.calendars.create(world.call(BODY | changes))
    assert refused(error) == ("validation_failed", [at_fault])
    assert await world.db.pool.fetchval("SELECT count(*) FROM calendars") == 0


async def test_the_same_key_connects_once(world: World) -> None:
    call = world.call(BODY, path="/calendars", idempotency_key="k")
    first, second = await world.calendars.create(call), await world.calendars.create(call)
    assert shown(first) == shown(second)
    assert second.headers == {"Idempotent-Replayed": "true"}
    assert shown(await world.calendars.list(world.call()))["data"] == [shown(first)]


async def test_another_tenants_things_are_not_there(world: World) -> None:
    made = shown(await world.calendars.create(world.call(BODY)))
    block = shown(await world.blocks.create(world.call(BLOCK)))

    def other(of: dict[str, Any]) -> Any:
        return world.call({}, tenant="acc_1-test", params={"id": of["id"]})

    for attempt in (
        world.calendars.get(other(made)), world.calendars.patch(other(made)), world.calendars.delete(other(made)),
        world.calendars.sync(other(made)), world.blocks.get(other(block)), world.blocks.patch(other(block)),
        world.blocks.delete(other(block)),
    ):  # fmt: skip
        with pytest.raises(KalendsError) as error:
            await attempt
        assert error.value.code == "not_found"
    assert shown(await world.calendars.list(world.call(tenant="acc_1-test")))["data"] == []
    assert shown(await world.blocks.list(world.call(tenant="acc_1-test")))["data"] == []


async def test_changes_are_held_to_their_version(world: World) -> None:
    params = {"id": shown(await world.calendars.create(world.call(BODY)))["id"]}
    changed = await world.calendars.patch(world.call({"reads_busy": False}, params=params, if_match='"1"'))
    assert changed.etag == '"2"'
    with pytest.raises(KalendsError) as error:
        await world.calendars.patch(world.call({"reads_busy": True}, params=params, if_match='W/"1"'))
    assert error.value.code == "version_mismatch"
    again = await world.calendars.patch(world.call({"reads_busy": False}, params=params))
    assert (again.etag, again.position) == ('"2"', changed.position)
    asked = await world.calendars.sync(world.call(params=params, path="/sync"))
    assert (asked.status, asked.position) == (202, changed.position)
    state = msgspec.json.decode((await world.events())[-1].state, type=CalendarState)
    assert (state.version, state.reads_busy) == (2, False)


async def test_to_synchronise_takes_no_members(world: World) -> None:
    params = {"id": shown(await world.calendars.create(world.call(BODY)))["id"]}
    with pytest.raises(KalendsError) as error:
        await world.calendars.sync(world.call({"x": 1}, params=params))
    assert refused(error) == ("validation_failed", [("#/x", "unknown_field")])
    assert (await world.calendars.sync(world.call({}, params=params))).status == 202


async def test_a_new_password_is_tried_at_once(world: World, radicale: CalendarServer) -> None:
    radicale.put("a", at(NOON))
    made = await world.connect(radicale, password="wrong")
    await world.read()
    assert (await world.calendar(made))["status"] == "error"
    await world.calendars.patch(world.call({"password": PASSWORD}, params={"id": made}))
    assert await world.db.pool.fetchval("SELECT wake_at <= now() FROM cursors")
    await world.read()
    assert (await world.calendar(made))["status"] == "connected"
    assert await world.busy() == [span(NOON)]


async def test_a_change_under_way_leaves_a_password_as_a_rotation_of_keys_has_sealed_it(world: World) -> None:
    params = {"id": shown(await world.calendars.create(world.call(BODY)))["id"]}
    read_before = await calendars.find(world.db.pool, TENANT, params["id"])
    assert read_before is not None
    newest = Keyring.generate()
    assert (await rewrap(world.db, Keyring.parse(f"{newest},{KEY}"), vault.SEALED)).changed == 1
    async with world.db.transaction() as conn:
        await calendars.change(conn, world.call(), read_before, [calendars.event(read_before, "calendar.updated", {})])
    sealed = await world.db.pool.fetchval("SELECT sealed FROM calendars")
    assert vault.opened(Keyring.parse(newest), sealed, TENANT, params["id"], read_before.credentials) == PASSWORD


async def test_another_url_is_another_calendar(world: World, radicale: CalendarServer) -> None:
    for number in range(8):
        radicale.put(f"e{number}", at(NOON))
    made = await world.connect(radicale, writes_bookings=True)
    await world.booking(start_at=NOON)
    await world.read()
    await world.write()
    other = radicale.another()
    await world.calendars.patch(world.call({"url": other}, params={"id": made}))
    await world.read()
    await world.write()
    assert await world.busy() == []
    radicale.url = other
    assert len(radicale.items()) == 1


async def test_disconnecting_forgets_and_is_done_once(world: World, radicale: CalendarServer) -> None:
    radicale.put("a", at(NOON))
    params = {"id": await world.connect(radicale, writes_bookings=True)}
    await world.booking()
    await world.read()
    assert (await world.calendars.delete(world.call(params=params))).status == 204
    with pytest.raises(KalendsError) as error:
        await world.calendars.delete(world.call(params=params))
    assert error.value.code == "not_found"
    for table in ("calendars", "cursors", "items", "mirrors", "calendar_events"):
        assert await world.db.pool.fetchval(f"SELECT count(*) FROM {table}") == 0
    last = (await world.events())[-1]
    assert last.type == "calendar.disconnected"
    assert msgspec.json.decode(last.state, type=CalendarState).status == "disconnected"
    await world.read()
    await world.write()


async def test_asking_to_sync(world: World, radicale: CalendarServer) -> None:
    params = {"id": await world.connect(radicale)}
    await world.read()
    before = len(await world.events())
    reply = await world.calendars.sync(world.call(params=params, path="/calendars/x/sync"))
    assert reply.status == 202
    await world.read()
    assert (await world.types())[before:] == ["calendar.synced"]


async def test_lists_go_newest_first_by_cursor_and_by_page(world: World) -> None:
    made = [shown(await world.calendars.create(world.call(BODY)))["id"] for _ in range(3)]
    first = shown(await world.calendars.list(world.call(query="limit=2")))
    assert first["has_more"]
    second = shown(await world.calendars.list(world.call(query=f"limit=2&cursor={first['next_cursor']}")))
    assert [c["id"] for c in first["data"] + second["data"]] == made[::-1]
    paged = shown(await world.calendars.list(world.call(query="page=2&per_page=2")))
    assert (paged["total"], [c["id"] for c in paged["data"]]) == (3, [made[0]])


async def test_an_own_block_is_busy_until_it_goes(world: World) -> None:
    reply = await world.blocks.create(world.call(BLOCK))
    made = shown(reply)
    assert (reply.status, reply.location, made["source"], made["calendar_id"]) == (
        201,
        f"/events/{made['id']}",
        "api",
        None,
    )
    assert await world.busy() == [span(NOON)]
    params = {"id": made["id"]}
    moved = await world.blocks.patch(world.call({"end_at": tomorrow(14)}, params=params, if_match='"1"'))
    assert shown(moved)["version"] == 2
    assert await world.busy() == [span(NOON, 120)]
    same = await world.blocks.patch(world.call({"end_at": tomorrow(14)}, params=params))
    assert (shown(same)["version"], same.position) == (2, moved.position)
    for change in ({"busy": False}, {"busy": True, "status": "cancelled"}):
        await world.blocks.patch(world.call(change, params=params))
        assert await world.busy() == []
    await world.blocks.patch(world.call({"status": "tentative"}, params=params))
    assert await world.busy() == [span(NOON, 120)]
    with pytest.raises(KalendsError) as error:
        await world.blocks.patch(world.call({"end_at": NOON}, params=params))
    assert refused(error) == ("validation_failed", [("#/end_at", "invalid")])
    assert (await world.blocks.delete(world.call(params=params))).status == 204
    assert await world.busy() == []


async def test_only_own_blocks_are_changed_here(world: World, radicale: CalendarServer) -> None:
    radicale.put("a", at(NOON))
    await world.connect(radicale, writes_bookings=True)
    await world.booking()
    await world.read()
    for event in await world.listed():
        for attempt in (world.blocks.patch, world.blocks.delete):
            with pytest.raises(KalendsError) as error:
                await attempt(world.call({}, params={"id": event["id"]}))
            assert (error.value.code, error.value.extra) == ("invalid_state", {"state": event["source"]})


async def test_events_are_listed_by_their_start_and_filtered(world: World, radicale: CalendarServer) -> None:
    radicale.put("a", at(NOON))
    made = await world.connect(radicale)
    await world.read()
    for hour in (9, 18):
        await world.blocks.create(world.call(BLOCK | {"start_at": tomorrow(hour), "end_at": tomorrow(hour + 1)}))
    starts = [event["start_at"] for event in await world.listed()]
    assert starts == sorted(starts)
    assert [e["start_at"] for e in await world.listed(order="desc")] == starts[::-1]
    assert [e["source"] for e in await world.listed()] == ["api", "provider", "api"]
    assert len(await world.listed(source="api")) == 2
    assert len(await world.listed(calendar_id=made)) == 1
    assert len(await world.listed(start_after=f"{NOON:%Y-%m-%dT%H:%M:%SZ}")) == 2
    assert len(await world.listed(start_before=f"{NOON:%Y-%m-%dT%H:%M:%SZ}")) == 1
    assert await world.listed(host_id="hst_nobody") == []
    assert len(await world.listed(status="confirmed,tentative")) == 3
    first = shown(await world.blocks.list(world.call(query="limit=2")))
    rest = shown(await world.blocks.list(world.call(query=f"limit=2&cursor={first['next_cursor']}")))
    assert [e["start_at"] for e in first["data"] + rest["data"]] == starts
