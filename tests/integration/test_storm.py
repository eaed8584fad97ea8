"""Races over the public API: one slot, one key, many at once."""

import asyncio
import uuid
from collections import Counter

from harness.client import Client, booking, slot


async def test_one_slot_is_booked_once(api: Client):
    kind = await api.event_type()
    answers = await asyncio.gather(*(api.book(kind, slot(20)) for _ in range(200)))
    codes = Counter(a.json().get("code", a.status_code) for a in answers)
    assert codes == {201: 1, "slot_taken": 199}
    for answer in answers:
        if answer.status_code == 409:
            starts = [one["start_at"] for one in answer.json()["alternatives"]]
            assert slot(20) not in starts
    assert any(a.json().get("alternatives") for a in answers)


async def test_one_key_makes_one_booking(api: Client):
    kind, key = await api.event_type(), str(uuid.uuid4())
    body = booking(kind, slot(20))
    answers = await asyncio.gather(*(api.call("POST", "/bookings", body, key=key) for _ in range(50)))
    made = [a for a in answers if a.status_code == 201]
    others = [a for a in answers if a.status_code != 201]
    assert {a.json()["code"] for a in others} <= {"idempotency_in_flight"}
    assert len({a.json()["id"] for a in made}) == 1
    assert sum(a.headers.get("idempotent-replayed") != "true" for a in made) == 1
    rows = (await api.ok("GET", "/bookings", params={"event_type_id": kind}))["data"]
    assert len(rows) == 1


async def test_two_that_swap_their_times_do_not_deadlock(api: Client):
    kind = await api.event_type()
    for round_ in range(5):
        base = 10 * round_
        one, two = [(await api.book(kind, slot(base + n))).json()["id"] for n in (0, 1)]
        answers = await asyncio.gather(
            api.call("POST", f"/bookings/{one}/reschedule", {"start_at": slot(base + 1)}),
            api.call("POST", f"/bookings/{two}/reschedule", {"start_at": slot(base)}),
        )
        assert {a.status_code for a in answers} <= {200, 409}
        starts = {
            (await api.ok("GET", f"/bookings/{one}"))["start_at"],
            (await api.ok("GET", f"/bookings/{two}"))["start_at"],
        }
        assert starts == {slot(base), slot(base + 1)}


async def test_what_was_booked_just_before_is_no_alternative(api: Client):
    for _ in range(10):
        kind = await api.event_type(limits=[{"count": 1, "per": "day"}])
        assert (await api.book(kind, slot(1))).status_code == 201
        refused = await api.book(kind, slot(5))
        assert refused.json()["code"] == "limit_reached"
        assert {one["start_at"][:10] for one in refused.json()["alternatives"]} == {slot(48)[:10]}
