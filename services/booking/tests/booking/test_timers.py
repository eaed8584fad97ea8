"""What time does by itself, by the worker and by a test clock."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from booking_kit import misplaced

from kalends_booking.handlers.timers import fire
from kalends_booking.store import rebuild
from kalends_shared import event_store
from kalends_shared.db import Connection, Database
from kalends_shared.servers import Nats
from kalends_shared.testkit.waiting import eventually_async
from kalends_shared.timers import Timer, TimerWorker

from .world import HALF_HOUR, NOON, TENANT, AlwaysOpen, Client, event_type

TYPES = "SELECT type FROM events WHERE tenant_id = $1 AND stream_id = $2 ORDER BY version"


async def types(db: Database, stream_id: str) -> list[str]:
    return [row["type"] for row in await db.pool.fetch(TYPES, TENANT, stream_id)]


async def advance(client: Client, to: datetime) -> str:
    """Moves the test clock; returns the position that its answer tells."""
    client.now = to
    position: str = (await client.ask("advance_clock", {"now": to}, mode="test")).body["position"]
    return position


async def test_after_downtime_what_is_due_is_told_once_by_two_workers(client: Client, db: Database) -> None:
    """Booked for a time that is past by the wall clock, as after a day without service."""
    client.now = datetime.now(UTC) - timedelta(days=2)
    start = client.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    ids = [(await client.book(start + HALF_HOUR * n)).body["id"] for n in range(20)]
    other = await Database.connect(db.url, "booking", size=4)
    try:
        workers = [TimerWorker(db, fire), TimerWorker(other, fire)]

        async def done() -> bool:
            await asyncio.gather(*(worker.look() for worker in workers))
            return not await db.pool.fetchval("SELECT count(*) FROM timers")

        await eventually_async(done)
    finally:
        await other.close()
    told = ["booking.created", "meeting.started", "meeting.ended", "booking.completed"]
    assert [await types(db, one) for one in ids] == [told] * 20
    assert {row["status"] for row in (await client.list())["data"]} == {"completed"}
    assert await db.pool.fetchval("SELECT count(*) FROM reservations") == 20


BLOCKED = """
SELECT a.application_name FROM pg_stat_activity a
WHERE a.datname = current_database() AND $1 = ANY (pg_blocking_pids(a.pid))
"""


def started(database_url: str, nats_url: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A replica of the real service."""
    env = os.environ | {
        "KALENDS_DATABASE_URL": database_url, "KALENDS_NATS_URL": nats_url, "KALENDS_RUN_DIR": str(folder),
        "KALENDS_PROCESS_NAME": name,
    }  # fmt: skip
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "kalends_booking"], env=env, stdout=log, stderr=log)


async def test_after_downtime_bookings_are_told_of_in_the_order_of_their_times(client: Client, db: Database) -> None:
    client.now = datetime.now(UTC) - timedelta(days=2)
    start = client.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    for n in range(6):
        await client.book(start + HALF_HOUR * n)
    await TimerWorker(db, fire).look()
    rows = await db.pool.fetch("SELECT type, occurred_at FROM events WHERE type LIKE 'meeting.%' ORDER BY tx, position")
    assert [row["type"] for row in rows].count("meeting.ended") == 6
    assert [row["occurred_at"] for row in rows] == sorted(row["occurred_at"] for row in rows)


async def test_kill_9_in_the_middle_of_a_batch_loses_nothing_and_tells_nothing_twice(
    client: Client, db: Database, database_url: str, own_nats: Nats, tmp_path: Path
) -> None:
    """A row that somebody holds stops a replica's batch halfway, after its events were appended; there it is killed."""
    ids = []
    for tenant in ("acc_one-live", "acc_two-live", "acc_two-test"):
        of_tenant = Client(client.ctx, tenant)
        of_tenant.now = datetime.now(UTC) - timedelta(days=2)
        start = of_tenant.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        ids += [(await of_tenant.book(start + HALF_HOUR * n)).body["id"] for n in range(40)]
    replicas = {}
    holder, looker = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT FROM booking.bookings WHERE id = $1 FOR UPDATE", ids[60])
            replicas = {
                name: await asyncio.to_thread(started, database_url, own_nats.url, tmp_path, name)
                for name in ("booking-1", "booking-2")
            }
            blocked: list[str] = []

            async def stuck() -> bool:
                blocked[:] = [row[0] for row in await looker.fetch(BLOCKED, holder.get_server_pid())]
                return bool(blocked)

            await eventually_async(stuck)
            victim = replicas.pop(blocked[0].removeprefix("kalends-"))
            victim.kill()
            await asyncio.to_thread(victim.wait)

        async def done() -> bool:
            return not await db.pool.fetchval("SELECT count(*) FROM timers")

        await eventually_async(done)
    finally:
        await holder.close()
        await looker.close()
        for replica in replicas.values():
            replica.kill()
            await asyncio.to_thread(replica.wait)
    told = ["booking.created", "meeting.started", "meeting.ended", "booking.completed"]
    rows = await db.pool.fetch("SELECT stream_id, array_agg(type ORDER BY version) AS told FROM events GROUP BY 1")
    assert {row["stream_id"]: row["told"] for row in rows} == dict.fromkeys(ids, told)


async def test_a_stream_that_changes_while_its_batch_is_decided_is_fired_at_the_next_look(
    client: Client, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.now = datetime.now(UTC) - timedelta(days=2)
    start = client.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    one, two = [(await client.book(start + HALF_HOUR * n)).body["id"] for n in range(2)]
    lock_all = event_store.lock_all

    async def cancelled_meanwhile(conn: Connection, keys: Sequence[tuple[str, str]]) -> None:
        monkeypatch.setattr(event_store, "lock_all", lock_all)
        await client.act(one, "cancel")
        await lock_all(conn, keys)

    monkeypatch.setattr(event_store, "lock_all", cancelled_meanwhile)
    worker = TimerWorker(db, fire, concurrency=1)
    await worker.look()
    assert await types(db, two) == ["booking.created"]
    await worker.look()
    assert await types(db, one) == ["booking.created", "booking.cancelled"]
    assert await types(db, two) == ["booking.created", "meeting.started", "meeting.ended", "booking.completed"]
    assert not await db.pool.fetchval("SELECT count(*) FROM timers")


class Counted:
    """A connection that counts its statements."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self.statements = 0

    def __getattr__(self, name: str) -> Any:
        self.statements += 1
        return getattr(self._conn, name)


async def test_timers_of_many_tenants_are_told_at_once_but_for_one_that_has_moved_on(
    client: Client, db: Database, quotes: AlwaysOpen
) -> None:
    """Meetings that are over, requests that nobody answered and holds that have run out, each tenant's beside another's."""
    made: dict[str, tuple[str, str, str]] = {}
    for n in range(12):
        of_tenant = Client(client.ctx, f"acc_{n}-live")
        of_tenant.now = datetime.now(UTC) - timedelta(days=2)
        start = of_tenant.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        quotes.event_types["evt_visit"] = event_type()
        ended = (await of_tenant.book(start)).body["id"]
        wanted = {"event_type_id": "evt_visit", "start_at": start + HALF_HOUR}
        held = (await of_tenant.ask("create_hold", wanted, path="/holds", idempotency_key="hold")).body["id"]
        quotes.event_types["evt_visit"] = event_type(requires_confirmation=True, confirmation_expires_minutes=60)
        asked = (await of_tenant.book(start + 4 * HALF_HOUR)).body["id"]
        made[of_tenant.tenant] = (ended, held, asked)
    rows = await db.pool.fetch("SELECT tenant_id, key, due_at, kind, payload, attempts FROM timers ORDER BY due_at")
    due = [Timer(**dict(row), now=datetime.now(UTC)) for row in rows]
    assert len(due) == 36
    late = Client(client.ctx, "acc_7-live")
    late.now = datetime.now(UTC) - timedelta(days=2)

    class Meanwhile(Counted):
        async def execute(self, *args: Any) -> Any:
            """The locks come after the streams were read; in between, one of them changes."""
            if self.statements < 3:
                await late.act(made["acc_7-live"][0], "cancel")
            self.statements += 1
            return await self._conn.execute(*args)

    async with db.transaction() as conn:
        watched = Meanwhile(conn)
        left = await fire(watched, due)  # type: ignore[arg-type]
    assert {timer.tenant_id for timer in left} == {"acc_7-live"}
    # Two looks at what there is, the locks, the commit: however many tenants.
    assert watched.statements == 4
    told = "SELECT stream_id, array_agg(type ORDER BY version) AS told FROM events WHERE version > 1 GROUP BY 1"
    over = ["meeting.started", "meeting.ended", "booking.completed"]
    expected = {made["acc_7-live"][0]: ["booking.cancelled"]}
    for tenant, (ended, held, asked) in made.items():
        if tenant != "acc_7-live":
            expected |= {ended: over, held: ["hold.expired"], asked: ["booking.declined"]}
    assert {row["stream_id"]: row["told"] for row in await db.pool.fetch(told)} == expected
    assert await misplaced(db) == []
    assert await rebuild.rebuild(db, write=False) == []


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


async def test_a_moved_clock_tells_up_to_where_its_timers_have_written(client: Client, db: Database) -> None:
    booked = await client.book()
    assert await advance(client, NOON - HALF_HOUR) == booked.position
    told = await advance(client, NOON + HALF_HOUR)
    last = await db.pool.fetchrow("SELECT tx, position FROM events ORDER BY tx DESC, position DESC LIMIT 1")
    assert last is not None
    assert told == f"booking:{last['tx']}.{last['position']}" != booked.position


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
