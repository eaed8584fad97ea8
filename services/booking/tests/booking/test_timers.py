"""What time does by itself, by the worker and by a test clock."""

import asyncio
from datetime import UTC, datetime, timedelta

from kalends_booking.handlers.timers import fire
from kalends_shared.db import Database
from kalends_shared.timers import TimerWorker

from .world import HALF_HOUR, NOON, TENANT, AlwaysOpen, Client, event_type

TYPES = "SELECT type FROM events WHERE tenant_id = $1 AND stream_id = $2 ORDER BY version"


async def types(db: Database, stream_id: str) -> list[str]:
    return [row["type"] for row in await db.pool.fetch(TYPES, TENANT, stream_id)]


async def advance(client: Client, to: datetime) -> None:
    client.now = to
    await client.ask("advance_clock", {"now": to}, mode="test")


async def test_after_downtime_what_is_due_is_told_once_by_two_workers(client: Client, db: Database) -> None:
    """Booked for a time that is past by the wall clock, as after a day without service."""
    client.now = datetime.now(UTC) - timedelta(days=2)
    start = client.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    ids = [(await client.book(start + HALF_HOUR * n)).body["id"] for n in range(20)]
    other = await Database.connect(db.url, "booking", size=4)
    try:
        workers = [TimerWorker(db, fire), TimerWorker(other, fire)]
        for _ in range(40):
            await asyncio.gather(*(worker.look() for worker in workers))
            if not await db.pool.fetchval("SELECT count(*) FROM timers"):
                break
    finally:
        await other.close()
    told = ["booking.created", "meeting.started", "meeting.ended", "booking.completed"]
    assert [await types(db, one) for one in ids] == [told] * 20
    assert {row["status"] for row in (await client.list())["data"]} == {"completed"}
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 20


async def test_a_test_clock_fires_what_it_passes_in_order(client: Client, db: Database) -> None:
    one = (await client.book()).body["id"]
    two = (await client.book(NOON + HALF_HOUR)).body["id"]
    await advance(client, NOON + HALF_HOUR / 2)
    assert await types(db, one) == ["booking.created", "meeting.started"]
    await advance(client, NOON + 4 * HALF_HOUR)
    rows = await db.pool.fetch(
        "SELECT stream_id, type, occurred_at FROM events WHERE tenant_id = $1 AND type LIKE 'meeting.%' ORDER BY tx, position",
        TENANT,
    )
    assert [(row["stream_id"], row["type"], row["occurred_at"]) for row in rows] == [
        (one, "meeting.started", NOON),
        (one, "meeting.ended", NOON + HALF_HOUR),
        (two, "meeting.started", NOON + HALF_HOUR),
        (two, "meeting.ended", NOON + 2 * HALF_HOUR),
    ]


async def test_a_request_expires(client: Client, db: Database, quotes: AlwaysOpen) -> None:
    quotes.event_types["evt_visit"] = event_type(requires_confirmation=True, confirmation_expires_minutes=60)
    one = (await client.book()).body["id"]
    await advance(client, client.now + timedelta(minutes=59))
    assert (await client.get(one))["status"] == "pending"
    await advance(client, client.now + timedelta(minutes=1))
    gone = await client.get(one)
    assert (gone["status"], gone["reason"]) == ("declined", "expired")
    assert (await client.book()).status == 201


async def test_a_moved_booking_moves_its_timer_and_a_cancelled_one_has_none(client: Client, db: Database) -> None:
    one = (await client.book()).body["id"]
    await client.act(one, "reschedule", {"start_at": NOON + 4 * HALF_HOUR})
    assert await db.pool.fetchval("SELECT due_at FROM timers WHERE key LIKE $1", f"{one}%") == NOON + 4 * HALF_HOUR
    await client.act(one, "cancel")
    assert await db.pool.fetchval("SELECT count(*) FROM timers") == 0
