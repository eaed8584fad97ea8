"""What commands and reads look at, of a tenant that has come since the planner's statistics were made; in rows that Postgres counts.

Such a tenant is taken for one of few rows, so that any index on it looks as good as the one that is meant, and costs all
that the tenant has.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from kalends_booking.handlers.context import Context
from kalends_booking.handlers.timers import fire
from kalends_shared.contracts.availability import Limit
from kalends_shared.db import Database
from kalends_shared.timers import TimerWorker

from .test_lists import FILL, FILL_PEOPLE
from .world import HALF_HOUR, NOON, NOW, AlwaysOpen, Client, event_type

BIG, NEW = "acc_big-live", "acc_new-live"
ROWS = 20_000
FILLS = (
    """
    INSERT INTO seats (tenant_id, holder_id, subject_id, slot, start_at, end_at, seats, status)
    SELECT tenant_id, id, 'hst_' || right(id, 2), event_type_id, start_at, end_at, 1, status FROM bookings
    WHERE tenant_id = $1
    """,
    """
    INSERT INTO reservations (tenant_id, subject_id, slot, start_at, end_at, during)
    SELECT tenant_id, subject_id, slot, start_at, end_at, tstzrange(start_at, end_at) FROM seats
    WHERE tenant_id = $1 AND start_at > '2026-04-01' AND start_at < '2026-04-04'
    """,
    "INSERT INTO streams (tenant_id, stream_id, version) SELECT tenant_id, id, 1 FROM bookings WHERE tenant_id = $1",
    """
    INSERT INTO events (tenant_id, stream_id, version, tx, id, type, schema_version, occurred_at, actor, data, state)
    SELECT tenant_id, id, 1, right(id, 10)::bigint, 'e' || id, 'booking.created', 1, start_at - interval '1 month', '{}', '{}',
        json_build_object('start_at', start_at, 'end_at', end_at, 'status', status)
    FROM bookings WHERE tenant_id = $1
    """,
    """
    INSERT INTO person_ids (tenant_id, email_hash, person_id, created_at)
    SELECT DISTINCT ON (person_id) tenant_id, decode(md5(person_id), 'hex'), person_id, start_at FROM bookings
    WHERE tenant_id = $1
    """,
    """
    INSERT INTO holds (tenant_id, id, version, state) SELECT tenant_id, replace(id, 'bkg', 'hld'), 1, '{}' FROM bookings
    WHERE tenant_id = $1
    """,
    """
    INSERT INTO idempotency (tenant_id, method, path, key, request_hash, status, headers, body, person_id)
    SELECT tenant_id, 'POST', '/bookings', id, '', 201, '{}', '{}', person_id FROM bookings WHERE tenant_id = $1
    """,
    """
    INSERT INTO timers (tenant_id, key, due_at, wake_at, kind, payload)
    SELECT tenant_id, id || '/due', start_at + interval '9 years', start_at + interval '9 years', 'start', '{}'
    FROM bookings WHERE tenant_id = $1
    """,
)
RELATIONS = """
SELECT array_agg(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'booking' AND c.relkind IN ('r', 'i')
"""
# What a session has read is counted seconds later, unless it is told to.
FLUSH = "SELECT pg_stat_force_next_flush()"
READ = "SELECT sum(pg_stat_get_tuples_returned(c) + pg_stat_get_tuples_fetched(c))::bigint FROM unnest($1::oid[]) c"


async def fill(owner: "asyncpg.Connection[Any]", tenant: str) -> None:
    await owner.execute(FILL, tenant, NOW - timedelta(minutes=ROWS // 2), NOW, ROWS)
    for statement in FILLS:
        await owner.execute(statement, tenant)
    await owner.execute(FILL_PEOPLE, tenant, NOW, ROWS)


class Reads:
    """One connection, while nobody else reads; Postgres tells how many rows of tables and indexes have been read."""

    def __init__(self, db: Database, relations: list[int]) -> None:
        self.db, self._relations = db, relations

    async def of(self, act: Callable[[], Awaitable[Any]]) -> int:
        before = await self._read()
        await act()
        return await self._read() - before

    async def _read(self) -> int:
        await self.db.pool.execute(FLUSH)
        return int(await self.db.pool.fetchval(READ, self._relations))


@pytest.fixture
async def reads(db: Database, owner: "asyncpg.Connection[Any]") -> AsyncIterator[Reads]:
    """Statistics of one tenant, and another as large that has come since."""
    await fill(owner, BIG)
    for row in await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'booking'"):
        await owner.execute(f"ALTER TABLE {row['tablename']} SET (autovacuum_enabled = false)")
        await owner.execute(f"ANALYZE {row['tablename']}")
    relations = await owner.fetchval(RELATIONS)
    await fill(owner, NEW)
    await owner.execute(FLUSH)
    one = await Database.connect(db.url, "booking", size=1)
    yield Reads(one, relations)
    await one.close()


async def test_a_tenant_newer_than_the_statistics_is_read_like_any_other(reads: Reads, quotes: AlwaysOpen) -> None:
    async def nudge() -> None:
        return

    client = Client(Context(reads.db, quotes, nudge), NEW)
    told: dict[str, int] = {}

    async def ask(name: str, act: Callable[[], Awaitable[Any]]) -> Any:
        answers = []

        async def kept() -> None:
            answers.append(await act())

        told[name] = await reads.of(kept)
        return answers[0]

    limits = [Limit(count=20, per="day"), Limit(count=500, per="month")]
    quotes.event_types["evt_visit"] = event_type("hst_41", "hst_42", limits=limits, max_active_per_booker=20)
    one = (await ask("create", lambda: client.book(NOON, key="one"))).body["id"]
    await ask("again", lambda: client.book(NOON, key="one"))
    series = {"recurrence": {"rrule": "FREQ=DAILY;COUNT=5"}}
    many = (await ask("series", lambda: client.book(NOON + HALF_HOUR, **series))).body["id"]
    await ask("reschedule", lambda: client.act(one, "reschedule", {"start_at": NOON + 5 * HALF_HOUR}))
    host = (await client.get(one))["host_ids"][0]
    other = {"host_id": "hst_41" if host == "hst_42" else "hst_42"}
    await ask("reassign", lambda: client.act(one, "reassign", other))
    await ask("get", lambda: client.get(one))
    params = {"id": one}
    await ask("history", lambda: client.ask("booking_history", method="GET", params=params))
    await ask(
        "as of", lambda: client.ask("get_booking", method="GET", params=params, query="as_of=2026-05-01T00:00:00Z")
    )
    await ask("cancel all", lambda: client.act(many, "cancel", {"scope": "all"}))
    wanted = {"event_type_id": "evt_visit", "start_at": NOON + 9 * HALF_HOUR}
    held = (await ask("hold", lambda: client.ask("create_hold", wanted, path="/holds", idempotency_key="h"))).body["id"]
    await ask("convert", lambda: client.book(NOON + 9 * HALF_HOUR, hold_id=held))
    await ask("get hold", lambda: client.ask("get_hold", method="GET", params={"id": held}))
    await ask("timers", lambda: TimerWorker(reads.db, fire).look())
    await ask("people", lambda: client.ask("list_people", method="GET", query="limit=20"))
    person = (await client.get(one))["person_id"]
    await ask("person", lambda: client.ask("get_person", method="GET", params={"id": person}))
    await ask("erase", lambda: client.ask("erase_person", method="DELETE", params={"id": person}))
    # Most is what limits count: of a series, for each occurrence and host, the 200 places that the host has.
    too_many = {name: rows for name, rows in told.items() if rows > ROWS // 4}
    assert not too_many, told
