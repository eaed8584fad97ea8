import asyncio
import random

import asyncpg
import msgspec
import pytest

from kalends_shared import event_store
from kalends_shared.contracts.events import Actor
from kalends_shared.db import Database, transient
from kalends_shared.event_store import Position, Stored, VersionConflict
from kalends_shared.testkit import scale

from .helpers import NOW, TENANT, append, call, event, eventually, stored_ids, tailed, version_of


async def test_what_is_appended_is_what_is_read(db: Database) -> None:
    made = event("thing.created", data={"a": 1}, state={"id": "thg_1"})
    made = msgspec.structs.replace(made, state=b'{"b":1.0,  "a":"\xc3\xa9"}')
    by = call(actor=Actor("key", "key_1", "Shop"), request_id="req-1", traceparent="00-a-b-01")
    async with db.transaction() as conn:
        appended = await event_store.append(conn, by, "thg_1", 0, [made], ["hst_1"], causation_id="cause")
    async with db.pool.acquire() as conn:
        (stored,) = await event_store.history(conn, TENANT, "thg_1")
    assert appended == (1, stored.tx, stored.position)
    assert (stored.id, stored.type, stored.version, stored.schema_version) == (made.id, "thing.created", 1, 1)
    assert (stored.data, stored.state) == (made.data, made.state)
    assert (stored.occurred_at, stored.correlation_id, stored.causation_id) == (NOW, "req-1", "cause")
    assert (stored.actor, stored.traceparent) == (b'{"type":"key","id":"key_1","name":"Shop"}', "00-a-b-01")


async def test_several_events_take_versions_and_positions_in_order(db: Database) -> None:
    events = [event(f"thing.step{n}") for n in range(20)]
    async with db.pool.acquire() as conn:
        appended = await event_store.append(conn, call(), "thg_1", 0, events)
        stored = await event_store.history(conn, TENANT, "thg_1", 0, 100)
        assert await event_store.history(conn, TENANT, "thg_1", 18) == stored[18:]
    assert [s.type for s in stored] == [e.type for e in events]
    assert [s.version for s in stored] == list(range(1, 21))
    assert appended == (20, stored[-1].tx, stored[-1].position)
    assert await tailed(db) == sorted(stored, key=lambda s: s.at) == stored


@pytest.mark.parametrize("expected", [0, 2, 7])
async def test_another_version_is_a_conflict_and_takes_no_transaction_id(db: Database, expected: int) -> None:
    async with db.transaction() as conn:
        await event_store.append(conn, call(), "thg_1", 0, [event()])
    async with db.pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        with pytest.raises(VersionConflict):
            await event_store.append(conn, call(), "thg_1", expected, [event()])
        await transaction.rollback()
        await conn.execute("BEGIN")
        await conn.execute(
            "DO $$ BEGIN PERFORM append_events('t', 's', 1, '{}', '{a}', '{b}', '{1}', '{1}', '{1}', now(), '{}', null, null, null);"
            " EXCEPTION WHEN SQLSTATE 'KE001' THEN NULL; END $$"
        )
        assert await conn.fetchval("SELECT pg_current_xact_id_if_assigned()::text") is None
        await conn.execute("ROLLBACK")


async def test_an_append_of_nothing_is_an_error(db: Database) -> None:
    with pytest.raises(asyncpg.PostgresError, match="needs an event"):
        async with db.transaction() as conn:
            await event_store.append(conn, call(), "thg_1", 0, [])


async def test_one_of_many_appends_at_a_version_wins(db: Database) -> None:
    async def once() -> bool:
        async with db.pool.acquire() as conn:
            try:
                await event_store.append(conn, call(), "thg_1", 0, [event()])
            except VersionConflict:
                return False
            return True

    assert sum(await asyncio.gather(*(once() for _ in range(40)))) == 1


async def test_tenants_share_no_stream(db: Database) -> None:
    async with db.pool.acquire() as conn:
        await event_store.append(conn, call(tenant="a-live"), "thg_1", 0, [event()])
        await event_store.append(conn, call(tenant="a-test"), "thg_1", 0, [event()])
        assert [len(await event_store.history(conn, tenant, "thg_1")) for tenant in ("a-live", "a-test", "b-live")] == [
            1,
            1,
            0,
        ]


@pytest.mark.parametrize(
    "statement", ["UPDATE events SET type = 'x'", "DELETE FROM events WHERE false", "TRUNCATE events"]
)
async def test_not_even_the_owner_changes_events(db: Database, database_url: str, statement: str) -> None:
    async with db.pool.acquire() as conn:
        await event_store.append(conn, call(), "thg_1", 0, [event()])
    owner = await asyncpg.connect(database_url, server_settings={"search_path": db.schema})
    with pytest.raises(asyncpg.PostgresError, match="forbidden") as refused:
        await owner.execute(statement)
    assert refused.value.sqlstate == "KE002"
    assert await owner.fetchval("SELECT count(*) FROM events") == 1
    await owner.close()


async def test_commands_over_the_same_subjects_in_any_order_never_deadlock(db: Database) -> None:
    """Each takes two of four hosts and appends to two of four streams: without sorted locks first, 40P01."""
    versions = dict.fromkeys(("s1", "s2", "s3", "s4"), 0)

    connections = asyncio.Semaphore(8)  # as the pool has; who waits for one there gives up after 10 s

    async def swap(seed: int) -> None:
        pick = random.Random(seed)
        streams, hosts = pick.sample(sorted(versions), 2), pick.sample(["h1", "h2", "h3", "h4"], 2)
        async with connections, db.transaction() as conn:
            await event_store.lock(conn, TENANT, [*streams, *hosts])
            for stream in streams:
                await event_store.append(conn, call(), stream, await version_of(conn, stream), [event()], hosts)
                versions[stream] += 1

    async with asyncio.timeout(200):
        await asyncio.gather(*(swap(seed) for seed in range(scale.count(reduced=120, full=2_000))))
    async with db.pool.acquire() as conn:
        for stream, version in versions.items():
            assert await version_of(conn, stream) == version


async def test_the_tail_stops_below_an_open_transaction(db: Database) -> None:
    async with db.pool.acquire() as slow, db.pool.acquire() as fast:
        opened = slow.transaction()
        await opened.start()
        first = await event_store.append(slow, call(), "thg_slow", 0, [event()])
        second = await event_store.append(fast, call(), "thg_fast", 0, [event()])
        assert second.at > first.at
        assert await event_store.tail(fast, Position(), 10) == []
        await opened.commit()
    assert [s.at for s in await tailed(db)] == [first.at, second.at]


class ByPosition:
    """A tail by position alone, as it should not be."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    async def read(self, db: Database, done: asyncio.Event) -> None:
        while True:
            last_round = done.is_set()
            rows = await db.pool.fetch(
                "SELECT position FROM events WHERE position > $1 ORDER BY position LIMIT 50", max(self.seen, default=0)
            )
            self.seen |= {row["position"] for row in rows}
            if last_round and not rows:
                return
            await asyncio.sleep(0.001)

    async def miss_one(self, db: Database) -> None:
        """Commits an event when this tail is past it."""
        conn = await db.direct()
        await conn.execute("SET transaction_timeout = 0; SET idle_in_transaction_session_timeout = 0; BEGIN")
        late = await event_store.append(conn, call(), "thg_late", 0, [event()])
        soon = await append(db, "thg_soon", 0)
        assert soon.position > late.position

        async def passed() -> bool:
            return max(self.seen, default=0) > late.position

        await eventually(passed)
        await conn.execute("COMMIT")
        await conn.close()


async def test_no_tail_misses_an_event_of_transactions_that_commit_out_of_order(
    db: Database, database_url: str
) -> None:
    """Writers hold transactions open for random times while tails read on; a tail by position alone loses events."""
    reader = await Database.connect(database_url, db.schema, size=3)
    done = asyncio.Event()
    count = scale.count(reduced=600, full=15_000)

    async def write(seed: int) -> None:
        pick = random.Random(seed)
        for _ in range(count // 12):
            async with db.transaction() as conn:
                stream = f"thg_{pick.randrange(30)}"
                await event_store.lock(conn, TENANT, [stream])
                events = [event() for _ in range(pick.randint(1, 3))]
                await event_store.append(conn, call(), stream, await version_of(conn, stream), events)
                await asyncio.sleep(pick.random() * 0.02)

    async def read_by_horizon() -> list[Stored]:
        seen: list[Stored] = []
        while True:
            last_round = done.is_set() and len(seen) == len(await stored_ids(db))
            async with reader.pool.acquire() as conn:
                page = await event_store.tail(conn, seen[-1].at if seen else Position(), 50)
            seen += page
            if last_round and not page:
                return seen
            await asyncio.sleep(0.001)

    naive = ByPosition()
    tails = asyncio.gather(read_by_horizon(), naive.read(reader, done))
    await asyncio.gather(naive.miss_one(db), *(write(seed) for seed in range(12)))
    done.set()
    tailed, _ = await tails
    rows = await reader.pool.fetch("SELECT tx, position FROM events ORDER BY tx, position")
    await reader.close()

    assert [s.at for s in tailed] == [Position(*row) for row in rows]
    assert len(naive.seen) < len(rows), "the transactions were not adversarial enough to show anything"
    versions: dict[str, int] = {}
    for stored in tailed:
        assert stored.version == versions.get(stored.stream_id, 0) + 1
        versions[stored.stream_id] = stored.version


async def test_a_raised_epoch_keeps_positions_ascending(db: Database, database_url: str) -> None:
    async with db.pool.acquire() as conn:
        before = await event_store.append(conn, call(), "thg_1", 0, [event()])
        owner = await asyncpg.connect(database_url, server_settings={"search_path": db.schema})
        await owner.execute("UPDATE epoch SET tx_offset = 1000000000000")
        await owner.close()
        after = await event_store.append(conn, call(), "thg_1", 1, [event()])
        assert after.tx > before.tx + 999_999_999_999
    assert [s.at for s in await tailed(db)] == [before.at, after.at]


async def test_after_a_restore_new_events_sort_after_the_old(db: Database, database_url: str) -> None:
    owner = await asyncpg.connect(database_url, server_settings={"search_path": db.schema})
    await owner.execute("UPDATE epoch SET tx_offset = 1000000000000")  # as if this server counted so high before
    async with db.pool.acquire() as conn:
        before = await event_store.append(conn, call(), "thg_1", 0, [event()])
        await owner.execute("UPDATE epoch SET tx_offset = 0")
        offset = await event_store.raise_epoch(owner)
        assert await event_store.raise_epoch(owner) == offset
        after = await event_store.append(conn, call(), "thg_1", 1, [event()])
        assert after.tx > before.tx
    assert [s.at for s in await tailed(db)] == [before.at, after.at]
    await owner.close()


async def test_a_statement_prepared_before_a_migration_may_be_tried_again(db: Database, database_url: str) -> None:
    async with db.pool.acquire() as conn:
        await conn.fetch("SELECT * FROM streams")
        owner = await asyncpg.connect(database_url, server_settings={"search_path": db.schema})
        await owner.execute("ALTER TABLE streams ADD COLUMN extra text")
        await owner.close()
        async with conn.transaction():
            with pytest.raises(asyncpg.PostgresError) as refused:
                await conn.fetch("SELECT * FROM streams")
    assert transient(refused.value)


@pytest.mark.parametrize("text", ["", "1", "1.", ".1", "1.2.3", "-1.2", "1.x", "١.١"])
def test_a_position_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Position.parse(text)


def test_a_position_reads_as_it_is_written() -> None:
    assert Position.parse(str(Position(12, 34))) == Position(12, 34)
