import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from kalends_shared import event_store, timers
from kalends_shared.db import Connection, Database
from kalends_shared.timers import Key, Timer, TimerWorker

from .helpers import TENANT, call, event, eventually, running, version_of

FROZEN = "acc_test-test"


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


class Bell:
    """Appends an event a firing; `broken` keys fail, and with them their batch; `busy` ones cannot be fired now."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.at: list[datetime] = []
        self.sizes: list[int] = []
        self.broken: set[str] = set()
        self.busy: set[str] = set()

    async def __call__(self, conn: Connection, due: Sequence[Timer]) -> list[Timer]:
        assert await conn.fetchval("SELECT pg_current_xact_id_if_assigned()::text") is None, (
            "a claim takes no transaction id"
        )
        assert len({timer.stream_id for timer in due}) == len(due), "one timer a stream"
        await event_store.lock_all(conn, [(timer.tenant_id, timer.stream_id) for timer in due])
        free = [timer for timer in due if timer.key not in self.busy]
        for timer in free:
            version = await version_of(conn, timer.stream_id, timer.tenant_id)
            await event_store.append(conn, call(tenant=timer.tenant_id), timer.stream_id, version, [event(timer.kind)])
            if timer.key in self.broken:
                raise ZeroDivisionError
        await asyncio.sleep(0)
        self.rung += [timer.key for timer in free]
        self.at += [timer.now for timer in free]
        self.sizes.append(len(due))
        return [timer for timer in due if timer.key in self.busy]


async def set_timer(conn: Connection, key: str, due_at: datetime, tenant: str = TENANT) -> None:
    """As a service's own SQL does it."""
    await conn.execute("SELECT set_timer($1, $2, $3, 'rang', $4)", tenant, key, due_at, b"null")


async def put(db: Database, *keyed: tuple[str, float], tenant: str = TENANT) -> None:
    async with db.transaction() as conn:
        for key, seconds in keyed:
            await set_timer(conn, key, ago(seconds), tenant)


async def left(db: Database) -> list[str]:
    return [row["key"] for row in await db.pool.fetch("SELECT key FROM timers ORDER BY key")]


async def empty(db: Database) -> bool:
    return await left(db) == []


async def test_replicas_fire_each_timer_once(db: Database) -> None:
    await put(db, *((f"bkg_{n}/end", 1.0) for n in range(250)))
    bell = Bell()
    async with running(*(TimerWorker(db, bell, concurrency=3).run for _ in range(3))):
        await eventually(lambda: empty(db))
    assert sorted(bell.rung) == sorted(f"bkg_{n}/end" for n in range(250))
    assert await db.pool.fetchval("SELECT count(*) FROM events") == 250
    assert max(bell.sizes) > 1, "many fire together"


async def test_timers_of_many_tenants_fire_together_and_their_relay_is_woken(db: Database) -> None:
    for n in range(20):
        await put(db, (f"bkg_{n}/end", 1), tenant=f"acc_{n}-live")
    bell, woken = Bell(), []

    async def fired() -> None:
        woken.append(await left(db))

    await TimerWorker(db, bell, fired, concurrency=1).look()
    assert (bell.sizes, woken) == ([20], [[]])


async def test_timers_of_a_stream_fire_in_due_order_across_replicas(db: Database) -> None:
    for n in range(30):
        await put(db, (f"bkg_{n}/c", 1), (f"bkg_{n}/b", 2), (f"bkg_{n}/a", 3), (f"bkg_{n}/d", 0.5))
    bell = Bell()
    async with running(*(TimerWorker(db, bell, concurrency=3).run for _ in range(2))):
        await eventually(lambda: empty(db))
    for n in range(30):
        assert [key for key in bell.rung if key.startswith(f"bkg_{n}/")] == [f"bkg_{n}/{what}" for what in "abcd"]


async def test_one_fires_when_it_is_due_and_not_before(db: Database) -> None:
    bell = Bell()
    worker = TimerWorker(db, bell)
    async with running(worker.run):
        due_at = ago(-1)
        async with db.transaction() as conn:
            await set_timer(conn, "bkg_1/end", due_at)
            await set_timer(conn, "bkg_2/end", ago(-3600))
        await eventually(lambda: _rang(bell, 1))
    assert bell.rung == ["bkg_1/end"]
    assert await db.pool.fetchval("SELECT recorded_at FROM events") >= due_at, "by the server's clock"
    assert await left(db) == ["bkg_2/end"]


async def _rang(bell: Bell, count: int) -> bool:
    return len(bell.rung) == count


async def test_a_cancelled_or_moved_timer_does_not_fire(db: Database) -> None:
    await put(db, ("bkg_1/end", 1), ("bkg_2/end", 1))
    async with db.transaction() as conn:
        await conn.execute("SELECT cancel_timers($1, $2)", TENANT, ["bkg_1/end", "bkg_9/end"])
        await set_timer(conn, "bkg_2/end", ago(-3600))
    bell = Bell()
    assert await TimerWorker(db, bell).look() > 0
    assert (bell.rung, await left(db)) == ([], ["bkg_2/end"])


async def test_one_that_is_moved_between_look_and_claim_does_not_fire(db: Database) -> None:
    await put(db, ("bkg_1/end", 1))
    row = await db.pool.fetchrow("SELECT tenant_id, key, due_at FROM timers")
    assert row is not None
    await put(db, ("bkg_1/end", -3600))
    bell = Bell()
    assert not await TimerWorker(db, bell)._together([Key(**dict(row), attempts=0)])
    assert bell.rung == []


async def test_one_that_another_is_at_work_on_is_passed_over(db: Database) -> None:
    await put(db, ("bkg_1/a", 2), ("bkg_1/b", 2), ("bkg_2/a", 1))
    keys = [Key(**dict(row), attempts=0) for row in await db.pool.fetch("SELECT tenant_id, key, due_at FROM timers")]
    bell = Bell()
    async with db.transaction() as other:
        assert len(await timers._claim(other, keys, 1, frozen=False)) == 1
        await TimerWorker(db, bell).look()
        assert bell.rung == ["bkg_2/a"]


async def test_one_that_cannot_be_fired_now_stays(db: Database) -> None:
    await put(db, ("bkg_1/a", 2), ("bkg_2/a", 1))
    bell = Bell()
    bell.busy = {"bkg_1/a"}
    worker = TimerWorker(db, bell)
    await worker.look()
    assert (bell.rung, await left(db)) == (["bkg_2/a"], ["bkg_1/a"])
    bell.busy = set()
    await worker.look()
    assert (bell.rung, await left(db)) == (["bkg_2/a", "bkg_1/a"], [])


async def test_a_firing_that_sets_its_own_timer_anew_keeps_it(db: Database) -> None:
    await put(db, ("bkg_1/tick", 1))

    async def again(conn: Connection, due: Sequence[Timer]) -> list[Timer]:
        for timer in due:
            await set_timer(conn, timer.key, ago(-3600), timer.tenant_id)
        return []

    await TimerWorker(db, again).look()
    assert await left(db) == ["bkg_1/tick"]


async def test_a_failing_timer_is_tried_again_later_and_holds_up_its_stream_alone(db: Database) -> None:
    await put(db, ("bkg_1/a", 2), ("bkg_1/b", 1), ("bkg_2/a", 1), ("bkg_3/a", 1))
    bell = Bell()
    bell.broken = {"bkg_1/a"}
    worker = TimerWorker(db, bell, concurrency=1)
    began = await db.pool.fetchval("SELECT now()")
    await worker.look()
    assert (sorted(bell.rung), await left(db)) == (["bkg_2/a", "bkg_3/a"], ["bkg_1/a", "bkg_1/b"])
    row = await db.pool.fetchrow(
        "SELECT attempts, error, wake_at - $1 >= interval '1 second' AS later FROM timers WHERE key = 'bkg_1/a'", began
    )
    assert row is not None
    assert (row["attempts"], "ZeroDivisionError" in row["error"], row["later"]) == (1, True, True)
    assert await db.pool.fetchval("SELECT count(*) FROM events") == 2
    await worker.look()
    assert len(bell.rung) == 2, "what is due later in its stream waits"
    bell.broken = set()
    async with running(worker.run):
        await eventually(lambda: empty(db))
    assert bell.rung[2:] == ["bkg_1/a", "bkg_1/b"]


async def test_what_has_failed_before_spoils_no_batch(db: Database) -> None:
    await put(db, ("bkg_1/a", 2), ("bkg_2/a", 1), ("bkg_3/a", 1))
    await db.pool.execute("UPDATE timers SET attempts = 1 WHERE key = 'bkg_1/a'")
    bell = Bell()
    await TimerWorker(db, bell, concurrency=1).look()
    assert bell.sizes == [2, 1]


async def test_a_frozen_tenants_timers_fire_only_when_its_clock_is_moved_and_in_due_order(db: Database) -> None:
    await put(db, ("bkg_1/a", 30), ("bkg_2/b", 20), ("bkg_1/c", 10), ("bkg_3/d", -60), tenant=FROZEN)
    await put(db, ("bkg_9/a", 1))
    async with db.transaction() as conn:
        await timers.freeze(conn, FROZEN, ago(40))
    bell = Bell()
    await TimerWorker(db, bell).look()
    assert bell.rung == ["bkg_9/a"]

    async def chain(conn: Connection, due: Sequence[Timer]) -> list[Timer]:
        still = await bell(conn, due)
        for timer in due:
            if timer.key == "bkg_2/b":
                await set_timer(conn, "bkg_4/e", timer.due_at + timedelta(seconds=1), timer.tenant_id)
        return still

    counts = await asyncio.gather(*(timers.fire_due(db, FROZEN, ago(5), chain) for _ in range(2)))
    assert sum(counts) == 4
    assert bell.rung[1:] == ["bkg_1/a", "bkg_2/b", "bkg_4/e", "bkg_1/c"]
    assert bell.at[1:] == sorted(bell.at[1:])
    assert await left(db) == ["bkg_3/d"]


async def test_a_clock_that_is_stopped_between_look_and_claim_holds_the_timer(db: Database) -> None:
    await put(db, ("bkg_1/a", 1), tenant=FROZEN)
    row = await db.pool.fetchrow("SELECT tenant_id, key, due_at FROM timers")
    assert row is not None
    async with db.transaction() as conn:
        await timers.freeze(conn, FROZEN, ago(40))
    keys = [Key(**dict(row), attempts=0)]
    assert not await TimerWorker(db, Bell())._together(keys)
    assert await timers._in_order(db, keys, ago(0), Bell())


async def test_a_released_clock_lets_timers_fire_by_themselves(db: Database) -> None:
    await put(db, ("bkg_1/a", 1), tenant=FROZEN)
    async with db.transaction() as conn:
        await timers.freeze(conn, FROZEN, ago(40))
        await timers.release(conn, FROZEN)
    bell = Bell()
    await TimerWorker(db, bell).look()
    assert bell.rung == ["bkg_1/a"]


async def test_moving_a_frozen_clock_tells_what_failed(db: Database) -> None:
    await put(db, ("bkg_1/a", 2), ("bkg_2/b", 1), tenant=FROZEN)
    bell = Bell()
    bell.broken = {"bkg_2/b"}
    with pytest.raises(ZeroDivisionError):
        await timers.fire_due(db, FROZEN, ago(0), bell)
    assert (bell.rung, await left(db)) == (["bkg_1/a"], ["bkg_2/b"])


FILL = """
INSERT INTO timers (tenant_id, key, due_at, wake_at, kind, payload)
SELECT $1, 'bkg_' || n || '/due', now() + n * interval '1 minute', now() + n * interval '1 minute', 'start', '{}'
FROM generate_series(1, 5000) n
"""


async def test_looking_for_what_is_next_does_not_read_every_timer(db: Database) -> None:
    await db.pool.execute(FILL, TENANT)
    plan = "\n".join(row[0] for row in await db.pool.fetch(f"EXPLAIN {timers.NEXT}", timers.PAGE))
    assert "timers_wake" in plan, plan
    assert "Sort" not in plan, plan
