"""A person is erased: nothing of what they told is left in any table of any service, nor in a log."""

import uuid
from typing import Any, Final

from harness.client import Client, booking, slot, until
from harness.judge import Judge
from harness.sink import Sink
from harness.stack import Stack

TABLES: Final = """
SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""
# Every column of every row as text, bytes too.
FOUND: Final = """
SELECT substring(text FROM '(?i).{{0,200}}(?:' || $1 || ').{{0,80}}')
FROM (SELECT encode(convert_to(t::text, 'UTF8'), 'escape') AS text FROM {table} t) t WHERE text ~* $1 LIMIT 1
"""
# No id, digest or secret has it by chance: some of its letters are in none of their alphabets.
MARK: Final = "lou-zoulou-7xk"
# What `bytea` looks like in a row's text is hexadecimal.
PATTERN: Final = f"{MARK}|{MARK.encode().hex()}"


async def kept(judge: Judge) -> dict[str, str]:
    """Table -> what one of its rows tells of what was told by the person, with what is around it."""
    found = {}
    for table in await judge.fetch(TABLES):
        for row in await judge.fetch(FOUND.format(table=table[0]), PATTERN):
            found[table[0]] = row[0]
    return found


async def test_nothing_is_left_of_an_erased_person(stack: Stack, api: Client, receiver: Sink) -> None:
    receiver.echoes, key = True, str(uuid.uuid4())
    judge = Judge(stack.database)
    host = await api.host()
    kind = await api.event_type(host, questions=[{"key": "why", "label": "Why", "type": "text"}])
    hook = await api.ok("POST", "/webhooks", {"url": receiver.url, "events": ["*"]})
    told: dict[str, Any] = {
        "booker_name": f"Zoe {MARK}",
        "booker_email": f"{MARK}@example.test",
        "guests": [{"name": f"Bob {MARK}", "email": f"bob.{MARK}@example.test"}],
        "answers": {"why": f"because {MARK}"},
    }
    body = booking(kind, slot(1), **told)
    made = (await api.persist("/bookings", body, key=key)).json()
    one = made["id"]
    series = booking(kind, slot(10), recurrence={"rrule": "FREQ=DAILY;COUNT=3"}, **told)
    assert (await api.persist("/bookings", series)).json()["series"]["booking_ids"]
    assert (await api.ok("PATCH", f"/bookings/{one}", {"booker_phone": "+34600000000"}))["booker_name"] == f"Zoe {MARK}"
    assert (await api.persist(f"/bookings/{one}/reschedule", {"start_at": slot(2)}, key=key)).status_code == 200
    moved = (await api.persist(f"/bookings/{one}/reschedule", {"start_at": slot(2)}, key=key)).json()
    assert moved["booker_email"] == told["booker_email"]
    person = moved["person_id"]

    async def delivered() -> bool:
        return receiver.bookings("booking.rescheduled")[one] > 0 and receiver.bookings("booking.confirmed").total() >= 4

    everywhere = {
        "booking.people",
        "booking.idempotency",
        "webhooks.public_events",
        "webhooks.deliveries",
        "calendar_sync.bookings",
    }

    async def told_everywhere() -> bool:
        before.update(await kept(judge))
        return before.keys() >= everywhere

    before: dict[str, str] = {}
    await until(delivered, 180, "the webhooks")
    sent = (await api.ok("GET", f"/webhooks/{hook['id']}/deliveries"))["data"][0]
    assert (await api.call("POST", f"/deliveries/{sent['id']}/retry")).status_code == 202
    # What was delivered is written down a moment later, and each service reads at its own pace.
    await until(told_everywhere, 180, "what the person told where it is kept")
    assert "booking.events" not in before

    await api.ok("DELETE", f"/people/{person}")

    async def gone() -> bool:
        return not await kept(judge)

    try:
        await until(gone, 180, "what the person told is everywhere gone")
    except AssertionError as error:
        raise AssertionError(await kept(judge)) from error
    logs = [
        log.name for log in (stack.folder / "logs").glob("*.log") if MARK in log.read_text(errors="replace").lower()
    ]
    assert logs == []
    shown = await api.ok("GET", f"/bookings/{one}")
    assert (shown["booker_name"], shown["booker_email"], shown["guests"], shown["answers"]) == (None, None, [], {})
    assert (shown["person_id"], shown["start_at"], shown["status"]) == (person, slot(2), "confirmed")
    replayed = await api.persist("/bookings", body, key=key)
    assert (replayed.status_code, replayed.json()["id"], replayed.json()["booker_email"]) == (201, one, None)
    history = (await api.ok("GET", f"/bookings/{one}/history"))["data"]
    assert [row["type"] for row in history] == ["booking.created", "booking.updated", "booking.rescheduled"]
    assert (await api.call("GET", f"/people/{person}")).status_code == 404
    await api.ok("DELETE", f"/webhooks/{hook['id']}")
    await judge.close()
