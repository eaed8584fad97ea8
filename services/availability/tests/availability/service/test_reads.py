"""What is read to answer: rows counted by Postgres itself, so that neither the machine nor its load matters."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client as Bus

from kalends_availability.store import objects
from kalends_shared.db import Database

from .world import ALWAYS, NOW, Client, Node, at

PAST = """
INSERT INTO busy (tenant_id, id, version, subject_id, resource_id, event_type_id, reserved_from, reserved_to, start_min,
    end_min, seats, status, created_at, seen_from, seen_until)
SELECT $1, 'bkg_past_' || n, 1, $2, $3, $4, minute, minute + 30, minute, minute + 30, 1, 'completed', made, made, $7
FROM generate_series($5::integer, $5::integer + 4999) n,
    LATERAL (SELECT extract(epoch FROM $6::timestamptz)::integer / 60 - n * 30 AS minute) AS a,
    LATERAL (SELECT to_timestamp(minute * 60) - interval '1 day' AS made) AS b
ON CONFLICT DO NOTHING
"""


class Explained:
    """A pool that has Postgres count the rows which each query reads, and then runs it."""

    def __init__(self, db: Database) -> None:
        self._pool = db.pool
        self.rows = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        explained = await self._pool.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *values)
        for node in _nodes(msgspec.json.decode(explained)[0]["Plan"]):
            if "Relation Name" in node or "Index Name" in node:
                passed = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                self.rows += passed * node["Actual Loops"]
        return list(await self._pool.fetch(sql, *values))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


class Watched(Database):
    """The same database, with the pool that explains."""

    def __init__(self, db: Database) -> None:
        super().__init__(Explained(db), db.url, db.direct_url, db.schema)  # type: ignore[arg-type]


@pytest.fixture
async def watched(db: Database, bus: Bus) -> tuple[Client, Explained]:
    explained = Watched(db)
    node = await Node.start(explained, bus)
    return Client(node), explained.pool  # type: ignore[return-value]


async def analyze(db: Database) -> None:
    """Makes statistics of all tables, as their owner, which stay: autovacuum would have plans change midway."""
    owner = await asyncpg.connect(db.url)
    for row in await owner.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", db.schema):
        await owner.execute(f"ALTER TABLE {db.schema}.{row['tablename']} SET (autovacuum_enabled = false)")
        await owner.execute(f"ANALYZE {db.schema}.{row['tablename']}")
    await owner.close()


async def asked(api: Client, pool: Explained, kind: Any) -> float:
    """Rows read to answer everything about an event type that nothing is known of."""
    api.node.replica.clear()
    pool.rows = 0.0
    await api.starts(kind["id"])
    await api.starts(kind["id"], "start=2026-04-06&end=2026-07-05")
    await api.ask("explain", method="GET", params={"id": kind["id"]}, query="start_at=2026-04-06T09:00:00Z")
    await api.quote(kind["id"], at(9))
    return pool.rows


@pytest.mark.parametrize("superseded", [False, True], ids=["completed", "superseded"])
async def test_a_host_with_50_000_past_bookings_is_read_like_one_with_none(
    watched: tuple[Client, Explained], db: Database, owner: "asyncpg.Connection[Any]", superseded: bool
) -> None:
    api, pool = watched
    room = await api.made("resource", {"name": "Room"})
    hosts = [await api.host(ALWAYS) for _ in range(2)]
    settings = {
        "assignment": "round_robin", "resource_ids": [room["id"]],
        "limits": [{"count": 20, "per": "day"}, {"count": 40, "per": "week"}, {"count": 99, "per": "month"}],
    }  # fmt: skip
    kind = await api.event_type(*hosts, **settings)
    await api.booked(kind, at(9), units=[f"{room['id']}#1"])
    # Until the month before last, and so before any that a limit counts.
    last = NOW - timedelta(days=92)
    seen_until = last if superseded else None

    async def past(tenant: str, subject: str, resource: str | None, bookings: int) -> None:
        for first in range(0, bookings, 5_000):
            await owner.execute(PAST, tenant, subject, resource, kind["id"], first, last, seen_until)

    # Statistics that know nothing of this tenant, as they are while it is filled.
    await past("acc_other-live", "hst_other", None, 5_000)
    await analyze(db)
    before = await asked(api, pool, kind)
    assert before > 0
    await past(api.tenant, hosts[0]["id"], None, 50_000)
    await past(api.tenant, f"{room['id']}#1", room["id"], 50_000)
    # Of a host that has not been booked lately, a row or two are read more: its last booking's. Not a hundred thousand.
    assert await asked(api, pool, kind) <= before + 20


async def test_whether_a_schedule_has_holidays_takes_one_look(watched: tuple[Client, Explained]) -> None:
    """A process that begins asks, so that what knows them is there before the first question."""
    api, pool = watched
    for _ in range(5):
        await api.made("schedule", ALWAYS)
    await api.made("schedule", ALWAYS | {"holidays": {"country": "ES"}})
    pool.rows = 0.0
    assert await objects.holidays(pool)
    assert pool.rows == 1
