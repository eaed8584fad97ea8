"""Settings: created, read, listed, changed, deleted, and who names whom."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from kalends_shared.contracts.errors import KalendsError
from kalends_shared.db import transient

from .world import ALWAYS, NOW, OFFICE, Client, at, pointers, refusal

GONE = "01jv0000000000000000000000"
LEAST: dict[str, dict[str, Any]] = {
    "host": {"name": "Ann"},
    "schedule": {"name": "Office", "timezone": "UTC"},
    "location": {"name": "Shop"},
    "resource": {"name": "Room"},
}


@pytest.mark.parametrize("kind", LEAST)
async def test_the_life_of_a_thing(api: Client, kind: str) -> None:
    reply = await api.ask(f"create_{kind}", LEAST[kind])
    made = reply.body
    assert (reply.status, reply.etag, reply.location) == (201, '"1"', f"/{kind}s/{made['id']}")
    assert reply.position is not None
    assert {"id", "created_at", "updated_at", "version", "metadata"} <= made.keys()
    read = await api.get(kind, made["id"])
    assert (read.body, read.etag) == (made, '"1"')
    api.now = NOW + timedelta(hours=1)
    changed = await api.patch(
        kind, made["id"], {"name": "Other", "metadata": {"a": {"x": 1, "y": 2}}}, if_match='W/"1"'
    )
    assert (changed.etag, changed.body["name"], changed.body["created_at"]) == ('"2"', "Other", made["created_at"])
    changed = await api.patch(kind, made["id"], {"metadata": {"a": {"x": None}, "b": 1}})
    assert changed.body["metadata"] == {"a": {"y": 2}, "b": 1}
    assert changed.body["updated_at"] == "2026-04-01T10:00:00Z"
    assert (await refusal(api.patch(kind, made["id"], {"name": "x"}, if_match='"1"'))).code == "version_mismatch"
    assert (await refusal(api.delete(kind, made["id"], if_match='"1"'))).code == "version_mismatch"
    assert (await api.delete(kind, made["id"])).status == 204
    for again in (api.get, api.delete):
        assert (await refusal(again(kind, made["id"]))).code == "not_found"
    assert (await refusal(api.patch(kind, made["id"], {}))).code == "not_found"


async def test_every_change_is_an_event_with_the_state_after_it(api: Client) -> None:
    made = await api.made("location", {"name": "Shop"})
    await api.patch("location", made["id"], {"name": "Side shop"})
    await api.delete("location", made["id"])
    rows = await api.node.db.pool.fetch(
        "SELECT type, version, state FROM events WHERE stream_id = $1 ORDER BY version", made["id"]
    )
    assert [(r["type"], r["version"]) for r in rows] == [
        ("location.created", 1),
        ("location.updated", 2),
        ("location.deleted", 3),
    ]
    first, _, last = [msgspec.json.decode(r["state"]) for r in rows]
    assert (first, last) == (made, None)


async def test_lists_are_newest_first_in_both_forms(api: Client) -> None:
    made = [(await api.made("location", {"name": f"L{n}"}))["id"] for n in range(5)]
    page = (await api.ask("list_locations", query="limit=2")).body
    seen = [one["id"] for one in page["data"]]
    while page["has_more"]:
        page = (await api.ask("list_locations", query=f"limit=2&cursor={page['next_cursor']}")).body
        seen += [one["id"] for one in page["data"]]
    assert seen == made[::-1]
    numbered = (await api.ask("list_locations", query="page=2&per_page=2")).body
    assert [one["id"] for one in numbered["data"]] == made[::-1][2:4]
    assert (numbered["total"], numbered["has_more"]) == (5, True)
    assert pointers(await refusal(api.ask("list_locations", query="nonsense=1"))) == [("?nonsense", "unknown_field")]


async def test_another_tenant_sees_nothing(api: Client) -> None:
    theirs = Client(api.node, api.tenant.replace("live", "test"))
    kind = await api.event_type()
    host, schedule = (
        kind["hosts"][0]["host_id"],
        (await api.get("host", kind["hosts"][0]["host_id"])).body["schedule_id"],
    )
    location, resource = await api.made("location", {"name": "x"}), await api.made("resource", {"name": "x"})
    page = await api.made("booking_page", {"slug": "p", "title": "P", "event_type_ids": [kind["id"]]})
    ids = {
        "event_type": kind["id"], "host": host, "schedule": schedule, "location": location["id"],
        "resource": resource["id"], "booking_page": page["id"],
    }  # fmt: skip
    for name, id_ in ids.items():
        for method in (theirs.get, theirs.delete):
            assert (await refusal(method(name, id_))).code == "not_found"
        assert (await refusal(theirs.patch(name, id_, {}))).code == "not_found"
        many = {"event_type": "event_types", "booking_page": "booking_pages"}.get(name, f"{name}s")
        assert (await theirs.ask(f"list_{many}")).body["data"] == []
    assert (await refusal(theirs.availability(kind["id"]))).code == "not_found"
    explain = theirs.ask("explain", params={"id": kind["id"]}, query="start_at=2026-04-06T09:00:00Z")
    assert (await refusal(explain)).code == "not_found"
    asked = {"start": "2026-04-06", "end": "2026-04-06", "queries": [{"event_type_id": kind["id"]}]}
    assert (await theirs.ask("query_availability", asked)).body["data"][0]["error"]["code"] == "validation_failed"
    assert pointers(await refusal(theirs.quote(kind["id"], at(9)))) == [("#/event_type_id", "not_found")]
    body = {"title": "x", "duration_minutes": 30, "hosts": [{"host_id": host}]}
    assert pointers(await refusal(theirs.made("event_type", body))) == [("#/hosts/0/host_id", "not_found")]


async def test_unknown_ids_in_a_body(api: Client) -> None:
    host = (await api.host())["id"]
    base = {"title": "x", "duration_minutes": 30, "hosts": [{"host_id": host}]}
    for kind, body, pointer in (
        ("host", {"name": "x", "schedule_id": f"sch_{GONE}"}, "#/schedule_id"),
        ("host", {"name": "x", "schedule_id": host}, "#/schedule_id"),
        ("resource", {"name": "x", "location_id": f"loc_{GONE}"}, "#/location_id"),
        ("event_type", base | {"hosts": [{"host_id": f"hst_{GONE}"}]}, "#/hosts/0/host_id"),
        ("event_type", base | {"restriction_schedule_id": f"sch_{GONE}"}, "#/restriction_schedule_id"),
        ("event_type", base | {"resource_ids": [f"res_{GONE}"]}, "#/resource_ids/0"),
        ("booking_page", {"slug": "p", "title": "P", "event_type_ids": [f"evt_{GONE}"]}, "#/event_type_ids/0"),
    ):
        assert pointers(await refusal(api.made(kind, body))) == [(pointer, "not_found")]


async def test_what_is_named_cannot_be_deleted(api: Client) -> None:
    host = await api.host()
    location, resource = await api.made("location", {"name": "x"}), await api.made("resource", {"name": "x"})
    kind = await api.event_type(host, location_ids=[location["id"]], resource_ids=[resource["id"]])
    for name, id_ in (
        ("schedule", host["schedule_id"]),
        ("host", host["id"]),
        ("location", location["id"]),
        ("resource", resource["id"]),
    ):
        assert (await refusal(api.delete(name, id_))).code == "in_use"
    await api.patch("event_type", kind["id"], {"location_ids": []})
    await api.delete("location", location["id"])
    await api.delete("event_type", kind["id"])
    await api.delete("host", host["id"])
    await api.delete("schedule", host["schedule_id"])


async def test_what_has_upcoming_bookings_cannot_be_deleted(api: Client) -> None:
    kind = await api.event_type()
    one = await api.booked(kind, at(9))
    assert (await refusal(api.delete("event_type", kind["id"]))).extra == {"by": one.id}
    await api.booked(kind, at(9), id=one.id, version=2, type_="booking.cancelled", status="cancelled")
    api.node.behind = True
    assert (await refusal(api.delete("event_type", kind["id"]))).code == "unavailable"
    api.node.behind = False
    await api.delete("event_type", kind["id"])


async def test_what_is_held_cannot_be_deleted_until_the_hold_is_over(api: Client) -> None:
    room = await api.made("resource", {"name": "Room"})
    kind = await api.event_type(resource_ids=[room["id"]])
    held = await api.held(kind, at(9), units=[f"{room['id']}#1"])
    assert (await refusal(api.delete("event_type", kind["id"]))).extra == {"by": held.id}
    api.now += timedelta(seconds=300)
    await api.delete("event_type", kind["id"])


async def test_the_life_of_a_booking_page(api: Client) -> None:
    one, two = await api.event_type(), await api.event_type()
    body = {"slug": "book-us", "title": " Book us ", "event_type_ids": [two["id"], one["id"]], "description": "Hello"}
    page = await api.made("booking_page", body)
    assert (page["title"], page["event_type_ids"], page["theme"], page["active"]) == (
        "Book us",
        [two["id"], one["id"]],
        {},
        True,
    )
    assert (await refusal(api.made("booking_page", body))).code == "slug_in_use"
    # What is absent stays, and null is as if it had never been said.
    changed = (await api.patch("booking_page", page["id"], {"theme": {"color": "#123456"}})).body
    assert (changed["description"], changed["theme"]) == ("Hello", {"color": "#123456"})
    changed = (await api.patch("booking_page", page["id"], {"description": None, "theme": None, "active": None})).body
    assert (changed["description"], changed["theme"], changed["active"]) == (None, {}, True)
    for field in ("slug", "title", "event_type_ids"):
        refused = await refusal(api.patch("booking_page", page["id"], {field: None}))
        assert pointers(refused)[0][0] == f"#/{field}"
    # An event type is in use by the page that names it.
    assert (await refusal(api.delete("event_type", one["id"]))).extra == {"by": page["id"]}
    await api.patch("booking_page", page["id"], {"event_type_ids": [two["id"]]})
    await api.delete("event_type", one["id"])
    assert [row["id"] for row in (await api.ask("list_booking_pages")).body["data"]] == [page["id"]]
    await api.delete("booking_page", page["id"])
    assert (await refusal(api.get("booking_page", page["id"]))).code == "not_found"
    await api.delete("event_type", two["id"])


async def test_null_in_a_patch_of_an_event_type_is_its_default(api: Client) -> None:
    said = {"minimum_notice_minutes": 60, "capacity": 3, "limits": [{"count": 1, "per": "day"}], "description": "x"}
    kind = await api.event_type(**said, booking_window={"rolling_days": 5})
    same = (await api.patch("event_type", kind["id"], {"title": "Other"})).body
    assert {name: same[name] for name in said} == said
    changed = (await api.patch("event_type", kind["id"], dict.fromkeys(said))).body
    assert [changed[name] for name in said] == [0, 1, [], None]
    # Of the booking window null is a value of its own: 730 days.
    assert (await api.patch("event_type", kind["id"], {"booking_window": None})).body["booking_window"] is None
    # Objects are merged, so another form of window must take the old one away.
    dates = {"start_date": "2026-05-01", "end_date": "2026-05-31"}
    await api.patch("event_type", kind["id"], {"booking_window": {"rolling_days": 9}})
    assert pointers(await refusal(api.patch("event_type", kind["id"], {"booking_window": dates}))) == [
        ("#/booking_window", "invalid")
    ]
    merged = {**dates, "rolling_days": None}
    assert (await api.patch("event_type", kind["id"], {"booking_window": merged})).body["booking_window"] == dates


async def test_slugs(api: Client) -> None:
    one = await api.event_type(title="Café au lait!", slug=None)
    assert one["slug"] == "caf-au-lait"
    assert (await api.event_type(title="Café au lait?", slug=None))["slug"] == "caf-au-lait-2"
    assert (await api.event_type(title="日本", slug=None))["slug"] == "event-type"
    assert (await refusal(api.event_type(slug="caf-au-lait"))).code == "slug_in_use"
    assert (await refusal(api.patch("event_type", one["id"], {"slug": "event-type"}))).code == "slug_in_use"
    assert (await api.patch("event_type", one["id"], {"slug": "caf-au-lait"})).body["slug"] == "caf-au-lait"
    theirs = Client(api.node)
    assert (await theirs.event_type(slug="caf-au-lait"))["slug"] == "caf-au-lait"
    outcomes = await asyncio.gather(*(api.event_type(slug="race") for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, dict) for one in outcomes) == 1
    refused = [one for one in outcomes if not isinstance(one, dict)]
    # A server that answers slowly may also give up a wait for a lock.
    assert all((isinstance(one, KalendsError) and one.code == "slug_in_use") or transient(one) for one in refused)


async def test_durations_follow_the_duration_until_they_are_chosen(api: Client) -> None:
    kind = await api.event_type()
    assert kind["durations"] == [30]
    changed = (await api.patch("event_type", kind["id"], {"duration_minutes": 45})).body
    assert changed["durations"] == [45]
    changed = (await api.patch("event_type", kind["id"], {"durations": [45, 60]})).body
    refused = await refusal(api.patch("event_type", kind["id"], {"duration_minutes": 50}))
    assert pointers(refused) == [("#/durations", "invalid")]


async def test_payment_terms_are_kept(api: Client) -> None:
    host = await api.host()
    terms = {"amount": 100, "currency": "EUR", "expires_minutes": 60}
    assert (await api.event_type(host, payment=terms))["payment"] == terms


async def test_holidays_are_of_known_places(api: Client) -> None:
    for holidays, pointer in (
        ({"country": "XX"}, "#/holidays/country"),
        ({"country": "ES", "subdivision": "XX"}, "#/holidays/subdivision"),
    ):
        assert pointers(await refusal(api.made("schedule", OFFICE | {"holidays": holidays})))[0][0] == pointer
    made = await api.made("schedule", OFFICE | {"holidays": {"country": "ES", "subdivision": "MD"}})
    assert made["holidays"] == {"country": "ES", "subdivision": "MD"}


async def test_a_key_makes_one_thing(api: Client) -> None:
    first = await api.ask("create_location", {"name": "x"}, idempotency_key="k")
    again = await api.ask("create_location", {"name": "x"}, idempotency_key="k")
    assert (again.body, again.headers) == (first.body, {"Idempotent-Replayed": "true"})
    assert (
        await refusal(api.ask("create_location", {"name": "y"}, idempotency_key="k"))
    ).code == "idempotency_key_reused"


async def test_a_reference_and_a_deletion_at_once(api: Client) -> None:
    """Whoever comes first wins; there is never an event type whose host is gone."""
    for _ in range(10):
        host = await api.host(ALWAYS)
        outcomes = await asyncio.gather(api.delete("host", host["id"]), api.event_type(host), return_exceptions=True)
        if any(isinstance(one, Exception) and transient(one) for one in outcomes):
            continue  # a server that answers slowly may also give up a wait for a lock
        deleted, made = outcomes
        assert isinstance(deleted, KalendsError) != isinstance(made, KalendsError), outcomes
