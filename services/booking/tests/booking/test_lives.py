"""The rest of a booking's life: started, completed, no-show, paid for, recorded, given away, patched, told."""

from datetime import timedelta
from typing import Any

import pytest
from booking_kit import misplaced

from kalends_booking.store import rebuild
from kalends_shared.contracts.availability import Location, PaymentTerms, Question
from kalends_shared.contracts.call import Call
from kalends_shared.contracts.events import Actor
from kalends_shared.contracts.quotes import Quote, QuoteRequest
from kalends_shared.db import Database

from .test_timers import advance, types
from .world import HALF_HOUR, NOON, NOW, AlwaysOpen, Client, event_type, refusal


async def patch(client: Client, booking_id: str, body: Any, **fields: Any) -> Any:
    return await client.ask("patch_booking", body, method="PATCH", params={"id": booking_id}, **fields)


async def history(client: Client, booking_id: str, query: str = "") -> Any:
    return (await client.ask("booking_history", method="GET", params={"id": booking_id}, query=query)).body


async def test_complete_no_show_and_back(client: Client, db: Database) -> None:
    one, two = (await client.book()).body["id"], (await client.book(NOON + HALF_HOUR)).body["id"]
    assert (await refusal(client.act(one, "complete"))).extra == {"state": "confirmed"}
    client.now = NOON + HALF_HOUR + timedelta(minutes=1)
    assert (await client.act(two, "complete")).body["status"] == "completed"
    assert (await client.act(one, "no_show")).body["status"] == "no_show"
    undone = (await client.act(one, "undo_no_show", {"reason": "Was late"})).body
    assert (undone["status"], undone["reason"]) == ("completed", "Was late")
    assert (await history(client, one))["data"][-1]["data"]["reason"] == "Was late"
    assert await types(db, one) == [
        "booking.created", "meeting.started", "meeting.ended", "booking.completed", "booking.no_show", "booking.no_show_undone",
    ]  # fmt: skip
    assert await types(db, two) == ["booking.created", "meeting.started", "booking.completed"]
    assert await db.pool.fetchval("SELECT count(*) FROM timers") == 0
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 2
    assert await rebuild.rebuild(db) == []


async def test_payment_confirms_what_waited_for_it(client: Client, quotes: AlwaysOpen) -> None:
    terms = PaymentTerms(amount=1500, currency="EUR", expires_minutes=60)
    quotes.event_types["evt_visit"] = event_type(payment=terms)
    made = (await client.book()).body
    assert made["status"] == "pending"
    assert made["payment"] == {
        "status": "pending", "amount": 1500, "currency": "EUR", "reference": None, "expires_at": "2026-04-01T10:00:00Z",
    }  # fmt: skip
    paid = (await client.act(made["id"], "payment", {"status": "paid", "reference": "ch_1"})).body
    assert (paid["status"], paid["payment"]["status"], paid["payment"]["reference"]) == ("confirmed", "paid", "ch_1")
    assert (await refusal(client.act(made["id"], "payment", {"status": "promised"}))).fields[0].pointer == "#/status"


async def test_an_unpaid_one_expires_by_the_shorter_of_its_terms(client: Client, quotes: AlwaysOpen) -> None:
    settings = {
        "payment": PaymentTerms(amount=1500, currency="EUR", expires_minutes=30),
        "requires_confirmation": True,
        "confirmation_expires_minutes": 60,
    }
    quotes.event_types["evt_visit"] = event_type(**settings)
    unpaid, unanswered, both = [(await client.book(NOON + HALF_HOUR * n)).body["id"] for n in range(3)]
    for one in (unpaid, both):
        assert (await client.act(one, "approve")).body["status"] == "pending"
    for one in (unanswered, both):
        await client.act(one, "payment", {"status": "paid"})
    await advance(client, NOW + timedelta(minutes=29, seconds=59))
    assert [(await client.get(one))["status"] for one in (unpaid, unanswered, both)] == [
        "pending",
        "pending",
        "confirmed",
    ]
    await advance(client, NOW + timedelta(minutes=30))
    gone = await client.get(unpaid)
    assert (gone["status"], gone["reason"], gone["payment"]["status"]) == ("declined", "expired", "pending")
    assert (await client.book()).status == 201
    late = (await client.act(unpaid, "payment", {"status": "paid"})).body
    assert (late["status"], late["payment"]["status"]) == ("declined", "paid")
    await advance(client, NOW + timedelta(minutes=60))
    assert [(await client.get(one))["status"] for one in (unanswered, both)] == ["declined", "confirmed"]


async def test_who_did_it_and_why_is_in_the_history(client: Client) -> None:
    grace = Actor(type="user", id="usr_1", name="Grace")
    made = (await client.book()).body["id"]
    await client.act(made, "reschedule", {"start_at": NOON + HALF_HOUR, "reason": "a late train"}, actor=grace)
    await client.act(made, "cancel", {"reason": "ill"}, actor=Actor(type="key", id="key_1", name="Back end"))
    told = [
        (row["type"], row["actor"]["id"], row["data"].get("reason")) for row in (await history(client, made))["data"]
    ]
    assert told[1:] == [("booking.rescheduled", "usr_1", "a late train"), ("booking.cancelled", "key_1", "ill")]
    other = (await client.book(NOON + HALF_HOUR)).body["id"]
    await advance(client, NOON + 2 * HALF_HOUR)
    assert {row["actor"]["type"] for row in (await history(client, other))["data"][1:]} == {"system"}


async def test_what_time_has_done_is_nobodys_also_where_a_command_comes_before_the_timer(
    client: Client, quotes: AlwaysOpen
) -> None:
    """No worker fires timers here: it is the commands that find out what time has made of their bookings."""
    key = Actor(type="key", id="key_1", name="Back end")

    async def told(booking_id: str) -> list[tuple[str, str, str | None]]:
        rows = (await history(client, booking_id))["data"][1:]
        return [(row["type"], row["actor"]["type"], row["actor"]["id"]) for row in rows]

    def did(type_: str) -> tuple[str, str, str]:
        return type_, "key", "key_1"

    def became(*types_: str) -> list[tuple[str, str, None]]:
        return [(type_, "system", None) for type_ in types_]

    missed, back, moved = [(await client.book(NOON + HALF_HOUR * n)).body["id"] for n in range(3)]
    series = (await client.book(NOON + 3 * HALF_HOUR, recurrence={"rrule": "FREQ=DAILY;COUNT=2"})).body["series"]
    quotes.event_types["evt_visit"] = event_type("hst_bob", requires_confirmation=True, confirmation_expires_minutes=60)
    unanswered = (await client.book()).body["id"]
    client.now = NOON + HALF_HOUR * 3 / 2
    await client.act(missed, "no_show", actor=key)
    await client.act(back, "no_show", actor=key)
    client.now = NOON + HALF_HOUR * 5 / 2
    await client.act(back, "undo_no_show", actor=key)
    quotes.event_types["evt_visit"] = event_type("hst_ann", "hst_bob", assignment="any")
    await client.act(moved, "reassign", {"host_id": "hst_bob"}, actor=key)
    await client.act(moved, "reschedule", {"start_at": NOON + 10 * HALF_HOUR}, actor=key)
    await client.act(unanswered, "payment", {"status": "failed"}, actor=key)
    client.now = NOON + HALF_HOUR * 7 / 2
    first, second = series["booking_ids"]
    await client.act(second, "cancel", {"scope": "all"}, actor=key)

    over = became("meeting.started", "meeting.ended", "booking.completed")
    assert await told(missed) == [*over, did("booking.no_show")]
    begun, *ended = over
    assert await told(back) == [begun, did("booking.no_show"), did("booking.no_show_undone"), *ended]
    assert await told(moved) == [begun, did("booking.reassigned"), did("booking.rescheduled")]
    assert await told(unanswered) == [*became("booking.declined"), did("payment.updated")]
    assert await told(first) == [begun, did("booking.cancelled")]
    assert await told(second) == [did("booking.cancelled")]


async def test_a_booking_whose_event_type_was_deleted_meanwhile_lives_on(
    client: Client, quotes: AlwaysOpen, db: Database
) -> None:
    """A quote may be older than the deletion; the booking made by it has its own copy of all that it needs."""
    quote = quotes.quote

    async def deleted_since(call: Call, request: QuoteRequest) -> Quote:
        found = await quote(call, request)
        quotes.event_types.pop("evt_visit", None)
        return found

    quotes.quote = deleted_since  # type: ignore[method-assign]
    made = []
    for n, settings in enumerate(({}, {}, {}, {"requires_confirmation": True})):
        quotes.event_types["evt_visit"] = event_type(title="Gone", **settings)  # type: ignore[arg-type]
        made.append((await client.book(NOON + HALF_HOUR * n)).body["id"])
    moved, ended, missed, asked = made
    assert not quotes.event_types
    for action, body in (("reschedule", {"start_at": NOON + 9 * HALF_HOUR}), ("reassign", {"host_id": "hst_bob"})):
        assert (await refusal(client.act(moved, action, body))).code == "inactive"
    assert (await patch(client, moved, {"booker_name": "Grace", "answers": {"size": "L"}})).body[
        "booker_name"
    ] == "Grace"
    assert (await client.act(asked, "approve")).body["status"] == "confirmed"
    assert (await client.act(moved, "cancel")).body["status"] == "cancelled"
    assert (await refusal(client.book())).code == "validation_failed"
    await advance(client, NOON + 3 * HALF_HOUR)
    assert (await client.act(missed, "no_show")).body["status"] == "no_show"
    assert (await client.act(asked, "complete")).body["status"] == "completed"
    states = {row["id"]: row["status"] for row in (await client.list())["data"]}
    assert states == {moved: "cancelled", ended: "completed", missed: "no_show", asked: "completed"}
    rows = await db.pool.fetch("SELECT DISTINCT state->'event_type'->>'title' FROM events")
    assert [row[0] for row in rows] == ["Gone"]
    assert await rebuild.rebuild(db) == await misplaced(db) == []


async def test_a_booking_is_held_where_its_event_type_says(client: Client, quotes: AlwaysOpen) -> None:
    link = "https://meet.test/{booking_id}?x=1"
    quotes.location = Location(
        id="loc_1", created_at=NOW, updated_at=NOW, version=1, name="Online", kind="link", url_template=link
    )
    made = (await client.book()).body
    assert (made["location_id"], made["location"]["kind"]) == ("loc_1", "link")
    assert made["meeting_url"] == f"https://meet.test/{made['id']}?x=1"
    moved = (await client.act(made["id"], "reschedule", {"start_at": NOON + HALF_HOUR})).body
    assert moved["meeting_url"] == made["meeting_url"]


async def test_what_a_booking_waits_for_moves_with_it(client: Client, quotes: AlwaysOpen) -> None:
    """Whatever its event type has asked for since."""
    terms = PaymentTerms(amount=1500, currency="EUR")
    quotes.event_types["evt_visit"] = event_type(payment=terms, requires_confirmation=True)
    one, two, three = [(await client.book(NOON + HALF_HOUR * n)).body["id"] for n in range(3)]
    await client.act(two, "approve")
    quotes.event_types["evt_visit"] = event_type()
    for one_of_them in (one, two, three):
        await client.act(
            one_of_them, "reschedule", {"start_at": (await client.get(one_of_them))["end_at"].replace("10T", "11T")}
        )
    assert (await client.act(one, "approve")).body["status"] == "pending"
    assert (await client.act(two, "payment", {"status": "paid"})).body["status"] == "confirmed"
    assert (await client.act(three, "payment", {"status": "paid"})).body["status"] == "pending"
    free = (await client.book(NOON + 8 * HALF_HOUR)).body["id"]
    quotes.event_types["evt_visit"] = event_type(payment=terms, requires_confirmation=True)
    moved = await client.act(free, "reschedule", {"start_at": NOON + 9 * HALF_HOUR})
    assert (moved.body["status"], moved.body["payment"]) == ("confirmed", None)


async def test_a_recording_is_told(client: Client, db: Database) -> None:
    made = (await client.book()).body["id"]
    await client.act(made, "recordings", {"url": "https://x.test/r", "duration_seconds": 60})
    data = (await history(client, made))["data"][-1]
    assert (data["type"], data["data"]["recording"]) == (
        "recording.ready",
        {"url": "https://x.test/r", "duration_seconds": 60},
    )


class TestPatch:
    async def test_merges_metadata_and_tells_once(self, client: Client, db: Database) -> None:
        made = (await client.book(metadata={"a": 1, "b": 2})).body
        reply = await patch(client, made["id"], {"metadata": {"a": None, "c": 3}}, if_match='"1"')
        assert (reply.body["metadata"], reply.body["version"], reply.etag) == ({"b": 2, "c": 3}, 2, '"2"')
        assert (await refusal(patch(client, made["id"], {}, if_match='"1"'))).code == "version_mismatch"
        same = await patch(client, made["id"], {"metadata": {"c": 3}})
        assert (same.body, same.etag) == (reply.body, '"2"')
        assert await types(db, made["id"]) == ["booking.created", "booking.updated"]

    async def test_of_the_booker_makes_a_version_of_the_person(self, client: Client, db: Database) -> None:
        made = (await client.book(guests=[{"name": "Bob", "email": "bob@x.test"}])).body
        changed = {"booker_name": "Ada King", "booker_phone": "+34600000000", "guests": []}
        patched = (await patch(client, made["id"], changed)).body
        assert {name: patched[name] for name in changed} == changed
        assert (patched["person_id"], patched["booker_email"]) == (made["person_id"], made["booker_email"])
        assert await db.pool.fetchval("SELECT count(*) FROM people") == 2
        assert await rebuild.rebuild(db) == []

    async def test_of_answers_is_held_to_the_questions(self, client: Client, quotes: AlwaysOpen) -> None:
        question = Question(key="size", label="Size", type="select", options=["S", "L"])
        quotes.event_types["evt_visit"] = event_type(questions=[question])
        made = (await client.book(answers={"size": "S"})).body["id"]
        assert (await patch(client, made, {"answers": {"size": "L"}})).body["answers"] == {"size": "L"}
        assert (await refusal(patch(client, made, {"answers": {"size": "XL"}}))).fields[0].pointer == "#/answers/size"
        quotes.event_types.clear()
        assert (await patch(client, made, {"answers": {"size": "XL"}})).body["answers"] == {"size": "XL"}

    async def test_of_the_location(self, client: Client, quotes: AlwaysOpen) -> None:
        made = (await client.book()).body["id"]
        link = "https://meet.test/{booking_id}"
        quotes.location = Location(
            id="loc_1", created_at=NOW, updated_at=NOW, version=1, name="Online", kind="link", url_template=link
        )
        patched = (await patch(client, made, {"location_id": "loc_1"})).body
        assert (patched["location"]["name"], patched["meeting_url"]) == ("Online", f"https://meet.test/{made}")
        away = (await patch(client, made, {"location_id": None})).body
        assert (away["location"], away["meeting_url"]) == (None, None)

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"booker_name": " "}, "#/booker_name"),
            ({"status": "x"}, "#/status"),
            ({"booker_email": "x"}, "#/booker_email"),
        ],
    )
    async def test_what_is_wrong_is_pointed_at(self, client: Client, body: Any, pointer: str) -> None:
        made = (await client.book()).body["id"]
        assert (await refusal(patch(client, made, body))).fields[0].pointer == pointer


async def test_why_a_host_was_chosen_is_in_the_history(client: Client, quotes: AlwaysOpen) -> None:
    names = [f"hst_{n}" for n in range(25)]
    quotes.event_types["evt_visit"] = event_type(*names)
    await client.book(host_id="hst_0")
    made = (await client.book()).body
    assert made["host_ids"] == ["hst_1"]
    entry = (await history(client, made["id"]))["data"][0]
    why = entry["data"]["assignment"]
    assert (why["method"], why["among"]) == ("round_robin", 25)
    # The first of them was taken, so the second has it. Of very many only the first are told.
    assert why["candidates"] == [{"host_id": name, "rank": {}} for name in names[:20]]
    quotes.event_types["evt_visit"] = event_type()
    made = (await client.book(NOON + 4 * HALF_HOUR)).body
    entry = (await history(client, made["id"]))["data"][0]
    assert "assignment" not in entry["data"]


async def test_history_is_whole_and_in_pages(client: Client) -> None:
    made = (await client.book()).body["id"]
    await client.act(made, "reschedule", {"start_at": NOON + HALF_HOUR})
    await client.act(made, "cancel", {"reason": "ill"})
    page = await history(client, made)
    assert [row["type"] for row in page["data"]] == ["booking.created", "booking.rescheduled", "booking.cancelled"]
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    assert all(set(row["actor"]) == {"type", "id", "name"} for row in page["data"])
    assert page["data"][1]["data"]["previous"] == {"start_at": "2026-04-10T12:00:00Z", "end_at": "2026-04-10T12:30:00Z"}
    assert set(page["data"][1]["data"]) == {"start_at", "end_at", "host_ids", "resource_ids", "reason", "previous"}
    first = await history(client, made, "limit=1")
    assert (first["data"], first["has_more"]) == (page["data"][:1], True)
    rest = await history(client, made, f"cursor={first['next_cursor']}")
    assert rest["data"] == page["data"][1:]
    numbered = await history(client, made, "page=2&per_page=2")
    assert (numbered["data"], numbered["total"]) == (page["data"][2:], 3)
    assert (await refusal(history(client, "bkg_none"))).code == "not_found"
