"""What claiming and finishing cost the database: as many rows as they take, however long the queue and the log are."""

from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from kalends_shared.db import Connection
from kalends_webhooks.store import queue
from kalends_webhooks.store.queue import Ended, Wanted

from .making import TENANT
from .rig import Rig

LANES, CLAIMED = 20, 10
TAKEN = LANES * CLAIMED
EVENTS = """
INSERT INTO public_events (tenant_id, seq, id, type, created_at, stream_id, data)
SELECT $1, n, 'msg_' || n, 'booking.confirmed', now(), 'bkg_1', '{}' FROM generate_series($2::integer, $3::integer) AS n
"""
QUEUE = """
INSERT INTO queue (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, due_at)
SELECT $1, 'dlv_' || substr(md5($2 || '/' || n), 1, 26), $2, 1 + n % $5::integer, 'msg_' || 1 + n % $5::integer, 'booking.confirmed', 'bkg_1',
    n::text, now()
FROM generate_series($3::integer, $4::integer) AS n
"""
LOG = """
INSERT INTO deliveries (tenant_id, id, webhook_id, seq, event_id, event_type, stream_id, replay, status, created_at,
    attempts, log)
SELECT $1, delivery_floor(now()) || lpad(n::text, 16, '0'), 'whk_' || n % 20, n, 'msg_' || n, 'booking.confirmed',
    'bkg_' || n, 'past', 'succeeded', now(), 1, '[]'
FROM generate_series(1, $2::integer) AS n
"""
# Since the session last told its statistics, which it does between transactions.
READ = """
SELECT coalesce(sum(seq_tup_read + idx_tup_fetch) FILTER (WHERE relname = 'queue'), 0)::integer AS queue,
    coalesce(sum(seq_tup_read + idx_tup_fetch) FILTER (WHERE relname = 'public_events'), 0)::integer AS events,
    coalesce(sum(seq_tup_read + idx_tup_fetch) FILTER (WHERE relname LIKE 'deliveries%'), 0)::integer AS log,
    coalesce(sum(seq_scan), 0)::integer AS whole_tables
FROM pg_stat_xact_user_tables WHERE schemaname = current_schema()
"""


class Read(NamedTuple):
    """Rows that were read of the queue, the events and the log, and tables that were read whole."""

    queue: int
    events: int
    log: int
    whole_tables: int

    def since(self, earlier: "Read") -> "Read":
        return Read(*(now - then for now, then in zip(self, earlier, strict=True)))


async def read(conn: Connection) -> Read:
    return Read(*await conn.fetchrow(READ))


async def read_by_a_round(conn: Connection, *, lanes: int = LANES, taken: int = TAKEN) -> tuple[Read, Read]:
    """What claiming a batch reads, and what finishing it does; a session's plans are made at its first calls and kept."""
    async with conn.transaction():
        start = await read(conn)
        wanted = [Wanted(TENANT, f"whk_{n}", CLAIMED, 50) for n in range(lanes)]
        claimed = await queue.claim(conn, wanted, "test.1")
        assert len(claimed) == taken
        between = await read(conn)
        ended = [Ended(TENANT, row["id"], "test.1", "succeeded", None, b"[]") for row in claimed]
        assert len(await queue.finish(conn, ended, datetime.now(UTC))) == len(ended)
        return between.since(start), (await read(conn)).since(between)


async def test_a_round_reads_what_it_takes_though_the_queue_was_empty_when_it_was_planned(still: Rig):
    async with still.db.pool.acquire() as conn:
        await conn.execute(EVENTS, TENANT, 1, 1)
        for n in range(10):
            await conn.execute(QUEUE, TENANT, "whk_0", n, n, 1)
            await read_by_a_round(conn, lanes=1, taken=1)
        async with still.owner() as owner:
            await owner.execute(QUEUE, TENANT, "whk_0", 101, 20_000, 1)
        by_claim, by_finish = await read_by_a_round(conn, lanes=1, taken=CLAIMED)
    assert by_claim.queue == 2 * CLAIMED
    assert by_finish.queue == CLAIMED


@pytest.mark.parametrize("analyzed", [False, True], ids=["statistics of empty tables", "statistics as they are"])
async def test_a_round_reads_what_it_takes(still: Rig, *, analyzed: bool):
    async with still.db.pool.acquire() as conn:
        await conn.execute(EVENTS, TENANT, 1, 1)
        for n in range(LANES):
            await conn.execute(QUEUE, TENANT, f"whk_{n}", 1, 10 * CLAIMED, 1)
        for _ in range(8):  # past the five calls after which a plan is kept
            await read_by_a_round(conn)
        few = await read_by_a_round(conn)
        async with still.owner() as owner:
            await owner.execute("DELETE FROM queue")
            await owner.execute(EVENTS, TENANT, 2, 5_000)
            for n in range(LANES):
                await owner.execute(QUEUE, TENANT, f"whk_{n}", 1_001, 3_000, 5_000)
            await owner.execute(LOG, TENANT, 50_000)
            if analyzed:
                await owner.execute("ANALYZE queue, public_events, deliveries")
        many = await read_by_a_round(conn)
    for by_claim, by_finish in (few, many):
        # Claiming finds a row in its lane and then by its key, to change it, and its event once or for each; finishing by its key.
        assert by_claim.queue == 2 * TAKEN
        assert 1 <= by_claim.events <= TAKEN
        assert by_finish.queue == TAKEN
        assert by_claim.log == by_finish.log == by_finish.events == 0
        assert by_claim.whole_tables == by_finish.whole_tables == 0


@pytest.mark.parametrize("analyzed", [False, True], ids=["statistics of empty tables", "statistics as they are"])
async def test_order_is_judged_by_what_waits_of_the_same_bookings(still: Rig, *, analyzed: bool):
    webhook = await still.subscribe("http://127.0.0.1:9999/", ordered=True)
    async with still.owner() as owner:
        await owner.execute(EVENTS, TENANT, 1, 1)
        await owner.execute(QUEUE, TENANT, webhook["id"], 1, 20_000, 1)
        # Four of each booking, all due, of which the first may go; the oldest are those that are looked at first.
        await owner.execute(
            "UPDATE queue SET stream_id = 'bkg_' || (replay::integer - 1) / 4, due_at = now() - (20000 - replay::integer) * interval '1 ms'"
        )
        if analyzed:
            await owner.execute("ANALYZE queue, public_events, deliveries")
    async with still.db.pool.acquire() as conn, conn.transaction():
        start = await read(conn)
        assert len(await queue.claim(conn, [Wanted(TENANT, webhook["id"], CLAIMED, 50)], "test.1")) == CLAIMED
        by_claim = (await read(conn)).since(start)
    assert by_claim.queue <= 2 * CLAIMED + 4 * CLAIMED * 4
    assert by_claim.whole_tables == 0
